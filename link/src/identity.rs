//! Who this broker is on links: the key pair in `link.key`.
//!
//! The file has the private key, 32 bytes, and mode 0600. It lies beside the database, so that a
//! restored database keeps its identity, and a backup of the database holds no secret. Invariants:
//! the identity is the digest of the public key, so that a transport can have it proved (ssh links do
//! not: ssh says who calls). The file is never seen half written.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use peer_proto::ids::BrokerId;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};

/// The file's name in the state directory.
const FILE: &str = "link.key";

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file has not the form of a key.
    #[error("{} is not a key: it has {bytes} bytes, and not 32", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
    },
    /// Others may read the key.
    #[error("{} has mode {mode:04o}, so others can read the key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system has no random bits.
    #[error("the system gives no random bits")]
    Entropy,
}

impl IdentityError {
    /// The next step.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Io { .. } => "check its owner and mode".to_owned(),
            Self::NotAKey { .. } => {
                "put the file back, or run `peerctl link identity --new`".to_owned()
            }
            Self::Exposed { path, .. } => format!("run `chmod 600 {}`", path.display()),
            Self::Entropy => "try again".to_owned(),
        }
    }
}

/// Returns the identity in the state directory. Makes one if there is none.
///
/// # Errors
/// See [`IdentityError`].
pub fn own(dir: &Path) -> Result<BrokerId, IdentityError> {
    match existing(dir)? {
        Some(id) => Ok(id),
        None => Draft::make(dir)?.put_first(),
    }
}

/// Returns the identity, if there is one.
///
/// # Errors
/// See [`IdentityError`].
pub fn existing(dir: &Path) -> Result<Option<BrokerId>, IdentityError> {
    match read(&dir.join(FILE)) {
        Ok(secret) => Ok(Some(id_of(secret))),
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the private key that the identity is made of.
///
/// # Errors
/// See [`IdentityError`].
#[cfg(feature = "nats")]
pub(crate) fn secret(dir: &Path) -> Result<[u8; 32], IdentityError> {
    read(&dir.join(FILE))
}

/// Reads a file that holds a secret of 32 bytes, and that nobody else may read.
pub(crate) fn read(path: &Path) -> Result<[u8; 32], IdentityError> {
    let io = |source| IdentityError::Io { path: path.into(), source };
    let mut file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    Read::take(&mut file, 64).read_to_end(&mut bytes).map_err(io)?;
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| IdentityError::NotAKey { path: path.into(), bytes: bytes.len() })
}

/// A new identity that is not in force yet: it lies in a file of its own.
#[derive(Debug)]
pub struct Draft {
    /// The identity.
    pub id: BrokerId,
    at: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Makes a new key. Without [`Draft::put`] it is left out when this is dropped.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn make(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        // Two processes may make one at the same time.
        let at = dir.join(format!("{FILE}.{}.new", std::process::id()));
        let io = |source| IdentityError::Io { path: at.clone(), source };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| IdentityError::Entropy)?;
        let _ = std::fs::remove_file(&at);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at).map_err(io)?;
        file.write_all(&secret).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(Self { id: id_of(secret), at, path })
    }

    /// Puts the key in the place of the one before.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn put(self) -> Result<BrokerId, IdentityError> {
        std::fs::rename(&self.at, &self.path).map_err(|source| self.failed(source))?;
        self.settle()
    }

    /// Puts the key where none is. If another process was first, its key counts.
    fn put_first(self) -> Result<BrokerId, IdentityError> {
        match std::fs::hard_link(&self.at, &self.path) {
            Ok(()) => self.settle(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                read(&self.path).map(id_of)
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    fn settle(self) -> Result<BrokerId, IdentityError> {
        if let Some(dir) = self.path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| self.failed(source))?;
        }
        Ok(self.id)
    }

    fn failed(&self, source: io::Error) -> IdentityError {
        IdentityError::Io { path: self.path.clone(), source }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.at);
    }
}

fn id_of(secret: [u8; 32]) -> BrokerId {
    let public = PublicKey::from(&StaticSecret::from(secret));
    let digest = Sha256::digest(public.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    BrokerId(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(dir.path()).unwrap(), None);
        let id = own(dir.path()).unwrap();
        assert_eq!(own(dir.path()).unwrap(), id);
        assert_eq!(existing(dir.path()).unwrap(), Some(id));
        let draft = Draft::make(dir.path()).unwrap();
        let other = draft.id;
        assert_eq!(own(dir.path()).unwrap(), id, "a draft is not in force");
        assert_eq!(draft.put().unwrap(), other);
        assert_eq!((own(dir.path()).unwrap(), other == id), (other, false));
        drop(Draft::make(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays");
        let key = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(own(dir.path()), Err(IdentityError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_file_that_is_no_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"short").unwrap();
        std::fs::set_permissions(dir.path().join(FILE), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        assert!(matches!(own(dir.path()), Err(IdentityError::NotAKey { bytes: 5, .. })));
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"short");
    }

    /// From the definition: RFC 7748's first key of section 6.1.
    #[test]
    fn the_identity_is_the_digest_of_the_public_key() {
        let secret = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let public = [
            0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e,
            0xf7, 0x5a, 0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e,
            0xaa, 0x9b, 0x4e, 0x6a,
        ];
        let digest = Sha256::digest(public);
        assert_eq!(id_of(secret).0, digest[..16]);
    }
}
