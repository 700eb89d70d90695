//! `peerctl peers`: who is here.

use peer_client::Endpoint;
use peer_proto::policy::Policy;
use peer_proto::request::{EventKind, PeerInfo, PeersQuery, Push, Request};
use peer_proto::text::single_line;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::operator::Operator;
use crate::output::{Output, Tone, age, beginning, cell, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl peers                  who is online, was until lately, or has mail
  peerctl peers --all            every peer that is remembered
  peerctl peers backend          all about one peer, and what reached it;
                                 exit 4 where there is none
  peerctl peers --state idle --client codex
  peerctl peers -w               again when somebody comes, goes or changes";

/// How much of what a peer does and of where it is the table shows: with both, and names of usual length, a line fits 80
/// columns.
const DOING_CHARS_MAX: usize = 24;
const WHERE_CHARS_MAX: usize = 20;

/// Who is here, what they are doing, and what waits for them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A name, an earlier name or an id: only this peer
    name: Option<String>,

    /// Print again when somebody comes, goes, is renamed or does something else
    #[arg(short, long)]
    watch: bool,

    /// Only peers of this state: their own word, or else what their client does
    #[arg(long, value_name = "STATE", conflicts_with = "name")]
    state: Option<String>,

    /// Only peers of this client
    #[arg(long, value_name = "CLIENT", conflicts_with = "name")]
    client: Option<String>,

    /// Also peers that have been offline for long
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    if !args.watch {
        return print(output, &args, &list(&operator, &args).await?);
    }
    // Watched before listed: what changes in between is seen twice rather than never.
    operator.ask_done(Request::Watch { peer: None, bodies: false }).await?;
    loop {
        let peers = list(&operator, &args).await?;
        if output.json {
            output.json_line(&json!({ "peers": peers.iter().map(json).collect::<Vec<_>>() }))?;
        } else {
            print(output, &args, &peers)?;
            output.line("")?;
        }
        loop {
            match operator.pushes.next().await {
                Some(Push::Event(event)) if is_about_presence(event.kind) => break,
                Some(_) => {}
                None => return Err(Failure::WatchEnded),
            }
        }
    }
}

fn is_about_presence(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::PeerOnline
            | EventKind::PeerOffline
            | EventKind::PeerRenamed
            | EventKind::PeerForgotten
            | EventKind::PeerChanged
    )
}

async fn list(operator: &Operator, args: &Args) -> Result<Vec<PeerInfo>, Failure> {
    if let Some(name) = &args.name {
        return Ok(vec![operator.peer(name).await?]);
    }
    operator
        .peers(PeersQuery { state: args.state.clone(), client: args.client.clone(), all: args.all, ..PeersQuery::default() })
        .await
}

fn print(output: &Output, args: &Args, peers: &[PeerInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json(&Value::Array(peers.iter().map(json).collect()));
    }
    if let (Some(_), [peer]) = (&args.name, peers) {
        return print_one(output, peer);
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    output.table(
        &["NAME", "CLIENT", "SEEN", "MAIL", "DOING", "WHERE"],
        &rows,
        "nobody is here; a client that runs `peerctl mcp` appears by itself",
    )?;
    let online = peers.iter().filter(|peer| peer.online).count();
    if !peers.is_empty() {
        output.remark(&output.paint(Tone::Faint, &format!("{online} of {} online", peers.len())));
    }
    Ok(())
}

/// One line of a table that fits a narrow terminal; [`print_one`] has all of it.
fn row(peer: &PeerInfo) -> Vec<String> {
    vec![
        cell(&peer.name),
        if peer.client.is_empty() { "-".to_owned() } else { cell(&peer.client) },
        seen(peer),
        mail(peer),
        beginning(&doing(peer), DOING_CHARS_MAX),
        end(&place(&peer.cwd), WHERE_CHARS_MAX),
    ]
}

fn print_one(output: &Output, peer: &PeerInfo) -> Result<(), Failure> {
    let known = |text: &str| if text.is_empty() { "-".to_owned() } else { single_line(text) };
    let mut facts = vec![("name", single_line(&peer.name)), ("id", peer.id.to_string())];
    if !peer.aliases.is_empty() {
        facts.push(("earlier", single_line(&peer.aliases.join(", "))));
    }
    let pid = peer.client_pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    facts.push(("client", format!("{} {}{pid}", known(&peer.client), single_line(&peer.client_version))));
    facts.push(("seen", seen(peer)));
    facts.push(("mail", format!("{} waiting, {} of it with its session", peer.pending, peer.leased)));
    facts.push(("inbound", peer.policy.as_str().to_owned()));
    facts.push(("mode", peer.mode.map_or("not known", |mode| mode.as_str()).to_owned()));
    let reached: Vec<_> = peer
        .carriers
        .iter()
        .map(|proof| match proof.proven_at {
            Some(at) => format!("{} {} ago", proof.carrier.as_str(), age(at)),
            None => format!("{} tried, not confirmed", proof.carrier.as_str()),
        })
        .collect();
    facts.push(("reached by", if reached.is_empty() { "nothing in this session".to_owned() } else { reached.join(", ") }));
    facts.push(("state", known(&peer.state)));
    facts.push(("task", known(&peer.task)));
    facts.push(("summary", known(&peer.summary)));
    facts.push(("directory", known(&peer.cwd)));
    facts.push(("repository", known(peer.git_root.as_deref().unwrap_or_default())));
    output.facts(&facts)
}

fn seen(peer: &PeerInfo) -> String {
    match (peer.online, peer.activity) {
        (true, Some(activity)) => activity.as_str().to_owned(),
        (true, None) => "online".to_owned(),
        (false, _) => format!("{} ago", age(peer.last_seen)),
    }
}

/// How much waits, and by which policy, where that is not the usual one.
fn mail(peer: &PeerInfo) -> String {
    match peer.policy {
        Policy::Accept => peer.pending.to_string(),
        policy => format!("{} {}", peer.pending, policy.as_str()),
    }
}

/// Its state and its task, or its summary where it names no task.
fn doing(peer: &PeerInfo) -> String {
    let what = if peer.task.is_empty() { &peer.summary } else { &peer.task };
    let parts = [&peer.state, what].map(|part| single_line(part));
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ")
}

/// A path, with `~` for the home directory.
fn place(path: &str) -> String {
    let path = single_line(path);
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix(home.trim_end_matches('/')) {
        Some(rest) if !home.is_empty() && (rest.is_empty() || rest.starts_with('/')) => format!("~{rest}"),
        _ => path,
    }
}

/// The end of a text says most about a path.
fn end(text: &str, chars_max: usize) -> String {
    let chars = text.chars().count();
    if chars <= chars_max {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(chars + 1 - chars_max)).collect()
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
        "activity": peer.activity.map(|activity| activity.as_str()),
        "mode": peer.mode.map(|mode| mode.as_str()),
        "policy": peer.policy.as_str(),
        "carriers": carriers,
    })
}
