//! `peerctl config`: the effective configuration.

use peer_broker::config;
use peer_client::Endpoint;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::output::{Output, Tone};

const AFTER_HELP: &str = "\
Examples:
  peerctl config
  peerctl config --json | jq -r '.values[] | \"\\(.key) = \\(.value)\"'

The file is config.toml in the state directory, every key is optional:
  [limits]
  sender_per_minute = 120
The broker reads it when it starts: `peerctl daemon restart` after a change.";

/// The effective configuration, with defaults and bounds
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let file = endpoint.location.config();
    let settings = config::load(&file).map_err(|error| Failure::Broker(super::daemon::chain(&error)))?;
    let entries = settings.entries();
    if output.json {
        let values: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "key": entry.key,
                    "value": typed(&entry.value),
                    "default": typed(&entry.default),
                    "bounds": entry.bounds,
                    "meaning": entry.meaning,
                })
            })
            .collect();
        return output.json(&json!({ "file": file.display().to_string(), "exists": file.exists(), "values": values }));
    }
    let rows: Vec<_> = entries
        .into_iter()
        .map(|entry| vec![entry.key, entry.value, entry.default, entry.bounds, entry.meaning.to_owned()])
        .collect();
    output.table(&["KEY", "VALUE", "DEFAULT", "BOUNDS", "MEANING"], &rows, "nothing can be configured")?;
    let there = if file.exists() { "" } else { " (not there: all defaults)" };
    output.remark(&output.paint(Tone::Faint, &format!("{}{there}", file.display())));
    Ok(())
}

/// Numbers and truth values as such; words as words.
fn typed(value: &str) -> Value {
    serde_json::from_str(value)
        .ok()
        .filter(|value: &Value| value.is_number() || value.is_boolean())
        .unwrap_or_else(|| json!(value))
}
