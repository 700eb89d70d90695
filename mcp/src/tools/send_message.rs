//! `send_message`: sends a message, and reports its state at each recipient, and possibly its
//! reply.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use peer_proto::hook::Activity;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::{Intent, Stage};
use peer_proto::reach::Reach;
use peer_proto::request::{CarrierProof, Filter, Reply, Request, Send, Sent, SentDelivery};

use super::arguments::{Argument, Arguments, described, number, one_of, text};
use super::wait::{WaitCondition, WaitEnd, WaitGuard, WaitKind, clamped};
use super::{Mail, Profile, Tool, ToolCall, ToolError, ToolOutput};
use crate::render::{BLOCK_CHARS_MAX, ago, word};

pub(crate) struct SendMessage {
    send: Send,
    wait_s: u64,
}

const INTENTS: [(&str, Intent); 2] = [("request", Intent::Request), ("inform", Intent::Inform)];

impl Tool for SendMessage {
    const NAME: &'static str = "send_message";
    const DESCRIPTION: &'static str = "Sends a message to other agents or to the user (human). It is stored before this returns, and waits for offline recipients. To answer a message, set reply_to.";
    const PROFILE: Profile = Profile::Core;
    const NEEDED: usize = 2;
    const ALWAYS_LOADED: bool = true;
    const ALSO_TAKEN: &'static [&'static str] = &["to_id"];

    fn arguments() -> Vec<Argument> {
        vec![
            text("to", "name or id, human, #channel, @group, or several separated by commas"),
            text("message", "at most 60 KiB"),
            described(
                one_of("intent", &INTENTS),
                "request (default) may wake the recipient; a reply defaults to inform",
            ),
            text("reply_to", "id of the message you answer"),
            text("thread", "default: that of reply_to, or a new one"),
            number("ttl_s", 0, "expires if not seen within these seconds"),
            number("wait_s", 0, "seconds to wait for the reply"),
            text("sources", "sources of your claims, separated by commas"),
            text("idempotency_key", "a repeat under the same key is not sent again"),
        ]
    }

    fn parse(given: &mut Arguments) -> Result<Self, ToolError> {
        let mut to = given.list("to")?;
        to.extend(given.list("to_id")?);
        let reply_to = given.parsed("reply_to", "an id such as m-01JDK3V7QX8Z2M4T")?;
        if to.is_empty() && reply_to.is_none() {
            return Err(given.missing("to").into());
        }
        let trimmed = |text: String| text.trim().to_owned();
        let send = Send {
            to,
            text: given.needed("message")?,
            intent: given.choice("intent", &INTENTS)?,
            reply_to,
            thread: given.text("thread")?.map(trimmed),
            ttl_ms: given.number("ttl_s")?.map(|seconds| seconds.saturating_mul(1_000)),
            sources: given.list("sources")?,
            idempotency_key: Some(given.text("idempotency_key")?.map_or_else(fresh_key, trimmed)),
        };
        Ok(Self { send, wait_s: given.number("wait_s")?.unwrap_or(0) })
    }

    async fn run(self, call: &ToolCall<'_>) -> Result<ToolOutput, ToolError> {
        let Self { send, wait_s } = self;
        let reply_to = send.reply_to;
        let wants_reply =
            send.intent.map_or(reply_to.is_none(), |intent| intent == Intent::Request);
        let Reply::Sent(sent) = call.session.request(Request::Send(send)).await? else {
            return Err(ToolError::OtherReply);
        };
        if let Some(answered) = reply_to {
            // The broker settled it with the reply.
            call.session.settled(&[answered]);
        }
        let mut output = ToolOutput { text: describe(&sent), ..ToolOutput::default() };
        output.failed = !sent.deliveries.is_empty()
            && sent.deliveries.iter().all(|delivery| delivery.refusal.is_some());
        if output.failed {
            return Ok(output);
        }
        if sent.deliveries.is_empty() {
            output
                .text
                .push_str("The channel has no other members: the message is in its history.\n");
        } else if !sent.deliveries.iter().any(is_on_its_way) {
            output.text.push_str(
                "Do not wait for a reply: tell your user that it is held until they release it.\n",
            );
        } else if wait_s > 0 {
            wait_for_reply(call, sent.message, wait_s, &mut output).await?;
        } else if wants_reply {
            output.text.push_str(
                "Continue your work: the reply comes by itself with a later tool result.\n",
            );
        }
        Ok(output)
    }
}

/// Whether it may reach its recipient without the person's decision.
pub(super) fn is_on_its_way(delivery: &SentDelivery) -> bool {
    delivery.refusal.is_none() && delivery.stage != Some(Stage::Held)
}

pub(super) async fn wait_for_reply(
    call: &ToolCall<'_>,
    sent: MessageId,
    wait_s: u64,
    output: &mut ToolOutput,
) -> Result<(), ToolError> {
    let (wait_s, cut) = clamped(call, wait_s);
    output.text.push_str(&cut);
    let filter = Filter { reply_to: Some(sent), ..Filter::default() };
    output.waited = Some(WaitGuard::begin(call.session));
    let ended = WaitCondition { filter, kind: WaitKind::All }.wait(call, wait_s).await;
    let later = format!("; the reply to {sent} comes by itself with a later tool result.\n");
    // The message is sent whatever the result of the wait: an error now must not look like a failed
    // send.
    match ended {
        Ok(WaitEnd::Matched(replies)) => {
            let reply = replies.first().copied();
            output.text.push_str(&format!("The reply came: {}.\n", reply.unwrap_or(sent)));
            output.mail = Mail::Due { also: reply, budget: BLOCK_CHARS_MAX };
        }
        Ok(WaitEnd::Request { message, from }) => {
            output.text.push_str(&format!(
                "The wait ended because a request came from {from}, {message}{later}"
            ));
        }
        Ok(WaitEnd::TimedOut) => {
            output.text.push_str(&format!("No reply within {wait_s} s{later}"))
        }
        Err(error) => {
            output.text.push_str(&format!("The wait for the reply failed: {error}{later}"))
        }
    }
    Ok(())
}

/// Renders the result of a send.
fn describe(sent: &Sent) -> String {
    let mut text = format!("Message {}, thread {}.\n", sent.message, word(&sent.thread));
    if sent.deduplicated {
        text.push_str(
            "This idempotency_key was used before: nothing was sent again. The first message:\n",
        );
    }
    text.push_str(&deliveries(sent));
    text
}

/// Renders one line for each recipient.
pub(super) fn deliveries(sent: &Sent) -> String {
    let mut text = String::new();
    for delivery in &sent.deliveries {
        let SentDelivery { name, stage, online, carriers, activity, refusal, .. } = delivery;
        let state = match (refusal, stage) {
            (Some(refusal), _) => format!("refused, nothing was stored for it: {refusal}"),
            (None, Some(Stage::Stored | Stage::Leased | Stage::Offered))
                if delivery.peer == PeerId::HUMAN =>
            {
                "stored in the user's inbox".to_owned()
            }
            // Only a channel has this sign, and only one of another machine is a recipient itself.
            (None, Some(Stage::Stored | Stage::Leased)) if name.starts_with('#') => match online {
                true => "stored, on its way to the other machine, which gives it to the members",
                false => "stored, it waits until a link reaches the channel's machine",
            }
            .to_owned(),
            (None, Some(Stage::Posted)) => "in the channel on the other machine".to_owned(),
            // No peer of this machine has an `@` in its name.
            (None, Some(Stage::Stored | Stage::Leased)) if name.contains('@') => match online {
                true => "stored, online on the other machine".to_owned(),
                false => "stored, it waits until a link reaches the other machine".to_owned(),
            },
            (None, Some(stage @ (Stage::Stored | Stage::Leased | Stage::Offered))) if *online => {
                format!("{}, online, {}", stage.as_str(), reached(carriers, *activity))
            }
            (None, Some(Stage::Stored | Stage::Leased | Stage::Offered)) => {
                "stored, offline: it waits until the peer is back".to_owned()
            }
            (None, Some(Stage::Held)) => "held until the user releases it".to_owned(),
            (None, Some(stage)) => stage.as_str().to_owned(),
            (None, None) => "stored".to_owned(),
        };
        text.push_str(&format!("- {}: {state}\n", word(name)));
    }
    text
}

/// Renders when and how an online session sees mail that is sent now, and how certain that is.
pub(crate) fn reached(carriers: &[CarrierProof], activity: Option<Activity>) -> String {
    let reach = Reach::of(carriers, activity);
    let proof = match reach.carrier().proven_at {
        Some(at) => format!("proved {}", ago(at)),
        None => "not proved in this session".to_owned(),
    };
    let last = carriers
        .iter()
        .filter_map(|proof| proof.proven_at.map(|at| (at, proof.carrier)))
        .max_by_key(|(at, _)| *at);
    match last.filter(|(_, carrier)| *carrier != reach.carrier().carrier) {
        Some((at, carrier)) => {
            format!("{reach} ({proof}; last reached by {} {})", carrier.as_str(), ago(at))
        }
        None => format!("{reach} ({proof})"),
    }
}

/// Returns a key for a send without one, so that a repeat after a lost connection sends it once.
/// The key is unique among one sender's sends: it has this process, the time, and a count.
pub(super) fn fresh_key() -> String {
    static SENDS: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    format!("mcp-{:x}-{nanos:x}-{:x}", std::process::id(), SENDS.fetch_add(1, Ordering::Relaxed))
}
