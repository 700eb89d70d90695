//! `peerctl pause` and `peerctl resume`: decide whether agents may send.
//!
//! Does not know which sends a pause refuses: the broker decides.

use peer_client::Endpoint;
use peer_proto::brake::UsedUpThread;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Pausing, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::Time;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, cell};

/// The prefix of the threads without a chosen name.
const THREAD_PREFIX: &str = "t-";

const AFTER_PAUSE: &str = "\
Examples:
  peerctl pause backend              sends of this session are refused
  peerctl pause t-0K3M9Q             sends of agents in this thread
  peerctl pause --thread release     a thread with a chosen name
  peerctl pause all                  sends of all agents

You are never paused, and messages sent before are still delivered. A pause
outlives the broker. `peerctl status` shows all pauses, and `peerctl resume`
ends one.";

const AFTER_RESUME: &str = "\
Examples:
  peerctl resume backend
  peerctl resume t-0K3M9Q            reset the turns of its agents
  peerctl resume all                 end all pauses

If agents used up the turns of a thread (limits.thread_turns_max), it is paused
as well. `resume THREAD`, or a message from you in it, ends that pause.";

/// Refuse the sends of agents until you resume
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_PAUSE)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    what: Scope,
}

/// Let agents send again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_RESUME)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    what: Scope,
}

#[derive(Debug, clap::Args)]
struct Scope {
    /// A thread, a session's name or id, or `all`
    #[arg(value_name = "THREAD|PEER|all")]
    what: String,

    /// The argument is a thread, even if a peer has this name
    #[arg(long)]
    thread: bool,
}

/// The pauses after the command.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Paused {
    paused: Vec<Pause>,
}

/// A scope in which agents may not send.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Pause {
    /// All agents.
    All,
    /// The sends of one peer.
    Peer { name: String },
    /// The sends of agents in one thread.
    Thread { name: String },
    /// A thread in which agents took as many turns as they may without a message from you.
    Loop { name: String, turns: u32, speakers: Vec<String>, since: Time },
}

impl From<&Pausing> for Pause {
    fn from(paused: &Pausing) -> Self {
        match paused {
            Pausing::All => Self::All,
            Pausing::Peer(name) => Self::Peer { name: name.clone() },
            Pausing::Thread(name) => Self::Thread { name: name.clone() },
        }
    }
}

impl From<&UsedUpThread> for Pause {
    fn from(thread: &UsedUpThread) -> Self {
        let (name, speakers) = (thread.thread.clone(), thread.speakers.clone());
        Self::Loop { name, turns: thread.turns, speakers, since: Time(thread.since) }
    }
}

pub(crate) async fn pause(
    args: PauseArgs,
    output: &Output,
    endpoint: &Endpoint,
) -> Result<(), Failure> {
    run(args.what, output, endpoint, Request::Pause).await
}

pub(crate) async fn resume(
    args: ResumeArgs,
    output: &Output,
    endpoint: &Endpoint,
) -> Result<(), Failure> {
    run(args.what, output, endpoint, Request::Resume).await
}

async fn run(
    given: Scope,
    output: &Output,
    endpoint: &Endpoint,
    request: fn(Pausing) -> Request,
) -> Result<(), Failure> {
    let Scope { what, thread } = given;
    let operator = Operator::connect(endpoint).await?;
    let answer = if thread {
        operator.ask(request(Pausing::Thread(what))).await
    } else if what.eq_ignore_ascii_case("all") {
        operator.ask(request(Pausing::All)).await
    } else {
        // A session may have a name that looks like a thread's. Then the session is meant.
        match operator.ask(request(Pausing::Peer(what.clone()))).await {
            Err(failure)
                if failure.is_refused(ErrorCode::UnknownPeer)
                    && what.starts_with(THREAD_PREFIX) =>
            {
                operator.ask(request(Pausing::Thread(what))).await
            }
            answer => answer,
        }
    };
    let Reply::Paused(paused) = answer? else { return Err(unexpected()) };
    if output.json {
        return output.json(&Paused { paused: paused.iter().map(Pause::from).collect() });
    }
    output.line(&format!("paused: {}", told(&paused)))
}

/// The pauses and the threads whose turns are used up, in words.
pub(crate) fn told_with(paused: &[Pausing], used_up: &[UsedUpThread]) -> String {
    let used_up = used_up.iter().map(|thread| {
        let speakers: Vec<_> = thread.speakers.iter().map(|name| cell(name)).collect();
        format!(
            "thread {} ({} turns without you: {})",
            cell(&thread.thread),
            thread.turns,
            speakers.join(", ")
        )
    });
    let used_up: Vec<_> = used_up.collect();
    match (paused, used_up.as_slice()) {
        (_, []) => told(paused),
        ([], _) => used_up.join(", "),
        _ => format!("{}, {}", told(paused), used_up.join(", ")),
    }
}

/// The pauses, in words.
pub(crate) fn told(paused: &[Pausing]) -> String {
    let word = |paused: &Pausing| match paused {
        Pausing::All => "all agents".to_owned(),
        Pausing::Peer(name) => cell(name),
        Pausing::Thread(thread) => format!("thread {}", cell(thread)),
    };
    match paused {
        [] => "nothing".to_owned(),
        some => some.iter().map(word).collect::<Vec<_>>().join(", "),
    }
}
