//! `peerctl wait`: block until a matching message is stored.

use std::time::Duration;

use peer_client::Endpoint;
use peer_proto::ids::Timestamp;
use peer_proto::request::{Event, EventKind, HistoryQuery, Request};

use super::{history, tail};
use crate::args::duration;
use crate::error::Failure;
use crate::operator::{self, Operator, person};
use crate::output::{Output, cell, now};

const AFTER_HELP: &str = "\
Examples:
  peerctl wait --to me                       until somebody writes to you
  peerctl wait --from backend --timeout 10m
  peerctl wait --thread t-06FHK2 && say done

Only messages that are stored after the command began count. Exit 5 when none
came in time.";

/// Block until a matching message is stored
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// From this peer
    #[arg(long, value_name = "PEER")]
    from: Option<String>,

    /// To this peer; `me` is you
    #[arg(long, value_name = "PEER")]
    to: Option<String>,

    /// In this thread
    #[arg(long)]
    thread: Option<String>,

    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "SPAN")]
    timeout: Duration,
}

/// Messages that are looked through after the broker was away, the newest: it was away for moments.
const MISSED_MAX: u32 = 1_000;

/// What is waited for, with the peers' present names: those are what events carry.
struct Wanted {
    from: Option<String>,
    to: Option<String>,
    thread: Option<String>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let waited = tokio::time::timeout(args.timeout, first_match(output, endpoint, args.from, args.to, args.thread)).await;
    let Ok(event) = waited else {
        let span = humantime::format_duration(args.timeout);
        return Err(Failure::timed_out(format!("no matching message within {span}")).hint("wait again with a longer --timeout"));
    };
    let event = event?;
    if output.json {
        return output.json(&tail::json(&event));
    }
    let name = |name: &Option<String>| name.as_deref().map(cell).unwrap_or_default();
    let id = event.message.map(|id| id.to_string()).unwrap_or_default();
    output.line(&format!("{id} from {} to {}", name(&event.from), name(&event.to)))?;
    output.quoted(event.text.as_deref().unwrap_or_default())
}

async fn first_match(
    output: &Output,
    endpoint: &Endpoint,
    from: Option<String>,
    to: Option<String>,
    thread: Option<String>,
) -> Result<Event, Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    operator.ask_done(Request::Watch { peer: None, bodies: true }).await?;
    let mut wanted = Wanted { from: None, to: None, thread };
    if let Some(from) = from {
        wanted.from = Some(present_name(&operator, &from).await?);
    }
    if let Some(to) = to {
        wanted.to = Some(present_name(&operator, &to).await?);
    }
    output.remark("waiting; Ctrl-C ends it");
    let begun = now();
    loop {
        let event = match tail::next_event(&mut operator).await {
            Ok(event) => event,
            Err(failure) if failure.is_lost() => {
                operator = operator::reconnect(output, endpoint).await?;
                operator.ask_done(Request::Watch { peer: None, bodies: true }).await?;
                // What was stored while nobody watched stands in the history.
                match wanted.stored_since(&operator, begun).await? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            Err(failure) => return Err(failure),
        };
        if event.kind == EventKind::PeerRenamed {
            wanted.renamed(&event);
        } else if event.kind == EventKind::Stored && wanted.matches(&event) {
            return Ok(event);
        }
    }
}

/// The name that events carry for this peer now.
async fn present_name(operator: &Operator, given: &str) -> Result<String, Failure> {
    match person(given) {
        Some(person) => Ok(person.to_owned()),
        None => Ok(operator.peer(given).await?.name),
    }
}

impl Wanted {
    fn matches(&self, event: &Event) -> bool {
        let agrees = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        agrees(&self.from, &event.from) && agrees(&self.to, &event.to) && agrees(&self.thread, &event.thread)
    }

    /// The first matching message that was stored since then, as the event that told of it.
    async fn stored_since(&self, operator: &Operator, since: Timestamp) -> Result<Option<Event>, Failure> {
        let query = HistoryQuery {
            peer: None,
            with: None,
            thread: self.thread.clone(),
            channel: None,
            after: None,
            since: Some(since),
            before: None,
            limit: MISSED_MAX,
        };
        let messages = history::read(operator, query).await?;
        let events = messages.into_iter().flat_map(|shown| {
            let message = shown.message;
            let event = |to: &String| Event {
                kind: EventKind::Stored,
                at: message.sent_at,
                message: Some(message.id),
                from: Some(message.from.name.clone()),
                to: Some(to.clone()),
                thread: Some(message.thread.clone()),
                reply_to: message.reply_to,
                intent: Some(message.intent),
                carrier: None,
                cause: None,
                text: Some(message.text.clone()),
            };
            message.to.iter().map(event).collect::<Vec<_>>()
        });
        Ok(events.into_iter().find(|event| self.matches(event)))
    }

    fn renamed(&mut self, event: &Event) {
        for name in [&mut self.from, &mut self.to] {
            if name.is_some() && *name == event.from {
                name.clone_from(&event.to);
            }
        }
    }
}
