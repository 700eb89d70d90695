//! The MCP adapter: an MCP server on standard input and output, and a session with the broker.
//!
//! It turns pushes into text for the client's model, and the client's events into evidence.
//! [`peer_mcp_core`] takes the decisions, and has no clock and no file. This crate knows MCP, the
//! broker's protocol, and the client's files and sockets. It does not know which message goes when.
//! Invariant: nothing prints, because standard output is the client's.
//!
//! Modules, in the order in which to read them:
//!
//! - `server`: answers the client's requests.
//! - `tools`: the tools, one file for each.
//! - `session`: the connection to the broker, and `Session::handle`, through which every event
//!   reaches the core.
//! - `carriers`: the ways into the model, one file for each.
//! - `claude`, `transcript`, `watch`: the client's own files about its session.
//! - `summary`, `title`: the first summary for other peers, and the tab's title for the person.
//! - `lenient`, `json_scan`: read the messages of deviating clients. Pure.
//! - `directory`: the text of a directory for the broker. Pure.
//! - `stdio`, `interrupt`, `parent`, `git`, `child`: the pipe to the client, its Ctrl-C, its end,
//!   the repository, other programs.

mod carriers;
mod child;
mod claude;
mod codex;
mod config;
mod directory;
mod git;
mod hook_input;
mod interrupt;
mod json_scan;
mod lenient;
mod parent;
mod render;
#[cfg(test)]
#[path = "../core/src/samples.rs"]
mod samples;
mod server;
mod session;
mod stdio;
mod summary;
mod title;
mod tools;
mod transcript;
mod watch;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

pub use hook_input::hook_call_in;
pub use json_scan::JsonScan;
use peer_client::{ConnectError, Endpoint, start};
use peer_mcp_core::{call, event, inbox, ways};
use peer_proto::settings::{Adapter, Profile};
use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::config::AdapterConfig;
use crate::interrupt::Interrupts;
use crate::server::Server;
use crate::session::{Environment, Session};
use crate::stdio::{ClientPipe, Outgoing};

/// After the client closed our input, calls in progress have this long, in milliseconds. The time
/// is short, because another session gets the mail once this process has ended.
const FAREWELL_MS: u64 = 300;

/// Runs the adapter on standard input and output until its client has ended. `endpoint` is how to
/// reach the broker; the tools report an error in it, so that the client can still show it.
///
/// The exit code is 0 if the client ended the adapter, by closing a pipe, by a signal, or by its
/// own end. It is 1 if the client did not speak MCP, or did not read its output.
pub fn main(endpoint: Result<Endpoint, ConnectError>) -> ExitCode {
    let interrupts = Interrupts::take();
    let runtime = match start::runtime().and_then(with_threads) {
        Ok(runtime) => runtime,
        Err(error) => {
            let step = start::what_helps(&error).unwrap_or("start it again");
            return fail(&format!("starting the adapter's runtime failed: {error}; {step}"));
        }
    };
    let code = runtime.block_on(run(endpoint, interrupts));
    // An OS thread may still be blocked on reading standard input; it ends with the process.
    runtime.shutdown_background();
    code
}

/// Makes the blocking threads, and returns an error if there are none: tokio panics if it cannot
/// make the first. One reads standard input and one writes standard output if these are not pipes.
/// Others read files, and wait for one of the two if there is no third.
fn with_threads(runtime: Runtime) -> io::Result<Runtime> {
    const THREADS: usize = 2;

    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let block = || {
        let held = Arc::clone(&held);
        move || drop(held.lock().map(|held| held.recv()))
    };
    let tried: io::Result<Vec<_>> =
        (0..THREADS).map(|_| std::thread::Builder::new().spawn(block())).collect();
    if tried.is_ok() {
        // Requested while those are held, so that there is room for both kinds; tokio keeps its
        // own.
        (0..THREADS).for_each(|_| drop(runtime.spawn_blocking(block())));
    }
    drop(release);
    for thread in tried? {
        // Its code cannot panic.
        let _ = thread.join();
    }
    Ok(runtime)
}

async fn run(endpoint: Result<Endpoint, ConnectError>, interrupts: Interrupts) -> ExitCode {
    let config = AdapterConfig::read(endpoint.as_ref().ok());
    let dormant = is_dormant(&config);
    let (input, output) = rmcp::transport::io::stdio_pipes();
    let outgoing = Outgoing::default();
    let input_closed = Arc::new(Notify::new());
    let (profile, odd_profile) = profile(config.adapter.profile);
    let notices: Vec<String> = config.notices.iter().cloned().chain(odd_profile).collect();
    let session = Session::new(environment(config.adapter), endpoint, outgoing.clone());
    let told = Arc::clone(&session);
    let tell = move |event| drop(told.handle(event));
    let pipe = ClientPipe::new(input, outgoing.clone(), Arc::clone(&input_closed), tell);
    let server = Server::new(Arc::clone(&session), dormant, profile);
    for notice in notices {
        session.notice(notice);
    }

    let mut writing = tokio::spawn(outgoing.clone().write_to(output));
    let mut serving = tokio::spawn(async move {
        match server.serve(pipe).await {
            // rmcp ends with the input, which is waited for below.
            Ok(running) => running.waiting().await.map(drop).map_err(|error| error.to_string()),
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
    let code = tokio::select! {
        () = input_closed.notified() => {
            session.close();
            let farewell = async {
                let _ = (&mut serving).await;
                while !outgoing.is_drained() {
                    outgoing.drained().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(FAREWELL_MS), farewell).await;
            ExitCode::SUCCESS
        }
        () = signalled() => ExitCode::SUCCESS,
        () = interrupts.asking_to_end() => ExitCode::SUCCESS,
        () = parent::gone() => ExitCode::SUCCESS,
        // The client closed its end of our output.
        _ = &mut writing => ExitCode::SUCCESS,
        () = outgoing.overflown() => {
            fail("the client stopped reading, and too much output waits for it; its mail stays with the broker: restart the client")
        }
        served = &mut serving => match served {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => fail(&format!("the exchange of MCP with the client failed: {error}; let an MCP client start `peerctl mcp`")),
            Err(error) => fail(&format!("the exchange of MCP with the client failed: {error}")),
        },
    };
    session.title.give_back();
    session.close();
    session.last_look().await;
    code
}

/// Waits for a signal that asks to end.
async fn signalled() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without a handler, the signal itself ends the process.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

fn environment(adapter: Adapter) -> Environment {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    Environment {
        name: variable("PEER_NAME").map(|name| name.trim().to_owned()),
        client: variable("PEERD_CLIENT").map(|client| client.trim().to_owned()),
        claude_session: variable("CLAUDE_CODE_SESSION_ID"),
        home: variable("HOME").unwrap_or_default(),
        cwd: std::env::current_dir().ok(),
        client_pid: nix::unistd::getppid().as_raw().unsigned_abs(),
        tab_title: title::is_wanted(variable),
        summarizer: variable("PEERD_SUMMARIZER"),
        claude: claude::Inherited::from(variable),
        carriers_off: adapter.carriers_off,
        wakeups_per_hour: adapter.wakeups_per_hour,
        wake_unattended: adapter.wake_unattended,
        codex_config: variable("CODEX_HOME").map_or_else(
            || Path::new(&variable("HOME").unwrap_or_default()).join(".codex"),
            PathBuf::from,
        ),
    }
}

/// Returns the profile of tools, where `PEERD_PROFILE` precedes the file, and an error about that
/// variable.
fn profile(configured: Profile) -> (Profile, Option<String>) {
    let said = std::env::var("PEERD_PROFILE").ok().filter(|said| !said.trim().is_empty());
    let Some(said) = said else { return (configured, None) };
    match Profile::named(&said) {
        Some(profile) => (profile, None),
        None => {
            let said = render::sentence(&said);
            let notice = format!(
                "PEERD_PROFILE is {said}, but must be core or full; this session has the tools of core"
            );
            (Profile::Core, Some(notice))
        }
    }
}

/// Whether this adapter must stay inactive: no broker, no registration, no tools.
fn is_dormant(config: &AdapterConfig) -> bool {
    let switches: Vec<String> = ["PEERD_ENABLED", "AGENT_PEERS_ENABLED"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .collect();
    let says = |value: &str| switches.iter().any(|switch| switch.trim() == value);
    says("0") || (!says("1") && config.adapter.opt_in)
}

/// Writes to standard error why the adapter ends.
fn fail(why: &str) -> ExitCode {
    complain(why);
    ExitCode::FAILURE
}

/// Writes a text to standard error, for the person who maintains the client.
fn complain(why: &str) {
    // Possibly no process reads it.
    let _ = writeln!(std::io::stderr(), "peerctl: {why}");
}
