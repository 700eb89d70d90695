//! `peerctl hook`: what the installed hooks call. It tells the session's adapter what happened, through the broker, and
//! prints what the adapter wants the client's model to see.
//!
//! The invariant: it never fails its caller, and never keeps it waiting for long. Whatever goes wrong, it prints nothing
//! and ends well; no broker is started for it.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use peer_client::{Connection, Endpoint, Start};
use peer_proto::hook::HookCall;
use peer_proto::request::{Reply, Request, Role};

/// How long all of it may take, in milliseconds: an adapter answers in a few, and clients wait for their hooks.
const PATIENCE_MS: u64 = 2_000;

/// Longest input that is read. A client passes whole tool results; what is wanted of them is small.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

const AFTER_HELP: &str = "\
`peerctl setup` writes these calls into the clients' own configuration:
  peerctl hook claude SessionStart
  peerctl hook codex PostToolUse

The client's JSON comes on standard input; what the client shall show its model
goes to standard output, in the client's own form. Nothing is printed where
nothing waits. The exit code is always 0, and no broker is started.";

/// What the installed hooks of a client call: its JSON in, its hook JSON out
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Whose hook it is: claude or codex
    client: String,

    /// What happened; otherwise the input says it
    event: Option<String>,
}

/// Runs one hook to its end.
pub(crate) fn run(args: &Args) {
    let is_off = |name: &str| std::env::var(name).is_ok_and(|value| value.trim() == "0");
    if is_off("PEERD_ENABLED") || is_off("AGENT_PEERS_ENABLED") {
        return;
    }
    let (Some(hook), Ok(endpoint)) = (read(args), Endpoint::from_env(Start::Never)) else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let patience = Duration::from_millis(PATIENCE_MS);
    let output = runtime.block_on(async { tokio::time::timeout(patience, relay(&endpoint, hook)).await });
    runtime.shutdown_background();
    if let Ok(Some(output)) = output
        && !output.is_empty()
    {
        // A client that closed the pipe wants nothing any more.
        let _ = writeln!(std::io::stdout(), "{output}");
    }
}

/// The client's JSON. A person at a terminal has none.
fn read(args: &Args) -> Option<HookCall> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return None;
    }
    let mut text = Vec::new();
    input.by_ref().take(INPUT_BYTES_MAX).read_to_end(&mut text).ok()?;
    let mut hook = peer_mcp::hook_call_in(&args.client, args.event.as_deref(), text)?;
    hook.name = std::env::var("PEER_NAME").ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    Some(hook)
}

async fn relay(endpoint: &Endpoint, hook: HookCall) -> Option<String> {
    let seat = Some(hook.seat.clone());
    let (connection, _pushes, _) = Connection::open(endpoint, Role::Hook, seat).await.ok()?;
    match connection.request(Request::Hook(hook)).await {
        Ok(Reply::Hook { output }) => Some(output),
        _ => None,
    }
}
