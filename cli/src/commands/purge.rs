//! `peerctl purge`: applies the configured retention now.
//!
//! Does not know which records are due: the broker decides.

use std::collections::BTreeMap;

use peer_client::Endpoint;
use peer_proto::request::{Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, size};

const AFTER_HELP: &str = "\
Examples:
  peerctl purge --dry-run        only show what would be deleted
  peerctl purge

The broker does the same by itself when it is idle. The limits are in
config.toml under [retention]; `peerctl config` shows them. Waiting messages
are never deleted, and dead letters have their own time.";

/// Delete what was stored longer than the configured retention
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// What was deleted, or would be.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Purged {
    /// Whether nothing was deleted, because of `--dry-run`.
    dry_run: bool,
    /// The number of deleted records of each kind.
    purged: BTreeMap<String, u64>,
    text_bytes: u64,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    let dry_run = args.dry_run;
    let Reply::Purged { counts, text_bytes } = operator.ask(Request::Purge { dry_run }).await?
    else {
        return Err(unexpected());
    };
    if output.json {
        let purged =
            counts.into_iter().map(|(kind, count)| (kind.replace(' ', "_"), count)).collect();
        return output.json(&Purged { dry_run, purged, text_bytes });
    }
    let gone: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    match gone.as_slice() {
        [] => output.line(&format!("{verb}: nothing")),
        _ => output.line(&format!("{verb}: {} ({} of text)", gone.join(", "), size(text_bytes))),
    }
}
