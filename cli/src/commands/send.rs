//! `peerctl send`: write to a session as the person.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use peer_client::Endpoint;
use peer_proto::ids::PeerId;
use peer_proto::limits::TEXT_BYTES_MAX;
use peer_proto::message::{Intent, Stage};
use peer_proto::reach::Reach;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{PeersQuery, Send, Sent, SentDelivery};
use peer_proto::text::single_line;
use serde_json::{Value, json};

use crate::args::duration;
use crate::error::{Failure, Kind, REFUSED, exit_for};
use crate::operator::{Operator, find, message_id, person};
use crate::output::{Output, Tone, cell, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl send backend -- \"run the tests\"
  peerctl send '#ops' -- \"the database is back\"
  peerctl send backend,frontend --intent inform -- \"main is frozen until noon\"
  git diff | peerctl send reviewer -
  peerctl send reviewer --file plan.md --ttl 2h
  peerctl send backend --reply-to m-06FHK2RBXW3T9Q1C -- \"yes, go ahead\"

The answer lands in `peerctl inbox me`; `peerctl ask` waits for it. A message to
a peer that is offline waits for it. Exit 6 when a recipient refused it (a full
mailbox, a rate, a policy), 4 when a name is unknown: then nothing was sent to
anybody.";

/// How often a send is repeated under its idempotency key when the broker dies before it answers.
const REPEATS_MAX: u32 = 3;

/// Write to one or several sessions
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Names, ids, #channel or @group, separated by commas
    to: String,

    /// The text; - reads standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    text: Vec<String>,

    /// Whether it may wake an idle session; by default a new message may and a reply may not
    #[arg(long, value_enum)]
    intent: Option<IntentArg>,

    /// The message that it answers
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,

    /// The conversation that it belongs to
    #[arg(long)]
    thread: Option<String>,

    /// It expires when it was not read after this long
    #[arg(long, value_parser = duration, value_name = "SPAN")]
    ttl: Option<Duration>,

    /// Your name for this act: a repeat gets the first outcome and sends nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Read the text from a file
    #[arg(long)]
    file: Option<PathBuf>,
}

/// [`Intent`], for the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum IntentArg {
    Request,
    Inform,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let send = Send {
        to: recipients(&args.to)?,
        text: text(&args.text, args.file)?,
        intent: args.intent.map(|intent| match intent {
            IntentArg::Request => Intent::Request,
            IntentArg::Inform => Intent::Inform,
        }),
        reply_to: args.reply_to.as_deref().map(message_id).transpose()?,
        thread: args.thread,
        ttl_ms: args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        sources: Vec::new(),
        idempotency_key: Some(args.idempotency_key.unwrap_or_else(fresh_key)),
    };
    let to = send.to.clone();
    match send_surely(endpoint, send).await {
        Ok(sent) => print(output, &sent),
        Err(failure) => Err(with_recipients(endpoint, &to, failure).await),
    }
}

/// Names out of "a,b"; empty ones are a slip that would silently reach fewer than meant.
pub(crate) fn recipients(to: &str) -> Result<Vec<String>, Failure> {
    let names: Vec<_> = to.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        let message = format!("the recipients {:?} contain an empty name", single_line(to));
        return Err(Failure::usage(message).hint("write a name or several separated by commas"));
    }
    Ok(names)
}

/// The text from the command line, a file, or standard input, exactly as it is there.
pub(crate) fn text(words: &[String], file: Option<PathBuf>) -> Result<String, Failure> {
    let bytes = match file {
        Some(path) => {
            let attempt = "reading the text from";
            let opened = std::fs::File::open(&path).map_err(|source| Failure::file(attempt, path.clone(), source))?;
            bounded(opened).map_err(|source| Failure::file(attempt, path, source))?
        }
        None if words.len() == 1 && words[0] == "-" => {
            bounded(std::io::stdin().lock()).map_err(|source| Failure::system("reading the text from standard input", source))?
        }
        None => words.join(" ").into_bytes(),
    };
    if bytes.len() > TEXT_BYTES_MAX {
        let message = format!("the text has more than {TEXT_BYTES_MAX} bytes, which is the most that one message carries");
        return Err(Failure::refused(ErrorCode::TextTooLarge, message).hint("send it in parts, or send the path of a file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::usage(format!("the text is not UTF-8 from byte {place} on")).hint("convert it first, for example with iconv")
    })
}

/// One byte more than a text may have is enough to know that it has too many.
fn bounded(source: impl Read) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = Vec::new();
    source.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An idempotency key that nobody else of this user draws: this process, this nanosecond.
pub(crate) fn fresh_key() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    format!("peerctl-{}-{nanos}", std::process::id())
}

/// Sends; where the broker dies before it answers, asks the next one under the same key, so that it is sent once.
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

/// What became of it. Fails where a recipient refused.
pub(crate) fn print(output: &Output, sent: &Sent) -> Result<(), Failure> {
    let refused = refused_by_some(&sent.deliveries);
    if output.json {
        return match refused {
            Some(failure) => Err(failure.with(json(sent))),
            None => output.json(&json(sent)),
        };
    }
    if sent.deliveries.is_empty() {
        output.line(&format!("{}  said where nobody else is a member; it stands in the history", sent.message))?;
    }
    for delivery in &sent.deliveries {
        let Some(stage) = delivery.stage else { continue };
        let name = output.paint(Tone::Strong, &cell(&delivery.name));
        if stage == Stage::Held {
            output.line(&format!("{}  held for {name}, until the person releases it", sent.message))?;
            continue;
        }
        let reach = match delivery.online {
            _ if delivery.peer == PeerId::HUMAN => "which is you: it waits in `peerctl inbox me`".to_owned(),
            true => {
                let reach = Reach::of(&delivery.carriers, delivery.activity);
                let proved = if reach.carrier().proven_at.is_some() { "proved" } else { "not proved in this session" };
                format!("online, {reach} ({proved})")
            }
            false => "offline: it waits there".to_owned(),
        };
        let again = if sent.deduplicated { " (sent before under this key)" } else { "" };
        output.line(&format!("{}  {} for {name}, {reach}{again}", sent.message, stage.as_str()))?;
    }
    refused.map_or(Ok(()), Err)
}

fn json(sent: &Sent) -> Value {
    let deliveries: Vec<_> = sent
        .deliveries
        .iter()
        .map(|delivery| {
            let stage = delivery.stage.map(|stage| stage.as_str());
            let mut told = delivery_json(&delivery.name, delivery.peer, stage, delivery.online, delivery.refusal.as_ref());
            if delivery.online && stage.is_some() {
                let reach = Reach::of(&delivery.carriers, delivery.activity);
                told["reach"] = json!(reach.to_string());
                told["reach_proven_at"] = json!(reach.carrier().proven_at.map(rfc3339));
            }
            told
        })
        .collect();
    json!({ "id": sent.message.to_string(), "thread": sent.thread, "deduplicated": sent.deduplicated, "deliveries": deliveries })
}

/// One recipient; `stage` is null where it refused, because nothing was stored for it.
fn delivery_json(to: &str, peer: PeerId, stage: Option<&str>, online: bool, refusal: Option<&Refusal>) -> Value {
    let mut told = json!({ "to": to, "to_id": peer.to_string(), "stage": stage, "online": online });
    if let Some(refusal) = refusal {
        told["reason"] = json!(refusal.to_string());
        told["code"] = json!(refusal.code.as_str());
        told["retry_after_ms"] = json!(refusal.retry_after_ms);
    }
    told
}

/// The failure that says which recipients refused, if any did.
fn refused_by_some(deliveries: &[SentDelivery]) -> Option<Failure> {
    let refusals = || deliveries.iter().filter_map(|delivery| delivery.refusal.as_ref().map(|refusal| (&delivery.name, refusal)));
    let (_, first) = refusals().next()?;
    let whys: Vec<_> = refusals().map(|(name, refusal)| format!("{}: {}", cell(name), refusal.message)).collect();
    let message = format!("not delivered to {}", whys.join(", and to "));
    Some(Failure::refused(first.code, message).hint(first.hint.as_str()))
}

/// A refusal of the whole message, together with the recipients that it therefore did not reach. A name that is not known
/// refuses the message before there are recipients to speak of; that stays as it is.
pub(crate) async fn with_recipients(endpoint: &Endpoint, to: &[String], failure: Failure) -> Failure {
    let Some(refusal) = failure.refusal().filter(|refusal| exit_for(refusal.code) == REFUSED) else { return failure };
    let listed = async { Operator::connect(endpoint).await?.peers(PeersQuery { all: true, ..PeersQuery::default() }).await };
    // Whoever cannot be asked now leaves the refusal as it is.
    let Ok(peers) = listed.await else { return failure };
    let mut deliveries: Vec<_> = to
        .iter()
        .filter_map(|given| match person(given) {
            Some(name) => Some(delivery_json(name, PeerId::HUMAN, None, false, Some(&refusal))),
            None => find(&peers, given)
                .and_then(|place| peers.get(place))
                .map(|peer| delivery_json(&peer.name, peer.id, None, peer.online, Some(&refusal))),
        })
        .collect();
    // A peer that was named twice is one recipient.
    deliveries.dedup();
    let data = json!({ "id": null, "thread": null, "deduplicated": false, "deliveries": deliveries });
    failure.with(data)
}
