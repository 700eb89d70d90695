//! The command line: the global options and the list of commands.
//!
//! Does not know the options of a command: they are in the command's file.

use clap::{Parser, Subcommand};

use crate::commands::{
    ask, bench, cancel, channels, completions, config, daemon, demo, doctor, history, hook, inbox,
    kick, link, mcp, memory, orphans, pause, peers, policy, purge, questions, release, rename,
    schema, search, send, setup, show, status, tail, tasks, uninstall, version, wait,
};

const AFTER_HELP: &str = "\
Examples:
  peerctl demo                               show two sessions that talk
  peerctl peers                              list the peers
  peerctl send backend -- \"run the tests\"    send a message to a session
  peerctl inbox me                           read the messages to you
  peerctl tail                               print live events

Exit codes: 0 ok, 1 failed, 2 usage, 3 broker unreachable, 4 no such thing,
5 timed out, 6 refused, 7 doctor found problems.
The broker's files are in PEERD_DIR, by default .local/share/peerd under the
home directory.";

/// A mailbox for coding agents: see who is here, write to them, watch what they tell each other.
#[derive(Debug, Parser)]
#[command(name = "peerctl", bin_name = "peerctl", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print data as JSON; streams print one object per line
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,

    /// Do not start the broker if none is running
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) no_start: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// All commands, by what they need to run. The help lists them in this order.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    At(At),
    #[command(flatten)]
    Alone(Alone),
}

/// Commands that need an endpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum At {
    Daemon(daemon::Args),
    Demo(demo::Args),
    Status(status::Args),
    #[command(alias = "ls", alias = "list")]
    Peers(peers::Args),
    Send(send::Args),
    Ask(ask::Args),
    Inbox(inbox::Args),
    Show(show::Args),
    #[command(alias = "log", alias = "logs")]
    History(history::Args),
    Search(search::Args),
    Channels(channels::Args),
    Questions(questions::Args),
    Tasks(tasks::Args),
    Memory(memory::Args),
    Tail(tail::Args),
    Wait(wait::Args),
    Rename(rename::Args),
    Kick(kick::Args),
    Policy(policy::Args),
    Release(release::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Purge(purge::Args),
    #[command(alias = "dead")]
    Orphans(orphans::Args),
    Cancel(cancel::Args),
    Link(link::Args),
    Setup(setup::Args),
    Uninstall(uninstall::Args),
    Config(config::Args),
    Version(version::Args),
    Bench(bench::Args),
}

/// Commands that also run without an endpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum Alone {
    Doctor(doctor::Args),
    Completions(completions::Args),
    Schema(schema::Args),
    Hook(hook::Args),
    Mcp(mcp::Args),
}
