//! `peerctl hook`: called by the installed hooks. Passes the event to the session's adapter,
//! through the broker, and prints the adapter's answer for the client's model.
//!
//! Does not know what an event means. The invariants:
//!
//! - It never fails its caller, and never delays it for long. On any error, it prints nothing and
//!   succeeds.
//! - It starts no broker.
//! - It always reads its input first. A client that writes to an ended hook fails with a broken
//!   pipe.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use peer_client::{Connection, Endpoint, Start};
use peer_mcp::JsonScan;
use peer_proto::hook::HookCall;
use peer_proto::request::{Reply, Request, Role};

use crate::output;

/// Milliseconds that the adapter's answer may take. It usually takes a few, and the client waits.
const PATIENCE_MS: u64 = 2_000;

/// Milliseconds that a client may take to write its JSON. With [`PATIENCE_MS`], this is below the
/// timeout that `setup` writes into the clients' files.
const INPUT_MS: u64 = 2_000;

/// Longest input that is kept, in bytes; the rest is read and dropped. A client may pass whole tool
/// results, of which little is needed.
const INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

const AFTER_HELP: &str = "\
`peerctl setup` writes these calls into the clients' own configuration:
  peerctl hook claude SessionStart
  peerctl hook codex PostToolUse

The hook reads the client's JSON from standard input. It prints what the model
is to see to standard output, in the client's own form. If no mail waits, it
prints nothing. The exit code is always 0, and no broker is started.";

/// Called by the installed hooks of a client: reads its JSON, prints its hook JSON
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The client whose hook this is: claude or codex
    client: String,

    /// The event of the hook; by default the one that the input names
    event: Option<String>,
}

/// Runs one hook to its end.
pub(crate) fn run(args: &Args) {
    let input = input();
    let is_off = |name: &str| std::env::var(name).is_ok_and(|value| value.trim() == "0");
    if is_off("PEERD_ENABLED") || is_off("AGENT_PEERS_ENABLED") {
        return;
    }
    let (Some(hook), Ok(endpoint)) = (understood(args, input), Endpoint::from_env(Start::Never))
    else {
        return;
    };
    let Ok(runtime) = peer_client::start::runtime() else { return };
    let patience = Duration::from_millis(PATIENCE_MS);
    let output =
        runtime.block_on(async { tokio::time::timeout(patience, relay(&endpoint, hook)).await });
    runtime.shutdown_background();
    if let Ok(Some(output)) = output
        && !output.is_empty()
    {
        // A client that closed the pipe needs no output.
        let _ = output::write_line(&output);
    }
}

/// Reads the input of a hook that does nothing, so that the client's write succeeds.
pub(crate) fn ignore_input() {
    let _ = input();
}

/// The event in the client's input.
fn understood(args: &Args, input: Vec<u8>) -> Option<HookCall> {
    let mut hook = peer_mcp::hook_call_in(&args.client, args.event.as_deref(), input)?;
    hook.name = std::env::var("PEER_NAME")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    Some(hook)
}

/// Reads the client's JSON: up to the end of the input or of the first whole object, because some
/// clients leave the pipe open. Waits at most [`INPUT_MS`]. A terminal gives no input.
fn input() -> Vec<u8> {
    let mut input = io::stdin().lock();
    let mut text = Vec::new();
    if input.is_terminal() {
        return text;
    }
    let end = Instant::now() + Duration::from_millis(INPUT_MS);
    let mut scan = JsonScan::default();
    let mut piece = vec![0; 64 * 1024];
    // After a whole object, this reads only what is there already.
    while output::is_ready(
        input.as_fd(),
        PollFlags::POLLIN,
        if scan.is_complete() { Instant::now() } else { end },
    ) {
        match input.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                scan.read(&piece[..count]);
                text.extend_from_slice(&piece[..count.min(INPUT_BYTES_MAX - text.len())]);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => break,
        }
    }
    text
}

async fn relay(endpoint: &Endpoint, hook: HookCall) -> Option<String> {
    let seat = Some(hook.seat.clone());
    let (connection, _pushes, _) = Connection::open(endpoint, Role::Hook, seat).await.ok()?;
    match connection.request(Request::Hook(hook)).await {
        Ok(Reply::Hook { output }) => Some(output),
        _ => None,
    }
}
