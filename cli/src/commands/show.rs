//! `peerctl show`: one message with its delivery trace.

use peer_client::Endpoint;
use peer_proto::ids::PeerId;
use peer_proto::message::Stage;
use peer_proto::request::{Shown, ShownDelivery};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::operator::{Operator, message_id};
use crate::output::{Output, Tone, cell, clock, rfc3339};

const AFTER_HELP: &str = "\
Examples:
  peerctl show m-06FHK2RBXW3T9Q1C
  peerctl show m-06FHK2RBXW3T9Q1C --json | jq '.deliveries[].trace'

A message to you counts as read once it was shown.";

/// One message, and what became of it at each recipient
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The message's id
    id: String,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let id = message_id(&args.id)?;
    let operator = Operator::connect(endpoint).await?;
    let shown = operator.show(id).await?;
    print(output, &shown)?;
    if shown.deliveries.iter().any(|delivery| delivery.peer == PeerId::HUMAN && delivery.stage.is_pending()) {
        operator.printed(vec![id]).await?;
    }
    Ok(())
}

fn print(output: &Output, shown: &Shown) -> Result<(), Failure> {
    if output.json {
        return output.json(&json(shown));
    }
    let message = &shown.message;
    let to: Vec<_> = message.to.iter().map(|name| cell(name)).collect();
    output.line(&format!(
        "{} {} from {} to {}, {}",
        output.paint(Tone::Strong, &message.id.to_string()),
        message.intent.as_str(),
        output.paint(Tone::Strong, &cell(&message.from.name)),
        output.paint(Tone::Strong, &to.join(", ")),
        rfc3339(message.sent_at)
    ))?;
    let reply = message.reply_to.map(|id| format!(", in reply to {id}")).unwrap_or_default();
    output.line(&format!("thread {}{reply}", cell(&message.thread)))?;
    for source in &message.sources {
        output.line(&format!("source {}", cell(source)))?;
    }
    output.quoted(&message.text)?;
    for delivery in &shown.deliveries {
        output.line("")?;
        print_trace(output, "", delivery)?;
    }
    if shown.deliveries.iter().any(|delivery| delivery.stage == Stage::Held) {
        output.remark("held: `peerctl release ID` lets it go, `peerctl cancel ID` ends it");
    }
    Ok(())
}

/// The life of one delivery, `lead` before it: each step with the time since the step before.
pub(crate) fn print_trace(output: &Output, lead: &str, delivery: &ShownDelivery) -> Result<(), Failure> {
    let attempts = if delivery.attempts == 0 { String::new() } else { format!(", attempt {}", delivery.attempts + 1) };
    output.line(&format!(
        "{lead}to {}: {}{attempts}",
        output.paint(Tone::Strong, &cell(&delivery.name)),
        output.paint(Tone::Good, delivery.stage.as_str())
    ))?;
    let mut before = None;
    for entry in &delivery.trace {
        let since = before.map_or_else(String::new, |before| format!("+{} ms", entry.at.ms_since(before)));
        let carrier = entry.carrier.map(|carrier| format!(" by {}", carrier.as_str())).unwrap_or_default();
        let cause = entry.cause.map(|cause| format!(" ({})", cause.as_str())).unwrap_or_default();
        output.line(&format!("  {} {since:>10}  {}{carrier}{cause}", clock(entry.at), entry.event.as_str()))?;
        before = Some(entry.at);
    }
    if let Some(reply) = delivery.answered_by {
        output.line(&format!("  answered by {reply}"))?;
    }
    Ok(())
}

pub(crate) fn json(shown: &Shown) -> Value {
    let message = &shown.message;
    json!({
        "id": message.id.to_string(),
        "from": message.from.name,
        "from_id": message.from.peer.to_string(),
        "via": message.from.via.as_str(),
        "to": message.to,
        "intent": message.intent.as_str(),
        "kind": message.kind.as_str(),
        "thread": message.thread,
        "reply_to": message.reply_to.map(|id| id.to_string()),
        "at": rfc3339(message.sent_at),
        "expires_at": message.expires_at.map(rfc3339),
        "sources": message.sources,
        "text": message.text,
        "deliveries": shown.deliveries.iter().map(delivery_json).collect::<Vec<_>>(),
    })
}

fn delivery_json(delivery: &ShownDelivery) -> Value {
    let trace: Vec<_> = delivery
        .trace
        .iter()
        .map(|entry| {
            let mut told = json!({ "stage": entry.event.as_str(), "at": rfc3339(entry.at) });
            if let Some(carrier) = entry.carrier {
                told["carrier"] = json!(carrier.as_str());
            }
            if let Some(cause) = entry.cause {
                told["reason"] = json!(cause.as_str());
            }
            told
        })
        .collect();
    let mut told = json!({
        "to": delivery.name,
        "to_id": delivery.peer.to_string(),
        "stage": delivery.stage.as_str(),
        "attempts": delivery.attempts,
        "trace": trace,
    });
    if let Some(at) = delivery.acked_at {
        told["acked_at"] = json!(rfc3339(at));
    }
    if let Some(reply) = delivery.answered_by {
        told["answered_by"] = json!(reply.to_string());
    }
    told
}
