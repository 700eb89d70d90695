//! `peerctl status`: prints the broker's state.
//!
//! Does not count anything: the broker reports all numbers.

use std::collections::BTreeMap;

use peer_client::Endpoint;
use peer_proto::request::{Reply, Request, Status};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::pause::{self, Pause};
use crate::error::Failure;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, Tone, age, now, size, span};

const AFTER_HELP: &str = "\
Examples:
  peerctl status
  peerctl status --json | jq .messages
  peerctl --no-start status      exit code 3 if none is running";

/// Show the broker's state: version, peers, queues, oldest message, latency
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

/// The state of the broker.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BrokerStatus {
    version: String,
    /// The version of the protocol between the broker and this program.
    protocol: u16,
    pid: u32,
    uptime_ms: u64,
    socket: String,
    /// The state directory.
    dir: String,
    executable: String,
    /// Whether the kernel keeps the broker from opening network sockets.
    sandbox: bool,
    peers: PeerCounts,
    messages: MessageCounts,
    paused: Vec<Pause>,
    /// The number of refused sends since the broker started, by error code.
    refused: BTreeMap<String, u64>,
    /// The age of the oldest waiting message; null if none waits.
    oldest_ms: Option<u64>,
    commit_us: CommitTimes,
    disk_free_bytes: u64,
    /// Why the broker does not use `config.toml`; null if it does.
    config_fault: Option<String>,
    /// Damaged records of the database, which the broker leaves out.
    damaged: u64,
}

/// Peers other than the person.
#[derive(Debug, Serialize, JsonSchema)]
struct PeerCounts {
    online: u64,
    offline: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MessageCounts {
    /// Deliveries that wait for a session.
    stored: u64,
    /// Deliveries that a session holds.
    leased: u64,
    /// Deliveries that are held for your decision.
    held: u64,
    /// Dead letters.
    dead: u64,
    /// Messages in the database, settled ones included.
    total: u64,
}

/// The times of the latest commits, in microseconds; zero before the first commit.
#[derive(Debug, Serialize, JsonSchema)]
struct CommitTimes {
    p50: u64,
    max: u64,
}

impl From<&Status> for BrokerStatus {
    fn from(status: &Status) -> Self {
        let paused =
            status.paused.iter().map(Pause::from).chain(status.used_up.iter().map(Pause::from));
        Self {
            version: status.version.clone(),
            protocol: status.protocol,
            pid: status.pid,
            uptime_ms: status.uptime_ms,
            socket: status.socket.clone(),
            dir: status.dir.clone(),
            executable: status.executable.clone(),
            sandbox: status.sandbox,
            peers: PeerCounts { online: status.peers_online, offline: status.peers_offline },
            messages: MessageCounts {
                stored: status.stored,
                leased: status.leased,
                held: status.held,
                dead: status.dead,
                total: status.messages_total,
            },
            paused: paused.collect(),
            refused: status.refused.iter().cloned().collect(),
            oldest_ms: status.oldest_at.map(|at| now().ms_since(at)),
            commit_us: CommitTimes { p50: status.commit_us_p50, max: status.commit_us_max },
            disk_free_bytes: status.disk_free_bytes,
            config_fault: config_fault(status),
            damaged: status.damaged,
        }
    }
}

pub(crate) async fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    print(output, &ask(&operator).await?)
}

pub(crate) async fn ask(operator: &Operator) -> Result<Status, Failure> {
    match operator.ask(Request::Status).await? {
        Reply::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

pub(crate) fn print(output: &Output, status: &Status) -> Result<(), Failure> {
    if output.json {
        return output.json(&BrokerStatus::from(status));
    }
    let sandbox = if status.sandbox {
        output.paint(Tone::Good, "on: the kernel lets it open no network socket")
    } else {
        output.paint(Tone::Bad, "off")
    };
    let oldest =
        status.oldest_at.map(|at| format!(", the oldest for {}", age(at))).unwrap_or_default();
    let latency = match status.commit_us_max {
        0 => "no commit yet".to_owned(),
        max => {
            format!(
                "{:.2} ms median, {:.2} ms slowest, of the latest commits",
                status.commit_us_p50 as f64 / 1e3,
                max as f64 / 1e3
            )
        }
    };
    let refused = match status.refused.as_slice() {
        [] => "nothing since the start".to_owned(),
        some => {
            let counts: Vec<_> =
                some.iter().map(|(code, count)| format!("{count} {code}")).collect();
            format!("{}; `peerctl history --refused` shows the latest", counts.join(", "))
        }
    };
    let damaged = match status.damaged {
        0 => String::new(),
        1 => output.paint(Tone::Bad, "; 1 damaged record is left out, see `peerctl doctor`"),
        many => output.paint(
            Tone::Bad,
            &format!("; {many} damaged records are left out, see `peerctl doctor`"),
        ),
    };
    output.facts(&[
        (
            "broker",
            format!(
                "{} (protocol {}), pid {}, up {}",
                status.version,
                status.protocol,
                status.pid,
                span(status.uptime_ms)
            ),
        ),
        ("executable", status.executable.clone()),
        ("socket", status.socket.clone()),
        ("sandbox", sandbox),
        ("peers", format!("{} online, {} offline", status.peers_online, status.peers_offline)),
        (
            "waiting",
            format!(
                "{} stored, {} leased, {} held{oldest}",
                status.stored, status.leased, status.held
            ),
        ),
        ("dead letters", status.dead.to_string()),
        ("messages", format!("{} in the store{damaged}", status.messages_total)),
        ("paused", pause::told_with(&status.paused, &status.used_up)),
        ("refused", refused),
        ("commits", latency),
        ("disk", format!("{} free", size(status.disk_free_bytes))),
    ])?;
    match config_fault(status) {
        Some(fault) => output.facts(&[("config", output.paint(Tone::Bad, &single_line(&fault)))]),
        None => Ok(()),
    }
}

/// Why the broker does not use `config.toml`, with the next step. `None`: it uses the file.
pub(crate) fn config_fault(status: &Status) -> Option<String> {
    status
        .config_fault
        .as_ref()
        .map(|fault| format!("{fault}; {}", peer_broker::config::FAULT_HINT))
}
