//! A broker for one run of `demo` or `bench`, with its own directory and home, which are removed
//! afterwards.
//!
//! Knows how a broker is started and stopped. Does not know what runs against it. Invariants: it
//! touches none of the user's files, and leaves nothing behind. The directory has a short path,
//! because the length of a socket's path is limited.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use peer_client::{Endpoint, Start};
use peer_proto::limits::SOCKET_PATH_BYTES_MAX;
use peer_proto::location::Location;
use peer_proto::request::Request;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::daemon::{detached_broker, last_words};
use crate::error::Failure;
use crate::operator::Operator;

/// Milliseconds that a broker may take to start or to stop.
const PATIENCE_MS: u64 = 10_000;

/// Bytes that the longest path below the temporary directory may add.
const ROOM_BELOW: usize = 32;

/// A running broker that belongs to this process alone.
pub(crate) struct Throwaway {
    pub(crate) endpoint: Endpoint,
    /// Connected before any session registered, so that the broker takes this process for the
    /// person.
    pub(crate) operator: Operator,
    home: PathBuf,
    broker: Child,
    // Dropped last, which removes the directory.
    _room: TempDir,
}

impl Throwaway {
    /// Starts a broker with this executable and this `config.toml`.
    pub(crate) async fn start(executable: &Path, config: &str) -> Result<Self, Failure> {
        Self::start_prepared(executable, config, |_| Ok(())).await
    }

    /// Does the same, after `prepare` changed its directory.
    pub(crate) async fn start_prepared(
        executable: &Path,
        config: &str,
        prepare: impl FnOnce(&Location) -> std::io::Result<()>,
    ) -> Result<Self, Failure> {
        let room = room()?;
        let dir = room.path().join("peerd");
        let home = room.path().join("home");
        for path in [&dir, &home] {
            create_private(path)?;
        }
        let location =
            Location::resolve(Some(&dir), None).map_err(peer_client::ConnectError::from)?;
        let attempt = "writing";
        fs::write(location.config(), config)
            .map_err(|source| Failure::file(attempt, location.config(), source))?;
        prepare(&location).map_err(|source| Failure::file(attempt, location.dir(), source))?;
        let endpoint =
            Endpoint { location, executable: executable.to_path_buf(), start: Start::Never };
        let mut broker = detached_broker(&endpoint, executable)
            .env("HOME", &home)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Failure::file("running", executable, source))?;
        let words =
            tokio::time::timeout(Duration::from_millis(PATIENCE_MS), last_words(&mut broker)).await;
        match words {
            Ok(Ok(words)) => {
                if let Some(said) = words.said() {
                    return Err(Failure::wrong(said.message).hint(said.hint));
                }
            }
            Ok(Err(source)) => {
                return Err(Failure::system("reading the output of the broker", source));
            }
            Err(_) => {
                return Err(Failure::wrong(format!(
                    "the throw-away broker was not ready within {PATIENCE_MS} ms"
                )));
            }
        }
        let operator = Operator::connect(&endpoint).await?;
        Ok(Self { endpoint, operator, home, broker, _room: room })
    }

    /// A command of this executable that knows this broker, and nothing else of the user's
    /// environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.endpoint.executable);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", &self.home)
            .env("PEERD_DIR", self.endpoint.location.dir());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // Ctrl-C reaches only this process, which then ends its children in order.
        command.process_group(0);
        command
            .current_dir(&self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Stops the broker and waits for its end.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        let ended = async {
            self.operator.ask_done(Request::Shutdown).await?;
            self.broker
                .wait()
                .await
                .map_err(|source| Failure::system("waiting for the broker", source))
        };
        match tokio::time::timeout(Duration::from_millis(PATIENCE_MS), ended).await {
            Ok(ended) => {
                let status = ended?;
                if status.success() {
                    Ok(())
                } else {
                    Err(Failure::wrong(format!("the throw-away broker ended with {status}")))
                }
            }
            // Dropping the child kills it.
            Err(_) => Err(Failure::wrong(format!(
                "the throw-away broker did not stop within {PATIENCE_MS} ms and was killed"
            ))),
        }
    }
}

/// The signals that end this process. They are noticed from [`Interrupts::listen`] on, so that an
/// early signal leaves nothing behind.
pub(crate) struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|source| Failure::system("listening for signals", source));
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Self { signals })
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&mut self) -> Failure {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Failure::wrong("interrupted: the broker was stopped and its directory removed")
    }
}

/// Makes a directory under the temporary one. If that path is too long for a socket, the directory
/// is under `/tmp`.
fn room() -> Result<TempDir, Failure> {
    let configured = std::env::temp_dir();
    let fits = configured.as_os_str().len() + ROOM_BELOW <= SOCKET_PATH_BYTES_MAX;
    let parent = if fits { configured } else { PathBuf::from("/tmp") };
    // Resolved, because the broker refuses a directory behind a symbolic link.
    let attempt = "making a directory under";
    let parent =
        fs::canonicalize(&parent).map_err(|source| Failure::file(attempt, parent, source))?;
    tempfile::Builder::new()
        .prefix("peerd-")
        .tempdir_in(&parent)
        .map_err(|source| Failure::file(attempt, parent, source))
}

fn create_private(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let built = fs::DirBuilder::new().mode(0o700).create(path);
    built.map_err(|source| Failure::file("making", path, source))
}
