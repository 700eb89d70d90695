//! `peerctl peers`: lists the peers.
//!
//! Knows the columns of the table. Does not know when a peer counts as online: the broker decides.

use std::collections::BTreeSet;

use peer_client::Endpoint;
use peer_proto::hook::{Activity, Mode};
use peer_proto::policy::Policy;
use peer_proto::request::{CarrierProof, Pausing, PeerInfo, PeersQuery, Push, Request, WatchEvent};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::{pause, status};
use crate::error::Failure;
use crate::json::Time;
use crate::operator::{self, Operator};
use crate::output::{Output, Tone, age, beginning, cell};

const AFTER_HELP: &str = "\
Examples:
  peerctl peers                  online peers, recent ones, and those with mail
  peerctl peers --all            every known peer
  peerctl peers --remote         also those of other machines
  peerctl peers backend          all about one peer, and how mail reached it;
                                 exit code 4 if there is none
  peerctl peers --state idle --client codex
  peerctl peers -w               print again at every change";

/// Most characters in the columns for a peer's work and directory. With both, and with names of
/// usual length, a line fits 80 columns.
const DOING_CHARS_MAX: usize = 24;
const WHERE_CHARS_MAX: usize = 20;

/// List peers: who is here, what they do, and how much mail waits
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only this peer: a name, an earlier name or an id
    name: Option<String>,

    /// Print again when a peer comes, goes, is renamed or changes its state
    #[arg(short, long)]
    watch: bool,

    /// Only peers in this state: the state that they set, or else the one of their client
    #[arg(long, value_name = "STATE", conflicts_with = "name")]
    state: Option<String>,

    /// Only peers of this client
    #[arg(long, value_name = "CLIENT", conflicts_with = "name")]
    client: Option<String>,

    /// Also peers that have been offline for long
    #[arg(long)]
    all: bool,

    /// Also peers of other machines
    #[arg(long, conflicts_with = "name")]
    remote: bool,
}

/// A peer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PeerRow {
    id: String,
    name: String,
    /// Earlier names, which still lead to this peer.
    aliases: Vec<String>,
    /// `claude`, `codex` or another; empty for the person.
    client: String,
    client_version: String,
    /// The client's process, while the peer is online.
    client_pid: Option<u32>,
    /// Whether a session that receives its mail is connected.
    online: bool,
    cwd: String,
    git_root: Option<String>,
    repo: Option<String>,
    host: String,
    /// What the peer is doing, in its own words.
    summary: String,
    /// Its state, in its own words.
    state: String,
    /// Its task, in its own words.
    task: String,
    /// Messages that wait for it, leased ones included.
    pending: u64,
    /// Messages that its session holds.
    leased: u64,
    last_seen: Time,
    /// Whether its model is at work, if that is known.
    activity: Option<&'static str>,
    /// What the session may do without asking, if that is known.
    mode: Option<&'static str>,
    /// The policy for mail to this peer.
    policy: &'static str,
    /// The waiting messages that are held for your decision.
    held: u64,
    /// Messages that a carrier of its session had, without evidence that the model saw them.
    offered: u64,
    /// Whether its mailbox is full.
    full: bool,
    /// Whether you paused its sends.
    paused: bool,
    /// The link that it is reached by; null for a peer of this machine.
    link: Option<String>,
    /// Whether you keep it out of what other machines are told.
    hidden: bool,
    carriers: Vec<CarrierRow>,
}

/// A way by which mail can reach the model of a session.
#[derive(Debug, Serialize, JsonSchema)]
struct CarrierRow {
    name: &'static str,
    /// When it was last proved in this session; null if it never was.
    proven_at: Option<Time>,
}

impl From<&PeerInfo> for PeerRow {
    fn from(peer: &PeerInfo) -> Self {
        let carrier = |proof: &CarrierProof| CarrierRow {
            name: proof.carrier.as_str(),
            proven_at: proof.proven_at.map(Time),
        };
        Self {
            id: peer.id.to_string(),
            name: peer.name.clone(),
            aliases: peer.aliases.clone(),
            client: peer.client.clone(),
            client_version: peer.client_version.clone(),
            client_pid: peer.client_pid,
            online: peer.online,
            cwd: peer.cwd.clone(),
            git_root: peer.git_root.clone(),
            repo: peer.repo.clone(),
            host: peer.host.clone(),
            summary: peer.summary.clone(),
            state: peer.state.clone(),
            task: peer.task.clone(),
            pending: peer.pending,
            leased: peer.leased,
            last_seen: Time(peer.last_seen),
            activity: peer.activity.map(Activity::as_str),
            mode: peer.mode.map(Mode::as_str),
            policy: peer.policy.as_str(),
            held: peer.held,
            offered: peer.offered,
            full: peer.full,
            paused: peer.paused,
            link: peer.link.as_ref().map(|link| link.name.clone()),
            hidden: peer.hidden,
            carriers: peer.carriers.iter().map(carrier).collect(),
        }
    }
}

/// All peers, printed at each change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PeersNow {
    peers: Vec<PeerRow>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    if !args.watch {
        return print(output, &args, &operator, &list(&operator, &args).await?).await;
    }
    loop {
        match watch(&args, output, &mut operator).await {
            Err(failure) if failure.is_lost() => {
                operator = operator::reconnect(output, endpoint).await?
            }
            ended => return ended,
        }
    }
}

/// Prints the list again at each change. Ends only with the connection.
async fn watch(args: &Args, output: &Output, operator: &mut Operator) -> Result<(), Failure> {
    // Watches before it lists: a change in between is seen twice, not never.
    operator.ask_done(Request::Watch { peer: None, bodies: false }).await?;
    loop {
        let peers = list(operator, args).await?;
        if output.json {
            output.json_line(&PeersNow { peers: peers.iter().map(PeerRow::from).collect() })?;
        } else {
            print(output, args, operator, &peers).await?;
            output.line("")?;
        }
        loop {
            match operator.pushes.next().await {
                Some(Push::Event { event, .. }) if is_about_presence(&event) => break,
                Some(_) => {}
                None => return Err(Failure::watch_ended()),
            }
        }
    }
}

fn is_about_presence(event: &WatchEvent) -> bool {
    matches!(
        event,
        WatchEvent::PeerOnline { .. }
            | WatchEvent::PeerOffline { .. }
            | WatchEvent::PeerRenamed { .. }
            | WatchEvent::PeerForgotten { .. }
            | WatchEvent::PeerChanged { .. }
            | WatchEvent::Paused(_)
            | WatchEvent::Resumed(_)
            | WatchEvent::Loop { .. }
    )
}

async fn list(operator: &Operator, args: &Args) -> Result<Vec<PeerInfo>, Failure> {
    if let Some(name) = &args.name {
        return Ok(vec![operator.peer(name).await?]);
    }
    operator
        .peers(PeersQuery {
            state: args.state.clone(),
            client: args.client.clone(),
            all: args.all,
            remote: args.remote,
            ..PeersQuery::default()
        })
        .await
}

async fn print(
    output: &Output,
    args: &Args,
    operator: &Operator,
    peers: &[PeerInfo],
) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(peers.iter().map(PeerRow::from));
    }
    if let (Some(_), [peer]) = (&args.name, peers) {
        return print_one(output, peer);
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    let nobody = if peers.is_empty() { nobody(args, operator).await? } else { String::new() };
    output.table(&["NAME", "CLIENT", "SEEN", "MAIL", "DOING", "WHERE"], &rows, &nobody)?;
    let online = peers.iter().filter(|peer| peer.online).count();
    if !peers.is_empty() {
        output.remark(&output.paint(Tone::Faint, &format!("{online} of {} online", peers.len())));
    }
    let status = status::ask(operator).await?;
    let everything = status.paused.contains(&Pausing::All);
    if everything || !status.used_up.is_empty() {
        let all: &[Pausing] = if everything { &[Pausing::All] } else { &[] };
        output.remark(&format!("paused: {}", pause::told_with(all, &status.used_up)));
    }
    Ok(())
}

/// Why the list is empty: no peer is there, or none matches.
async fn nobody(args: &Args, operator: &Operator) -> Result<String, Failure> {
    let here = operator.peers(PeersQuery::default()).await?;
    let online: Vec<&PeerInfo> = here.iter().filter(|peer| peer.online).collect();
    let named = |texts: Vec<String>| {
        let texts: BTreeSet<String> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let texts: Vec<String> = texts.into_iter().collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    Ok(match (&args.state, &args.client) {
        _ if online.is_empty() => {
            "no peers; each client that runs `peerctl mcp` appears here by itself".to_owned()
        }
        (None, None) => "no peers".to_owned(),
        (Some(state), None) => format!(
            "no peer is in state {:?} ({} online); existing states: {}",
            single_line(state),
            online.len(),
            named(online.iter().map(|peer| present_state(peer)).collect())
        ),
        (None, Some(client)) => format!(
            "no peer has client {:?} ({} online); existing clients: {}",
            single_line(client),
            online.len(),
            named(online.iter().map(|peer| cell(&peer.client)).collect())
        ),
        (Some(state), Some(client)) => format!(
            "no peer has client {:?} and state {:?} ({} online); `peerctl peers` lists them",
            single_line(client),
            single_line(state),
            online.len()
        ),
    })
}

/// The state that the peer set, or else the state of its client.
fn present_state(peer: &PeerInfo) -> String {
    match (peer.state.as_str(), peer.activity) {
        ("", Some(activity)) => activity.as_str().to_owned(),
        (state, _) => cell(state),
    }
}

/// One line that fits a narrow terminal; [`print_one`] prints all.
fn row(peer: &PeerInfo) -> Vec<String> {
    vec![
        match peer.policy {
            Policy::Accept => cell(&peer.name),
            policy => format!("{} ({})", cell(&peer.name), policy.as_str()),
        },
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
    facts.push((
        "client",
        format!("{} {}{pid}", known(&peer.client), single_line(&peer.client_version)),
    ));
    facts.push(("seen", seen(peer)));
    facts.push(("mail", letters(peer)));
    if peer.paused {
        facts.push((
            "paused",
            format!("by you; `peerctl resume {}` ends the pause", cell(&peer.name)),
        ));
    }
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
    facts.push((
        "reached by",
        if reached.is_empty() { "nothing in this session".to_owned() } else { reached.join(", ") },
    ));
    // A state that was set before the session ended is not current.
    let (state, task) = if peer.online { ("state", "task") } else { ("was", "its task was") };
    facts.push((state, known(&peer.state)));
    facts.push((task, known(&peer.task)));
    facts.push(("summary", known(&peer.summary)));
    facts.push(("directory", known(&peer.cwd)));
    facts.push(("repository", known(peer.git_root.as_deref().unwrap_or_default())));
    output.facts(&facts)
}

fn seen(peer: &PeerInfo) -> String {
    match (peer.online, peer.activity) {
        _ if peer.paused => "paused by you".to_owned(),
        (true, Some(activity)) => activity.as_str().to_owned(),
        (true, None) => "online".to_owned(),
        (false, _) => format!("{} ago", age(peer.last_seen)),
    }
}

/// The number of waiting messages, and of held ones among them.
fn mail(peer: &PeerInfo) -> String {
    match (peer.held, peer.full) {
        (0, false) => peer.pending.to_string(),
        (0, true) => format!("{} (full)", peer.pending),
        (held, _) => format!("{} ({held} held)", peer.pending),
    }
}

/// The same in words.
fn letters(peer: &PeerInfo) -> String {
    let mut said =
        format!("{} waiting, {} of them leased to its session", peer.pending, peer.leased);
    if peer.held > 0 {
        said.push_str(&format!(", {} held until you release it", peer.held));
    }
    if peer.full {
        said.push_str("; its mailbox is full, and further messages are refused");
    }
    said
}

/// The state and the task; the summary if no task is set.
fn doing(peer: &PeerInfo) -> String {
    let what = if peer.task.is_empty() { &peer.summary } else { &peer.task };
    let parts = [&peer.state, what].map(|part| single_line(part));
    let said = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ");
    // A state that was set before the session ended is not current.
    if peer.online || said.is_empty() { said } else { format!("was {said}") }
}

/// A path, with `~` for the home directory.
fn place(path: &str) -> String {
    let path = single_line(path);
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix(home.trim_end_matches('/')) {
        Some(rest) if !home.is_empty() && (rest.is_empty() || rest.starts_with('/')) => {
            format!("~{rest}")
        }
        _ => path,
    }
}

/// The end of a text, because the end of a path says most.
fn end(text: &str, chars_max: usize) -> String {
    let chars = text.chars().count();
    if chars <= chars_max {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(chars + 1 - chars_max)).collect()
}
