//! `peerctl policy`: shows and sets the person's policies for mail to sessions.
//!
//! Does not know to which mail a policy applies: the broker decides.

use peer_client::Endpoint;
use peer_proto::policy::{Policies, Policy};
use peer_proto::request::{Reply, Request};
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::{Operator, person, unexpected};
use crate::output::{Output, Tone, cell};

const AFTER_HELP: &str = "\
Examples:
  peerctl policy                        all policies in force
  peerctl policy backend                the policy for one session
  peerctl policy backend hold           hold its mail for your decision
  peerctl policy backend default        no policy of its own
  peerctl policy all refuse             for all without their own policy
  peerctl policy inbox-socket allow     see below

accept: mail is delivered. hold: mail waits until you run `peerctl release`,
and its sender is told. refuse: mail is refused, and its sender is told.
A policy is for mail from other sessions and their shells, sent from now on.
Mail from you, and the answer to a session's own question, is always accepted.

inbox-socket: Claude Code shows a dialog before it accepts a message from
another program through a session's inbox socket. The adapter is a child of the
session, and its messages pass without that dialog. If a session bypasses
permissions, or may begin to, the adapter does not use the socket until you
allow it. Mail then arrives by the other carriers.";

/// The argument for all peers without their own policy.
const ALL: &str = "all";
/// The argument for inbox sockets. A peer with this name must be given by its id.
const INBOX_SOCKET: &str = "inbox-socket";

/// Show or set the policies for mail to sessions
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// A name or id, `all`, or `inbox-socket`
    who: Option<String>,

    /// accept, hold, refuse or default; for inbox-socket allow or deny
    what: Option<String>,
}

/// All policies that are in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PoliciesInForce {
    /// The policy for all peers without their own.
    default: &'static str,
    /// The policy for mail from a session that may do less than its recipient.
    escalation: &'static str,
    /// Whether the adapter may use the inbox socket of a session that bypasses permissions.
    inbox_socket: bool,
    peers: Vec<OwnPolicy>,
}

/// A peer that has its own policy.
#[derive(Debug, Serialize, JsonSchema)]
struct OwnPolicy {
    name: String,
    policy: &'static str,
}

/// The policy for all peers without their own.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyOfAll {
    default: &'static str,
}

/// Whether the adapter may use the inbox socket of a session that bypasses permissions.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InboxSocketConsent {
    inbox_socket: bool,
}

/// The policy for one peer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyOfPeer {
    id: String,
    name: String,
    /// The policy in force for it.
    policy: &'static str,
    /// Its own policy; null if the policy for all peers applies.
    own: Option<&'static str>,
}

impl From<&Policies> for PoliciesInForce {
    fn from(policies: &Policies) -> Self {
        let own = |(name, policy): &(String, Policy)| OwnPolicy {
            name: name.clone(),
            policy: policy.as_str(),
        };
        Self {
            default: policies.default.as_str(),
            escalation: policies.escalation.unwrap_or_default().as_str(),
            inbox_socket: policies.inbox_socket_in_bypass,
            peers: policies.peers.iter().map(own).collect(),
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let Some(who) = args.who else {
        let policies = ask(&Operator::connect(endpoint).await?, Request::Policies).await?;
        return print(output, &policies);
    };
    if person(&who).is_some() {
        return Err(
            Failure::usage("your own mailbox accepts all mail").hint("name a session, or `all`")
        );
    }
    let request = match args.what.as_deref() {
        None => Request::Policies,
        Some(what) if who == INBOX_SOCKET => {
            Request::SetConsent { inbox_socket_in_bypass: consent(what)? }
        }
        Some(what) => Request::SetPolicy {
            peer: Some(who.clone()).filter(|who| who != ALL),
            policy: policy(what)?,
        },
    };
    let operator = Operator::connect(endpoint).await?;
    let policies = ask(&operator, request).await?;
    match who.as_str() {
        ALL if output.json => output.json(&PolicyOfAll { default: policies.default.as_str() }),
        ALL => output.line(&format!("all without their own policy: {}", told(policies.default))),
        INBOX_SOCKET if output.json => {
            output.json(&InboxSocketConsent { inbox_socket: policies.inbox_socket_in_bypass })
        }
        INBOX_SOCKET => {
            output.line(&format!("inbox socket: {}", told_consent(policies.inbox_socket_in_bypass)))
        }
        _ => {
            let peer = operator.peer(&who).await?;
            let own = policies
                .peers
                .iter()
                .find(|(name, _)| *name == peer.name)
                .map(|(_, own)| own.as_str());
            if output.json {
                let policy = peer.policy.as_str();
                return output.json(&PolicyOfPeer {
                    id: peer.id.to_string(),
                    name: peer.name,
                    policy,
                    own,
                });
            }
            let by = if own.is_some() { "" } else { ", by default" };
            output.line(&format!(
                "{}: {}{by}",
                output.paint(Tone::Strong, &cell(&peer.name)),
                told(peer.policy)
            ))
        }
    }
}

async fn ask(operator: &Operator, request: Request) -> Result<Policies, Failure> {
    match operator.ask(request).await? {
        Reply::Policies(policies) => Ok(policies),
        _ => Err(unexpected()),
    }
}

/// Parses a policy. `None`: the policy for all, or the one in `config.toml`.
fn policy(typed: &str) -> Result<Option<Policy>, Failure> {
    let known = typed.parse().ok();
    if known.is_none() && typed != "default" {
        let typed = single_line(typed);
        return Err(Failure::usage(format!("there is no policy {typed:?}"))
            .hint("use accept, hold, refuse or default"));
    }
    Ok(known)
}

fn consent(typed: &str) -> Result<bool, Failure> {
    match typed {
        "allow" => Ok(true),
        "deny" => Ok(false),
        _ => {
            let typed = single_line(typed);
            Err(Failure::usage(format!("inbox-socket cannot be {typed:?}"))
                .hint("use allow or deny"))
        }
    }
}

fn told(policy: Policy) -> String {
    let meaning = match policy {
        Policy::Accept => "mail from other sessions is delivered",
        Policy::Hold => "mail from other sessions waits until you release it",
        Policy::Refuse => "mail from other sessions is refused",
    };
    format!("{} ({meaning})", policy.as_str())
}

fn told_consent(allowed: bool) -> &'static str {
    match allowed {
        true => {
            "allowed (the adapter uses it also in sessions that bypass permissions, or may begin to)"
        }
        false => {
            "denied (the adapter does not use it in sessions that bypass permissions, or may begin to)"
        }
    }
}

fn print(output: &Output, policies: &Policies) -> Result<(), Failure> {
    if output.json {
        return output.json(&PoliciesInForce::from(policies));
    }
    let escalation = match policies.escalation {
        Some(policy) => {
            format!("{} (mail from a session that may do less than its recipient)", policy.as_str())
        }
        None => "accept (mail from a session that may do less than its recipient follows the other rules)"
            .to_owned(),
    };
    output.facts(&[
        ("default", told(policies.default)),
        ("escalation", escalation),
        ("inbox socket", told_consent(policies.inbox_socket_in_bypass).to_owned()),
    ])?;
    let rows: Vec<_> =
        policies.peers.iter().map(|(name, policy)| vec![cell(name), told(*policy)]).collect();
    output.table(&["PEER", "POLICY"], &rows, "no session has its own policy")
}
