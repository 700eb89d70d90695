//! `peerctl purge`: apply the configured retention now.

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
  peerctl purge --dry-run        only say what would go
  peerctl purge

The broker does the same by itself when it has nothing else to do. How long and
how much is kept stands in config.toml under [retention]; `peerctl config` shows
it. What waits for its reader never goes, and dead letters have their own time.";

/// Let go of what was kept as long as configured
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Purged {
    /// Nothing went: this is what would.
    dry_run: bool,
    /// How many of each kind.
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
    let verb = if dry_run { "would go" } else { "gone" };
    match gone.as_slice() {
        [] => output.line(&format!("{verb}: nothing")),
        _ => output.line(&format!("{verb}: {} ({} of text)", gone.join(", "), size(text_bytes))),
    }
}
