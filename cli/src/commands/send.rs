//! `peerctl send`: sends a message as the person.
//!
//! Does not know whether a recipient accepts it: the broker decides. Invariant: a message is stored
//! once, also if the broker dies before it answers.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use peer_client::Endpoint;
use peer_proto::ids::PeerId;
use peer_proto::message::{Intent, Stage};
use peer_proto::reach::Reach;
use peer_proto::refusal::Refusal;
use peer_proto::request::{PeersQuery, Send, Sent, SentDelivery};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Failure, Kind, REFUSED, exit_for};
use crate::json::{Id, Time};
use crate::operator::{Operator, find, message_id, person};
use crate::output::{Output, Tone, cell};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl send backend -- \"run the tests\"
  peerctl send '#ops' -- \"the database is back\"
  peerctl send backend,frontend --intent inform -- \"main is frozen until noon\"
  git diff | peerctl send reviewer -
  peerctl send reviewer --file plan.md --ttl 2h
  peerctl send backend --reply-to m-06FHK2RBXW3T9Q1C -- \"yes, go ahead\"

The answer arrives in `peerctl inbox me`; `peerctl ask` waits for it. A message
to an offline peer waits in its mailbox. The exit code is 6 if a recipient
refused the message (a full mailbox, a limit, a policy). It is 4 if a name is
unknown; then nothing was sent to anybody.";

/// Most repeats of a send, with its idempotency key, if the broker dies before it answers.
const REPEATS_MAX: u32 = 3;

/// Send a message to one or several sessions
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Names, ids, #channel or @group, separated by commas
    to: String,

    /// The text; - reads standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    text: Vec<String>,

    /// Whether it may wake an idle session; by default a new message may, a reply may not
    #[arg(long, value_enum)]
    intent: Option<IntentArg>,

    /// The message that this one answers
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,

    /// The thread (conversation) that it belongs to
    #[arg(long)]
    thread: Option<String>,

    /// The message expires if it was not presented after this long
    #[arg(long, value_parser = parse::duration, value_name = "SPAN")]
    ttl: Option<Duration>,

    /// Your name for this act: a repeat returns the first outcome and sends nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Read the text from a file
    #[arg(long)]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IntentArg {
    Request,
    Inform,
}

/// The outcome of sending a message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SentMessage {
    /// Null if the whole message was refused and nothing was stored.
    id: Option<Id>,
    thread: Option<String>,
    /// Whether it was sent before, under the same idempotency key.
    deduplicated: bool,
    deliveries: Vec<SentTo>,
}

/// The outcome for one recipient.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct SentTo {
    /// The recipient's name.
    to: String,
    to_id: String,
    /// Null if the recipient refused it and nothing was stored for it.
    stage: Option<&'static str>,
    online: bool,
    /// When the recipient's model sees it; absent if the recipient is offline or refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<String>,
    /// When the carrier that brings it was last proved; null if it never was in this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach_proven_at: Option<Option<Time>>,
    /// Only present if the recipient refused it.
    #[serde(flatten)]
    refusal: Option<RefusedBy>,
}

/// The reason why a recipient refused a message.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct RefusedBy {
    reason: String,
    code: &'static str,
    /// When to try again, if that is known.
    retry_after_ms: Option<u64>,
}

impl From<&Refusal> for RefusedBy {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.to_string(),
            code: refusal.code.as_str(),
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

impl From<&SentDelivery> for SentTo {
    fn from(delivery: &SentDelivery) -> Self {
        let reach = (delivery.online && delivery.stage.is_some())
            .then(|| Reach::of(&delivery.carriers, delivery.activity));
        Self {
            to: delivery.name.clone(),
            to_id: delivery.peer.to_string(),
            stage: delivery.stage.map(Stage::as_str),
            online: delivery.online,
            reach: reach.as_ref().map(ToString::to_string),
            reach_proven_at: reach.map(|reach| reach.carrier().proven_at.map(Time)),
            refusal: delivery.refusal.as_ref().map(RefusedBy::from),
        }
    }
}

impl From<&Sent> for SentMessage {
    fn from(sent: &Sent) -> Self {
        Self {
            id: Some(Id(sent.message)),
            thread: Some(sent.thread.clone()),
            deduplicated: sent.deduplicated,
            deliveries: sent.deliveries.iter().map(SentTo::from).collect(),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let send = Send {
        to: parse::recipients(&args.to)?,
        text: parse::text(&args.text, args.file)?,
        intent: args.intent.map(|intent| match intent {
            IntentArg::Request => Intent::Request,
            IntentArg::Inform => Intent::Inform,
        }),
        reply_to: args.reply_to.as_deref().map(message_id).transpose()?,
        thread: args.thread,
        ttl_ms: args.ttl.map(parse::millis),
        sources: Vec::new(),
        idempotency_key: Some(args.idempotency_key.unwrap_or_else(parse::fresh_key)),
    };
    let to = send.to.clone();
    match send_surely(endpoint, send).await {
        Ok(sent) => print(output, &sent),
        Err(failure) => Err(with_recipients(endpoint, &to, failure).await),
    }
}

/// Sends. If the broker dies before it answers, sends again with the same key, so that the message
/// is stored once.
async fn send_surely(endpoint: &Endpoint, send: Send) -> Result<Sent, Failure> {
    let mut repeats = 0;
    loop {
        let operator = Operator::connect(endpoint).await?;
        match operator.send(send.clone()).await {
            Err(Failure { kind: Kind::Lost, .. }) if repeats < REPEATS_MAX => repeats += 1,
            outcome => return outcome,
        }
    }
}

/// Prints the outcome. Fails if a recipient refused the message.
pub(crate) fn print(output: &Output, sent: &Sent) -> Result<(), Failure> {
    let refused = refused_by_some(&sent.deliveries);
    if output.json {
        return match refused {
            Some(failure) => Err(failure.with(SentMessage::from(sent))),
            None => output.json(&SentMessage::from(sent)),
        };
    }
    if sent.deliveries.is_empty() {
        output.line(&format!(
            "{}  stored in the history only: the channel has no other member",
            sent.message
        ))?;
    }
    for delivery in &sent.deliveries {
        let Some(stage) = delivery.stage else { continue };
        let name = output.paint(Tone::Strong, &cell(&delivery.name));
        if stage == Stage::Held {
            output.line(&format!(
                "{}  held for {name}, until the person releases it",
                sent.message
            ))?;
            continue;
        }
        let reach = match delivery.online {
            _ if delivery.peer == PeerId::HUMAN => {
                "which is you: it waits in `peerctl inbox me`".to_owned()
            }
            true if is_remote(&delivery.name) => "online on the other machine".to_owned(),
            false if is_remote(&delivery.name) => {
                "offline or unreachable: it waits until a link reaches its machine".to_owned()
            }
            true => {
                let reach = Reach::of(&delivery.carriers, delivery.activity);
                let proved = if reach.carrier().proven_at.is_some() {
                    "proved"
                } else {
                    "not proved in this session"
                };
                format!("online, {reach} ({proved})")
            }
            false => "offline: it waits in the mailbox".to_owned(),
        };
        let again = if sent.deduplicated { " (sent before under this key)" } else { "" };
        output.line(&format!("{}  {} for {name}, {reach}{again}", sent.message, stage.as_str()))?;
    }
    refused.map_or(Ok(()), Err)
}

/// Whether a name is of a peer of another machine. No peer of this one has an `@` in its name.
fn is_remote(name: &str) -> bool {
    name.contains('@')
}

/// A recipient of a message that was refused as a whole.
fn refused_to(name: &str, peer: PeerId, online: bool, refusal: &Refusal) -> SentTo {
    SentTo {
        to: name.to_owned(),
        to_id: peer.to_string(),
        stage: None,
        online,
        reach: None,
        reach_proven_at: None,
        refusal: Some(refusal.into()),
    }
}

/// The failure that names the recipients that refused, if any did.
fn refused_by_some(deliveries: &[SentDelivery]) -> Option<Failure> {
    let refusals = || {
        deliveries.iter().filter_map(|delivery| {
            delivery.refusal.as_ref().map(|refusal| (&delivery.name, refusal))
        })
    };
    let (_, first) = refusals().next()?;
    let whys: Vec<_> =
        refusals().map(|(name, refusal)| format!("{}: {}", cell(name), refusal.message)).collect();
    let message = format!("not delivered to {}", whys.join(", and to "));
    Some(Failure::refused(first.code, message).hint(first.hint.as_str()))
}

/// Adds the recipients that were not reached to a refusal of the whole message. An unknown name
/// refuses the message before it has recipients; that refusal stays as it is.
pub(crate) async fn with_recipients(
    endpoint: &Endpoint,
    to: &[String],
    failure: Failure,
) -> Failure {
    let Some(refusal) = failure.refusal().filter(|refusal| exit_for(refusal.code) == REFUSED)
    else {
        return failure;
    };
    let listed = async {
        Operator::connect(endpoint)
            .await?
            .peers(PeersQuery { all: true, ..PeersQuery::default() })
            .await
    };
    // If the broker cannot be asked now, the refusal stays as it is.
    let Ok(peers) = listed.await else { return failure };
    let mut deliveries: Vec<_> = to
        .iter()
        .filter_map(|given| match person(given) {
            Some(name) => Some(refused_to(name, PeerId::HUMAN, false, &refusal)),
            None => find(&peers, given)
                .and_then(|place| peers.get(place))
                .map(|peer| refused_to(&peer.name, peer.id, peer.online, &refusal)),
        })
        .collect();
    // A peer that was named twice is one recipient.
    deliveries.dedup();
    failure.with(SentMessage { id: None, thread: None, deduplicated: false, deliveries })
}
