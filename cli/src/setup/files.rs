//! Writes other programs' files: all of a draft or nothing. Follows symbolic links, keeps modes,
//! and reads each file back.
//!
//! Knows the file system. Does not know clients. The invariants: a file has its whole old or its
//! whole new content at every moment. A file that changed since it was read is not overwritten.

use std::collections::BTreeSet;
use std::fs::{self, File as Open, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use super::draft::{File, read};
use crate::error::Failure;

/// The beginning of the name of an unfinished file.
const UNFINISHED: &str = ".peerctl-setup-";

/// Most symbolic links that are followed to a file.
const LINKS_MAX: usize = 32;

/// A file that will be written, after a close check.
#[derive(Debug)]
pub(crate) struct Target {
    /// The file itself, behind all links.
    pub(crate) path: PathBuf,
    /// Its mode, if it exists.
    pub(crate) mode: Option<u32>,
    /// Directories that must be created for it, outermost first.
    pub(crate) dirs: Vec<PathBuf>,
    /// Whether the file has other names. Then it is written in place, so that they still lead to
    /// it.
    linked: bool,
}

/// The path behind all symbolic links, also if the file does not exist.
fn behind_links(path: &Path) -> Result<PathBuf, Failure> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Failure::file("following", path, io::Error::other("the symbolic links form a circle")))
}

/// Checks that a file can be written, before any is.
pub(crate) fn examine(path: &Path) -> Result<Target, Failure> {
    let refused = |path: &Path, why: String, step: &str| {
        Failure::setup("not_writable", format!("writing {} is not possible: {why}", path.display()))
            .hint(format!("{step}, then run the command again"))
    };
    let path = behind_links(path)?;
    let mut target = Target { path, mode: None, dirs: Vec::new(), linked: false };
    let path = &target.path;
    match fs::metadata(path) {
        Ok(metadata) => {
            if !metadata.is_file() {
                return Err(refused(path, "it is not a file".to_owned(), "move it away"));
            }
            if metadata.uid() != geteuid().as_raw() {
                return Err(refused(
                    path,
                    format!("it belongs to user {}", metadata.uid()),
                    "run setup as that user",
                ));
            }
            if metadata.mode() & 0o200 == 0 {
                return Err(refused(
                    path,
                    "it is read-only".to_owned(),
                    "make it writable (chmod u+w), or add the entry that --print shows to the source of the file",
                ));
            }
            target.mode = Some(metadata.mode() & 0o7777);
            target.linked = metadata.nlink() > 1;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Failure::file("looking at", path.clone(), source)),
    }
    let mut dir = path.parent().unwrap_or(Path::new("/"));
    while !dir.exists() {
        target.dirs.insert(0, dir.to_path_buf());
        dir = dir.parent().unwrap_or(Path::new("/"));
    }
    if !dir.is_dir() {
        return Err(refused(path, format!("{} is not a directory", dir.display()), "move it away"));
    }
    if access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Err(refused(
            path,
            format!("you may not write to {}", dir.display()),
            "change its permissions",
        ));
    }
    Ok(target)
}

/// Writes all changes. If one fails, restores those that were made.
///
/// # Errors
/// A file cannot be written, or has changed since it was read.
pub(crate) fn write_all(files: &[&File]) -> Result<(), Failure> {
    let targets = files.iter().map(|file| examine(&file.path)).collect::<Result<Vec<_>, _>>()?;
    for (done, (file, target)) in files.iter().zip(&targets).enumerate() {
        if let Err(failure) = write(target, file.before.as_deref(), file.after.as_deref()) {
            for (file, target) in files.iter().zip(&targets).take(done).rev() {
                // If this fails as well, the copies from before still exist.
                let _ = write(target, file.after.as_deref(), file.before.as_deref());
                target.dirs.iter().rev().for_each(|dir| drop(fs::remove_dir(dir)));
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// Removes the unfinished files of a command that was killed. Only one command writes at a time.
pub(crate) fn sweep<'a>(files: impl Iterator<Item = &'a File>) {
    let dirs: BTreeSet<PathBuf> = files
        .filter_map(|file| Some(behind_links(&file.path).ok()?.parent()?.to_path_buf()))
        .collect();
    for entry in dirs.iter().flat_map(fs::read_dir).flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a directory has anything that was put there on purpose.
pub(crate) fn is_occupied(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return dir.symlink_metadata().is_ok() };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => is_occupied(&entry.path()),
        _ => !entry.file_name().to_string_lossy().starts_with(UNFINISHED),
    })
}

/// Removes the empty directories of removed files. Directories with other content stay.
pub(crate) fn prune<'a>(files: impl Iterator<Item = &'a File>) {
    let mut dirs: Vec<&PathBuf> =
        files.filter(|file| file.after.is_none()).flat_map(|file| &file.prune).collect();
    dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
    dirs.into_iter().for_each(|dir| drop(fs::remove_dir(dir)));
}

fn write(target: &Target, before: Option<&str>, after: Option<&str>) -> Result<(), Failure> {
    let path = &target.path;
    let failed = |attempt| move |source| Failure::file(attempt, path.clone(), source);
    if read(path)?.as_deref() != before {
        let message = format!("{} was changed by another program meanwhile", path.display());
        return Err(Failure::setup("changed_meanwhile", message)
            .hint("nothing was written: run the command again"));
    }
    let Some(text) = after else {
        return fs::remove_file(path).map_err(failed("removing"));
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(failed("making a directory for"))?;
    if target.linked {
        let mut open =
            OpenOptions::new().write(true).truncate(true).open(path).map_err(failed("writing"))?;
        open.write_all(text.as_bytes())
            .and_then(|()| open.sync_all())
            .map_err(failed("writing"))?;
    } else {
        let mut new = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(dir)
            .map_err(failed("writing beside"))?;
        new.write_all(text.as_bytes()).map_err(failed("writing beside"))?;
        let mode = target.mode.unwrap_or(0o600);
        new.as_file()
            .set_permissions(Permissions::from_mode(mode))
            .map_err(failed("setting the mode of"))?;
        new.as_file().sync_all().map_err(failed("writing beside"))?;
        new.persist(path).map_err(|error| failed("replacing")(error.error))?;
        // The new name is durable once the directory is synced.
        Open::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("writing the directory of"))?;
    }
    if read(path)?.as_deref() != Some(text) {
        let source = io::Error::other("its content differs from the written text");
        return Err(Failure::file("checking", path.clone(), source));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Client;

    fn change(path: &Path, before: Option<&str>, after: Option<&str>) -> File {
        let text = |text: Option<&str>| text.map(str::to_owned);
        File {
            client: Client::Claude,
            path: path.to_path_buf(),
            before: text(before),
            after: text(after),
            what: Vec::new(),
            retired: Vec::new(),
            prune: Vec::new(),
        }
    }

    #[test]
    fn links_lead_to_the_file_and_modes_and_other_names_stay() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();
        write_all(&[&change(&link, Some("old"), Some("new"))]).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("real"));
        assert_eq!(
            (
                fs::read_to_string(&real).unwrap().as_str(),
                fs::metadata(&real).unwrap().mode() & 0o777
            ),
            ("new", 0o640)
        );
        let twin = dir.path().join("twin");
        fs::hard_link(&real, &twin).unwrap();
        write_all(&[&change(&link, Some("new"), Some("newer"))]).unwrap();
        assert_eq!(fs::read_to_string(&twin).unwrap(), "newer");
        std::os::unix::fs::symlink("ring", dir.path().join("ring")).unwrap();
        assert!(examine(&dir.path().join("ring")).is_err());
    }

    #[test]
    fn where_one_file_fails_the_others_are_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a/b/first"), dir.path().join("second"));
        fs::write(&second, "changed by another").unwrap();
        let files =
            [change(&first, None, Some("x")), change(&second, Some("as it was read"), Some("y"))];
        let failure = write_all(&files.iter().collect::<Vec<_>>()).unwrap_err();
        assert_eq!(failure.code(), "changed_meanwhile");
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs::read_to_string(&second).unwrap(), "changed by another");
    }

    #[test]
    fn a_file_that_may_not_be_written_is_named_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        fs::write(&second, "keep").unwrap();
        fs::set_permissions(&second, Permissions::from_mode(0o444)).unwrap();
        let files = [change(&first, None, Some("x")), change(&second, Some("keep"), Some("y"))];
        let failure = write_all(&files.iter().collect::<Vec<_>>()).unwrap_err();
        assert!(failure.message.contains("read-only"), "{failure:?}");
        assert!(!first.exists());
        fs::create_dir(dir.path().join("third")).unwrap();
        assert!(examine(&dir.path().join("third")).is_err());
        assert!(examine(&second.join("below")).is_err());
    }
}
