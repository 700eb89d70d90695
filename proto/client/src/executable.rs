//! Finds the file that starts a broker: usually this program's file, after an upgrade its
//! successor.
//!
//! Knows paths, links, owners and modes. Does not run anything. Package managers remove the
//! directory of an old version under a running program, and make a link lead to the new one. So the
//! path by which this program was called comes second. `PATH` comes last, because it is read long
//! after the start. Invariant: a program on `PATH` is used only if root and this user alone could
//! have put it there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The program's name, if its own path is not known.
const NAME: &str = "peerctl";

/// Most links that are followed from a name to its file.
const LINKS_MAX: usize = 16;

/// Most bytes of a `.git` file, which has one short line.
const GIT_FILE_BYTES_MAX: u64 = 16 * 1024;

/// This program's file at its start: from the system, else the path by which it was called. A bare
/// name if neither is known, as without `/proc`.
pub(crate) fn of_this_program() -> PathBuf {
    let called = || {
        let called = PathBuf::from(std::env::args_os().next()?);
        // A bare name was found on PATH, and has no directory.
        let has_directory = called.parent().is_some_and(|parent| !parent.as_os_str().is_empty());
        let path = has_directory.then(|| {
            std::env::current_dir().map_or_else(|_| called.clone(), |here| here.join(&called))
        })?;
        path.is_file().then_some(path)
    };
    std::env::current_exe().ok().map(its_file).or_else(called).unwrap_or_else(|| NAME.into())
}

/// The path of this executable. If it was replaced while it started, Linux appends " (deleted)":
/// then the path of its replacement.
fn its_file(executable: PathBuf) -> PathBuf {
    let replaced =
        executable.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    replaced.filter(|path| path.exists()).unwrap_or(executable)
}

/// The values, besides its own file, that tell what to start.
pub(crate) struct Surroundings {
    /// `argv[0]`.
    pub(crate) called: Option<OsString>,
    /// `PATH`.
    pub(crate) path: Option<OsString>,
    /// The session's directory.
    pub(crate) here: Option<PathBuf>,
}

impl Surroundings {
    /// Reads those of this process, now.
    pub(crate) fn from_env() -> Self {
        let here = std::env::current_dir().ok();
        Self { called: std::env::args_os().next(), path: std::env::var_os("PATH"), here }
    }
}

/// The file to run now: `executable`, else the absolute path by which this program was called. Else
/// a file of the same name on `PATH` that only root and this user could have put there. `None`:
/// there is none.
pub(crate) fn lasting(executable: &Path, around: &Surroundings) -> Option<PathBuf> {
    if executable.is_absolute() && executable.is_file() {
        return Some(executable.to_path_buf());
    }
    let name = executable.file_name().unwrap_or(OsStr::new(NAME));
    let called = around
        .called
        .as_ref()
        .map(Path::new)
        .filter(|called| called.is_absolute() && called.is_file());
    if let Some(called) = called
        .filter(|called| called.file_name().is_some_and(|called| called == name || called == NAME))
    {
        return Some(called.to_path_buf());
    }
    let shunned = around.here.as_deref().map(session_dirs).unwrap_or_default();
    let entries =
        around.path.iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>());
    let mut candidates =
        entries.filter(|dir| dir.is_absolute()).flat_map(|dir| [dir.join(name), dir.join(NAME)]);
    candidates.find(|candidate| is_trusted(candidate, &shunned))
}

/// The session's directory and its repository: their files may come from anywhere.
fn session_dirs(here: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![here.to_path_buf()];
    dirs.extend(here.canonicalize());
    if let Some(root) =
        dirs[dirs.len() - 1].ancestors().find(|dir| dir.join(".git").symlink_metadata().is_ok())
    {
        let root = root.to_path_buf();
        dirs.extend(main_worktree(&root.join(".git")));
        dirs.push(root);
    }
    // If the session's directory is the file system's root, no other place exists.
    dirs.retain(|dir| dir.parent().is_some());
    dirs
}

/// The repository of a linked worktree. Its `.git` is a file that names a directory in the main
/// repository's `.git`.
fn main_worktree(git: &Path) -> Option<PathBuf> {
    git.symlink_metadata()
        .ok()
        .filter(|found| found.is_file() && found.len() <= GIT_FILE_BYTES_MAX)?;
    let text = fs::read_to_string(git).ok()?;
    let led_to = git.parent()?.join(text.trim().strip_prefix("gitdir:")?.trim());
    let common = led_to.ancestors().find(|dir| dir.file_name() == Some(OsStr::new(".git")))?;
    common.parent()?.canonicalize().ok()
}

/// Whether a path leads to a program that only root and this user could have put there. All
/// directories on the path must be writable by them alone, and outside of `shunned`.
fn is_trusted(candidate: &Path, shunned: &[PathBuf]) -> bool {
    let user = geteuid().as_raw();
    let ours = |found: &fs::Metadata| [0, user].contains(&found.uid());
    // In a directory with the sticky bit, only a file's owner can replace it, and each owner is
    // checked.
    let kept = |found: &fs::Metadata| {
        ours(found) && (found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0)
    };
    let mut path = candidate.to_path_buf();
    for _ in 0..LINKS_MAX {
        let (Some(Ok(dir)), Some(name)) = (path.parent().map(Path::canonicalize), path.file_name())
        else {
            return false;
        };
        let dirs_kept = dir
            .ancestors()
            .all(|dir| dir.symlink_metadata().is_ok_and(|found| found.is_dir() && kept(&found)));
        let inside =
            shunned.iter().any(|shunned| path.starts_with(shunned) || dir.starts_with(shunned));
        let Ok(found) = path.symlink_metadata() else { return false };
        if !dirs_kept || inside || !ours(&found) {
            return false;
        }
        if !found.is_symlink() {
            return found.is_file() && found.mode() & 0o022 == 0 && found.mode() & 0o111 != 0;
        }
        let Ok(target) = fs::read_link(&path) else { return false };
        path = dir.join(name).parent().unwrap_or(&dir).join(target);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn a_program_that_was_replaced_at_its_start_is_its_successor() {
        let here = std::env::current_exe().expect("a test has a file");
        let deleted = PathBuf::from(format!("{} (deleted)", here.display()));
        assert_eq!(its_file(deleted), here);
        assert_eq!(its_file(here.clone()), here);
        assert_eq!(its_file(PathBuf::from("/gone (deleted)")), PathBuf::from("/gone (deleted)"));
    }

    /// A program of its own in a directory of its own, by their modes.
    fn program(dir: &Path, dir_mode: u32, file_mode: u32) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        let file = dir.join("peerctl");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(dir_mode)).unwrap();
        file
    }

    fn around(called: Option<&Path>, path: &[&Path], here: &Path) -> Surroundings {
        let path = std::env::join_paths(path).unwrap();
        Surroundings { called: called.map(Into::into), path: Some(path), here: Some(here.into()) }
    }

    /// A temporary directory by its real path, so that only what the test does counts.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        (dir, path)
    }

    #[test]
    fn the_own_file_comes_first_then_what_it_was_called_by_then_the_path() {
        let (_dir, root) = place();
        let (old, new) =
            (program(&root.join("v1"), 0o755, 0o755), program(&root.join("v2"), 0o755, 0o755));
        let (link, bin, here) = (root.join("peerctl"), root.join("bin"), root.join("work"));
        symlink(&old, &link).unwrap();
        let on_path = program(&bin, 0o755, 0o755);
        fs::create_dir(&here).unwrap();
        assert_eq!(lasting(&old, &around(Some(&link), &[&bin], &here)), Some(old.clone()));
        fs::remove_file(&old).unwrap();
        assert_eq!(
            lasting(&old, &around(Some(&link), &[&bin], &here)),
            Some(on_path.clone()),
            "the link leads nowhere"
        );
        fs::remove_file(&link).unwrap();
        symlink(&new, &link).unwrap();
        assert_eq!(lasting(&old, &around(Some(&link), &[&bin], &here)), Some(link));
        assert_eq!(
            lasting(&old, &around(Some(Path::new("peerctl")), &[&bin], &here)),
            Some(on_path.clone())
        );
        assert_eq!(lasting(Path::new("peerctl"), &around(None, &[&bin], &here)), Some(on_path));
        assert_eq!(lasting(&old, &around(None, &[], &here)), None);
    }

    #[test]
    fn what_another_program_is_called_by_is_not_run() {
        let (_dir, root) = place();
        let other = root.join("node");
        fs::write(&other, "").unwrap();
        assert_eq!(lasting(&root.join("v1/peerctl"), &around(Some(&other), &[], &root)), None);
    }

    #[test]
    fn a_relative_entry_of_the_path_and_one_below_the_session_is_passed_over() {
        let (_dir, root) = place();
        let repository = root.join("work");
        let here = repository.join("deep/er");
        program(&here.join("bin"), 0o755, 0o755);
        program(&repository.join("bin"), 0o755, 0o755);
        fs::create_dir(repository.join(".git")).unwrap();
        let gone = root.join("v1/peerctl");
        let beside = root.join("beside");
        symlink(repository.join("bin"), &beside).unwrap();
        let entries = [
            Path::new("bin"),
            Path::new("."),
            Path::new(""),
            &here.join("bin"),
            &repository.join("bin"),
            &beside,
        ];
        assert_eq!(lasting(&gone, &around(None, &entries, &here)), None);
        // A link outside leads inside.
        fs::create_dir(root.join("links")).unwrap();
        symlink(repository.join("bin/peerctl"), root.join("links/peerctl")).unwrap();
        assert_eq!(lasting(&gone, &around(None, &[&root.join("links")], &here)), None);
        // A linked worktree is of the same repository.
        let linked = root.join("linked");
        fs::create_dir(&linked).unwrap();
        fs::write(
            linked.join(".git"),
            format!("gitdir: {}\n", repository.join(".git/worktrees/linked").display()),
        )
        .unwrap();
        assert_eq!(lasting(&gone, &around(None, &[&repository.join("bin")], &linked)), None);
        assert!(
            lasting(&gone, &around(None, &[&repository.join("bin")], &root.join("links")))
                .is_some(),
            "of another session"
        );
    }

    #[test]
    fn what_others_could_have_put_on_the_path_is_passed_over() {
        let (_dir, root) = place();
        let here = root.join("work");
        fs::create_dir(&here).unwrap();
        let gone = root.join("v1/peerctl");
        let found = |dir: &Path| lasting(&gone, &around(None, &[dir], &here));
        for (name, dir_mode, file_mode) in [
            ("w-dir", 0o777, 0o755),
            ("g-dir", 0o775, 0o755),
            ("w-file", 0o755, 0o757),
            ("g-file", 0o755, 0o775),
            ("no-x", 0o755, 0o644),
        ] {
            let dir = root.join(name);
            program(&dir, dir_mode, file_mode);
            assert_eq!(found(&dir), None, "{name}");
        }
        let sticky = root.join("sticky");
        let file = program(&sticky, 0o1777, 0o755);
        assert_eq!(found(&sticky), Some(file.clone()), "nobody else can replace it there");
        // A directory further up that others may write.
        fs::create_dir(root.join("open")).unwrap();
        program(&root.join("open/bin"), 0o755, 0o755);
        fs::set_permissions(root.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(found(&root.join("open/bin")), None);
        symlink(root.join("open/bin/peerctl"), here.parent().unwrap().join("peerctl")).unwrap();
        assert_eq!(found(&root), None, "a link leads there");
        if geteuid().is_root() {
            chown(&file, Some(65_534), None).unwrap();
            assert_eq!(found(&sticky), None, "somebody else's");
        }
    }
}
