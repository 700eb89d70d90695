//! `peerctl doctor`: checks everything that must fit together. Each finding has what was expected,
//! and the command that fixes it.
//!
//! Each check is a function that adds findings; this file runs the checks and prints the findings.
//! It does not know what a check reads. Invariant: it changes nothing and starts no broker. If none
//! is running, a separate process checks what a start needs.

mod broker;
mod clients;
mod links;
mod machine;

use peer_client::{ConnectError, Endpoint};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::output::{Output, Tone};
use crate::setup::Place;

const AFTER_HELP: &str = "\
Examples:
  peerctl doctor
  peerctl doctor --json | jq '.findings[] | select(.state == \"problem\")'

The exit code is 0 if there are no problems, and 7 otherwise. A note is not a
problem: it may explain something that seems odd. The doctor reads the clients'
files and asks the broker. If none is running, it checks what a start needs,
and starts none.";

/// Find out what is wrong, and how to fix it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

/// The result of all checks.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    /// The number of findings that are problems.
    problems: usize,
    findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    Note,
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Finding {
    /// The name of the check, for programs.
    check: &'static str,
    state: State,
    /// What was found.
    observed: String,
    /// What was expected; empty if there is no problem.
    expected: String,
    /// How to fix it; empty if there is nothing to fix.
    #[serde(rename = "hint")]
    fix: String,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: &'static str, observed: impl Into<String>) {
        self.add(State::Good, check, observed, "", "");
    }

    fn note(&mut self, check: &'static str, observed: impl Into<String>, fix: impl Into<String>) {
        self.add(State::Note, check, observed, "", fix);
    }

    fn problem(
        &mut self,
        check: &'static str,
        observed: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.add(State::Problem, check, observed, expected, fix);
    }

    /// Adds a failure as a problem, with its next step.
    fn failed(&mut self, check: &'static str, failure: Failure, expected: &str) {
        self.problem(check, failure.message, expected, failure.hint);
    }

    fn add(
        &mut self,
        state: State,
        check: &'static str,
        observed: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Finding {
            state,
            check,
            observed: observed.into(),
            expected: expected.into(),
            fix: fix.into(),
        });
    }
}

pub(crate) fn run(
    output: &Output,
    endpoint: Result<Endpoint, ConnectError>,
) -> Result<(), Failure> {
    let mut findings = Findings::default();
    match endpoint {
        Ok(endpoint) => look(&endpoint, &mut findings),
        Err(error) => {
            findings.failed("directory", error.into(), "a usable directory for the broker's socket")
        }
    }
    print(output, findings.0)
}

fn look(endpoint: &Endpoint, findings: &mut Findings) {
    environment(findings);
    machine::executable(endpoint, findings);
    machine::directory(&endpoint.location, findings);
    machine::config(&endpoint.location, findings);
    broker::look(endpoint, findings);
    links::look(endpoint, findings);
    match Place::from_env(endpoint) {
        Ok(place) => {
            if let Some(doubt) = place.doubt() {
                findings.note("executable", doubt.what, doubt.step);
            }
            clients::look(&place, findings);
        }
        Err(failure) => {
            findings.failed("clients", failure, "a home directory with the clients' files")
        }
    }
    machine::adapters(&endpoint.location, findings);
}

/// Checks for variables that disable the adapters and hooks of this environment.
fn environment(findings: &mut Findings) {
    for name in ["PEERD_ENABLED", "AGENT_PEERS_ENABLED"] {
        if std::env::var_os(name).is_some_and(|value| value == "0") {
            let observed = format!("{name}=0: sessions started from this shell get no mail");
            findings.note("environment", observed, format!("unset {name}"));
        }
    }
}

fn print(output: &Output, findings: Vec<Finding>) -> Result<(), Failure> {
    let problems = findings.iter().filter(|finding| finding.state == State::Problem).count();
    if !output.json {
        for finding in &findings {
            let (tone, word) = match finding.state {
                State::Good => (Tone::Good, "good"),
                State::Note => (Tone::Strong, "note"),
                State::Problem => (Tone::Bad, "BAD "),
            };
            let clean = peer_proto::text::single_line;
            output.line(&format!(
                "{}  {:<11} {}",
                output.paint(tone, word),
                finding.check,
                clean(&finding.observed)
            ))?;
            if !finding.expected.is_empty() {
                output.line(&format!("      {:<11} expected: {}", "", clean(&finding.expected)))?;
            }
            if !finding.fix.is_empty() {
                output.line(&format!(
                    "      {:<11} {} {}",
                    "",
                    output.paint(Tone::Strong, "->"),
                    clean(&finding.fix)
                ))?;
            }
        }
    }
    if problems == 0 {
        let notes = findings.iter().filter(|finding| finding.state == State::Note).count();
        let said = match notes {
            0 => "all is well".to_owned(),
            1 => "no problems, 1 note".to_owned(),
            notes => format!("no problems, {notes} notes"),
        };
        return if output.json {
            output.json(&Report { problems, findings })
        } else {
            output.line(&output.paint(Tone::Good, &said))
        };
    }
    let what =
        if problems == 1 { "one problem".to_owned() } else { format!("{problems} problems") };
    Err(Failure::unwell(format!("found {what}"))
        .hint("the arrow below each problem shows how to fix it")
        .with(Report { problems, findings }))
}
