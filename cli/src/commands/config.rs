//! `peerctl config`: prints the configuration of the file, and the values that the running broker
//! uses.
//!
//! Knows the keys and their bounds from `peer_proto::settings`. Does not know what a key does. The
//! broker reads the file only when it starts, so a running one is asked. Adapters read their table
//! when they start.

use peer_broker::config::{self, InForce};
use peer_client::{Endpoint, Start};
use peer_proto::settings::{KEYS, Key, Settings, Value as Setting};
use schemars::JsonSchema;
use serde::Serialize;

use super::{block_on, status};
use crate::error::Failure;
use crate::operator::Operator;
use crate::output::{Output, Tone};

const AFTER_HELP: &str = "\
Examples:
  peerctl config
  peerctl config --json | jq -r '.values[] | \"\\(.key) = \\(.value)\"'

The file is config.toml in the state directory; every key is optional:
  [limits]
  sender_per_minute = 120
The broker reads it when it starts: run `peerctl daemon restart` after a change.
A value that the running broker does not use yet is marked. If the file is
invalid, the settings of the last valid one are in force, and printed.";

/// Print the configuration: values in force, defaults and bounds
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let file = endpoint.location.config();
    // Without a running broker, only the file counts.
    let running = block_on(asked(endpoint)).ok();
    let InForce { settings, fault } = config::in_force(&file, &endpoint.location.config_kept());
    let rows = rows(&settings, running.as_deref());
    if output.json {
        let configuration = Configuration {
            file: file.display().to_string(),
            exists: file.exists(),
            broker_runs: running.is_some(),
            values: rows.iter().map(Row::configured).collect(),
        };
        return match fault {
            None => output.json(&configuration),
            Some(fault) => Err(Failure::wrong(fault).hint(config::FAULT_HINT).with(configuration)),
        };
    }
    let table: Vec<_> = rows.into_iter().map(Row::cells).collect();
    output.table(&["KEY", "VALUE", "DEFAULT", "BOUNDS", "MEANING"], &table, "no keys")?;
    let there = if file.exists() { "" } else { " (missing: all defaults)" };
    output.remark(&output.paint(Tone::Faint, &format!("{}{there}", file.display())));
    fault.map_or(Ok(()), |fault| Err(Failure::wrong(fault).hint(config::FAULT_HINT)))
}

/// The values that the running broker uses.
async fn asked(endpoint: &Endpoint) -> Result<Vec<(String, String)>, Failure> {
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let operator = Operator::connect(&quiet).await?;
    Ok(status::ask(&operator).await?.config)
}

/// The configuration: the file, and every key that it may have.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Configuration {
    /// The path of `config.toml`.
    file: String,
    /// Whether the file exists.
    exists: bool,
    /// Whether a broker is running and answered.
    broker_runs: bool,
    values: Vec<ConfiguredValue>,
}

/// One key of `config.toml`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfiguredValue {
    /// The table and the key, such as `limits.sender_per_minute`.
    key: String,
    /// The value in the file; if the file is invalid, the one of the last valid file.
    value: ConfigValue,
    /// The value that the running broker uses. It differs from `value` until the broker restarts.
    in_force: ConfigValue,
    default: ConfigValue,
    /// The values that the key may have, in words.
    bounds: String,
    /// The purpose of the key.
    meaning: &'static str,
}

/// A value of `config.toml`. The words of a list are one text, with commas; an empty list is
/// `none`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ConfigValue {
    Number(i64),
    Truth(bool),
    Text(String),
}

impl From<&Setting> for ConfigValue {
    fn from(setting: &Setting) -> Self {
        match setting {
            Setting::Number(number) => Self::Number(*number),
            Setting::Truth(truth) => Self::Truth(*truth),
            text => Self::Text(text.to_string()),
        }
    }
}

impl ConfigValue {
    /// Reads a value that the broker printed: its protocol carries values as text.
    fn printed(text: &str) -> Self {
        let truth = || text.parse().ok().map(Self::Truth);
        text.parse()
            .ok()
            .map(Self::Number)
            .or_else(truth)
            .unwrap_or_else(|| Self::Text(text.into()))
    }
}

/// One key, as it is printed.
struct Row {
    key: &'static Key,
    /// The value in the file.
    value: Setting,
    default: Setting,
    /// The value that the running broker uses, if it differs.
    now: Option<String>,
}

fn rows(settings: &Settings, running: Option<&[(String, String)]>) -> Vec<Row> {
    let differing = config::differing(settings, running.unwrap_or_default());
    let now =
        |path: &str| differing.iter().find(|(of, ..)| of == path).map(|(.., now)| now.clone());
    let usual = Settings::default();
    let row = |key: &'static Key| Row {
        key,
        value: key.get(settings),
        default: key.get(&usual),
        now: now(&key.path()),
    };
    KEYS.iter().map(row).collect()
}

impl Row {
    fn configured(&self) -> ConfiguredValue {
        ConfiguredValue {
            key: self.key.path(),
            value: (&self.value).into(),
            in_force: match &self.now {
                Some(now) => ConfigValue::printed(now),
                None => (&self.value).into(),
            },
            default: (&self.default).into(),
            bounds: self.key.bounds.to_string(),
            meaning: self.key.meaning,
        }
    }

    fn cells(self) -> Vec<String> {
        let value = match self.now {
            Some(now) => format!("{} (after a restart; now {now})", self.value),
            None => self.value.to_string(),
        };
        let Key { bounds, meaning, .. } = self.key;
        vec![
            self.key.path(),
            value,
            self.default.to_string(),
            bounds.to_string(),
            (*meaning).to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_broker_printed_has_the_type_that_the_key_has() {
        for key in KEYS {
            let setting = key.get(&Settings::default());
            assert_eq!(
                ConfigValue::printed(&setting.to_string()),
                ConfigValue::from(&setting),
                "{key:?}"
            );
        }
    }
}
