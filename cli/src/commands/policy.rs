//! `peerctl policy`: what sessions may write to whom, as the person sets it.

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
  peerctl policy                        all that is in force
  peerctl policy backend                what holds for one session
  peerctl policy backend hold           its mail waits for your word
  peerctl policy backend default        as all others again
  peerctl policy all refuse             for all without a policy of their own
  peerctl policy inbox-socket allow     see below

accept: mail goes its way. hold: it waits until you run `peerctl release`, and
the sender is told. refuse: it is refused, and the sender is told. A policy is
for mail from other sessions and their shells, sent from now on: what you write
yourself always goes through, and so does the answer to what a session asked.

inbox-socket: Claude Code asks before it takes a post from a stranger into a
session's inbox socket. The adapter is the session's own child, and what it
posts passes without that dialog. In a session that bypasses permissions, or
that may come to, it therefore posts nothing there until you allow it; mail
arrives by the other ways.";

/// The word that stands for all peers without a policy of their own.
const ALL: &str = "all";
/// The word that stands for posts into inbox sockets; a peer of that name goes by its id.
const INBOX_SOCKET: &str = "inbox-socket";

/// Show or set what sessions may write to whom
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
    /// For all peers without a policy of their own.
    default: &'static str,
    /// For mail from a session that may do less than its reader.
    escalation: &'static str,
    /// Whether mail may be posted into the inbox socket of a session that bypasses permissions.
    inbox_socket: bool,
    peers: Vec<OwnPolicy>,
}

/// A policy that a peer has of its own.
#[derive(Debug, Serialize, JsonSchema)]
struct OwnPolicy {
    name: String,
    policy: &'static str,
}

/// The policy for all peers without one of their own.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyOfAll {
    default: &'static str,
}

/// Whether mail may be posted into the inbox socket of a session that bypasses permissions.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InboxSocketConsent {
    inbox_socket: bool,
}

/// The policy for one peer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PolicyOfPeer {
    id: String,
    name: String,
    /// What holds for it.
    policy: &'static str,
    /// What it has of its own; null where it goes by that of all.
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
            Failure::usage("your own mailbox takes everything").hint("a policy is for a session's")
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
        ALL => {
            output.line(&format!("all without a policy of their own: {}", told(policies.default)))
        }
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

/// A policy, as somebody typed it; none: what holds for all, or what `config.toml` says.
fn policy(typed: &str) -> Result<Option<Policy>, Failure> {
    let known = typed.parse().ok();
    if known.is_none() && typed != "default" {
        let typed = single_line(typed);
        return Err(Failure::usage(format!("no policy is called {typed:?}"))
            .hint("say accept, hold, refuse or default"));
    }
    Ok(known)
}

fn consent(typed: &str) -> Result<bool, Failure> {
    match typed {
        "allow" => Ok(true),
        "deny" => Ok(false),
        _ => {
            let typed = single_line(typed);
            Err(Failure::usage(format!("posts into inbox sockets cannot be {typed:?}"))
                .hint("say allow or deny"))
        }
    }
}

fn told(policy: Policy) -> String {
    let meaning = match policy {
        Policy::Accept => "mail from other sessions goes its way",
        Policy::Hold => "mail from other sessions waits until you release it",
        Policy::Refuse => "mail from other sessions is refused",
    };
    format!("{} ({meaning})", policy.as_str())
}

fn told_consent(allowed: bool) -> &'static str {
    match allowed {
        true => {
            "allowed (mail is posted there also where permissions are bypassed, or may come to be)"
        }
        false => {
            "denied (nothing is posted there where permissions are bypassed, or may come to be)"
        }
    }
}

fn print(output: &Output, policies: &Policies) -> Result<(), Failure> {
    if output.json {
        return output.json(&PoliciesInForce::from(policies));
    }
    let escalation = match policies.escalation {
        Some(policy) => {
            format!("{} (mail from a session that may do less than its reader)", policy.as_str())
        }
        None => "accept (mail from a session that may do less than its reader is nothing special)"
            .to_owned(),
    };
    output.facts(&[
        ("default", told(policies.default)),
        ("escalation", escalation),
        ("inbox socket", told_consent(policies.inbox_socket_in_bypass).to_owned()),
    ])?;
    let rows: Vec<_> =
        policies.peers.iter().map(|(name, policy)| vec![cell(name), told(*policy)]).collect();
    output.table(&["PEER", "POLICY"], &rows, "no session has a policy of its own")
}
