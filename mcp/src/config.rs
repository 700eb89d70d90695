//! Reads the `[adapter]` table of `config.toml`, leniently.
//!
//! Knows the file. Does not know the keys and their bounds, which are in `peer_proto::settings`.
//! The invariants:
//!
//! - A value that a key may not have leaves the key at its default, and leads to a notice.
//! - A file that is not TOML counts as its text at the last start of a broker that could read it.
//! - The broker reports every other mistake.

use std::path::Path;

use peer_client::Endpoint;
use peer_proto::settings::{Adapter, KEYS, Key, Settings, Value};

use crate::render;

/// The `[adapter]` table and its errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdapterConfig {
    /// The effective settings.
    pub(crate) adapter: Adapter,
    /// One sentence for each value that has no effect.
    pub(crate) notices: Vec<String>,
}

impl AdapterConfig {
    pub(crate) fn read(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self::default() };
        let location = &endpoint.location;
        let file = match location.config().symlink_metadata() {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => None,
            _ => table(&location.config()).or_else(|| table(&location.config_kept())),
        };
        Self::of(&file.unwrap_or_default())
    }

    fn of(file: &toml::Table) -> Self {
        let (mut settings, mut notices) = (Settings::default(), Vec::new());
        for key in KEYS.iter().filter(|key| key.table == "adapter") {
            let Some(value) = file.get(key.table).and_then(|adapter| adapter.get(key.name)) else {
                continue;
            };
            let value = value_of(value);
            if let Err(misfit) = key.set(&mut settings, &value) {
                // A misspelt carrier must not switch the others on again.
                let _ = key.set(&mut settings, &allowed(key, value));
                let holds = key.get(&settings);
                let said = match &misfit.value {
                    Value::Text(text) => render::sentence(text),
                    other => render::word(&other.to_string()),
                };
                let (path, bounds) = (misfit.key, misfit.bounds);
                notices.push(format!("{path} in config.toml is {said}, but must be {bounds}; this session uses {holds}"));
            }
        }
        Self { adapter: settings.adapter, notices }
    }
}

/// Returns the items of a list that are allowed in it.
fn allowed(key: &Key, value: Value) -> Value {
    let Value::List(items) = value else { return value };
    let may_stand =
        |item: &Value| key.set(&mut Settings::default(), &Value::List(vec![item.clone()])).is_ok();
    Value::List(items.into_iter().filter(may_stand).collect())
}

fn value_of(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::Text(text.clone()),
        toml::Value::Integer(number) => Value::Number(*number),
        toml::Value::Boolean(truth) => Value::Truth(*truth),
        toml::Value::Array(items) => Value::List(items.iter().map(value_of).collect()),
        toml::Value::Float(_) => Value::Other("a decimal number"),
        toml::Value::Datetime(_) => Value::Other("a date"),
        toml::Value::Table(_) => Value::Other("a table"),
    }
}

/// Returns the content of a file; `None`: it is not TOML. Only a regular file is opened: a pipe
/// would block.
fn table(path: &Path) -> Option<toml::Table> {
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    std::fs::read_to_string(path).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer_proto::message::Carrier;
    use peer_proto::settings::Profile;

    #[test]
    fn of_a_file_that_is_no_toml_what_it_said_before_holds() {
        let dir = tempfile::tempdir().unwrap();
        let location = peer_proto::location::Location::resolve(Some(dir.path()), None).unwrap();
        let endpoint =
            Endpoint { location, executable: "/x".into(), start: peer_client::Start::Never };
        let opted = || AdapterConfig::read(Some(&endpoint)).adapter.opt_in;
        std::fs::write(endpoint.location.config_kept(), "[adapter]\nopt_in = true\n").unwrap();
        assert!(!opted(), "a file that was removed says that all is as usual");
        std::fs::write(endpoint.location.config(), "[adapter").unwrap();
        assert!(opted());
        std::fs::write(endpoint.location.config(), "").unwrap();
        assert!(!opted());
    }

    fn parsed(text: &str) -> AdapterConfig {
        AdapterConfig::of(&text.parse().unwrap_or_default())
    }

    #[test]
    fn the_file_is_read_and_a_value_that_cannot_be_is_told_and_passed_over() {
        assert_eq!(parsed(""), AdapterConfig::default());
        assert_eq!(parsed("no toml ]"), AdapterConfig::default());
        assert_eq!(parsed("adapter = 1\n[limits]\nattempts_max = 0\n"), AdapterConfig::default());
        let odd = parsed(
            "[adapter]\nopt_in = 1\nprofile = \"all\"\ncarriers_off = \"hook\"\nwakeups_per_hour = -1\n",
        );
        assert_eq!((&odd.adapter, odd.notices.len()), (&Adapter::default(), 4), "{odd:?}");
        assert_eq!(
            odd.notices[1],
            "adapter.profile in config.toml is \"all\", but must be core, full; this session uses core"
        );
        let text = "[adapter]\nopt_in = true\nprofile = \"full\"\ncarriers_off = [\"hook\", \"tool_result\", \"channel\"]\nwakeups_per_hour = 0\nwake_unattended = true\n";
        let said = Adapter {
            opt_in: true,
            profile: Profile::Full,
            carriers_off: vec![Carrier::Hook, Carrier::Channel],
            wakeups_per_hour: 0,
            wake_unattended: true,
        };
        let config = parsed(text);
        assert_eq!(config.adapter, said);
        let [notice] = config.notices.as_slice() else { panic!("{config:?}") };
        assert!(
            notice.contains("tool_result") && notice.ends_with("this session uses hook, channel"),
            "{notice}"
        );
    }
}
