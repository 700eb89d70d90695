//! `peerctl demo`: shows the main job in one minute, with real processes.
//!
//! Knows both clients' part of MCP, and the commands that read the result. Invariant: it fails if
//! anything is missing: an adapter that dies, a message that is not shown, or a delivery without
//! evidence.

use std::time::Instant;

use peer_client::Endpoint;
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Stage, TraceEvent};
use peer_proto::request::{HistoryQuery, Shown, ShownDelivery};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::history::{self, MessageRow};
use super::show::{self, WholeMessage};
use crate::error::Failure;
use crate::mcp_client::{Introduction, McpClient, message_id_in};
use crate::operator::{Operator, message_id};
use crate::output::{Output, Tone};
use crate::throwaway::{Interrupts, Throwaway};

const AFTER_HELP: &str = "\
Examples:
  peerctl demo
  peerctl demo --json | jq .timings_ms

The demo starts its own broker in a temporary directory. It touches none of
your files, and leaves nothing behind.";

/// Allows an agent's shell to act as the person: the demo is not about permissions.
const CONFIG: &str = "[operator]\nallow_from_agents = true\n";

const QUESTION: &str = "Which version of bcrypt does package.json ask for?";
const ANSWER: &str = "bcrypt ^5.1.1\n(from package.json, line 14)";

/// Two sessions, one Claude-style and one Codex-style, exchange messages on a throw-away broker
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

/// The two messages of the demonstration, and the duration of each step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Story {
    messages: Vec<WholeMessage>,
    /// The same messages as `history` prints them.
    transcript: Vec<MessageRow>,
    timings_ms: Timings,
}

/// Durations in milliseconds.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Timings {
    initialize_claude: f64,
    initialize_codex: f64,
    /// From the call of `send_message` to its result: the message is durable.
    send_acknowledged: f64,
    /// From the call of `send_message` to the notification of the other session.
    reply_to_channel: f64,
    whole: f64,
}

pub(crate) async fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let room = Throwaway::start(&endpoint.executable, CONFIG).await?;
    let told = tokio::select! {
        told = tell(output, &room) => told,
        interrupted = interrupts.first() => Err(interrupted),
    };
    // The broker is stopped and its directory removed in every case.
    let stopped = room.stop().await;
    let mut story = told?;
    stopped?;
    story.timings_ms.whole = ms_between(begun, Instant::now());
    if output.json {
        return output.json(&story);
    }
    let whole = begun.elapsed().as_secs_f64();
    output.line("")?;
    output.line(&output.paint(
        Tone::Good,
        &format!("done in {whole:.1} s; the broker was stopped and its directory removed"),
    ))
}

/// Rounded to microseconds.
fn ms_between(begun: Instant, ended: Instant) -> f64 {
    (ended.duration_since(begun).as_secs_f64() * 1e6).round() / 1e3
}

/// Plays the story and checks each step.
async fn tell(output: &Output, room: &Throwaway) -> Result<Story, Failure> {
    let mut timings = Timings::default();
    let (mut luna, mut orion) = sessions(output, room, &mut timings).await?;
    let question = ask(output, &mut luna, &mut orion, &mut timings).await?;
    let answer = reply(output, &mut luna, &mut orion, &question, &mut timings).await?;
    let story = read_back(output, room, &question, &answer, timings).await?;
    luna.stop().await?;
    orion.stop().await?;
    Ok(story)
}

/// Prints a line, except with `--json`.
fn say(output: &Output, text: &str) -> Result<(), Failure> {
    if output.json { Ok(()) } else { output.line(text) }
}

fn name(output: &Output, name: &str) -> String {
    output.paint(Tone::Strong, name)
}

/// Starts two sessions that are registered and see each other: luna with Claude Code, orion with
/// Codex.
async fn sessions(
    output: &Output,
    room: &Throwaway,
    timings: &mut Timings,
) -> Result<(McpClient, McpClient), Failure> {
    say(
        output,
        &format!(
            "a broker for the demo, pid {}, and two adapters over pipes:",
            room.operator.welcome.pid
        ),
    )?;
    let begun = Instant::now();
    let introduction = Introduction { name: "luna", client: "claude-code", thread_id: None };
    let mut command = room.command(&["mcp"]);
    command.env("PEERD_CLIENT", "claude");
    let (mut luna, hello) = McpClient::start(command, &introduction).await?;
    timings.initialize_claude = ms_between(begun, Instant::now());
    if hello["capabilities"]["experimental"]["claude/channel"].is_null() {
        return Err(Failure::wrong(format!(
            "the adapter did not offer a Claude client its channel: {hello}"
        )));
    }
    let begun = Instant::now();
    let introduction = Introduction {
        name: "orion",
        client: "codex-mcp-client",
        thread_id: Some("00000000-demo-7000-8000-000000000001"),
    };
    let mut command = room.command(&["mcp"]);
    command.env("PEERD_CLIENT", "codex");
    let (mut orion, _) = McpClient::start(command, &introduction).await?;
    timings.initialize_codex = ms_between(begun, Instant::now());
    for client in [&mut luna, &mut orion] {
        let tools = client.request("tools/list", json!({})).await?;
        let names: Vec<_> = tools["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| tool["name"].as_str())
            .collect();
        for needed in [
            "list_peers",
            "send_message",
            "check_messages",
            "ack_messages",
            "set_summary",
            "rename_peer",
        ] {
            if !names.contains(&needed) {
                return Err(Failure::wrong(format!(
                    "an adapter lists no tool {needed}, only {names:?}"
                )));
            }
        }
    }
    say(
        output,
        &format!(
            "  {} as Claude Code runs it, {} as Codex runs it",
            name(output, "luna"),
            name(output, "orion")
        ),
    )?;
    // The answer of a tool means that the session is registered.
    orion
        .call("set_summary", json!({ "summary": "keeping the API's dependencies in order" }))
        .await?;
    let peers = luna.call("list_peers", json!({})).await?;
    if !peers.contains("orion") {
        return Err(Failure::wrong(format!("luna does not see orion: {peers:?}")));
    }
    Ok((luna, orion))
}

/// Lets luna ask. Orion finds the question in its next tool result. Returns the question's id.
async fn ask(
    output: &Output,
    luna: &mut McpClient,
    orion: &mut McpClient,
    timings: &mut Timings,
) -> Result<String, Failure> {
    say(output, "")?;
    say(
        output,
        &format!(
            "{} asks {} with the tool send_message:",
            name(output, "luna"),
            name(output, "orion")
        ),
    )?;
    output_quoted(output, QUESTION)?;
    let begun = Instant::now();
    let sent = luna.call("send_message", json!({ "to": "orion", "message": QUESTION })).await?;
    timings.send_acknowledged = ms_between(begun, Instant::now());
    let question = message_id_in(&sent)
        .ok_or_else(|| Failure::wrong(format!("send_message returned no id: {sent:?}")))?;
    say(
        output,
        &format!("  durable as {question} and acknowledged after {} ms", timings.send_acknowledged),
    )?;

    let result = orion.call("set_summary", json!({ "state": "working" })).await?;
    let block = inbox_block(&result, &question, QUESTION)?;
    say(output, "")?;
    say(
        output,
        &format!(
            "{} gets it at the end of its next tool result, of any tool:",
            name(output, "orion")
        ),
    )?;
    output_quoted(output, &block)?;
    Ok(question)
}

/// Lets orion reply. Luna is notified through the channel. Returns the reply's id.
async fn reply(
    output: &Output,
    luna: &mut McpClient,
    orion: &mut McpClient,
    question: &str,
    timings: &mut Timings,
) -> Result<String, Failure> {
    say(output, "")?;
    say(output, &format!("{} replies:", name(output, "orion")))?;
    output_quoted(output, ANSWER)?;
    let begun = Instant::now();
    let sent = orion
        .call("send_message", json!({ "to": "luna", "message": ANSWER, "reply_to": question }))
        .await?;
    let answer = message_id_in(&sent.replace(question, ""))
        .ok_or_else(|| Failure::wrong(format!("the reply has no id: {sent:?}")))?;
    let (at, notification) = luna.channel(&answer).await?;
    timings.reply_to_channel = ms_between(begun, at);
    let content = notification["params"]["content"].as_str().unwrap_or_default();
    for line in ANSWER.lines() {
        if !content.contains(&format!("| {line}")) {
            return Err(Failure::wrong(format!(
                "the channel notification does not carry the reply: {content:?}"
            )));
        }
    }
    say(output, "")?;
    let after = timings.reply_to_channel;
    let luna_name = name(output, "luna");
    say(
        output,
        &format!(
            "{luna_name} is notified through the channel, {after} ms after the call of the reply:"
        ),
    )?;
    output_quoted(output, content)?;
    luna.call("ack_messages", json!({ "message_ids": answer })).await?;
    Ok(answer)
}

/// Reads both messages back from the broker, and checks their deliveries.
async fn read_back(
    output: &Output,
    room: &Throwaway,
    question: &str,
    answer: &str,
    timings_ms: Timings,
) -> Result<Story, Failure> {
    let (question, answer) = (message_id(question)?, message_id(answer)?);
    let question = proved(&room.operator, question, Carrier::ToolResult).await?;
    let answer = proved(&room.operator, answer, Carrier::Channel).await?;
    if question.deliveries[0].answered_by != Some(answer.message.id) {
        return Err(Failure::wrong("the question's delivery does not name its answer".to_owned()));
    }
    if answer.deliveries[0].acked_at.is_none() {
        return Err(Failure::wrong(
            "the answer's delivery does not say that it was acknowledged".to_owned(),
        ));
    }
    let transcript =
        history::read(&room.operator, HistoryQuery { limit: 10, ..HistoryQuery::default() })
            .await?;
    if transcript.len() != 2 {
        return Err(Failure::wrong(format!(
            "the broker's history has {} messages instead of two",
            transcript.len()
        )));
    }
    if !output.json {
        output.line("")?;
        output.line("the delivery of each message, as the broker stored it:")?;
        for shown in [&question, &answer] {
            show::print_trace(output, &format!("{} ", shown.message.id), &shown.deliveries[0])?;
        }
        output.line("")?;
        output.line("the transcript, read back from the broker:")?;
        history::print(output, &transcript)?;
    }
    Ok(Story {
        messages: vec![WholeMessage::from(&question), WholeMessage::from(&answer)],
        transcript: transcript.iter().map(MessageRow::from).collect(),
        timings_ms,
    })
}

fn output_quoted(output: &Output, text: &str) -> Result<(), Failure> {
    if output.json { Ok(()) } else { output.quoted(text) }
}

/// The block at the end of a tool's text, if it has this message.
fn inbox_block(result: &str, id: &str, text: &str) -> Result<String, Failure> {
    let block = result.find("[PEER INBOX]").and_then(|place| result.get(place..));
    match block {
        Some(block)
            if block.contains(id)
                && text.lines().all(|line| block.contains(&format!("| {line}"))) =>
        {
            Ok(block.trim().to_owned())
        }
        _ => Err(Failure::wrong(format!("the next tool result does not carry {id}: {result:?}"))),
    }
}

/// The message with its one delivery, if that is settled and its trace has the carrier.
async fn proved(operator: &Operator, id: MessageId, carrier: Carrier) -> Result<Shown, Failure> {
    let shown = operator.show(id).await?;
    let [delivery] = shown.deliveries.as_slice() else {
        return Err(Failure::wrong(format!(
            "{id} has {} deliveries instead of one",
            shown.deliveries.len()
        )));
    };
    check_trace(delivery, carrier)
        .map_err(|what| Failure::wrong(format!("the delivery of {id} {what}")))?;
    Ok(shown)
}

fn check_trace(delivery: &ShownDelivery, carrier: Carrier) -> Result<(), String> {
    if delivery.stage != Stage::Presented {
        return Err(format!("is {} instead of presented", delivery.stage.as_str()));
    }
    if !delivery
        .trace
        .iter()
        .any(|entry| entry.event == TraceEvent::Offered && entry.carrier == Some(carrier))
    {
        return Err(format!("was not offered by {}", carrier.as_str()));
    }
    for event in [TraceEvent::Stored, TraceEvent::Presented] {
        if !delivery.trace.iter().any(|entry| entry.event == event) {
            return Err(format!("has no {} in its trace", event.as_str()));
        }
    }
    Ok(())
}
