//! `peerctl tail`: prints events as they happen.
//!
//! Knows the fields of each event. Does not know which events the caller may see: the broker
//! decides.

use peer_client::Endpoint;
use peer_proto::ids::Timestamp;
use peer_proto::message::{Carrier, Intent};
use peer_proto::request::{Goodbye, Pausing, Push, Request, WatchEvent};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{self, Operator};
use crate::output::{Output, Tone, cell, clock};

const AFTER_HELP: &str = "\
Examples:
  peerctl tail                       every event, without texts
  peerctl tail --peer backend
  peerctl tail --bodies              also print the texts
  peerctl tail --json -n 1           print one event and exit";

/// Print live events: messages, deliveries, and peers that come and go
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only events that concern this peer
    #[arg(long)]
    peer: Option<String>,

    /// Also print the texts of messages
    #[arg(long)]
    bodies: bool,

    /// Exit after this many events
    #[arg(short, value_name = "N")]
    n: Option<u64>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    operator.ask_done(Request::Watch { peer: args.peer.clone(), bodies: args.bodies }).await?;
    output.remark("waiting for events; Ctrl-C ends it");
    let mut left = args.n.unwrap_or(u64::MAX);
    while left > 0 {
        match next_event(&mut operator).await {
            Ok((at, event)) => print(output, at, &event)?,
            Err(failure) if failure.is_lost() => {
                operator = operator::reconnect(output, endpoint).await?;
                operator
                    .ask_done(Request::Watch { peer: args.peer.clone(), bodies: args.bodies })
                    .await?;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        left -= 1;
    }
    Ok(())
}

/// Waits for the next event and returns it with its time. Fails once no more can come.
pub(crate) async fn next_event(
    operator: &mut Operator,
) -> Result<(Timestamp, WatchEvent), Failure> {
    loop {
        match operator.pushes.next().await {
            Some(Push::Event { at, event }) => return Ok((at, *event)),
            Some(Push::Goodbye(Goodbye::TooSlow)) => {
                return Err(Failure::broker("events came faster than peerctl could print them")
                    .hint("watch fewer events, with --peer"));
            }
            Some(_) => {}
            None => return Err(Failure::watch_ended()),
        }
    }
}

/// An event.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EventRow {
    event: &'static str,
    at: Time,
    #[serde(flatten)]
    told: EventFields,
}

impl EventRow {
    pub(crate) fn of(at: Timestamp, event: &WatchEvent) -> Self {
        Self { event: event.as_str(), at: Time(at), told: EventFields::by(event) }
    }
}

/// The fields of an event. A field is absent if it does not apply.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct EventFields {
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Id>,
    /// The sender, or the peer or task that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The recipient; for a rename, the new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<String>,
    /// The message that this one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<Id>,
    /// `request` or `inform`: whether it may wake an idle recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    intent: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'static str>,
    /// The reason, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The text of a stored message, with `--bodies`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The task that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// The current name of the peer that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
}

impl EventFields {
    fn by(event: &WatchEvent) -> Self {
        let of_peer = |peer: &String| Self {
            from: Some(peer.clone()),
            peer: Some(peer.clone()),
            ..Self::default()
        };
        match event {
            WatchEvent::Delivery { delivery, what } => Self {
                id: Some(Id(delivery.message)),
                from: Some(delivery.from.clone()),
                to: Some(delivery.to.clone()),
                thread: Some(delivery.thread.clone()),
                reply_to: delivery.reply_to.map(Id),
                intent: Some(delivery.intent.as_str()),
                carrier: what.carrier().map(Carrier::as_str),
                reason: what.cause().map(|cause| cause.as_str().to_owned()),
                text: what.text().map(str::to_owned),
                ..Self::default()
            },
            WatchEvent::Refused { from, to, thread, reply_to, intent, code } => Self {
                from: Some(from.clone()),
                to: to.clone(),
                thread: thread.clone(),
                reply_to: reply_to.map(Id),
                intent: intent.map(Intent::as_str),
                reason: Some(code.as_str().to_owned()),
                ..Self::default()
            },
            WatchEvent::PeerOnline { peer }
            | WatchEvent::PeerOffline { peer }
            | WatchEvent::PeerForgotten { peer } => of_peer(peer),
            WatchEvent::PeerRenamed { peer, new_name } => {
                Self { to: Some(new_name.clone()), peer: Some(new_name.clone()), ..of_peer(peer) }
            }
            WatchEvent::PeerChanged { peer, news } => {
                Self { reason: Some(news.clone()), ..of_peer(peer) }
            }
            WatchEvent::TaskChanged { task, assignee, state } => Self {
                from: Some(task.to_string()),
                to: assignee.clone(),
                thread: Some(task.to_string()),
                reason: Some(state.as_str().to_owned()),
                task: Some(task.to_string()),
                ..Self::default()
            },
            WatchEvent::Paused(what) | WatchEvent::Resumed(what) => match what {
                Pausing::All => Self { to: Some("all".to_owned()), ..Self::default() },
                Pausing::Peer(peer) => Self { to: Some(peer.clone()), ..Self::default() },
                Pausing::Thread(thread) => Self { thread: Some(thread.clone()), ..Self::default() },
            },
            WatchEvent::Loop { thread, turns } => Self {
                thread: Some(thread.clone()),
                reason: Some(format!("{turns} turns")),
                ..Self::default()
            },
            WatchEvent::Damaged { what } => Self { reason: Some(what.clone()), ..Self::default() },
        }
    }
}

fn print(output: &Output, at: Timestamp, event: &WatchEvent) -> Result<(), Failure> {
    if output.json {
        return output.json_line(&EventRow::of(at, event));
    }
    let told = EventFields::by(event);
    let mut line = format!("{} {:<12}", output.paint(Tone::Faint, &clock(at)), event.as_str());
    match (&told.from, &told.to) {
        (Some(from), Some(to)) => line.push_str(&format!(" {} -> {}", cell(from), cell(to))),
        (Some(one), None) | (None, Some(one)) => line.push_str(&format!(" {}", cell(one))),
        (None, None) => {}
    }
    if let (
        WatchEvent::Paused(_) | WatchEvent::Resumed(_) | WatchEvent::Loop { .. },
        Some(thread),
    ) = (event, &told.thread)
    {
        line.push_str(&format!(" thread {}", cell(thread)));
    }
    if let Some(Id(message)) = told.id {
        line.push_str(&format!(" {message}"));
    }
    if let Some(carrier) = told.carrier {
        line.push_str(&format!(" by {carrier}"));
    }
    if let Some(reason) = &told.reason {
        line.push_str(&format!(" ({})", cell(reason)));
    }
    output.line(&line)?;
    if let Some(text) = &told.text {
        output.quoted(text)?;
    }
    Ok(())
}
