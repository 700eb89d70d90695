//! Where git's work tree and repository of a directory are, told from files alone: no process is started.
//!
//! Knows `.git` directories, `.git` files of linked work trees and submodules, and the `commondir` file. Does not know
//! git's environment variables: a session's repository is that of its directory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A `.git` or `commondir` file holds one path.
const FILE_BYTES_MAX: u64 = 4_096;

/// A directory's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    /// The top of the work tree.
    pub(crate) root: PathBuf,
    /// What all work trees of the repository share, canonical: equal exactly where the repository is the same.
    pub(crate) common: PathBuf,
}

/// The repository that `directory` is in; none where there is none, or where its files cannot be read.
pub(crate) fn repository_of(directory: &Path) -> Option<Repository> {
    let directory = directory.canonicalize().ok()?;
    let (root, entry) = directory.ancestors().find_map(|candidate| {
        let entry = candidate.join(".git");
        entry.exists().then(|| (candidate.to_path_buf(), entry))
    })?;
    let git_dir = if entry.is_dir() { entry } else { root.join(read_line(&entry)?.strip_prefix("gitdir:")?.trim()) };
    let common = match read_line(&git_dir.join("commondir")) {
        Some(relative) => git_dir.join(relative),
        None => git_dir,
    };
    Some(Repository { root, common: common.canonicalize().ok()? })
}

fn read_line(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim_end();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn work_trees_share_their_repository_and_submodules_do_not() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        let main = top.join("main");
        fs::create_dir_all(main.join("src/deep")).unwrap();
        fs::create_dir_all(main.join(".git/worktrees/linked")).unwrap();
        fs::write(main.join(".git/worktrees/linked/commondir"), "../..\n").unwrap();
        let linked = top.join("linked");
        fs::create_dir_all(&linked).unwrap();
        fs::write(linked.join(".git"), format!("gitdir: {}\n", main.join(".git/worktrees/linked").display())).unwrap();
        fs::create_dir_all(main.join(".git/modules/sub")).unwrap();
        fs::create_dir_all(main.join("sub")).unwrap();
        fs::write(main.join("sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();

        let of_main = repository_of(&main.join("src/deep")).unwrap();
        assert_eq!(of_main, Repository { root: main.clone(), common: main.join(".git") });
        let of_linked = repository_of(&linked).unwrap();
        assert_eq!(of_linked, Repository { root: linked, common: main.join(".git") });
        let of_sub = repository_of(&main.join("sub")).unwrap();
        assert_eq!(of_sub, Repository { root: main.join("sub"), common: main.join(".git/modules/sub") });
    }

    #[test]
    fn a_damaged_link_is_no_repository() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join(".git"), "nonsense\n").unwrap();
        assert_eq!(repository_of(scratch.path()), None);
        assert_eq!(repository_of(&scratch.path().join("missing")), None);
    }
}
