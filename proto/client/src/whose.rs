//! Finds the owner of a path, for errors that name it.
//!
//! Knows owners, modes and links. Does not know what a path is for.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

/// Most links that are followed to find the obstacle.
const LINKS_MAX: usize = 16;

/// A user by id, with the name if the system knows it.
#[must_use]
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {uid} ({})", user.name),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

/// The home directory: `HOME`, else the system's entry. An empty `HOME` means none, because it was
/// emptied on purpose.
#[must_use]
pub fn home_dir() -> Option<PathBuf> {
    match std::env::var_os("HOME") {
        Some(home) if home.is_empty() => None,
        _ => dirs::home_dir(),
    }
}

/// The home directory with its owner, if it belongs to another user, for example under a `sudo`
/// that keeps `HOME`. A home directory of root does not count, because some containers have one.
#[must_use]
pub fn foreign_home() -> Option<(PathBuf, u32)> {
    let home = home_dir()?;
    let owner = home.metadata().ok()?.uid();
    (owner != geteuid().as_raw() && owner != 0).then_some((home, owner))
}

/// The path that keeps this user out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The directory that may not be entered, or the file that may not be used.
    pub(crate) path: PathBuf,
    pub(crate) owner: u32,
    pub(crate) mode: u32,
}

/// The first part of `path` whose owner and mode keep this user out. `None`: they permit the
/// access, so something else forbids it, such as a sandbox.
pub(crate) fn barrier(path: &Path) -> Option<Barrier> {
    barrier_behind(path, LINKS_MAX)
}

fn barrier_behind(path: &Path, links: usize) -> Option<Barrier> {
    let ours = geteuid().as_raw();
    let mut so_far = PathBuf::new();
    let mut above: Option<Barrier> = None;
    for component in path.components() {
        so_far.push(component);
        let found = match so_far.symlink_metadata() {
            Ok(found) => found,
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => {
                // If the directory's own mode lets this user in, something else forbids the access.
                return above.filter(|above| above.owner != ours || above.mode & 0o100 == 0);
            }
            Err(_) => return None,
        };
        if found.is_symlink() && component != Component::RootDir && links > 0 {
            let target = std::fs::read_link(&so_far).ok()?;
            let rest = path.strip_prefix(&so_far).ok()?;
            let target = so_far.parent().unwrap_or(Path::new("/")).join(target).join(rest);
            return barrier_behind(&target, links - 1);
        }
        above =
            Some(Barrier { path: so_far.clone(), owner: found.uid(), mode: found.mode() & 0o7777 });
    }
    // Every part can be read; a socket must also be writable.
    above.filter(|last| last.owner != ours || last.mode & 0o200 == 0)
}
