//! `peerctl completions`: prints a completion script for a shell.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Failure;
use crate::output::write_whole;

const AFTER_HELP: &str = "\
Examples:
  peerctl completions bash > ~/.local/share/bash-completion/completions/peerctl
  peerctl completions zsh > ~/.zfunc/_peerctl
  peerctl completions fish > ~/.config/fish/completions/peerctl.fish";

/// Print a script that completes peerctl's commands in your shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "peerctl", &mut script);
    write_whole(&mut io::stdout().lock(), &script).map_err(Failure::output)
}
