//! Checks the links to other machines: the key, the file, the process that serves them, and each one.
//!
//! Knows the files of links and what the broker says of them. Does not call another machine, because
//! that may take long: `peerctl link test` does. Without a link it finds nothing.

use peer_client::{Endpoint, Start};
use peer_link::served::{self, State};
use peer_link::{file, identity};
use peer_proto::link::{LinkInfo, LinksRequest};
use peer_proto::request::{Reply, Request};
use peer_proto::text::single_line;

use super::Findings;
use crate::commands::block_on;
use crate::operator::{Operator, unexpected};
use crate::output::{cell, now, span};

/// Milliseconds after which mail that another machine has not taken is worth a note: one day.
const AWAY_LONG_MS: u64 = 24 * 3_600 * 1_000;

pub(super) fn look(endpoint: &Endpoint, findings: &mut Findings) {
    let dir = endpoint.location.dir();
    if let Err(error) = identity::existing(dir) {
        let expected = "a private key that only you can read";
        findings.problem("links", error.to_string(), expected, error.hint());
    }
    let (targets, teams) = match file::read(dir) {
        Ok(file) => (file.link, file.team.len()),
        Err(error) => {
            let fix = "correct the file, or remove it and add the links again";
            return findings.problem("links", error.to_string(), "a file of links", fix);
        }
    };
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let asked = block_on(async {
        let operator = Operator::connect(&quiet).await?;
        match operator.ask(Request::Links(LinksRequest::List)).await? {
            Reply::Links(links) => Ok(links),
            _ => Err(unexpected()),
        }
    });
    let served = served::look(&endpoint.location);
    #[cfg(feature = "nats")]
    for (found, expected, fix) in crate::commands::link::team::unwell(endpoint) {
        findings.problem("links", found, expected, fix);
    }
    if targets.len() + teams > 0 && served.is_none() {
        findings.problem(
            "links",
            format!("no process serves the {} in links.toml", number(targets.len() + teams)),
            "a process that serves them, so that mail for other machines leaves",
            "peerctl link start",
        );
    }
    // A broker that does not run or answer is reported by its own check.
    let links = asked.unwrap_or_default();
    for name in targets.keys() {
        let known = links.iter().find(|link| link.name == *name);
        let Some(served) = &served else { break };
        match served.links.get(name) {
            _ if known.is_some_and(|link| link.up) => {}
            None => findings.problem(
                "links",
                format!("{} is in links.toml, and its process does not serve it", cell(name)),
                "a process that serves it",
                "peerctl link stop, then peerctl link start",
            ),
            Some(seen) if matches!(seen.state, State::Down | State::Refused) => {
                let why = seen.error.as_deref().unwrap_or("for an unknown reason");
                findings.problem(
                    "links",
                    format!("{} is down: {}", cell(name), single_line(why)),
                    "a link that is up; mail waits for it",
                    format!("peerctl link test {name}"),
                );
            }
            Some(_) => {}
        }
    }
    for link in links {
        one(&link, findings);
    }
}

fn one(link: &LinkInfo, findings: &mut Findings) {
    let waiting = link.waiting + link.in_flight;
    if link.up {
        let name = cell(&link.name);
        findings.good("links", format!("{name} is up, peers: {}, waiting: {waiting}", link.peers));
    } else if waiting > 0
        && let Some(heard_at) = link.heard_at
        && now().ms_since(heard_at) > AWAY_LONG_MS
    {
        findings.note(
            "links",
            format!(
                "{} was not heard of for {}, and {waiting} deliveries wait for it; they become dead letters after 7 days",
                cell(&link.name),
                span(now().ms_since(heard_at))
            ),
            format!("peerctl link show {}", link.name),
        );
    }
    if link.held > 0 {
        findings.note(
            "links",
            format!("deliveries from {} that wait for you: {}", cell(&link.name), link.held),
            format!(
                "peerctl inbox, then peerctl release ID; or peerctl link set {} accept",
                link.name
            ),
        );
    }
}

fn number(links: usize) -> String {
    if links == 1 { "link or team".to_owned() } else { format!("{links} links and teams") }
}
