//! `peerctl kick`: ends a peer's session.

use peer_client::Endpoint;
use peer_proto::request::Request;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::{Operator, person};
use crate::output::{Output, cell};

const AFTER_HELP: &str = "\
Examples:
  peerctl kick backend

Waiting mail stays in the mailbox. The session's adapter does not connect
again; restart the client to bring the session back.";

/// End a peer's session; its mail stays
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The peer's name or id
    peer: String,
}

/// The session that was ended.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Kicked {
    /// The peer, as it was given.
    kicked: String,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    if person(&args.peer).is_some() {
        return Err(Failure::usage("the person has no session to end")
            .hint("`peerctl peers` lists the sessions"));
    }
    let operator = Operator::connect(endpoint).await?;
    operator.ask_done(Request::Kick(args.peer.clone())).await?;
    if output.json {
        return output.json(&Kicked { kicked: args.peer });
    }
    output.line(&format!("the session of {} was ended; its mail stays", cell(&args.peer)))
}
