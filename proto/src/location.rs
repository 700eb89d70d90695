//! The one state directory, and what is in it. Pure: who asks brings the environment.
//!
//! XDG variables are not consulted, because some clients clear them for their children and some do
//! not: two directories would mean two brokers (`docs/adr/0004-one-directory-from-home-alone.md`).

use std::path::{Path, PathBuf};

use strum::{EnumString, IntoStaticStr};
use thiserror::Error;

use crate::limits::SOCKET_PATH_BYTES_MAX;

/// Where the default directory lies under the home directory.
#[cfg(not(target_os = "macos"))]
pub const DEFAULT_UNDER_HOME: &str = ".local/share/peerd";
/// Where the default directory lies under the home directory.
#[cfg(target_os = "macos")]
pub const DEFAULT_UNDER_HOME: &str = "Library/Application Support/peerd";

/// The state directory's paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    dir: PathBuf,
}

impl Location {
    /// The directory that `PEERD_DIR` names, else the default under `home`.
    ///
    /// # Errors
    /// Where neither is given, the one that counts is relative, or the socket's path would be
    /// longer than a socket's path can be.
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

    /// Locked by the broker for as long as it lives; never deleted. In it stands a [`Holding`].
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("broker.lock")
    }

    /// The store.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.dir.join("peers.redb")
    }

    /// The configuration; need not exist.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// A copy of the configuration as it was at the last start that could read it.
    #[must_use]
    pub fn config_kept(&self) -> PathBuf {
        self.dir.join("config.kept.toml")
    }

    /// The broker's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// The search index, a directory: it can be thrown away while no broker runs.
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

/// What a broker writes into the lock file that it holds: which process it is, and how far it has
/// come. Whoever finds the lock held, and nobody behind the socket, reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The process, as its own pid namespace numbers it.
    pub pid: u32,
    /// How far it has come.
    pub phase: Phase,
}

/// How far the holder of the lock has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantArray))]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// It opens its store; its socket is still to come.
    Starting,
    /// Its socket takes connections.
    Serving,
    /// It was told to end. It writes what it has accepted; its socket is gone.
    Ending,
}

impl Phase {
    /// Its word in the lock file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Holding {
    /// The line for the lock file. Always of the same length, so that a later one replaces an
    /// earlier one in one write.
    #[must_use]
    pub fn line(&self) -> String {
        format!("pid {:>10} {:<8}\n", self.pid, self.phase.as_str())
    }

    /// What a lock file says; none where no broker of this kind wrote it.
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
    /// Neither `PEERD_DIR` nor a home directory by an absolute path.
    #[error("neither HOME nor PEERD_DIR names a directory by an absolute path")]
    NoHome,
    /// `PEERD_DIR` depends on the working directory.
    #[error("PEERD_DIR is {}, which is relative", dir.display())]
    Relative {
        /// What it says.
        dir: PathBuf,
    },
    /// The socket's path does not fit a socket address.
    #[error("the socket's path {} is {bytes} bytes long, and a socket's path ends at {SOCKET_PATH_BYTES_MAX}", socket.display())]
    TooLong {
        /// The path.
        socket: PathBuf,
        /// Its length.
        bytes: usize,
    },
}

impl LocationError {
    /// The next step; empty where there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoHome => "set PEERD_DIR to one".to_owned(),
            Self::Relative { .. } => "set it to an absolute path".to_owned(),
            Self::TooLong { .. } => "set PEERD_DIR to a shorter directory".to_owned(),
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
