//! `peerctl rename`: gives a peer another name.

use peer_client::Endpoint;
use peer_proto::request::{Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::{Operator, person, unexpected};
use crate::output::{Output, cell};

const AFTER_HELP: &str = "\
Examples:
  peerctl rename calm-fox backend

The mailbox stays, the session is told, and the old name still leads to it.";

/// Give a peer another name
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The peer's name or id
    old: String,

    /// The new name: 1 to 32 letters, digits, - or _
    new: String,
}

/// A peer, with its new name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Renamed {
    id: String,
    name: String,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    if person(&args.old).is_some() {
        return Err(Failure::usage("the person is always called human")
            .hint("`peerctl peers` lists the peers that can be renamed"));
    }
    let operator = Operator::connect(endpoint).await?;
    let request = Request::Rename { peer: Some(args.old.clone()), new_name: args.new };
    let Reply::Renamed { peer, name } = operator.ask(request).await? else {
        return Err(unexpected());
    };
    if output.json {
        return output.json(&Renamed { id: peer.to_string(), name });
    }
    output.line(&format!("{} is now {}", cell(&args.old), cell(&name)))
}
