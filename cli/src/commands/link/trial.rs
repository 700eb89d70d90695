//! `peerctl link test`: whether ssh reaches the other machine, and whether its broker is the known one.
//!
//! Knows one question to the other `peerctl`. Does not open a link, so that one that is up stays up.

use std::time::{Duration, Instant};

use peer_client::Endpoint;
use peer_link::{file, ssh};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::no_such_link;
use crate::error::Failure;
use crate::output::{Output, cell, span};

/// Milliseconds after which the other machine does not answer.
const ANSWER_TIMEOUT_MS: u64 = 30_000;

/// Most bytes that the other machine may say.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A trial of a link.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Trial {
    link: String,
    /// The broker that answered.
    broker: String,
    /// Its version.
    version: String,
    /// How long ssh or the server, and the other `peerctl`, took together.
    took_ms: u64,
}

/// The answer of `peerctl link identity --json`.
#[derive(Debug, Deserialize)]
struct Answer {
    broker: String,
    version: String,
}

pub(super) async fn run(output: &Output, endpoint: &Endpoint, link: String) -> Result<(), Failure> {
    let mut links = file::read(endpoint.location.dir())?.link;
    let Some(target) = links.remove(&link) else {
        return ask_member(output, endpoint, link).await;
    };
    let began = Instant::now();
    let (child, stdout, stdin) =
        ssh::start(&target.ssh, &target.command, &["link", "identity", "--json"])
            .map_err(|error| Failure::system("starting ssh", error))?;
    drop(stdin);
    let call = format!("`ssh {} {} link identity`", target.ssh, target.command);
    let mut text = Vec::new();
    let mut stdout = stdout.take(ANSWER_BYTES_MAX);
    let reading = stdout.read_to_end(&mut text);
    let timeout = Duration::from_millis(ANSWER_TIMEOUT_MS);
    let Ok(_) = tokio::time::timeout(timeout, reading).await else {
        let said = because(child.end().await);
        return Err(Failure::timed_out(format!(
            "{call} did not answer within {}{said}",
            span(ANSWER_TIMEOUT_MS)
        ))
        .hint("check the network, and that the command asks no question"));
    };
    let (succeeded, said) = child.wait().await;
    let answer = answer(&text).filter(|_| succeeded).ok_or_else(|| {
        Failure::wrong(format!("{call} does not work{}", because(said)))
            .hint("run it by hand; a key that may run one command only cannot be tested so")
    })?;
    if let Some(known) = target.broker.filter(|known| *known != answer.broker) {
        return Err(Failure::wrong(format!(
            "{} has another identity than before: {}, not {known}",
            cell(&link),
            single_line(&answer.broker)
        ))
        .hint(format!(
            "if that machine was set up anew, `peerctl link rm {link}` and add the link again"
        )));
    }
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if output.json {
        let Answer { broker, version } = answer;
        return output.json(&Trial { link, broker, version, took_ms });
    }
    output.line(&format!(
        "{} answers: {}, peerctl {}, in {}",
        cell(&link),
        single_line(&answer.broker),
        single_line(&answer.version),
        if took_ms < 1_000 { format!("{took_ms} ms") } else { span(took_ms) }
    ))
}

/// Asks a machine of a team whether it is there, over the server.
#[cfg(feature = "nats")]
async fn ask_member(output: &Output, endpoint: &Endpoint, link: String) -> Result<(), Failure> {
    let links = super::ask(endpoint, peer_proto::link::LinksRequest::List).await?;
    let known = links.into_iter().find(|known| known.name == link);
    let broker = known.ok_or_else(|| no_such_link(&link))?.broker;
    let began = Instant::now();
    let here = match super::team::probe(endpoint, broker).await? {
        Some(Ok(here)) => here,
        Some(Err(error)) => return Err(Failure::unreachable(format!("{}: {error}", cell(&link)))),
        None => {
            return Err(Failure::wrong(format!("{} cannot be tested from here", cell(&link)))
                .hint("it is in no team's directory, so that machine calls this one"));
        }
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if output.json {
        let (broker, version) = (broker.to_string(), here.software);
        return output.json(&Trial { link, broker, version, took_ms });
    }
    output.line(&super::team::tested(&here, took_ms, &link, broker))
}

#[cfg(not(feature = "nats"))]
async fn ask_member(_: &Output, _: &Endpoint, link: String) -> Result<(), Failure> {
    Err(no_such_link(&link))
}

fn because(said: Option<String>) -> String {
    said.map(|said| format!(": {}", single_line(&said))).unwrap_or_default()
}

/// The object in what the other machine wrote. A shell there may write before it.
fn answer(text: &[u8]) -> Option<Answer> {
    let begins = text.iter().enumerate().filter(|(_, byte)| **byte == b'{').map(|(at, _)| at);
    begins.filter_map(|at| serde_json::from_slice(&text[at..]).ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_after_what_a_shell_wrote() {
        let text = b"Welcome {friend}\n{\"broker\": \"b-1\", \"version\": \"0.1.0\"}\n";
        assert_eq!(answer(text).map(|answer| answer.broker), Some("b-1".to_owned()));
        assert!(answer(b"Welcome\n").is_none());
        assert!(answer(b"{\"broker\": \"b-1\"}").is_none());
    }
}
