//! `peerctl cancel`: withdraws a message.
//!
//! Does not know which deliveries can still be withdrawn: the broker decides.

use peer_client::Endpoint;
use peer_proto::request::{Reply, Request};

use super::orphans::print_settled;
use crate::error::Failure;
use crate::operator::{Operator, message_id, unexpected};
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  peerctl cancel m-06FHK2RBXW3T9Q1C

A message that was already presented to its recipient cannot be withdrawn.";

/// Withdraw a message that was not presented yet
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The message's id
    id: String,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let id = message_id(&args.id)?;
    let operator = Operator::connect(endpoint).await?;
    let Reply::Settled { deliveries } = operator.ask(Request::Cancel(id)).await? else {
        return Err(unexpected());
    };
    print_settled(output, &deliveries)
}
