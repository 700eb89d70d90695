//! `peerctl orphans`: lists dead letters and expired mail, and decides on them.
//!
//! Does not know why a delivery became a dead letter: the broker reports the cause.

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::message::Stage;
use peer_proto::request::{Orphan, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::json::{Id, Time};
use crate::operator::{Operator, message_id, unexpected};
use crate::output::{Output, age, cell, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl orphans                                       list them
  peerctl orphans requeue m-06FHK2RBXW3T9Q1C            back to its recipient
  peerctl orphans reassign m-06FHK2RBXW3T9Q1C backend   to another peer
  peerctl orphans drop m-06FHK2RBXW3T9Q1C               delete it

A message becomes a dead letter after several sessions ended while they had it
offered, or after its recipient was forgotten.";

/// Dead letters and expired mail: list, requeue, reassign, drop
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<OrphansCommand>,
}

#[derive(Debug, Subcommand)]
enum OrphansCommand {
    /// List them, oldest first
    Ls,
    /// Put one back into its recipient's mailbox
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

/// A dead letter or an expired message.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OrphanRow {
    id: Id,
    /// Its sender's name.
    from: String,
    /// The recipient's name, or its id if the recipient was forgotten.
    to: String,
    to_id: String,
    /// `dead` or `expired`.
    stage: &'static str,
    /// The cause, in a word.
    cause: String,
    /// When it became dead or expired.
    at: Time,
    /// The size of its text.
    bytes: u32,
}

impl From<&Orphan> for OrphanRow {
    fn from(orphan: &Orphan) -> Self {
        Self {
            id: Id(orphan.message),
            from: orphan.from.clone(),
            to: orphan.to.clone(),
            to_id: orphan.peer.to_string(),
            stage: orphan.stage.as_str(),
            cause: orphan.cause.clone(),
            at: Time(orphan.at),
            bytes: orphan.text_bytes,
        }
    }
}

/// The deliveries that a command changed, with their new stages.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Settled {
    deliveries: Vec<SettledDelivery>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SettledDelivery {
    /// The recipient's name.
    to: String,
    stage: &'static str,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let request = match args.command.unwrap_or(OrphansCommand::Ls) {
        OrphansCommand::Ls => return list(output, endpoint).await,
        OrphansCommand::Requeue { id } => Request::Requeue(message_id(&id)?),
        OrphansCommand::Reassign { id, peer } => {
            Request::Reassign { message: message_id(&id)?, to: peer }
        }
        OrphansCommand::Drop { id } => Request::Drop(message_id(&id)?),
    };
    let operator = Operator::connect(endpoint).await?;
    let Reply::Settled { deliveries } = operator.ask(request).await? else {
        return Err(unexpected());
    };
    print_settled(output, &deliveries)
}

/// Prints the deliveries that a command changed, with their new stages.
pub(crate) fn print_settled(
    output: &Output,
    deliveries: &[(String, Stage)],
) -> Result<(), Failure> {
    if output.json {
        let settled = |(to, stage): &(String, Stage)| SettledDelivery {
            to: to.clone(),
            stage: stage.as_str(),
        };
        return output.json(&Settled { deliveries: deliveries.iter().map(settled).collect() });
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
        let Reply::Orphans { entries, next } = operator.ask(Request::Orphans { after }).await?
        else {
            return Err(unexpected());
        };
        all.extend(entries);
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    if output.json {
        return output.json_rows(all.iter().map(OrphanRow::from));
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
    output.table(
        &["ID", "FROM", "TO", "STAGE", "CAUSE", "SINCE", "SIZE"],
        &rows,
        "no dead letters, no expired mail",
    )?;
    let Reply::Refusals(refusals) = operator.ask(Request::Refusals).await? else {
        return Err(unexpected());
    };
    if !refusals.is_empty() {
        output.remark(&format!(
            "refused lately, and not stored: {}; `peerctl history --refused` shows why",
            refusals.len()
        ));
    }
    Ok(())
}
