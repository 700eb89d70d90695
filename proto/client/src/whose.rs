//! Whose a path is, for errors that shall say so: who is locked out, and by whom.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User, geteuid};

/// Links that are followed to find what keeps us out.
const LINKS_MAX: usize = 16;

/// A user by number, and by name where the system knows one.
#[must_use]
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {uid} ({})", user.name),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

/// The home directory: `HOME`, else what the system knows. An empty `HOME` names none: whoever
/// emptied it did not mean the usual place.
#[must_use]
pub fn home_dir() -> Option<PathBuf> {
    match std::env::var_os("HOME") {
        Some(home) if home.is_empty() => None,
        _ => dirs::home_dir(),
    }
}

/// The home directory with its owner, where it is another user's: under `sudo` that keeps `HOME`,
/// for example. One that is root's is nobody's: some containers have such homes.
#[must_use]
pub fn foreign_home() -> Option<(PathBuf, u32)> {
    let home = home_dir()?;
    let owner = home.metadata().ok()?.uid();
    (owner != geteuid().as_raw() && owner != 0).then_some((home, owner))
}

/// What keeps this user from a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The directory that may not be entered, or the file that may not be used.
    pub(crate) path: PathBuf,
    pub(crate) owner: u32,
    pub(crate) mode: u32,
}

/// The first part of `path` whose owner and mode keep this user out. None where they would let it
/// pass: then something else forbids it, such as a sandbox.
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
                // Its own modes let this user in: something else forbids it.
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
    // All can be looked at; a socket also wants to be written.
    above.filter(|last| last.owner != ours || last.mode & 0o200 == 0)
}
