//! `peerctl wait`: waits until a matching message is stored.
//!
//! Knows the events and the history, in which it looks after the broker was away. Does not know the
//! rules of delivery.

use std::time::Duration;

use peer_client::Endpoint;
use peer_proto::ids::Timestamp;
use peer_proto::request::{DeliveryEvent, HistoryQuery, Request, WatchEvent, WatchedDelivery};

use super::history;
use super::tail::{self, EventRow};
use crate::error::Failure;
use crate::operator::{self, Operator, person};
use crate::output::{Output, cell, now};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl wait --to me                       until a message to you is stored
  peerctl wait --from backend --timeout 10m
  peerctl wait --thread t-06FHK2 && say done

Only messages that are stored after the command began count. If none comes in
time, the exit code is 5.";

/// Wait until a matching message is stored
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only messages from this peer
    #[arg(long, value_name = "PEER")]
    from: Option<String>,

    /// Only messages to this peer; `me` is you
    #[arg(long, value_name = "PEER")]
    to: Option<String>,

    /// Only messages of this thread
    #[arg(long)]
    thread: Option<String>,

    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = parse::duration, value_name = "SPAN")]
    timeout: Duration,
}

/// Most messages, the newest, that are checked after the broker was away, which is usually for
/// moments.
const MISSED_MAX: u32 = 1_000;

/// A stored delivery: its time, its recipient, and its text.
type Stored = (Timestamp, WatchedDelivery, DeliveryEvent);

/// The condition of the wait. It has the peers' current names, as events do.
struct Condition {
    from: Option<String>,
    to: Option<String>,
    thread: Option<String>,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let waited = tokio::time::timeout(
        args.timeout,
        first_match(output, endpoint, args.from, args.to, args.thread),
    )
    .await;
    let Ok(stored) = waited else {
        let span = humantime::format_duration(args.timeout);
        return Err(Failure::timed_out(format!("no matching message within {span}"))
            .hint("run it again with a longer --timeout"));
    };
    let (at, delivery, what) = stored?;
    if output.json {
        return output.json(&EventRow::of(at, &WatchEvent::Delivery { delivery, what }));
    }
    output.line(&format!(
        "{} from {} to {}",
        delivery.message,
        cell(&delivery.from),
        cell(&delivery.to)
    ))?;
    output.quoted(what.text().unwrap_or_default())
}

async fn first_match(
    output: &Output,
    endpoint: &Endpoint,
    from: Option<String>,
    to: Option<String>,
    thread: Option<String>,
) -> Result<Stored, Failure> {
    let mut operator = Operator::connect(endpoint).await?;
    operator.ask_done(Request::Watch { peer: None, bodies: true }).await?;
    let mut wanted = Condition { from: None, to: None, thread };
    if let Some(from) = from {
        wanted.from = Some(present_name(&operator, &from).await?);
    }
    if let Some(to) = to {
        wanted.to = Some(present_name(&operator, &to).await?);
    }
    output.remark("waiting for a message; Ctrl-C ends it");
    let begun = now();
    loop {
        let (at, event) = match tail::next_event(&mut operator).await {
            Ok(next) => next,
            Err(failure) if failure.is_lost() => {
                operator = operator::reconnect(output, endpoint).await?;
                operator.ask_done(Request::Watch { peer: None, bodies: true }).await?;
                // Messages that were stored without a watcher are in the history.
                match wanted.stored_since(&operator, begun).await? {
                    Some(missed) => return Ok(missed),
                    None => continue,
                }
            }
            Err(failure) => return Err(failure),
        };
        match event {
            WatchEvent::PeerRenamed { peer, new_name } => wanted.renamed(&peer, &new_name),
            WatchEvent::Delivery { delivery, what: what @ DeliveryEvent::Stored { .. } }
                if wanted.matches(&delivery) =>
            {
                return Ok((at, delivery, what));
            }
            _ => {}
        }
    }
}

/// The name that events currently have for this peer.
async fn present_name(operator: &Operator, given: &str) -> Result<String, Failure> {
    match person(given) {
        Some(person) => Ok(person.to_owned()),
        None => Ok(operator.peer(given).await?.name),
    }
}

impl Condition {
    fn matches(&self, delivery: &WatchedDelivery) -> bool {
        let agrees = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        agrees(&self.from, &delivery.from)
            && agrees(&self.to, &delivery.to)
            && agrees(&self.thread, &delivery.thread)
    }

    /// The first matching message that was stored since then, as an event.
    async fn stored_since(
        &self,
        operator: &Operator,
        since: Timestamp,
    ) -> Result<Option<Stored>, Failure> {
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
        for message in history::read(operator, query).await?.into_iter().map(|shown| shown.message)
        {
            for to in &message.to {
                let delivery = WatchedDelivery {
                    message: message.id,
                    from: message.from.name.clone(),
                    to: to.clone(),
                    thread: message.thread.clone(),
                    reply_to: message.reply_to,
                    intent: message.intent,
                };
                if self.matches(&delivery) {
                    let what = DeliveryEvent::Stored { cause: None, text: Some(message.text) };
                    return Ok(Some((message.sent_at, delivery, what)));
                }
            }
        }
        Ok(None)
    }

    fn renamed(&mut self, before: &str, now: &str) {
        for name in [&mut self.from, &mut self.to] {
            if name.as_deref() == Some(before) {
                *name = Some(now.to_owned());
            }
        }
    }
}
