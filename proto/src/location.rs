//! The one state directory, and the paths in it.
//!
//! Does not read the environment or any file: the caller passes the variables. XDG variables are
//! not used, because some clients clear them for their child processes and some do not. Two
//! directories would mean two brokers (`docs/adr/0004-one-directory-from-home-alone.md`).

use std::path::{Path, PathBuf};

use strum::{EnumString, IntoStaticStr};
use thiserror::Error;

use crate::limits::SOCKET_PATH_BYTES_MAX;

/// The default directory under the home directory.
#[cfg(not(target_os = "macos"))]
pub const DEFAULT_UNDER_HOME: &str = ".local/share/peerd";
/// The default directory under the home directory.
#[cfg(target_os = "macos")]
pub const DEFAULT_UNDER_HOME: &str = "Library/Application Support/peerd";

/// The paths of the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    dir: PathBuf,
}

impl Location {
    /// The directory in `PEERD_DIR`, else the default under `home`.
    ///
    /// # Errors
    /// Neither is given, the given path is relative, or the socket's path would be too long.
    pub fn resolve(peerd_dir: Option<&Path>, home: Option<&Path>) -> Result<Self, LocationError> {
        let dir = match (peerd_dir.filter(|dir| !dir.as_os_str().is_empty()), home) {
            (Some(dir), _) if dir.is_absolute() => dir.to_path_buf(),
            (Some(dir), _) => return Err(LocationError::Relative { dir: dir.to_path_buf() }),
            (None, Some(home)) if home.is_absolute() => home.join(DEFAULT_UNDER_HOME),
            (None, _) => return Err(LocationError::NoHome),
        };
        let location = Self { dir };
        let bytes = location.socket().as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(LocationError::TooLong { socket: location.socket(), bytes });
        }
        Ok(location)
    }

    /// The directory itself: mode 0700, owned by the user.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The broker's socket: mode 0600.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("broker.sock")
    }

    /// The file that the broker locks for its life; it is never deleted. It has a [`Holding`].
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("broker.lock")
    }

    /// The file that the process of links locks for its life. It has a [`Holding`].
    #[must_use]
    pub fn link_lock(&self) -> PathBuf {
        self.dir.join("link.lock")
    }

    /// How each link is, as the process of links sees it.
    #[must_use]
    pub fn link_state(&self) -> PathBuf {
        self.dir.join("link.state")
    }

    /// The output of a process of links that runs in the background.
    #[must_use]
    pub fn link_log(&self) -> PathBuf {
        self.dir.join("link.log")
    }

    /// The file of the store.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("peers.redb")
    }

    /// The configuration, which may be missing.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// A copy of the configuration from the last start that could read it.
    #[must_use]
    pub fn config_kept(&self) -> PathBuf {
        self.dir.join("config.kept.toml")
    }

    /// The broker's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// The directory of the search index. It can be deleted while no broker is running.
    #[must_use]
    pub fn search_index(&self) -> PathBuf {
        self.dir.join("search")
    }

    /// Copies of the store.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.dir.join("backups")
    }
}

/// The content of a lock file: the process of the broker or of links, and its phase. It is read if the lock is
/// held and nothing answers at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The process id, in the process's own pid namespace.
    pub pid: u32,
    /// The phase of the broker.
    pub phase: Phase,
}

/// The phase of the broker that holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// It opens its store, and has no socket yet.
    Starting,
    /// Its socket accepts connections.
    Serving,
    /// It was told to end. It writes accepted messages, and has removed its socket.
    Ending,
}

impl Phase {
    /// The word in the lock file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Holding {
    /// The line for the lock file. All lines have the same length, so that one write replaces an
    /// earlier line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("pid {:>10} {:<8}\n", self.pid, self.phase.as_str())
    }

    /// Parses the content of a lock file. `None`: no broker with this format wrote it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.lines().next()?.split_whitespace();
        let (Some("pid"), Some(pid), Some(word), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return None;
        };
        Some(Self { phase: word.parse().ok()?, pid: pid.parse().ok().filter(|pid| *pid > 1)? })
    }
}

/// Why there is no state directory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LocationError {
    /// Neither `PEERD_DIR` is set nor is the home directory an absolute path.
    #[error("PEERD_DIR is not set, and HOME is not an absolute path")]
    NoHome,
    /// `PEERD_DIR` is a relative path.
    #[error("PEERD_DIR is {}, which is a relative path", dir.display())]
    Relative {
        /// The value of `PEERD_DIR`.
        dir: PathBuf,
    },
    /// The socket's path is too long for a socket address.
    #[error("the socket's path {} is {bytes} bytes long, and the maximum is {SOCKET_PATH_BYTES_MAX}", socket.display())]
    TooLong {
        /// The path of the socket.
        socket: PathBuf,
        /// Its length in bytes.
        bytes: usize,
    },
}

impl LocationError {
    /// The next step; empty if none is known.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoHome => "set PEERD_DIR to an absolute path".to_owned(),
            Self::Relative { .. } => "set it to an absolute path".to_owned(),
            Self::TooLong { .. } => "set PEERD_DIR to a shorter path".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn peerd_dir_wins_over_home() {
        let location =
            Location::resolve(Some(Path::new("/p")), Some(Path::new("/home/u"))).unwrap();
        assert_eq!(location.socket(), Path::new("/p/broker.sock"));
        let location = Location::resolve(None, Some(Path::new("/home/u"))).unwrap();
        assert_eq!(location.dir(), Path::new("/home/u").join(DEFAULT_UNDER_HOME));
        let location = Location::resolve(Some(Path::new("")), Some(Path::new("/home/u"))).unwrap();
        assert_eq!(location.dir(), Path::new("/home/u").join(DEFAULT_UNDER_HOME));
    }

    #[test]
    fn a_lock_file_tells_its_holder_in_one_length() {
        let holdings = Phase::VARIANTS.iter().map(|phase| Holding { pid: 1_234, phase: *phase });
        let lines: Vec<String> = holdings.clone().map(|holding| holding.line()).collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{lines:?}");
        for (line, holding) in lines.iter().zip(holdings) {
            assert_eq!(Holding::read(line), Some(holding));
        }
        for other in [
            "",
            "1234",
            "pid x serving",
            "pid 1 serving",
            "pid 0 serving",
            "pid 12 sleeping",
            "pid 12 serving more",
        ] {
            assert_eq!(Holding::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_missing_home_a_relative_and_an_overlong_directory_say_what_to_do() {
        assert_eq!(Location::resolve(None, None), Err(LocationError::NoHome));
        assert_eq!(
            Location::resolve(None, Some(Path::new("here"))),
            Err(LocationError::NoHome),
            "it depends on who asks"
        );
        let relative = Location::resolve(Some(Path::new("here")), None).unwrap_err();
        assert!(relative.hint().contains("absolute"), "{relative}");
        let long =
            Location::resolve(Some(Path::new(&format!("/{}", "d".repeat(100)))), None).unwrap_err();
        assert!(long.hint().contains("PEERD_DIR"), "{long}");
    }
}
