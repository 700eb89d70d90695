//! Watches files for changes, also files that do not exist yet.
//!
//! On Linux the kernel reports changes (inotify, one descriptor for all files). Elsewhere, or if
//! the system has no watch left, no change is reported, and the caller reads at the client's next
//! event instead. Does not know the content of the files. Invariant: nothing polls.

use std::path::{Path, PathBuf};

/// Files, watched from now on.
pub(crate) struct FileWatch {
    files: Vec<PathBuf>,
    #[cfg(target_os = "linux")]
    kernel: Option<linux::Kernel>,
}

impl FileWatch {
    /// Needs a tokio runtime.
    pub(crate) fn on(files: Vec<PathBuf>) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            kernel: linux::Kernel::on(&files),
            files,
        }
    }

    /// Whether exactly these files are watched.
    pub(crate) fn is_on(&self, files: &[&Path]) -> bool {
        self.files == files
    }

    /// Returns after a change since the last call, or since the watch began. The caller finds out
    /// which file changed.
    #[cfg(target_os = "linux")]
    pub(crate) async fn changed(&mut self) {
        let Some(kernel) = &mut self.kernel else { return std::future::pending().await };
        // A failed watch reports no more changes.
        if kernel.event().await.is_err() || !kernel.is_aimed_at(&self.files) {
            self.kernel = linux::Kernel::on(&self.files);
        }
    }

    /// Never returns: this system reports no changes.
    #[cfg(not(target_os = "linux"))]
    pub(crate) async fn changed(&mut self) {
        std::future::pending().await
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    /// How often the watches are renewed if their files come and go meanwhile.
    const TRIES_MAX: usize = 4;

    pub(super) struct Kernel {
        /// An inotify descriptor is read like a pipe, and tokio has no other safe way to wait for
        /// one.
        events: pipe::Receiver,
        /// The watched path of each file: the file, or the nearest existing directory above it;
        /// with device and inode.
        aims: Vec<Aim>,
    }

    type Aim = Option<(PathBuf, u64, u64)>;

    impl Kernel {
        pub(super) fn on(files: &[PathBuf]) -> Option<Self> {
            if files.is_empty() {
                return None;
            }
            // A file that appears while the watches are set is watched in another round.
            let aimed = (0..TRIES_MAX)
                .map_while(|_| Self::once(files))
                .find(|kernel| kernel.is_aimed_at(files));
            aimed.or_else(|| Self::once(files))
        }

        fn once(files: &[PathBuf]) -> Option<Self> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
            let aims: Vec<Aim> = files.iter().map(|file| nearest(file)).collect();
            for (path, _, _) in aims.iter().flatten() {
                let change = if path.is_dir() {
                    AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO
                } else {
                    AddWatchFlags::IN_MODIFY
                };
                // A path that disappeared meanwhile is no longer the right one.
                let _ = inotify.add_watch(
                    path,
                    change | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF,
                );
            }
            let events = pipe::Receiver::from_owned_fd_unchecked(inotify.into()).ok()?;
            Some(Self { events, aims })
        }

        /// Waits for the next events, of any kind.
        pub(super) async fn event(&mut self) -> io::Result<()> {
            self.events.read(&mut [0; 4096]).await.map(drop)
        }

        /// Whether the watches are on the right paths.
        pub(super) fn is_aimed_at(&self, files: &[PathBuf]) -> bool {
            files.iter().map(|file| nearest(file)).eq(self.aims.iter().cloned())
        }
    }

    fn nearest(file: &Path) -> Aim {
        file.ancestors().find_map(|path| {
            path.metadata().ok().map(|found| (path.to_owned(), found.dev(), found.ino()))
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_is_watched_from_before_its_directories_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a/b/record"), dir.path().join("other"));
        fs::write(&other, "").unwrap();
        let mut watch = FileWatch::on(vec![file.clone(), other.clone()]);
        assert!(watch.is_on(&[&file, &other]) && !watch.is_on(&[&file]));
        fs::create_dir(dir.path().join("a")).unwrap();
        watch.changed().await;
        fs::create_dir(dir.path().join("a/b")).unwrap();
        watch.changed().await;
        fs::write(&file, "1").unwrap();
        watch.changed().await;
        // Creating and writing may be one change or two.
        while fs::read_to_string(&file).unwrap() != "2" {
            fs::write(&file, "2").unwrap();
            watch.changed().await;
        }
        fs::write(&other, "x").unwrap();
        watch.changed().await;
        // Another file in its place.
        fs::write(dir.path().join("new"), "3").unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        watch.changed().await;
        fs::write(&file, "4").unwrap();
        watch.changed().await;
    }
}
