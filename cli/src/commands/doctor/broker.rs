//! Checks the broker: whether it runs, in which version, and which sessions it could never reach.
//!
//! Knows what a running broker reports, and the lock and database of one that does not run. Does
//! not know the clients' files. Starts no broker.

use peer_broker::config;
use peer_broker::store::{OpenError, Store};
use peer_client::{Endpoint, Start, holder};
use peer_proto::limits::VISIBILITY_TIMEOUT_MS;
use peer_proto::message::Carrier;
use peer_proto::policy::{Policies, Policy};
use peer_proto::request::{Pausing, PeerInfo, PeersQuery, Reply, Request, Status};

use super::Findings;
use crate::commands::{block_on, daemon, status};
use crate::error::Failure;
use crate::operator::{Operator, unexpected};
use crate::output::{age, cell, now, size, span};

/// Milliseconds after which waiting mail without evidence is a problem: four visibility timeouts.
const WAITING_LONG_MS: u64 = 4 * VISIBILITY_TIMEOUT_MS;

/// Asks the broker, if one is running.
pub(super) fn look(endpoint: &Endpoint, findings: &mut Findings) {
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let looked = block_on(async {
        let operator = Operator::connect(&quiet).await?;
        let status = status::ask(&operator).await?;
        let peers = operator.peers(PeersQuery::default()).await?;
        running(endpoint, &status, findings);
        configured(endpoint, &status, findings);
        let Reply::Policies(policies) = operator.ask(Request::Policies).await? else {
            return Err(unexpected());
        };
        stopped(&status, &policies, findings);
        for peer in peers.iter().filter(|peer| peer.full) {
            full(peer, findings);
        }
        for peer in peers
            .iter()
            .filter(|peer| peer.online && !peer.full && !is_proved(peer) && peer.leased > 0)
        {
            let oldest = operator
                .inbox(Some(peer.id.to_string()), false)
                .await?
                .iter()
                .map(|entry| entry.sent_at)
                .min();
            unreached(peer, oldest.map_or(0, |at| now().ms_since(at)), findings);
        }
        sessions(&peers, findings);
        Ok(())
    });
    match looked {
        Ok(()) => {}
        Err(failure) if failure.is_not_running() => match holder::look(&endpoint.location) {
            Some(holder) => {
                let failure = daemon::unreachable(&endpoint.location.socket(), holder);
                findings.failed("broker", failure, "a broker that can be reached, or no broker");
            }
            None => {
                startable(endpoint, findings);
                database(endpoint, findings);
            }
        },
        Err(failure) => findings.failed("broker", failure, "a broker that answers, or no broker"),
    }
}

/// Checks what a start needs.
fn startable(endpoint: &Endpoint, findings: &mut Findings) {
    match block_on(daemon::rehearse(endpoint)) {
        Ok(()) => findings.good(
            "broker",
            "none is running; one can start, and starts when a command or an adapter needs it",
        ),
        Err(failure) => findings.failed("broker", failure, "a broker that can start"),
    }
}

/// Checks the database, while no broker has it open.
fn database(endpoint: &Endpoint, findings: &mut Findings) {
    let looked = Store::glance(&endpoint.location.database());
    // A broker that started meanwhile changes the data that was read.
    if holder::look(&endpoint.location).is_some() {
        return;
    }
    match looked {
        Ok(report) if report.is_sound() => {
            findings.good(
                "database",
                format!("{}, {} messages, sound", size(report.file_bytes), report.messages),
            );
        }
        Ok(report) => {
            let first = report.problems.first().map(ToString::to_string).unwrap_or_default();
            let observed =
                format!("problems: {}; the first: {}", report.problems_total, cell(&first));
            findings.problem(
                "database",
                observed,
                "every record unchanged since it was written",
                "peerctl daemon verify",
            );
        }
        Err(OpenError::Missing { .. }) => {
            findings.good("database", "none yet; the first broker creates it")
        }
        Err(error) => findings.failed(
            "database",
            Failure::of_broker(&error, error.hint()),
            "a database that can be opened",
        ),
    }
}

fn running(endpoint: &Endpoint, status: &Status, findings: &mut Findings) {
    let ours = env!("CARGO_PKG_VERSION");
    let observed = format!(
        "version {}, pid {}, up {}, {}",
        status.version,
        status.pid,
        span(status.uptime_ms),
        status.executable
    );
    let file = std::path::Path::new(&status.executable);
    if status.version != ours {
        findings.problem(
            "broker",
            observed,
            format!("version {ours}, the version of this peerctl"),
            "peerctl daemon restart",
        );
    } else if !file.exists() {
        findings.problem(
            "broker",
            observed,
            "an executable that still exists",
            "peerctl daemon restart",
        );
    } else if file.canonicalize().ok() != endpoint.executable.canonicalize().ok() {
        findings.note(
            "broker",
            format!("{observed}: another copy of this peerctl, of the same version"),
            "peerctl daemon restart",
        );
    } else {
        findings.good("broker", observed);
    }
    if !status.sandbox && cfg!(target_os = "linux") {
        findings.note(
            "broker",
            "it runs without the filter that keeps it from opening network sockets",
            "peerctl daemon restart",
        );
    }
    if status.damaged > 0 {
        let observed = format!("damaged records that the broker leaves out: {}", status.damaged);
        findings.problem(
            "database",
            observed,
            "no damaged record",
            "peerctl daemon stop && peerctl daemon verify",
        );
    }
    if status.dead > 0 {
        findings.note("mail", format!("{} dead letters", status.dead), "peerctl orphans");
    }
    if status.held > 0 {
        findings.note(
            "mail",
            format!("{} held messages wait for your decision", status.held),
            "peerctl inbox --held",
        );
    }
}

/// Compares the broker's settings with the file. A file that cannot be read is reported by another
/// check.
fn configured(endpoint: &Endpoint, status: &Status, findings: &mut Findings) {
    let Ok(settings) = config::load(&endpoint.location.config()) else { return };
    for (key, value, in_force) in config::differing(&settings, &status.config) {
        let observed = format!("{key} is {value} in config.toml, but the broker uses {in_force}");
        findings.note("config", observed, "peerctl daemon restart");
    }
}

/// Reports what the person or a send limit has stopped. It is not a fault, but explains why nothing
/// moves.
fn stopped(status: &Status, policies: &Policies, findings: &mut Findings) {
    for paused in &status.paused {
        let (what, resume) = match paused {
            Pausing::All => ("all agents are".to_owned(), "all".to_owned()),
            Pausing::Peer(name) => (format!("{} is", cell(name)), cell(name)),
            Pausing::Thread(thread) => {
                (format!("thread {} is", cell(thread)), format!("--thread {}", cell(thread)))
            }
        };
        findings.note(
            "paused",
            format!("{what} paused by you, and their sends are refused"),
            format!("peerctl resume {resume}"),
        );
    }
    for thread in &status.used_up {
        let observed = format!(
            "thread {} has been paused for {}: {} took {} turns in it without a message from you",
            cell(&thread.thread),
            age(thread.since),
            thread.speakers.iter().map(|name| cell(name)).collect::<Vec<_>>().join(", "),
            thread.turns
        );
        findings.note(
            "paused",
            observed,
            format!("peerctl resume --thread {}", cell(&thread.thread)),
        );
    }
    let word = match policies.default {
        Policy::Accept => return,
        Policy::Hold => "held until you release it",
        Policy::Refuse => "refused",
    };
    let observed = format!("mail to every session without a policy of its own is {word}");
    findings.note("policy", observed, "peerctl policy all accept");
}

/// Reports a mailbox that is full, so that senders are refused.
fn full(peer: &PeerInfo, findings: &mut Findings) {
    let name = cell(&peer.name);
    let observed = format!(
        "the mailbox of {name} is full: {} messages wait, and further messages are refused",
        peer.pending
    );
    let fix = match (peer.online, peer.held > peer.pending / 2, peer.offered > 0) {
        (_, true, _) => format!(
            "`peerctl inbox --held` lists the held messages; `peerctl release --to {name}` releases them"
        ),
        (true, _, true) => {
            format!("{name} reads its mail but does not confirm it: ask it to call ack_messages")
        }
        (true, ..) => format!("ask {name} to call check_messages"),
        (false, ..) => format!(
            "start {name} again, or withdraw messages with `peerctl cancel ID`; `peerctl inbox {name}` lists them"
        ),
    };
    findings.problem("mail", observed, "a mailbox with room", fix);
}

fn is_proved(peer: &PeerInfo) -> bool {
    peer.carriers.iter().any(|proof| proof.proven_at.is_some())
}

/// Reports a session that has mail and has never confirmed any.
fn unreached(peer: &PeerInfo, waiting_ms: u64, findings: &mut Findings) {
    let named = |carrier| peer.carriers.iter().any(|proof| proof.carrier == carrier);
    let fix = match peer.client.as_str() {
        // It was shown mail by a call of its own, and confirmed nothing.
        _ if peer.offered > 0 && !named(Carrier::Hook) => {
            "it reads its mail but does not confirm it: ask it to call ack_messages"
        }
        _ if named(Carrier::Hook) => {
            "it gets mail with the next prompt of its user, or with its next tool call"
        }
        "codex" => "trust the hooks in that session with /hooks, or ask it to call check_messages",
        "claude" => {
            "`peerctl setup claude`, then restart the session: hooks then deliver mail between two steps"
        }
        _ => "ask it to call check_messages: this client has no other way to get mail",
    };
    let observed = format!(
        "{} ({}) has had mail for {}, and nothing shows that its model saw any",
        cell(&peer.name),
        cell(&peer.client),
        span(waiting_ms)
    );
    if waiting_ms < WAITING_LONG_MS {
        findings.note("sessions", observed, fix);
    } else {
        findings.problem("sessions", observed, "a carrier that was proved to reach the model", fix);
    }
}

/// Counts the sessions, and finds two sessions of one process.
fn sessions(peers: &[PeerInfo], findings: &mut Findings) {
    let online: Vec<&PeerInfo> = peers.iter().filter(|peer| peer.online).collect();
    for (place, peer) in online.iter().enumerate() {
        // One process of Codex hosts many sessions.
        let twin = |other: &&&PeerInfo| {
            let same_process = other.client_pid.is_some() && other.client_pid == peer.client_pid;
            same_process && [other, peer].iter().all(|peer| peer.client == "claude")
        };
        if let Some(other) = online[..place].iter().find(twin) {
            findings.problem(
                "adapters",
                format!(
                    "{} and {} are sessions of the same Claude Code process",
                    cell(&other.name),
                    cell(&peer.name)
                ),
                "one session per process",
                "`claude mcp list` shows which entries start peerctl; keep one of them",
            );
        }
    }
    if !online.is_empty() {
        findings.good("sessions", format!("{} online", online.len()));
    }
}
