//! `peerctl daemon`: runs, starts, stops and checks the broker.
//!
//! Every program that needs a broker and finds none runs `start`, many at the same time if need be.
//! One broker gets the lock. A starter that loses waits for the winner, and starts a broker itself
//! if the winner dies during its start. This file does not know the rules of the broker.

mod start;
mod stop;

use std::path::Path;

use clap::Subcommand;
use peer_broker::search::IndexReport;
use peer_broker::store::{Store, VerifyReport};
use peer_broker::{RunError, RunOptions};
use peer_client::{Endpoint, Start, holder};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use self::start::{Started, start};
pub(crate) use self::start::{detached_broker, last_words, rehearse};
use self::stop::Stopped;
pub(crate) use self::stop::{stop, unreachable};
use super::{block_on, status};
use crate::error::{Failure, Kind};
use crate::operator::Operator;
use crate::output::{Output, Tone, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl daemon start           start it, unless it is running
  peerctl daemon status          exit code 3 if none is running
  peerctl daemon restart         after an update of peerctl
  peerctl daemon run             in the foreground, for a service manager
  peerctl daemon stop && peerctl daemon verify
  peerctl daemon stop && peerctl daemon reindex

You need not start the broker yourself: commands and adapters start it.";

/// Run, start, stop or check the broker
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: DaemonCommand,
}

#[derive(Debug, Subcommand)]
enum DaemonCommand {
    /// Run the broker in the foreground until it is stopped
    Run {
        /// Run even if the kernel cannot keep the broker from opening network sockets
        #[arg(long)]
        no_sandbox: bool,
        /// Run in a new session, and close standard error once the broker is ready
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Check that a broker could start, without starting one
    #[command(hide = true)]
    Rehearse,
    /// Start the broker in the background, unless one is running
    Start,
    /// Stop the broker; accepted messages stay on disk
    Stop,
    /// Stop the broker, then start it with this executable
    Restart,
    /// Show the broker's state; exit code 3 if none is running
    Status,
    /// Check the whole database file and the search index; the broker must be stopped
    Verify,
    /// Rebuild the search index; the broker must be stopped
    Reindex,
}

/// The broker that was started, or that was running already.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StartedBroker {
    /// Whether this command started it.
    started: bool,
    pid: u32,
    version: String,
    executable: String,
    /// Why the broker does not use `config.toml`; null if it does.
    config_fault: Option<String>,
}

/// The outcome of stopping the broker.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoppedBroker {
    /// False if no broker was running.
    stopped: bool,
    /// The process that was ended by SIGTERM, because the broker could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    signalled: Option<u32>,
}

/// The outcome of rebuilding the search index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Reindexed {
    entries: u64,
    elapsed_ms: u64,
}

/// The result of checking the whole database.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Verified {
    /// The path of the file.
    database: String,
    /// Whether the database has no problems.
    sound: bool,
    schema: u64,
    file_bytes: u64,
    /// Whether the last broker closed the database. False means that it was killed, which does no
    /// harm.
    closed_cleanly: bool,
    peers: u64,
    messages: u64,
    /// Deliveries that wait for their recipient.
    pending: u64,
    /// Dead letters.
    dead: u64,
    /// Deliveries that expired.
    expired: u64,
    /// Deliveries that are settled.
    settled: u64,
    idempotency_keys: u64,
    /// Channels and groups.
    channels: u64,
    questions: u64,
    tasks: u64,
    notes: u64,
    /// Null if no index exists, or if the database is damaged.
    search_index: Option<VerifiedIndex>,
    problems_total: u64,
    /// The first hundred problems.
    problems: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VerifiedIndex {
    /// Whether the index fits the database.
    sound: bool,
    entries: u64,
    /// Changes of the database that are not indexed yet.
    behind: u64,
    missing: u64,
    /// Entries that the index should have and does not have.
    /// Entries of records that the database does not have.
    left_over: u64,
    damaged_files: u64,
}

pub(crate) fn run(args: Args, output: &Output, endpoint: Endpoint) -> Result<(), Failure> {
    let endpoint = Endpoint { start: Start::Never, ..endpoint };
    match args.command {
        DaemonCommand::Run { no_sandbox, detached } => serve(endpoint, !no_sandbox, detached),
        DaemonCommand::Rehearse => {
            peer_broker::rehearse(&endpoint.location, true).map_err(of_broker)
        }
        DaemonCommand::Start => block_on(async { say_started(output, &start(&endpoint).await?) }),
        DaemonCommand::Stop => block_on(async {
            let stopped = stop(&endpoint).await?;
            say_stopped(output, &stopped)
        }),
        DaemonCommand::Restart => block_on(async {
            if let stopped @ Stopped::Signalled { .. } = stop(&endpoint).await?
                && !output.json
            {
                say_stopped(output, &stopped)?;
            }
            say_started(output, &start(&endpoint).await?)
        }),
        DaemonCommand::Status => block_on(say_status(output, &endpoint)),
        DaemonCommand::Verify => verify(output, &endpoint),
        DaemonCommand::Reindex => reindex(output, &endpoint),
    }
}

fn serve(endpoint: Endpoint, sandbox: bool, detached: bool) -> Result<(), Failure> {
    let options = RunOptions {
        location: endpoint.location,
        executable: endpoint.executable,
        sandbox,
        detached,
    };
    peer_broker::run(options, || {}).map_err(|error| match error {
        RunError::AlreadyRunning { .. } if detached => {
            Failure { kind: Kind::AlreadyRunning, ..of_broker(error) }
        }
        error => of_broker(error),
    })
}

fn of_broker(error: RunError) -> Failure {
    Failure::of_broker(&error, error.hint())
}

fn say_started(output: &Output, started: &Started) -> Result<(), Failure> {
    let welcome = &started.welcome;
    if output.json {
        return output.json(&StartedBroker {
            started: started.fresh,
            pid: welcome.pid,
            version: welcome.version.clone(),
            executable: welcome.executable.clone(),
            config_fault: started.config_fault.clone(),
        });
    }
    let what =
        if started.fresh { "the broker was started" } else { "the broker is running already" };
    output.line(&format!("{what}: version {}, pid {}", welcome.version, welcome.pid))?;
    if let Some(fault) = &started.config_fault {
        output.remark(&output.paint(Tone::Bad, &single_line(fault)));
    }
    Ok(())
}

fn say_stopped(output: &Output, stopped: &Stopped) -> Result<(), Failure> {
    if output.json {
        return output.json(&match stopped {
            Stopped::NoneRan => StoppedBroker { stopped: false, signalled: None },
            Stopped::Asked => StoppedBroker { stopped: true, signalled: None },
            Stopped::Signalled { pid, .. } => {
                StoppedBroker { stopped: true, signalled: Some(*pid) }
            }
        });
    }
    match stopped {
        Stopped::NoneRan => output.line("no broker is running"),
        Stopped::Asked => output.line("the broker was stopped"),
        Stopped::Signalled { pid, why } => output.line(&format!(
            "the broker (pid {pid}) was stopped by SIGTERM, because it could not be asked: {why}"
        )),
    }
}

/// Prints the broker's state. If no broker answers, it reports a process that still holds the lock.
async fn say_status(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    match Operator::connect(endpoint).await {
        Ok(operator) => status::print(output, &status::ask(&operator).await?),
        Err(failure) if failure.is_not_running() => match holder::look(&endpoint.location) {
            Some(holder) => Err(stop::unreachable(&endpoint.location.socket(), holder)),
            None => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

fn reindex(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let report = peer_broker::reindex(&endpoint.location).map_err(of_broker)?;
    if output.json {
        return output.json(&Reindexed {
            entries: report.entries,
            elapsed_ms: begun.elapsed().as_millis() as u64,
        });
    }
    output.line(&format!(
        "{} entries were indexed in {:.1} s",
        report.entries,
        begun.elapsed().as_secs_f64()
    ))
}

fn verify(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let database = &endpoint.location.database();
    let report =
        Store::verify(database).map_err(|error| Failure::of_broker(&error, error.hint()))?;
    // The index of a damaged database proves nothing.
    let index = match report.is_sound() {
        true => peer_broker::check_index(&endpoint.location).map_err(of_broker)?,
        false => None,
    };
    let verified = verified(database, &report, index);
    let all_sound = report.is_sound() && index.is_none_or(|index| index.is_sound());
    if !output.json {
        print_verified(output, &verified, index, all_sound)?;
    } else if all_sound {
        output.json(&verified)?;
    }
    if all_sound {
        return Ok(());
    }
    if report.is_sound() {
        let failure = Failure::wrong("the search index does not fit the database, which is sound");
        return Err(failure.hint("`peerctl daemon reindex` rebuilds it").with(verified));
    }
    let message = format!(
        "problems found in {}: {}; the broker leaves the damaged records out",
        database.display(),
        report.problems_total
    );
    let step = "start the broker without these records, or replace the file with a good copy";
    Err(Failure::wrong(message).hint(step).with(verified))
}

fn verified(database: &Path, report: &VerifyReport, index: Option<IndexReport>) -> Verified {
    Verified {
        database: database.display().to_string(),
        sound: report.is_sound(),
        schema: report.schema,
        file_bytes: report.file_bytes,
        closed_cleanly: report.closed_cleanly,
        peers: report.peers,
        messages: report.messages,
        pending: report.pending,
        dead: report.dead,
        expired: report.expired,
        settled: report.settled,
        idempotency_keys: report.idempotency_keys,
        channels: report.channels,
        questions: report.questions,
        tasks: report.tasks,
        notes: report.notes,
        search_index: index.map(|index| VerifiedIndex {
            sound: index.is_sound(),
            entries: index.entries,
            behind: index.behind,
            missing: index.missing,
            left_over: index.left_over,
            damaged_files: index.damaged_files,
        }),
        problems_total: report.problems_total,
        problems: report.problems.iter().map(ToString::to_string).collect(),
    }
}

fn print_verified(
    output: &Output,
    told: &Verified,
    index: Option<IndexReport>,
    all_sound: bool,
) -> Result<(), Failure> {
    let closed = if told.closed_cleanly {
        "closed cleanly"
    } else {
        "not closed cleanly, which does no harm"
    };
    let shared = format!(
        "{} channels and groups, {} questions, {} tasks, {} notes",
        told.channels, told.questions, told.tasks, told.notes
    );
    let deliveries = format!(
        "{} wait, {} dead, {} expired, {} settled",
        told.pending, told.dead, told.expired, told.settled
    );
    output.facts(&[
        (
            "database",
            format!(
                "{}, {}, schema {}, {closed}",
                told.database,
                size(told.file_bytes),
                told.schema
            ),
        ),
        ("peers", told.peers.to_string()),
        ("messages", format!("{}, {} idempotency keys", told.messages, told.idempotency_keys)),
        ("shared", shared),
        ("deliveries", deliveries),
    ])?;
    if told.sound {
        output.facts(&[("search index", said_of(index))])?;
    }
    for problem in &told.problems {
        output.line(&output.paint(Tone::Bad, problem))?;
    }
    if all_sound { output.line(&output.paint(Tone::Good, "sound")) } else { Ok(()) }
}

fn said_of(index: Option<IndexReport>) -> String {
    let Some(index) = index else { return "none; the next broker builds one".to_owned() };
    let mut said = format!("{} entries", index.entries);
    let faults = [
        ("changes not indexed yet", index.behind),
        ("entries missing", index.missing),
        ("entries without a record", index.left_over),
        ("files damaged", index.damaged_files),
    ];
    faults
        .iter()
        .filter(|(_, count)| *count > 0)
        .for_each(|(what, count)| said.push_str(&format!(", {count} {what}")));
    said
}
