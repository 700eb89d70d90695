//! `peerctl daemon`: the broker in the foreground, or started, stopped and looked at.
//!
//! `start` is what every program runs that needs a broker and finds none, twenty at a time if need be. One broker wins the
//! lock; who loses waits for the winner, and takes over where the winner dies during its start.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clap::Subcommand;
use peer_broker::search::IndexReport;
use peer_broker::store::Store;
use peer_broker::{RunError, RunOptions};
use peer_client::start::ENVIRONMENT_KEPT;
use peer_client::{ConnectError, Endpoint, RequestError, Start};
use peer_proto::request::{Request, Welcome};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{block_on, status};
use crate::error::{ALREADY_RUNNING, Failure};
use crate::operator::Operator;
use crate::output::{Output, Tone, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl daemon start           start it, unless it runs
  peerctl daemon status          is it running? exit 3 where it is not
  peerctl daemon restart         after an update of peerctl
  peerctl daemon run             in the foreground, for a service manager
  peerctl daemon stop && peerctl daemon verify
  peerctl daemon stop && peerctl daemon reindex

Nobody needs to start the broker by hand: whatever needs it starts it.";

/// How long a start may take before it is called a failure, in milliseconds.
const START_TIMEOUT_MS: u64 = 10_000;

/// How long a broker may take to end after it was told to, in milliseconds: it writes what it has accepted.
const STOP_TIMEOUT_MS: u64 = 10_000;

/// The pauses of a starter that lost against another, in milliseconds, doubling.
const PAUSE_MS_MIN: u64 = 10;
const PAUSE_MS_MAX: u64 = 320;

/// The broker: run, start, stop, look at it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run the broker in the foreground until it is told to stop
    Run {
        /// Let it run where the kernel cannot keep it from opening network sockets
        #[arg(long)]
        no_sandbox: bool,
        /// In a session of its own; its standard error ends when it is ready
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Start the broker in the background, unless one runs
    Start,
    /// Stop the broker; what it accepted is on disk
    Stop,
    /// Stop the broker, then start it with this executable
    Restart,
    /// How the broker is; exit 3 where none runs
    Status,
    /// Check the whole database file and the search index; the broker must be stopped
    Verify,
    /// Make the search index anew; the broker must be stopped
    Reindex,
}

pub(crate) fn run(args: Args, output: &Output, endpoint: Endpoint) -> Result<(), Failure> {
    let endpoint = Endpoint { start: Start::Never, ..endpoint };
    match args.what {
        What::Run { no_sandbox, detached } => serve(endpoint, !no_sandbox, detached),
        What::Start => block_on(async { say_started(output, &start(&endpoint).await?) }),
        What::Stop => block_on(async {
            let stopped = stop(&endpoint).await?;
            say_stopped(output, stopped)
        }),
        What::Restart => block_on(async {
            stop(&endpoint).await?;
            say_started(output, &start(&endpoint).await?)
        }),
        What::Status => block_on(async {
            let operator = Operator::connect(&endpoint).await?;
            status::print(output, &status::ask(&operator).await?)
        }),
        What::Verify => verify(output, &endpoint),
        What::Reindex => reindex(output, &endpoint),
    }
}

fn serve(endpoint: Endpoint, sandbox: bool, detached: bool) -> Result<(), Failure> {
    let options = RunOptions { location: endpoint.location, executable: endpoint.executable, sandbox, detached };
    peer_broker::run(options, || {}).map_err(|error| match error {
        RunError::AlreadyRunning { .. } if detached => Failure::AlreadyRunning(error.to_string()),
        error => Failure::Broker(chain(&error)),
    })
}

/// An error with what it rests on, as far as its own text does not say it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // The next step stays at the end.
            text = match text.rsplit_once("; ") {
                Some((what, step)) => format!("{what}: {cause_text}; {step}"),
                None => format!("{text}: {cause_text}"),
            };
        }
        source = cause.source();
    }
    text
}

/// A broker that runs now.
struct Started {
    welcome: Welcome,
    /// It did not run before.
    fresh: bool,
}

fn say_started(output: &Output, started: &Started) -> Result<(), Failure> {
    let welcome = &started.welcome;
    if output.json {
        return output.json(&json!({
            "started": started.fresh,
            "pid": welcome.pid,
            "version": welcome.version,
            "executable": welcome.executable,
        }));
    }
    let what = if started.fresh { "the broker was started" } else { "the broker runs already" };
    output.line(&format!("{what}: version {}, pid {}", welcome.version, welcome.pid))
}

fn say_stopped(output: &Output, stopped: bool) -> Result<(), Failure> {
    if output.json {
        return output.json(&json!({ "stopped": stopped }));
    }
    output.line(if stopped { "the broker was stopped" } else { "no broker runs" })
}

/// Starts the broker unless one runs; ends when one answers.
async fn start(endpoint: &Endpoint) -> Result<Started, Failure> {
    let deadline = Instant::now() + Duration::from_millis(START_TIMEOUT_MS);
    let mut pause_ms = PAUSE_MS_MIN;
    let mut fresh = false;
    // What the last broker of ours said before it ended; counts only where nobody else came up either.
    let mut said: Option<String> = None;
    loop {
        match Operator::connect(endpoint).await {
            Ok(operator) => return Ok(Started { welcome: operator.welcome, fresh }),
            Err(Failure::Connect(ConnectError::NotRunning { .. })) => {}
            // It was there and went while it was greeted: the lock says who is next.
            Err(Failure::Connect(ConnectError::NoWelcome { .. } | ConnectError::Io { .. })) => {}
            Err(failure) => return Err(failure),
        }
        if let Some(text) = said.take() {
            return Err(Failure::Broker(text));
        }
        if Instant::now() >= deadline {
            return Err(Failure::Broker(format!(
                "no broker answered within {START_TIMEOUT_MS} ms; look into {}",
                endpoint.location.log().display()
            )));
        }
        fresh = false;
        match spawn(endpoint, deadline).await? {
            // It is ready; or it died without a word, then the next turn takes over.
            Spawned::Silent => fresh = true,
            Spawned::Failed { text } => said = Some(text),
            Spawned::Lost => {
                // Another one has the lock and is on its way up, or down. Nothing announces either; hence the pauses.
                tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(pause_ms))).await;
                pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            }
        }
    }
}

/// What became of one attempt to start a broker.
enum Spawned {
    /// Its standard error ended without a word.
    Silent,
    /// Another broker has the lock.
    Lost,
    /// It said why it does not run.
    Failed { text: String },
}

async fn spawn(endpoint: &Endpoint, deadline: Instant) -> Result<Spawned, Failure> {
    let mut child = detached_broker(endpoint).spawn().map_err(|source| Failure::File {
        attempt: "running",
        path: endpoint.executable.clone(),
        source,
    })?;
    let Ok(read) = tokio::time::timeout_at(deadline, last_words(&mut child)).await else {
        let pid = child.id().unwrap_or_default();
        return Ok(Spawned::Failed {
            text: format!("the broker (pid {pid}) did not become ready within {START_TIMEOUT_MS} ms; look into broker.log"),
        });
    };
    let text = read.map_err(|source| Failure::System { attempt: "reading what the broker says", source })?;
    if text.is_empty() {
        return Ok(Spawned::Silent);
    }
    let ended = child.wait().await.map_err(|source| Failure::System { attempt: "waiting for the broker", source })?;
    if ended.code() == Some(i32::from(ALREADY_RUNNING)) {
        return Ok(Spawned::Lost);
    }
    Ok(Spawned::Failed { text: text.trim_start_matches("peerctl: ").to_owned() })
}

/// The command that becomes a broker. Nothing of the starter's environment lives on in a process that serves everybody.
pub(crate) fn detached_broker(endpoint: &Endpoint) -> Command {
    let mut command = Command::new(&endpoint.executable);
    command.args(["daemon", "run", "--detached"]).current_dir("/");
    command.env_clear().env("PEERD_DIR", endpoint.location.dir());
    for name in ENVIRONMENT_KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What a detached broker writes before it is ready or dead.
pub(crate) async fn last_words(child: &mut Child) -> Result<String, io::Error> {
    let mut bytes = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Stops the broker, if one runs, and waits until it has let go of its lock.
pub(crate) async fn stop(endpoint: &Endpoint) -> Result<bool, Failure> {
    let ending = async {
        match Operator::connect(endpoint).await {
            Ok(operator) => {
                match operator.ask_done(Request::Shutdown).await {
                    // It was told before, by somebody else, and is on its way out.
                    Ok(()) | Err(Failure::Request(RequestError::Lost)) => {}
                    Err(failure) => return Err(failure),
                }
                operator.closed().await;
            }
            Err(Failure::Connect(ConnectError::NotRunning { .. })) => return Ok(false),
            // It takes connections until the last moment.
            Err(Failure::Connect(ConnectError::NoWelcome { .. })) => {}
            Err(failure) => return Err(failure),
        }
        released(&endpoint.location.lock()).await.map(|()| true)
    };
    match tokio::time::timeout(Duration::from_millis(STOP_TIMEOUT_MS), ending).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::Broker(format!(
            "the broker still holds its lock {STOP_TIMEOUT_MS} ms after it was told to stop; `peerctl daemon status` tells its pid, for `kill`"
        ))),
    }
}

/// Waits until nobody holds the lock: the broker holds it for life.
async fn released(lock: &Path) -> Result<(), Failure> {
    let path = lock.to_path_buf();
    let waited = tokio::task::spawn_blocking(move || match File::open(&path) {
        Ok(file) => file.lock().map_err(|source| (path, source)),
        // Whoever removed the directory meant it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err((path, source)),
    });
    match waited.await {
        Ok(waited) => waited.map_err(|(path, source)| Failure::File { attempt: "waiting for", path, source }),
        Err(_) => Err(Failure::Broker(
            "waiting for the broker's lock was interrupted; `peerctl daemon status` says whether it runs".to_owned(),
        )),
    }
}

fn reindex(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let report = peer_broker::reindex(&endpoint.location).map_err(|error| Failure::Broker(chain(&error)))?;
    if output.json {
        return output.json(&json!({ "entries": report.entries, "elapsed_ms": begun.elapsed().as_millis() as u64 }));
    }
    output.line(&format!("{} entries were indexed in {:.1} s", report.entries, begun.elapsed().as_secs_f64()))
}

fn verify(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let database = &endpoint.location.database();
    let report = Store::verify(database).map_err(|error| Failure::Broker(chain(&error)))?;
    // An index of a damaged database says nothing.
    let index = match report.is_sound() {
        true => peer_broker::check_index(&endpoint.location).map_err(|error| Failure::Broker(chain(&error)))?,
        false => None,
    };
    let index_is_sound = index.is_none_or(|index| index.is_sound());
    let data = json!({
        "database": database.display().to_string(),
        "sound": report.is_sound(),
        "schema": report.schema,
        "file_bytes": report.file_bytes,
        "closed_cleanly": report.closed_cleanly,
        "peers": report.peers,
        "messages": report.messages,
        "pending": report.pending,
        "dead": report.dead,
        "expired": report.expired,
        "settled": report.settled,
        "idempotency_keys": report.idempotency_keys,
        "channels": report.channels,
        "questions": report.questions,
        "tasks": report.tasks,
        "notes": report.notes,
        "search_index": index.map(|index| json!({
            "sound": index.is_sound(),
            "entries": index.entries,
            "behind": index.behind,
            "missing": index.missing,
            "left_over": index.left_over,
            "damaged_files": index.damaged_files,
        })),
        "problems_total": report.problems_total,
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if output.json {
        if report.is_sound() && index_is_sound {
            output.json(&data)?;
        }
    } else {
        let closed = if report.closed_cleanly { "closed cleanly" } else { "not closed cleanly, which is no harm" };
        output.facts(&[
            ("database", format!("{}, {}, schema {}, {closed}", database.display(), size(report.file_bytes), report.schema)),
            ("peers", report.peers.to_string()),
            ("messages", format!("{}, {} idempotency keys", report.messages, report.idempotency_keys)),
            (
                "shared",
                format!(
                    "{} channels and groups, {} questions, {} tasks, {} notes",
                    report.channels, report.questions, report.tasks, report.notes
                ),
            ),
            (
                "deliveries",
                format!("{} wait, {} dead, {} expired, {} settled", report.pending, report.dead, report.expired, report.settled),
            ),
        ])?;
        if report.is_sound() {
            output.facts(&[("search index", said_of(index))])?;
        }
        for problem in &report.problems {
            output.line(&output.paint(Tone::Bad, &problem.to_string()))?;
        }
        if report.is_sound() && index_is_sound {
            output.line(&output.paint(Tone::Good, "sound"))?;
        }
    }
    if report.is_sound() && index_is_sound {
        return Ok(());
    }
    if report.is_sound() {
        let message = "the search index does not fit the database, which is sound; `peerctl daemon reindex` makes it anew";
        return Err(Failure::Partly { data, failure: Box::new(Failure::Wrong(message.to_owned())) });
    }
    let message = format!(
        "problems found in {1}: {0}; restore a copy from the backups beside it",
        report.problems_total,
        database.display()
    );
    Err(Failure::Partly { data, failure: Box::new(Failure::Wrong(message)) })
}

fn said_of(index: Option<IndexReport>) -> String {
    let Some(index) = index else { return "none; the next broker makes one".to_owned() };
    let mut said = format!("{} entries", index.entries);
    let faults = [
        ("changes are not in it yet", index.behind),
        ("entries missing", index.missing),
        ("entries of nothing", index.left_over),
        ("files damaged", index.damaged_files),
    ];
    faults.iter().filter(|(_, count)| *count > 0).for_each(|(what, count)| said.push_str(&format!(", {count} {what}")));
    said
}
