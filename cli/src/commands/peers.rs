//! `peerctl peers`: who is here.

use peer_client::Endpoint;
use peer_proto::request::{EventKind, PeerInfo, PeersQuery, Push, Request};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::operator::Operator;
use crate::output::{Output, Tone, age, cell, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl peers                  those that are online, were until lately, or have mail
  peerctl peers --all            every peer that is remembered
  peerctl peers backend          one peer; exit 4 where there is none
  peerctl peers -w               again whenever somebody comes, goes or is renamed";

/// Who is here, what they are doing, and what waits for them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A name, an earlier name or an id: only this peer
    name: Option<String>,

    /// Print again when somebody comes, goes or is renamed
    #[arg(short, long)]
    watch: bool,

    /// Also peers that have been offline for long
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    if !args.watch {
        return print(output, &list(&operator, &args).await?);
    }
    // Watched before listed: what changes in between is seen twice rather than never.
    operator.ask_done(Request::Watch { peer: None, bodies: false }).await?;
    loop {
        let peers = list(&operator, &args).await?;
        if output.json {
            output.json_line(&json!({ "peers": peers.iter().map(json).collect::<Vec<_>>() }))?;
        } else {
            print(output, &peers)?;
            output.line("")?;
        }
        loop {
            match operator.pushes.next().await {
                Some(Push::Event(event)) if is_about_presence(event.kind) => break,
                Some(_) => {}
                None => return Err(Failure::Request(peer_client::RequestError::Lost)),
            }
        }
    }
}

fn is_about_presence(kind: EventKind) -> bool {
    matches!(kind, EventKind::PeerOnline | EventKind::PeerOffline | EventKind::PeerRenamed | EventKind::PeerForgotten)
}

async fn list(operator: &Operator, args: &Args) -> Result<Vec<PeerInfo>, Failure> {
    if let Some(name) = &args.name {
        return Ok(vec![operator.peer(name).await?]);
    }
    operator.peers(PeersQuery { all: args.all, ..PeersQuery::default() }).await
}

fn print(output: &Output, peers: &[PeerInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json(&Value::Array(peers.iter().map(json).collect()));
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    output.table(
        &["NAME", "CLIENT", "SEEN", "MAIL", "STATE", "DOING", "WHERE"],
        &rows,
        "nobody is here; a client that runs `peerctl mcp` appears by itself",
    )?;
    let online = peers.iter().filter(|peer| peer.online).count();
    if !peers.is_empty() {
        output.remark(&output.paint(Tone::Faint, &format!("{online} of {} online", peers.len())));
    }
    Ok(())
}

fn row(peer: &PeerInfo) -> Vec<String> {
    let doing = if peer.task.is_empty() { &peer.summary } else { &peer.task };
    vec![
        cell(&peer.name),
        if peer.client.is_empty() { "-".to_owned() } else { cell(&peer.client) },
        if peer.online { "online".to_owned() } else { format!("{} ago", age(peer.last_seen)) },
        peer.pending.to_string(),
        cell(&peer.state),
        cell(doing),
        cell(&peer.cwd),
    ]
}

fn json(peer: &PeerInfo) -> Value {
    let carriers: Vec<_> = peer
        .carriers
        .iter()
        .map(|proof| json!({ "name": proof.carrier.as_str(), "proven_at": proof.proven_at.map(rfc3339) }))
        .collect();
    json!({
        "id": peer.id.to_string(),
        "name": peer.name,
        "aliases": peer.aliases,
        "client": peer.client,
        "client_version": peer.client_version,
        "client_pid": peer.client_pid,
        "online": peer.online,
        "cwd": peer.cwd,
        "git_root": peer.git_root,
        "repo": peer.repo,
        "host": peer.host,
        "summary": peer.summary,
        "state": peer.state,
        "task": peer.task,
        "pending": peer.pending,
        "leased": peer.leased,
        "last_seen": rfc3339(peer.last_seen),
        "carriers": carriers,
    })
}
