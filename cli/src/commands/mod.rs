//! One file per command, and the one function that runs them.
//!
//! Does not know what a command does. `hook`, `mcp`, `doctor`, `completions` and `schema` need no
//! endpoint, so `lib.rs` runs them.

pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod cancel;
pub(crate) mod channels;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod history;
pub(crate) mod hook;
pub(crate) mod inbox;
pub(crate) mod kick;
pub(crate) mod link;
pub(crate) mod mcp;
pub(crate) mod memory;
pub(crate) mod orphans;
pub(crate) mod pause;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod purge;
pub(crate) mod questions;
pub(crate) mod release;
pub(crate) mod rename;
pub(crate) mod schema;
pub(crate) mod search;
pub(crate) mod send;
pub(crate) mod setup;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod tasks;
pub(crate) mod uninstall;
pub(crate) mod version;
pub(crate) mod wait;

use std::future::Future;

use peer_client::{Endpoint, start};

use crate::args::At;
use crate::error::Failure;
use crate::output::Output;

pub(crate) fn run(command: At, output: &Output, endpoint: Endpoint) -> Result<(), Failure> {
    match command {
        At::Daemon(args) => daemon::run(args, output, endpoint),
        At::Setup(args) => setup::run(args, output, endpoint),
        At::Uninstall(args) => uninstall::run(args, output, endpoint),
        At::Config(args) => config::run(args, output, &endpoint),
        At::Demo(args) => block_on(demo::run(args, output, &endpoint)),
        At::Bench(args) => block_on(bench::run(args, output, &endpoint)),
        At::Version(args) => block_on(version::run(args, output, &endpoint)),
        At::Status(args) => block_on(status::run(args, output, &endpoint)),
        At::Peers(args) => block_on(peers::run(args, output, &endpoint)),
        At::Send(args) => block_on(send::run(args, output, &endpoint)),
        At::Ask(args) => block_on(ask::run(args, output, &endpoint)),
        At::Inbox(args) => block_on(inbox::run(args, output, &endpoint)),
        At::Show(args) => block_on(show::run(args, output, &endpoint)),
        At::History(args) => block_on(history::run(args, output, &endpoint)),
        At::Search(args) => block_on(search::run(args, output, &endpoint)),
        At::Channels(args) => block_on(channels::run(args, output, &endpoint)),
        At::Questions(args) => block_on(questions::run(args, output, &endpoint)),
        At::Tasks(args) => block_on(tasks::run(args, output, &endpoint)),
        At::Memory(args) => block_on(memory::run(args, output, &endpoint)),
        At::Tail(args) => block_on(tail::run(args, output, &endpoint)),
        At::Wait(args) => block_on(wait::run(args, output, &endpoint)),
        At::Rename(args) => block_on(rename::run(args, output, &endpoint)),
        At::Kick(args) => block_on(kick::run(args, output, &endpoint)),
        At::Policy(args) => block_on(policy::run(args, output, &endpoint)),
        At::Pause(args) => block_on(pause::pause(args, output, &endpoint)),
        At::Resume(args) => block_on(pause::resume(args, output, &endpoint)),
        At::Purge(args) => block_on(purge::run(args, output, &endpoint)),
        At::Release(args) => block_on(release::run(args, output, &endpoint)),
        At::Orphans(args) => block_on(orphans::run(args, output, &endpoint)),
        At::Cancel(args) => block_on(cancel::run(args, output, &endpoint)),
        At::Link(args) => block_on(link::run(args, output, &endpoint)),
    }
}

/// Runs a command's future on one thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = start::runtime().map_err(|error| {
        let step = start::what_helps(&error).unwrap_or("try again");
        Failure::wrong(format!("starting the runtime failed: {error}")).hint(step)
    })?;
    let done = runtime.block_on(future);
    // A blocking read of standard input or of a lock may still be running; nothing waits for it.
    runtime.shutdown_background();
    done
}
