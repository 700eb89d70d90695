//! `peerctl orphans`: dead letters and expired mail.

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::message::Stage;
use peer_proto::request::{Orphan, Reply, Request};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::operator::{Operator, message_id, unexpected};
use crate::output::{Output, age, cell, rfc3339, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl orphans                                       list them
  peerctl orphans requeue m-06FHK2RBXW3T9Q1C            to its reader again
  peerctl orphans reassign m-06FHK2RBXW3T9Q1C backend   to somebody else
  peerctl orphans drop m-06FHK2RBXW3T9Q1C               to nobody

A message becomes a dead letter when several sessions ended while it was offered
to them, or when its reader was forgotten.";

/// Dead letters and expired mail: list, requeue, reassign, drop
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them, oldest first
    Ls,
    /// Put one back into its reader's queue
    Requeue {
        /// The message's id
        id: String,
    },
    /// Give one to another peer
    Reassign {
        /// The message's id
        id: String,
        /// A name or id
        peer: String,
    },
    /// Drop one for good
    Drop {
        /// The message's id
        id: String,
    },
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let request = match args.what.unwrap_or(What::Ls) {
        What::Ls => return list(output, endpoint).await,
        What::Requeue { id } => Request::Requeue(message_id(&id)?),
        What::Reassign { id, peer } => Request::Reassign { message: message_id(&id)?, to: peer },
        What::Drop { id } => Request::Drop(message_id(&id)?),
    };
    let operator = Operator::connect(endpoint).await?;
    let Reply::Settled { deliveries } = operator.ask(request).await? else { return Err(unexpected()) };
    print_settled(output, &deliveries)
}

/// What became of the deliveries that a command changed.
pub(crate) fn print_settled(output: &Output, deliveries: &[(String, Stage)]) -> Result<(), Failure> {
    if output.json {
        let told: Vec<_> = deliveries.iter().map(|(to, stage)| json!({ "to": to, "stage": stage.as_str() })).collect();
        return output.json(&json!({ "deliveries": told }));
    }
    for (to, stage) in deliveries {
        output.line(&format!("to {}: {}", cell(to), stage.as_str()))?;
    }
    Ok(())
}

async fn list(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    let mut all: Vec<Orphan> = Vec::new();
    let mut after = None;
    loop {
        let Reply::Orphans { entries, next } = operator.ask(Request::Orphans { after }).await? else { return Err(unexpected()) };
        all.extend(entries);
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    if output.json {
        return output.json(&Value::Array(all.iter().map(json).collect()));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|orphan| {
            vec![
                orphan.message.to_string(),
                cell(&orphan.from),
                cell(&orphan.to),
                orphan.stage.as_str().to_owned(),
                cell(&orphan.cause),
                age(orphan.at),
                size(u64::from(orphan.text_bytes)),
            ]
        })
        .collect();
    output.table(&["ID", "FROM", "TO", "STAGE", "CAUSE", "SINCE", "SIZE"], &rows, "no dead letters, no expired mail")?;
    let Reply::Refusals(refusals) = operator.ask(Request::Refusals).await? else { return Err(unexpected()) };
    if !refusals.is_empty() {
        output.remark(&format!("refused lately, and never stored: {}; `peerctl history --refused` shows why", refusals.len()));
    }
    Ok(())
}

fn json(orphan: &Orphan) -> Value {
    json!({
        "id": orphan.message.to_string(),
        "from": orphan.from,
        "to": orphan.to,
        "to_id": orphan.peer.to_string(),
        "stage": orphan.stage.as_str(),
        "cause": orphan.cause,
        "at": rfc3339(orphan.at),
        "bytes": orphan.text_bytes,
    })
}
