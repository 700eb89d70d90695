//! peerctl: the one executable of peerd, and the only crate that prints.
//!
//! This is the composition root. It reads the environment and the command line. Then it runs the
//! adapter (`peerctl mcp`) or the broker (`peerctl daemon run`), or asks the broker as the person.
//! It does not know the broker's rules. Of MCP it knows what `demo` and `bench` need to play a
//! client.
//!
//! Every command is one file in `commands`, with its options, its help and its work.

mod agents;
mod args;
mod commands;
mod error;
mod json;
mod mcp_client;
mod operator;
mod output;
mod parse;
mod setup;
mod throwaway;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use peer_client::{Endpoint, Start};

use crate::args::{Alone, Cli, Command};
use crate::error::{Failure, USAGE};
use crate::json::{Error, Failed};
use crate::output::Output;

/// Runs the program with the arguments and the environment of this process.
#[must_use]
pub fn main() -> ExitCode {
    peer_broker::wait_for_children();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // A client takes some exit codes of its hooks for a veto. So even a wrong call exits with
        // 0.
        Err(error) if is_hook(std::env::args_os().skip(1)) => {
            commands::hook::ignore_input();
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return explain(without_far_fetched_tips(error)),
    };
    let output = Output::from_env(cli.json);
    let endpoint = || Endpoint::from_env(if cli.no_start { Start::Never } else { Start::IfNeeded });
    let done = match cli.command {
        Command::At(command) => endpoint()
            .map_err(Failure::from)
            .and_then(|endpoint| commands::run(command, &output, endpoint)),
        Command::Alone(Alone::Hook(args)) => {
            commands::hook::run(&args);
            return ExitCode::SUCCESS;
        }
        // The adapter answers its client even if no broker can be reached: it tells the model why.
        Command::Alone(Alone::Mcp(_)) => return peer_mcp::main(endpoint()),
        // The doctor also reports why there is no endpoint.
        Command::Alone(Alone::Doctor(_)) => commands::doctor::run(&output, endpoint()),
        Command::Alone(Alone::Completions(args)) => commands::completions::run(&args),
        Command::Alone(Alone::Schema(args)) => commands::schema::run(&args, &output),
    };
    ended(done, &output)
}

/// Whether the first argument that is not an option is `hook`.
fn is_hook(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments
        .find(|argument| !argument.as_encoded_bytes().starts_with(b"-"))
        .is_some_and(|command| command == "hook")
}

/// The exit code of the process.
fn ended(done: Result<(), Failure>, output: &Output) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A closed pipe means that the reader needs no more output.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit())
        }
    }
}

/// Least similarity, from 0 to 1, of a command's name to the typed word to be suggested. A typing
/// error is above it, another word below.
const TIP_SIMILARITY_MIN: f64 = 0.6;

/// Removes suggestions that are not similar to the typed word, because they mislead.
fn without_far_fetched_tips(mut error: clap::Error) -> clap::Error {
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return error,
    };
    if let Some(ContextValue::Strings(tips)) = error.remove(ContextKind::SuggestedSubcommand) {
        let close = |tip: &String| {
            strsim::normalized_damerau_levenshtein(&typed, tip) >= TIP_SIMILARITY_MIN
        };
        let tips: Vec<String> = tips.into_iter().filter(close).collect();
        if !tips.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(tips));
        }
    }
    error
}

/// Prints an answer of clap: help and version are data, everything else is a usage error.
fn explain(error: clap::Error) -> ExitCode {
    // If this cannot be printed either, there is no way to report it.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    let wants_json = std::env::args_os()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    if wants_json {
        let text = error.render().to_string();
        // The error is before the first empty line, sometimes as a list. Usage and hints follow it.
        let wrong: Vec<_> =
            text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let wrong = wrong.join(" ");
        let message = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                "no command was given"
            }
            _ => wrong.trim_start_matches("error: "),
        };
        let hint =
            "`peerctl --help` lists the commands, `peerctl COMMAND --help` the options of one";
        let error = Error { code: "usage", message: message.to_owned(), hint: hint.to_owned() };
        let _ = Output::from_env(true).json_line(&Failed { error, data: None });
    }
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        crate::args::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_with_examples_that_parse_and_fit_a_terminal() {
        let command = crate::args::Cli::command();
        let helps =
            command.get_subcommands().filter(|command| !command.is_hide_set()).chain([&command]);
        for help in helps
            .map(|command| command.get_after_help().map(ToString::to_string).unwrap_or_default())
        {
            assert!(help.contains("peerctl "), "no example in {help:?}");
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line:?} is wider than a narrow terminal");
                if line.starts_with("  peerctl ") {
                    let words = words(line);
                    assert!(
                        crate::args::Cli::try_parse_from(&words).is_ok(),
                        "{words:?} is no command line"
                    );
                }
            }
        }
    }

    /// `docs/cli.md` has the help of every command. `PEERD_WRITE_CLI=1` writes it.
    #[test]
    fn the_reference_says_what_the_commands_say() {
        let mut page = String::from(
            "# Commands\n\nThe output of `peerctl help COMMAND`, for every command. A test compares this page with the program. \
             `PEERD_WRITE_CLI=1 cargo test -p peerctl --lib the_reference` writes it again.\n",
        );
        let mut program = crate::args::Cli::command().term_width(100);
        program.build();
        reference(&mut program, 2, &mut page);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
        if std::env::var_os("PEERD_WRITE_CLI").is_some() {
            std::fs::write(path, &page).expect("write the page");
        }
        let written = std::fs::read_to_string(path).expect("docs/cli.md");
        assert!(
            written == page,
            "docs/cli.md is not what the commands say; PEERD_WRITE_CLI=1 writes it"
        );
    }

    fn reference(command: &mut clap::Command, depth: usize, page: &mut String) {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!(
            "\n{} {name}\n\n```text\n{}\n```\n",
            "#".repeat(depth.min(4)),
            help.join("\n").trim_end()
        ));
        for command in command.get_subcommands_mut() {
            if !command.is_hide_set() && command.get_name() != "help" {
                reference(command, depth + 1, page);
            }
        }
    }

    /// The words of the first command in a line, up to a pipe or an explanation.
    fn words(line: &str) -> Vec<String> {
        let line = line.trim();
        let end = ["   ", " | ", " && ", " > "]
            .iter()
            .filter_map(|end| line.find(end))
            .min()
            .unwrap_or(line.len());
        // Every second piece between quotation marks is one word.
        let pieces = line[..end].split('"').enumerate();
        pieces
            .flat_map(|(place, piece)| match place % 2 {
                0 => piece.split_whitespace().map(str::to_owned).collect(),
                _ => vec![piece.to_owned()],
            })
            .collect()
    }
}
