//! The command line: the global options and the list of commands. Each command's own options stand with the command.

use clap::{Parser, Subcommand};

use crate::commands::{
    ask, bench, cancel, channels, completions, config, daemon, demo, doctor, history, hook, inbox, kick, mcp, memory, orphans,
    pause, peers, policy, purge, questions, release, rename, search, send, setup, show, status, tail, tasks, uninstall, version,
    wait,
};

const AFTER_HELP: &str = "\
Examples:
  peerctl demo                               two sessions talk, as a show
  peerctl peers                              who is here
  peerctl send backend -- \"run the tests\"    write to a session
  peerctl inbox me                           what sessions wrote to you
  peerctl tail                               watch what happens

Exit codes: 0 ok, 1 failed, 2 usage, 3 broker unreachable, 4 no such thing,
5 timed out, 6 refused, 7 doctor found problems.
State is kept in PEERD_DIR, by default .local/share/peerd under the home
directory.";

/// A mailbox for coding agents: see who is here, write to them, watch what they tell each other.
#[derive(Debug, Parser)]
#[command(name = "peerctl", bin_name = "peerctl", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print data as JSON; streams print one object per line
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,

    /// Do not start the broker where none runs
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) no_start: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Mcp(mcp::Args),
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
    Hook(hook::Args),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Uninstall(uninstall::Args),
    Config(config::Args),
    Completions(completions::Args),
    Version(version::Args),
    Bench(bench::Args),
}

/// A span of time, such as `90s` or `5m`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write a span such as 90s, 5m or 2h"))
}
