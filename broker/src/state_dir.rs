//! The state directory: private, local, and held by one broker at a time.
//!
//! A wrong owner, mode or place is refused with the command that fixes it. Nothing is repaired
//! silently, because others may have read a directory with the wrong mode already. Knows paths,
//! owners and modes. Does not know sockets, nor the store.

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;
use peer_proto::location::{Holding, Phase};
use thiserror::Error;

/// Creates `dir` with mode 0700 if it is missing, parents too. Checks that it is a directory of
/// this user that nobody else can enter, on a local file system. Creates nothing in another user's
/// directory: files that root makes there would lock its owner out.
pub(crate) fn secure(dir: &Path) -> Result<(), DirError> {
    if place_of(dir)? == dir {
        return Ok(());
    }
    let created = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    created.map_err(|source| DirError::Create { dir: dir.into(), source })?;
    let found =
        dir.symlink_metadata().map_err(|source| DirError::Look { dir: dir.into(), source })?;
    judge(dir, &found)
}

/// Returns `dir` if it exists and fits a broker. If it is missing and a broker may create it,
/// returns the existing part of its path. Creates nothing.
pub(crate) fn place_of(dir: &Path) -> Result<PathBuf, DirError> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute() && dir.starts_with(home));
    if let Some(home) = home {
        not_foreign(dir, &home)?;
    }
    match dir.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let above =
                dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
            not_foreign(dir, above)?;
            Ok(above.to_path_buf())
        }
        found => {
            judge(dir, &found.map_err(|source| DirError::Look { dir: dir.into(), source })?)?;
            Ok(dir.to_path_buf())
        }
    }
}

/// Refuses to create `dir` in a directory of another user. Root's directories are allowed: their
/// modes decide.
fn not_foreign(dir: &Path, place: &Path) -> Result<(), DirError> {
    let user = geteuid().as_raw();
    match place.metadata() {
        Ok(found) if found.uid() != user && found.uid() != 0 => Err(DirError::Foreign {
            dir: dir.into(),
            place: place.into(),
            owner: found.uid(),
            user,
        }),
        // If it cannot be inspected, nothing can be created in it.
        _ => Ok(()),
    }
}

/// Checks whether a broker would accept `dir`, which exists. Changes nothing.
///
/// # Errors
/// The reason why a broker would refuse it.
pub fn examine(dir: &Path) -> Result<(), DirError> {
    let found =
        dir.symlink_metadata().map_err(|source| DirError::Look { dir: dir.into(), source })?;
    judge(dir, &found)
}

fn judge(dir: &Path, found: &Metadata) -> Result<(), DirError> {
    check(dir, found)?;
    match network::kind_of(dir, found.dev()) {
        Some(kind) => Err(DirError::Network { dir: dir.into(), kind }),
        None => Ok(()),
    }
}

fn check(dir: &Path, found: &Metadata) -> Result<(), DirError> {
    let dir = || dir.to_path_buf();
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if found.is_symlink() {
        return Err(DirError::Symlink { dir: dir() });
    }
    if !found.is_dir() {
        return Err(DirError::NotADirectory { dir: dir() });
    }
    if owner != user {
        return Err(DirError::Owner { dir: dir(), owner, user });
    }
    match found.mode() & 0o777 {
        0o700 => Ok(()),
        mode => Err(DirError::Mode { dir: dir(), mode }),
    }
}

/// The right to be the broker of a directory. It is held for the life of the process. The file
/// stays when the broker ends, because a lock on a deleted file would exclude nobody.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock without waiting.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|source| LockError::Open { path: path.into(), source })?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Self { file };
                lock.record(Phase::Starting);
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(LockError::Held { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(LockError::Lock { path: path.into(), source }),
        }
    }

    /// Writes the holder and its phase into the lock file. A full disk is no error: then the kernel
    /// still reports the holder.
    pub(crate) fn record(&self, phase: Phase) {
        let line = Holding { pid: std::process::id(), phase }.line();
        if self.file.write_all_at(line.as_bytes(), 0).is_ok() {
            // Another version of the broker may have left bytes after the line.
            let _ = self.file.set_len(line.len() as u64);
        }
    }
}

/// Free bytes on the file system of `dir`, for this user.
///
/// # Errors
/// If the file system does not report it.
#[allow(clippy::useless_conversion, reason = "macOS counts blocks in 32 bits")]
pub fn free_bytes(dir: &Path) -> Result<u64, nix::errno::Errno> {
    let space = nix::sys::statvfs::statvfs(dir)?;
    Ok(u64::from(space.blocks_available()).saturating_mul(u64::from(space.fragment_size())))
}

/// Detects file systems that are shared between machines. Locks and memory maps do not work across
/// machines, so there could be two brokers on one store.
#[cfg(target_os = "linux")]
mod network {
    use std::path::Path;

    use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

    /// File systems that `statfs` identifies by number.
    const BY_MAGIC: &[(i64, &str)] = &[
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x5346_414f, "afs"),
        (0x7375_7245, "coda"),
        (0x00c3_6400, "ceph"),
        (0x0bd0_0bd0, "lustre"),
        (0x564c, "ncp"),
    ];

    /// FUSE file systems on another machine. Other FUSE file systems count as local.
    const REMOTE_FUSE: &[&str] =
        &["fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph", "fuse.davfs"];

    /// Returns the kind of the network file system that holds `dir`, whose device is `device`.
    /// `None`: it is local or unknown.
    pub(super) fn kind_of(dir: &Path, device: u64) -> Option<String> {
        let kind = statfs(dir).ok()?.filesystem_type();
        if kind == FUSE_SUPER_MAGIC {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
            return mounted_kind(&mounts, device)
                .filter(|kind| REMOTE_FUSE.contains(kind))
                .map(str::to_owned);
        }
        // The type of the number differs between C libraries. All of them have 32 meaningful bits.
        let magic = i64::from(kind.0 as u32);
        BY_MAGIC.iter().find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned())
    }

    /// Returns the file system type of a device from the text of `/proc/self/mountinfo`. The third
    /// field is the device, and the type follows a lone dash.
    pub(super) fn mounted_kind(mounts: &str, device: u64) -> Option<&str> {
        let wanted = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&wanted))?;
        line.split_once(" - ")?.1.split(' ').next()
    }
}

#[cfg(not(target_os = "linux"))]
mod network {
    use std::path::Path;

    /// Always `None`: this system is not asked.
    pub(super) fn kind_of(_dir: &Path, _device: u64) -> Option<String> {
        None
    }
}

/// The reason why the directory cannot be used.
#[derive(Debug, Error)]
pub enum DirError {
    /// It is missing and cannot be created.
    #[error("cannot create the directory {}", dir.display())]
    Create {
        /// The directory.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be inspected.
    #[error("cannot read the metadata of the directory {}", dir.display())]
    Look {
        /// The directory.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is a symbolic link.
    #[error("the directory {} is a symbolic link, and a directory is expected", dir.display())]
    Symlink {
        /// The directory.
        dir: PathBuf,
    },
    /// Something else has its name.
    #[error("{} is not a directory", dir.display())]
    NotADirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// It would be created in another user's directory.
    #[error("{} belongs to user {owner}, and this is user {user}: the directory {} is not created there", place.display(), dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The home directory, or the existing part of the path.
        place: PathBuf,
        /// Whose that is.
        owner: u32,
        /// Who runs the broker.
        user: u32,
    },
    /// It belongs to another user.
    #[error("the directory {} belongs to user {owner}, and user {user} is expected", dir.display())]
    Owner {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the broker.
        user: u32,
    },
    /// Others can enter it, or its owner cannot.
    #[error("the directory {} has mode {mode:04o}, and 0700 is expected", dir.display())]
    Mode {
        /// The directory.
        dir: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is on another machine.
    #[error("the directory {} is on a network file system ({kind}), and a local one is expected", dir.display())]
    Network {
        /// The directory.
        dir: PathBuf,
        /// The file system's type.
        kind: String,
    },
}

impl DirError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Create { dir, .. } => {
                format!(
                    "create it with `mkdir -p -m 700 '{}'`, or set PEERD_DIR to another",
                    dir.display()
                )
            }
            Self::Symlink { .. } => "set PEERD_DIR to the path that it points to".to_owned(),
            Self::NotADirectory { .. } => {
                "move it away, or set PEERD_DIR to a directory".to_owned()
            }
            Self::Foreign { owner, .. } | Self::Owner { owner, .. } => {
                format!("run it as user {owner}, or set PEERD_DIR to a directory of your own")
            }
            Self::Mode { dir, .. } => format!("run `chmod 700 '{}'`", dir.display()),
            Self::Network { .. } => "set PEERD_DIR to a local directory".to_owned(),
            _ => String::new(),
        }
    }
}

/// The reason why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another broker holds it.
    #[error("another broker holds {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be opened.
    #[error("cannot open the lock file {}", path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file system does not lock.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl LockError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Held { .. } => "use it, or stop it with `peerctl daemon stop`".to_owned(),
            Self::Open { .. } => {
                "if it is not a regular file of this user, move it away".to_owned()
            }
            Self::Lock { .. } => "set PEERD_DIR to a directory on a local file system".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn mode_of(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn a_missing_directory_is_created_private_with_its_parents() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        secure(&dir).unwrap();
        assert_eq!((mode_of(&dir), mode_of(&root.path().join("a"))), (0o700, 0o700));
        secure(&dir).unwrap();
    }

    #[test]
    fn in_another_users_place_nothing_is_made() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (theirs, ours) = (root.path().join("theirs"), root.path().join("theirs/ours"));
        std::fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(64_711), Some(64_711)).unwrap();
        let error = secure(&theirs.join("a/b")).unwrap_err();
        assert!(matches!(error, DirError::Foreign { owner: 64_711, user: 0, .. }), "{error:?}");
        assert!(error.hint().contains("run it as user 64711"), "{error:?}");
        assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0);
        // A directory of ours stays valid in any place.
        std::fs::create_dir(&ours).unwrap();
        secure(&ours.join("a")).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o770, 0o701, 0o500] {
            set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
            let error = secure(root.path()).unwrap_err();
            assert!(matches!(error, DirError::Mode { .. }), "{error:?}");
            assert_eq!(error.hint(), format!("run `chmod 700 '{}'`", root.path().display()));
            assert_eq!(mode_of(root.path()), mode);
        }
    }

    #[test]
    fn a_symbolic_link_and_a_file_are_no_directory() {
        let root = tempfile::tempdir().unwrap();
        let (link, file) = (root.path().join("link"), root.path().join("file"));
        symlink(root.path(), &link).unwrap();
        File::create(&file).unwrap();
        assert!(matches!(secure(&link), Err(DirError::Symlink { .. })));
        assert!(matches!(secure(&file), Err(DirError::NotADirectory { .. })));
    }

    #[test]
    fn another_users_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            chown(root.path(), Some(65_534), None).unwrap();
            let error = secure(root.path()).unwrap_err();
            assert!(matches!(error, DirError::Owner { owner: 65_534, user: 0, .. }), "{error:?}");
        } else {
            assert!(matches!(secure(Path::new("/")), Err(DirError::Owner { owner: 0, .. })));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fuse_mount_is_told_by_its_device() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n90 22 0:57 / /mnt/far rw shared:3 - fuse.sshfs far:/ rw\n";
        assert_eq!(
            network::mounted_kind(mounts, nix::sys::stat::makedev(0, 57)),
            Some("fuse.sshfs")
        );
        assert_eq!(network::mounted_kind(mounts, nix::sys::stat::makedev(8, 1)), Some("ext4"));
        assert_eq!(network::mounted_kind(mounts, nix::sys::stat::makedev(9, 9)), None);
    }

    #[test]
    fn the_lock_has_one_holder_and_stays_when_it_goes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("broker.lock");
        let held = Lock::take(&path).unwrap();
        assert!(matches!(Lock::take(&path), Err(LockError::Held { .. })));
        drop(held);
        assert!(path.exists());
        Lock::take(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
    }

    #[test]
    fn a_symbolic_link_is_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("broker.lock");
        symlink(root.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(Lock::take(&path), Err(LockError::Open { .. })));
    }
}
