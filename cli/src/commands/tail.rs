//! `peerctl tail`: what happens, as it happens.

use peer_client::Endpoint;
use peer_proto::request::{Event, EventKind, Goodbye, Push, Request};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::operator::{self, Operator};
use crate::output::{Output, Tone, cell, clock, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl tail                       every event, without texts
  peerctl tail --peer backend
  peerctl tail --bodies              with what is said
  peerctl tail --json -n 1           the next event, and done";

/// Live events: messages and their deliveries, who comes and goes
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only events that concern this peer
    #[arg(long)]
    peer: Option<String>,

    /// With the texts of messages
    #[arg(long)]
    bodies: bool,

    /// End after this many events
    #[arg(short, value_name = "N")]
    n: Option<u64>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    operator.ask_done(Request::Watch { peer: args.peer.clone(), bodies: args.bodies }).await?;
    output.remark("watching; Ctrl-C ends it");
    let mut left = args.n.unwrap_or(u64::MAX);
    while left > 0 {
        match next_event(&mut operator).await {
            Ok(event) => print(output, &event)?,
            Err(failure) if failure.is_lost() => {
                operator = operator::reconnect(output, endpoint).await?;
                operator.ask_done(Request::Watch { peer: args.peer.clone(), bodies: args.bodies }).await?;
                continue;
            }
            Err(failure) => return Err(failure),
        }
        left -= 1;
    }
    Ok(())
}

/// The next event; a failure once there can be no more.
pub(crate) async fn next_event(operator: &mut Operator) -> Result<Event, Failure> {
    loop {
        match operator.pushes.next().await {
            Some(Push::Event(event)) => return Ok(*event),
            Some(Push::Goodbye(Goodbye::TooSlow)) => {
                return Err(Failure::broker("events came faster than they were read").hint("watch fewer, with --peer"));
            }
            Some(_) => {}
            None => return Err(Failure::watch_ended()),
        }
    }
}

fn print(output: &Output, event: &Event) -> Result<(), Failure> {
    if output.json {
        return output.json_line(&json(event));
    }
    let mut line = format!("{} {:<12}", output.paint(Tone::Faint, &clock(event.at)), event.kind.as_str());
    match (&event.from, &event.to) {
        (Some(from), Some(to)) => line.push_str(&format!(" {} -> {}", cell(from), cell(to))),
        (Some(one), None) | (None, Some(one)) => line.push_str(&format!(" {}", cell(one))),
        (None, None) => {}
    }
    if let Some(thread) =
        event.thread.as_ref().filter(|_| matches!(event.kind, EventKind::Paused | EventKind::Resumed | EventKind::Loop))
    {
        line.push_str(&format!(" thread {}", cell(thread)));
    }
    if let Some(message) = event.message {
        line.push_str(&format!(" {message}"));
    }
    if let Some(carrier) = event.carrier {
        line.push_str(&format!(" by {}", carrier.as_str()));
    }
    if let Some(cause) = &event.cause {
        line.push_str(&format!(" ({})", cell(cause)));
    }
    output.line(&line)?;
    if let Some(text) = &event.text {
        output.quoted(text)?;
    }
    Ok(())
}

/// Only what applies to the event.
pub(crate) fn json(event: &Event) -> Value {
    let mut told = json!({ "event": event.kind.as_str(), "at": rfc3339(event.at) });
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            told[key] = json!(value);
        }
    };
    put("id", event.message.map(|id| id.to_string()));
    put("from", event.from.clone());
    put("to", event.to.clone());
    put("thread", event.thread.clone());
    put("reply_to", event.reply_to.map(|id| id.to_string()));
    put("intent", event.intent.map(|intent| intent.as_str().to_owned()));
    put("carrier", event.carrier.map(|carrier| carrier.as_str().to_owned()));
    put("reason", event.cause.clone());
    put("text", event.text.clone());
    if event.kind == EventKind::TaskChanged {
        put("task", event.from.clone());
    }
    if matches!(
        event.kind,
        EventKind::PeerOnline
            | EventKind::PeerOffline
            | EventKind::PeerRenamed
            | EventKind::PeerForgotten
            | EventKind::PeerChanged
    ) {
        put("peer", event.to.clone().filter(|_| event.kind == EventKind::PeerRenamed).or_else(|| event.from.clone()));
    }
    told
}
