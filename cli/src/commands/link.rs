//! `peerctl link`: joins this broker to others, over ssh or a NATS server.
//!
//! The process that serves them is in `process`, what starts it in `service`, the trial of a link in
//! `trial`, teams in `team`. Knows the two places of a link: `links.toml` says how it is reached, and
//! the broker has what the person decided. Does not know how frames are carried.

pub(crate) mod process;
pub(crate) mod service;
#[cfg(feature = "nats")]
pub(crate) mod team;
pub(crate) mod trial;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Subcommand;
use peer_client::Reconnect;
use peer_client::{Endpoint, Start};
use peer_link::file::{self, FileError, Target};
use peer_link::identity::{self, IdentityError};
use peer_link::run::{self, AttemptError, Caller, RunError};
use peer_link::serve::{Ended, Opened};
use peer_link::served::{self, LockError, Seen, SeenMember, State};
use peer_link::ssh;
use peer_proto::ids::BrokerId;
use peer_proto::link::{LinkInfo, LinksRequest, Share};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Reply, Request, Role};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, age, cell, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl link add desk --ssh desk.example     add a link and try it
  peerctl link start                           serve all links from now on
  peerctl link service install                 also after the next login
  peerctl link ls                              the links, and what waits
  peerctl peers --remote                       also the peers of other machines
  peerctl send luna@desk -- \"are you there?\"   write to one of them
  peerctl link set desk accept                 deliver its mail without asking
  peerctl link test desk                       find out why it is down
  peerctl link hide luna                       do not tell others of luna
  peerctl link rm desk

A link uses the ssh that you have: `ssh HOST peerctl --version` must work
without a question. The broker opens no network socket.
Mail of a machine that you call waits until you release it, unless you accept
it. Mail that you send there is accepted, because you can run commands there.
Many machines meet at one NATS server: see `peerctl link team --help`.";

/// Where `peerctl` may lie on the other machine, if it is not on the path of a shell there.
const COMMANDS: [&str; 3] = ["peerctl", "~/.cargo/bin/peerctl", "~/.local/bin/peerctl"];

/// The variable that sshd sets if the key may run one command only.
const FORCED: &str = "SSH_ORIGINAL_COMMAND";

/// Join this broker to those of other machines
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The far end of a link, on stdin and stdout; ssh starts it
    #[arg(long, hide = true)]
    stdio: bool,

    /// What to call the machine that calls
    #[arg(long = "as", value_name = "NAME", hide = true)]
    alias: Option<String>,

    #[command(subcommand)]
    command: Option<LinkCommand>,
}

#[derive(Debug, Subcommand)]
enum LinkCommand {
    /// Add a link over ssh, and try it
    Add {
        /// What to call the other machine: its peers are PEER@NAME
        name: String,
        /// The host, as `ssh` takes it
        #[arg(long, value_name = "HOST")]
        ssh: String,
        /// Where `peerctl` lies on the other machine
        #[arg(long, value_name = "PATH")]
        command: Option<String>,
        /// Deliver mail of the other machine without asking
        #[arg(long, conflicts_with = "hold")]
        accept: bool,
        /// Hold mail of the other machine until you release it; the default
        #[arg(long)]
        hold: bool,
    },
    /// List the links
    Ls,
    /// Change what holds for a link
    Set {
        /// The link
        name: String,
        /// accept, hold, refuse, wake, no-wake, or share=none, share=names or share=summaries
        what: String,
    },
    /// Give a link another name
    Rename {
        /// The link
        name: String,
        /// The new name
        new_name: String,
    },
    /// Forget a link and its peers; mail that waits for them becomes dead letters
    Rm {
        /// The link
        name: String,
    },
    /// Keep a peer out of what other machines are told
    Hide {
        /// A name or id
        peer: String,
        /// Tell them of it again
        #[arg(long)]
        undo: bool,
    },
    /// Show one link, how it is reached, and why it is down
    Show {
        /// The link
        name: String,
    },
    /// Ask the other machine who it is, over ssh; a link that is up stays up
    Test {
        /// The link
        name: String,
    },
    /// Serve all links in the background
    Start,
    /// End the process that serves the links; mail waits
    Stop,
    /// Serve all links in the foreground
    Run {
        /// In a session of its own, for `link start`
        #[arg(long, hide = true)]
        detached: bool,
    },
    /// Show how the system would start the process of links, or let it do that
    Service {
        #[command(subcommand)]
        command: Option<service::ServiceCommand>,
    },
    /// Join many machines over one NATS server
    #[cfg(feature = "nats")]
    Team(team::Args),
    /// Look for a machine in the directories of your teams
    #[cfg(feature = "nats")]
    Find {
        /// A part of its name or identity
        text: String,
    },
    /// Show the identity of this broker
    Identity {
        /// Give it a new one, as on a copy of a machine; all links begin anew
        #[arg(long)]
        new: bool,
    },
}

/// A link.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkRow {
    name: String,
    /// How it is reached: `ssh`, `nats`, or null if this machine only answers.
    kind: Option<&'static str>,
    /// The other broker.
    broker: String,
    /// `up`, `connecting`, `down`, `refused`, or `off` if no process serves it.
    state: &'static str,
    /// Since when it is in this state, if that is known.
    since: Option<String>,
    /// When the other machine was last heard of.
    heard_at: Option<String>,
    /// What becomes of its mail: `accept`, `hold` or `refuse`.
    policy: &'static str,
    /// Whether its requests may wake their recipients.
    wake: bool,
    /// What it is told: `none`, `names` or `summaries`.
    share: &'static str,
    /// Its peers that are known here.
    peers: u64,
    /// Deliveries that wait to be sent.
    waiting: u64,
    /// Deliveries on their way.
    in_flight: u64,
    /// Deliveries that are stored there and not settled.
    relayed: u64,
    /// Deliveries from there that are held.
    held: u64,
    /// Why it is down, if the process that serves it knows.
    error: Option<String>,
}

/// A link, and how it is reached.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkShown {
    #[serde(flatten)]
    row: LinkRow,
    /// The host, as `ssh` takes it; null if this machine only answers.
    ssh: Option<String>,
    /// Where `peerctl` lies there.
    command: Option<String>,
    /// The team over whose server it is reached.
    team: Option<String>,
    /// The process that serves the links here, if one does and the system tells it.
    pid: Option<u32>,
}

/// This broker's identity.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Identity {
    broker: String,
    /// The version of this `peerctl`.
    version: &'static str,
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let hint = error.hint();
        Self::wrong(error.to_string()).hint(hint)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::wrong(error.to_string())
            .hint("correct the file, or remove it and add the links again")
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Identity(error) => error.into(),
            RunError::File(error) => error.into(),
            RunError::Lock(LockError::Running(_)) => Self::wrong(error.to_string())
                .hint("`peerctl link ls` shows how they are, `peerctl link stop` ends it"),
            RunError::Lock(LockError::Io { .. }) => {
                Self::wrong(error.to_string()).hint("check its owner and mode")
            }
            RunError::Signal(error) => Self::system("waiting for a signal", error),
            RunError::None => {
                Self::wrong(error.to_string()).hint("`peerctl link add NAME --ssh HOST` adds one")
            }
        }
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Broker(error) => error.into(),
            Ended::Refused(refusal) => Self::from(peer_client::RequestError::Refused(refusal)),
            ended => Self::wrong(ended.to_string()),
        }
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Ended {
                ended: ended @ (Ended::Broker(_) | Ended::Refused(_)), ..
            } => ended.into(),
            error => Self::wrong(error.to_string()),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    if args.stdio {
        return answer(args.alias, endpoint).await;
    }
    let Some(command) = args.command else {
        return Err(Failure::usage("no command was given")
            .hint("`peerctl link --help` lists the commands of links"));
    };
    match command {
        LinkCommand::Add { name, ssh, command, accept, .. } => {
            let policy = if accept { Policy::Accept } else { Policy::Hold };
            add(output, endpoint, &name, &ssh, command, policy).await
        }
        LinkCommand::Ls => {
            let links = ask(endpoint, LinksRequest::List).await?;
            list(output, endpoint, &links)
        }
        LinkCommand::Set { name, what } => {
            let request = setting(&name, &what)?;
            let links = ask(endpoint, request).await?;
            list(output, endpoint, &links)
        }
        LinkCommand::Rename { name, new_name } => rename(output, endpoint, &name, new_name).await,
        LinkCommand::Rm { name } => remove(output, endpoint, name).await,
        LinkCommand::Hide { peer, undo } => {
            let links = ask(endpoint, LinksRequest::Hide { peer, hidden: !undo }).await?;
            list(output, endpoint, &links)
        }
        LinkCommand::Show { name } => show(output, endpoint, &name).await,
        LinkCommand::Test { name } => trial::run(output, endpoint, name).await,
        #[cfg(feature = "nats")]
        LinkCommand::Team(args) => team::run(args, output, endpoint).await,
        #[cfg(feature = "nats")]
        LinkCommand::Find { text } => team::find(output, endpoint, &text).await,
        LinkCommand::Start => process::start(output, endpoint).await,
        LinkCommand::Stop => process::stop(output, &endpoint.location).await,
        LinkCommand::Run { detached } => process::serve(output, endpoint, detached).await,
        LinkCommand::Service { command } => service::run(command, output, endpoint).await,
        LinkCommand::Identity { new: false } => {
            tell_identity(output, caller(endpoint).await?.own, "")
        }
        LinkCommand::Identity { new: true } => identify(output, endpoint).await,
    }
}

fn tell_identity(output: &Output, own: BrokerId, remark: &str) -> Result<(), Failure> {
    if output.json {
        let version = env!("CARGO_PKG_VERSION");
        return output.json(&Identity { broker: own.to_string(), version });
    }
    output.line(&format!("{own}{remark}"))
}

/// Gives this broker another identity. The broker is asked first, because it may refuse; if the key
/// is not in its place then, the same command mends that.
async fn identify(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    let draft = identity::Draft::make(endpoint.location.dir())?;
    process::end(&endpoint.location).await?;
    operator.ask(Request::Links(LinksRequest::Identify { own: draft.id })).await?;
    let own = draft.put()?;
    let remark = " is this broker now; mail that waited for other machines is a dead letter\n`peerctl link start` serves the links again, and each begins anew";
    tell_identity(output, own, remark)
}

async fn ask(endpoint: &Endpoint, request: LinksRequest) -> Result<Vec<LinkInfo>, Failure> {
    let operator = Operator::connect(endpoint).await?;
    match operator.ask(Request::Links(request)).await? {
        Reply::Links(links) => Ok(links),
        _ => Err(unexpected()),
    }
}

/// This machine, as it calls and answers others. Makes its identity if it has none.
async fn caller(endpoint: &Endpoint) -> Result<Caller, Failure> {
    // The broker makes the directory, and checks its owner and mode.
    if !endpoint.location.dir().exists() {
        Operator::connect(endpoint).await?;
    }
    let own = identity::own(endpoint.location.dir())?;
    let executable = endpoint.executable.display().to_string();
    Ok(Caller { endpoint: endpoint.clone(), own, executable, name: machine_name() })
}

/// What this machine calls itself: the beginning of its host name, in letters that a name may have.
fn machine_name() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy();
    let first = host.split('.').next().unwrap_or_default();
    let name: String = first
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || *character == '-')
        .take(24)
        .collect();
    let name = name.trim_start_matches('-').to_lowercase();
    if name.is_empty() { "machine".to_owned() } else { name }
}

/// Serves the far end.
async fn answer(alias: Option<String>, endpoint: &Endpoint) -> Result<(), Failure> {
    // Who may run any command here gains nothing by a message. Who may run one command only does, so
    // its mail is held.
    let is_forced = std::env::var_os(FORCED).is_some();
    let policy = if is_forced { Policy::Hold } else { Policy::Accept };
    // The other machine does not start this one's broker.
    let never = Endpoint { start: Start::Never, ..endpoint.clone() };
    let Err(ended) = run::answer(&caller(&never).await?, alias, policy).await;
    match ended {
        // The caller went, or said goodbye: nothing is wrong here.
        Ended::Wire(peer_link::wire::WireError::Ended)
        | Ended::Stopped(peer_link_core::Stopped::Bye(_)) => Ok(()),
        ended => Err(ended.into()),
    }
}

async fn add(
    output: &Output,
    endpoint: &Endpoint,
    name: &str,
    host: &str,
    command: Option<String>,
    policy: Policy,
) -> Result<(), Failure> {
    if !ssh::is_host(host) {
        return Err(Failure::usage(format!("{:?} is no host", single_line(host)))
            .hint("name it as you would to `ssh`"));
    }
    let command = match command {
        Some(command) => command,
        None => find(host).await?,
    };
    let caller = caller(endpoint).await?;
    let target = Target { ssh: host.to_owned(), command, broker: None };
    let mut found = None;
    let mut broker = Reconnect::new(endpoint.clone(), Role::Link);
    let tried = run::call(&caller, &mut broker, (name, &target), policy, |opened| {
        found = Some(opened);
        false
    });
    let Err(error) = tried.await;
    let Some(Opened { remote, alias, policy: known, software }) = found else {
        return Err(Failure::from(error)
            .hint(format!("`ssh {host} {} link ls` shows how it is there", target.command)));
    };
    let target = Target { broker: Some(remote.to_string()), ..target };
    file::put(endpoint.location.dir(), &alias, &target)?;
    let is_served = process::reload(&endpoint.location);
    let links = if known == policy {
        ask(endpoint, LinksRequest::List).await?
    } else {
        let request = LinksRequest::Set {
            link: alias.clone(),
            policy: Some(policy),
            wake: None,
            share: None,
        };
        ask(endpoint, request).await?
    };
    if output.json {
        return list(output, endpoint, &of(&links, remote));
    }
    let mut text = String::new();
    let _ =
        writeln!(text, "{alias} is {remote}, peerctl {software}; this broker is {}", caller.own);
    let _ = match policy {
        Policy::Accept => writeln!(text, "its mail is delivered without asking you"),
        _ => writeln!(
            text,
            "its mail waits until you release it, because its machine has no rights here; `peerctl link set {alias} accept` changes that"
        ),
    };
    let _ = match is_served {
        true => write!(text, "the link is served"),
        false => write!(text, "`peerctl link start` serves the link"),
    };
    let _ = write!(text, "; then `peerctl peers --remote` lists its peers as PEER@{alias}");
    output.line(&text)
}

/// Finds `peerctl` on the other machine.
async fn find(host: &str) -> Result<String, Failure> {
    let mut said = None;
    for command in COMMANDS {
        let (child, _stdout, stdin) = ssh::start(host, command, &["--version"])
            .map_err(|error| Failure::system("starting ssh", error))?;
        drop(stdin);
        match child.wait().await {
            (true, _) => return Ok(command.to_owned()),
            (false, last) => said = last.or(said),
        }
    }
    let said = said.map(|said| format!(": {}", single_line(&said))).unwrap_or_default();
    Err(Failure::wrong(format!("`ssh {host} peerctl --version` does not work{said}"))
        .hint("make that command work first, or name the path with --command"))
}

fn setting(link: &str, what: &str) -> Result<LinksRequest, Failure> {
    let (mut policy, mut wake, mut share) = (None, None, None);
    match what {
        "wake" => wake = Some(true),
        "no-wake" => wake = Some(false),
        "share=none" => share = Some(Share::None),
        "share=names" => share = Some(Share::Names),
        "share=summaries" => share = Some(Share::Summaries),
        _ => match what.parse() {
            Ok(known) => policy = Some(known),
            Err(_) => {
                let what = single_line(what);
                return Err(Failure::usage(format!("a link cannot be set to {what:?}")).hint(
                    "use accept, hold, refuse, wake, no-wake, share=none, share=names or share=summaries",
                ));
            }
        },
    }
    Ok(LinksRequest::Set { link: link.to_owned(), policy, wake, share })
}

async fn rename(
    output: &Output,
    endpoint: &Endpoint,
    name: &str,
    new_name: String,
) -> Result<(), Failure> {
    let dir = endpoint.location.dir();
    let links =
        ask(endpoint, LinksRequest::Rename { link: name.to_owned(), new_name: new_name.clone() })
            .await?;
    file::rename(dir, name, &new_name)?;
    process::reload(&endpoint.location);
    list(output, endpoint, &links)
}

async fn remove(output: &Output, endpoint: &Endpoint, name: String) -> Result<(), Failure> {
    let links = ask(endpoint, LinksRequest::Remove { link: name.clone() }).await?;
    file::remove(endpoint.location.dir(), &name)?;
    process::reload(&endpoint.location);
    list(output, endpoint, &links)
}

fn of(links: &[LinkInfo], remote: BrokerId) -> Vec<LinkInfo> {
    links.iter().filter(|link| link.broker == remote).cloned().collect()
}

/// How the links are, from both who know it: the broker, and the process that serves them.
struct Known {
    targets: BTreeMap<String, Target>,
    served: Option<served::Served>,
    members: BTreeMap<String, SeenMember>,
}

impl Known {
    fn look(endpoint: &Endpoint) -> Result<Self, Failure> {
        let file = file::read(endpoint.location.dir())?;
        let served = served::look(&endpoint.location);
        let mut members = served::members(&endpoint.location);
        members.retain(|_, member| file.team.contains_key(&member.team));
        Ok(Self { targets: file.link, served, members })
    }

    /// The member of a team that this link leads to, unless another way is configured.
    fn member(&self, link: &LinkInfo) -> Option<&SeenMember> {
        let member = self.members.get(&link.broker.to_string());
        member.filter(|_| !self.targets.contains_key(&link.name))
    }

    fn seen(&self, link: &LinkInfo) -> Option<&Seen> {
        let served = self.served.as_ref()?;
        served.links.get(&link.name).or_else(|| self.member(link).map(|member| &member.seen))
    }

    fn state(&self, link: &LinkInfo) -> &'static str {
        if link.up {
            return "up";
        }
        if !self.targets.contains_key(&link.name) && self.member(link).is_none() {
            // The other machine calls.
            return "down";
        }
        match self.seen(link).map(|seen| seen.state) {
            None => "off",
            Some(State::Connecting) => "connecting",
            Some(State::Refused) => "refused",
            // The process may know sooner than the broker that it is up, and later.
            Some(State::Down | State::Up) => "down",
        }
    }

    fn row(&self, link: &LinkInfo) -> LinkRow {
        let seen = self.seen(link).filter(|_| !link.up);
        let since = link.since.or(seen.map(|seen| seen.since));
        LinkRow {
            kind: match (self.targets.contains_key(&link.name), self.member(link)) {
                (true, _) => Some("ssh"),
                (false, Some(_)) => Some("nats"),
                (false, None) => None,
            },
            name: link.name.clone(),
            broker: link.broker.to_string(),
            state: self.state(link),
            since: since.map(rfc3339),
            heard_at: link.heard_at.map(rfc3339),
            policy: link.policy.as_str(),
            wake: link.wake,
            share: link.share.as_str(),
            peers: link.peers,
            waiting: link.waiting,
            in_flight: link.in_flight,
            relayed: link.relayed,
            held: link.held,
            error: seen.and_then(|seen| seen.error.clone()),
        }
    }
}

fn mail(link: &LinkInfo) -> String {
    format!("{}{}", link.policy.as_str(), if link.wake { "" } else { ", no wake" })
}

fn list(output: &Output, endpoint: &Endpoint, links: &[LinkInfo]) -> Result<(), Failure> {
    let known = Known::look(endpoint)?;
    if output.json {
        return output.json(&links.iter().map(|link| known.row(link)).collect::<Vec<_>>());
    }
    let cells = |link: &LinkInfo| {
        vec![
            cell(&link.name),
            known.state(link).to_owned(),
            link.heard_at.map_or_else(|| "never".to_owned(), age),
            mail(link),
            link.peers.to_string(),
            (link.waiting + link.in_flight).to_string(),
            link.relayed.to_string(),
            link.held.to_string(),
        ]
    };
    let rows: Vec<_> = links.iter().map(cells).collect();
    output.table(
        &["LINK", "STATE", "HEARD", "MAIL", "PEERS", "WAITING", "RELAYED", "HELD"],
        &rows,
        "no links; `peerctl link add NAME --ssh HOST` adds one",
    )?;
    if known.served.is_none() && links.iter().any(|link| known.state(link) == "off") {
        output.remark("no process serves the links; `peerctl link start` starts one");
    }
    Ok(())
}

async fn show(output: &Output, endpoint: &Endpoint, name: &str) -> Result<(), Failure> {
    let links = ask(endpoint, LinksRequest::List).await?;
    let known = Known::look(endpoint)?;
    let Some(link) = links.iter().find(|link| link.name == name) else {
        return Err(no_such_link(name));
    };
    let target = known.targets.get(name);
    let pid = known.served.as_ref().and_then(|served| served.pid);
    let row = known.row(link);
    if output.json {
        return output.json(&LinkShown {
            row,
            ssh: target.map(|target| target.ssh.clone()),
            command: target.map(|target| target.command.clone()),
            team: known.member(link).map(|member| member.team.clone()),
            pid,
        });
    }
    let reached = match (target, known.member(link)) {
        (Some(target), _) => cell(&format!("ssh {} {}", target.ssh, target.command)),
        (None, Some(member)) => format!("team {}", cell(&member.team)),
        (None, None) => "that machine calls this one".to_owned(),
    };
    let mut facts = vec![
        ("link", cell(&link.name)),
        ("broker", link.broker.to_string()),
        ("reached by", reached),
        ("state", row.state.to_owned()),
        ("since", row.since.unwrap_or_else(|| "unknown".to_owned())),
        ("heard of", link.heard_at.map_or_else(|| "never".to_owned(), age)),
        ("its mail", mail(link)),
        ("is told", link.share.as_str().to_owned()),
        ("peers", link.peers.to_string()),
        ("waiting", link.waiting.to_string()),
        ("on the way", link.in_flight.to_string()),
        ("relayed", link.relayed.to_string()),
        ("held", link.held.to_string()),
    ];
    if let Some(error) = &row.error {
        facts.push(("error", cell(error)));
    }
    output.facts(&facts)?;
    match row.state {
        "off" => output.remark("`peerctl link start` starts a process that serves the links"),
        "down" | "refused" if target.is_some() => {
            output.remark(&format!("`peerctl link test {name}` tries ssh alone"));
        }
        "down" if known.member(link).is_some() => {
            output.remark(&format!("`peerctl link test {name}` asks whether it is there"));
        }
        _ => {}
    }
    Ok(())
}

fn no_such_link(name: &str) -> Failure {
    Failure::not_found(ErrorCode::UnknownLink.as_str(), format!("no link is called {name:?}"))
        .hint("`peerctl link ls` lists them")
}
