//! `peerctl completions`: a script for the shell.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Failure;

const AFTER_HELP: &str = "\
Examples:
  peerctl completions bash > ~/.local/share/bash-completion/completions/peerctl
  peerctl completions zsh > ~/.zfunc/_peerctl
  peerctl completions fish > ~/.config/fish/completions/peerctl.fish";

/// Print a script that completes peerctl's commands in your shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "peerctl", &mut script);
    io::stdout().lock().write_all(&script).map_err(Failure::Output)
}
