//! `peerctl release`: releases held mail.
//!
//! Knows how to choose held messages. Does not know why they are held.

use peer_client::Endpoint;
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::request::{InboxEntry, PeerInfo, PeersQuery, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::Id;
use crate::operator::{Operator, find, message_id, no_such_peer, unexpected};
use crate::output::{Output, cell};

const AFTER_HELP: &str = "\
Examples:
  peerctl inbox --held                       mail that waits for your decision
  peerctl show m-06FHK2RBXW3T9Q1C            read it first
  peerctl release m-06FHK2RBXW3T9Q1C
  peerctl release --from scout --to backend
  peerctl release --all

`peerctl cancel ID` withdraws a message that you do not want to release.
Releasing changes no policy: the next message is held again.";

/// Release held mail
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Message ids
    #[arg(required_unless_present_any = ["from", "to", "all"], conflicts_with_all = ["from", "all"], value_name = "ID")]
    ids: Vec<String>,

    /// All held messages that this peer sent
    #[arg(long, value_name = "PEER")]
    from: Option<String>,

    /// Only messages to this recipient
    #[arg(long, value_name = "PEER")]
    to: Option<String>,

    /// All held messages
    #[arg(long, conflicts_with_all = ["from", "to"])]
    all: bool,
}

/// The deliveries that were released.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Released {
    deliveries: Vec<ReleasedDelivery>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ReleasedDelivery {
    id: Id,
    /// The recipient's name.
    to: String,
    stage: &'static str,
}

/// A message to release, and for which recipient. `None`: for all for whom it is held.
type HeldMail = (MessageId, Option<String>);

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let named: Vec<HeldMail> = args
        .ids
        .iter()
        .map(|id| Ok((message_id(id)?, args.to.clone())))
        .collect::<Result<_, Failure>>()?;
    let operator = Operator::connect(endpoint).await?;
    let wanted = if named.is_empty() { held(&operator, &args).await? } else { named };
    let mut released = Vec::new();
    for (message, to) in wanted {
        match release(output, &operator, message, to).await {
            Ok(told) => released.extend(told),
            // The messages before it are released, and must be reported.
            Err(failure) if output.json && !released.is_empty() => {
                return Err(failure.with(Released { deliveries: released }));
            }
            Err(failure) => return Err(failure),
        }
    }
    if output.json {
        return output.json(&Released { deliveries: released });
    }
    if released.is_empty() {
        output.remark("none of that is held");
    }
    Ok(())
}

async fn release(
    output: &Output,
    operator: &Operator,
    message: MessageId,
    to: Option<String>,
) -> Result<Vec<ReleasedDelivery>, Failure> {
    let Reply::Settled { deliveries } = operator.ask(Request::Release { message, to }).await?
    else {
        return Err(unexpected());
    };
    let mut told = Vec::new();
    for (name, stage) in deliveries {
        if !output.json {
            output.line(&format!("{message}  {} for {}", stage.as_str(), cell(&name)))?;
        }
        told.push(ReleasedDelivery { id: Id(message), to: name, stage: stage.as_str() });
    }
    Ok(told)
}

/// The held messages that match, oldest first, so that each sender's order is kept.
async fn held(operator: &Operator, args: &Args) -> Result<Vec<HeldMail>, Failure> {
    let peers = operator.peers(PeersQuery { all: true, ..PeersQuery::default() }).await?;
    let of =
        |given: &Option<String>| given.as_deref().map(|given| known(&peers, given)).transpose();
    let (from, to) = (of(&args.from)?, of(&args.to)?);
    let fits = |entry: &InboxEntry| {
        // The message of an agent has the name that its sender had then.
        let sent = |peer: &&PeerInfo| peer.name == entry.from || peer.aliases.contains(&entry.from);
        from.as_ref().is_none_or(sent) && to.as_ref().is_none_or(|peer| peer.id == entry.peer)
    };
    let entries = operator.inbox(Some("*".to_owned()), true).await?;
    let wanted = entries.iter().filter(|entry| fits(entry));
    Ok(wanted
        .map(|entry: &InboxEntry| (entry.message, Some(PeerId::to_string(&entry.peer))))
        .collect())
}

fn known<'a>(peers: &'a [PeerInfo], given: &str) -> Result<&'a PeerInfo, Failure> {
    find(peers, given).and_then(|place| peers.get(place)).ok_or_else(|| no_such_peer(given))
}
