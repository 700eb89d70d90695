//! What `config.toml` says to adapters: its `[adapter]` table. Of a file that is no TOML, what it said at the last start of a
//! broker that could read it. Nonsense in a file is the broker's to complain about; here it says nothing.

use std::path::Path;

use peer_client::Endpoint;
use peer_proto::message::Carrier;

use crate::tools::Profile;

/// How often a session that rests may be woken in an hour, unless the file says otherwise.
const WAKEUPS_PER_HOUR: u32 = 30;

/// `[adapter]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Dormant unless the environment says otherwise.
    pub(crate) opt_in: bool,
    /// Which tools are offered, unless the environment says otherwise.
    pub(crate) profile: Profile,
    /// Carriers that are not to be used.
    pub(crate) carriers_off: Vec<Carrier>,
    /// How often a session that rests may be woken in an hour.
    pub(crate) wakeups_per_hour: u32,
    /// A session that rests and that no terminal has open may be woken too.
    pub(crate) wake_unattended: bool,
}

impl Config {
    /// What the file says, now.
    pub(crate) fn read(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self::of(&toml::Table::new()) };
        let location = &endpoint.location;
        let file = match location.config().symlink_metadata() {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => None,
            _ => table(&location.config()).or_else(|| table(&location.config_kept())),
        };
        Self::of(&file.unwrap_or_default())
    }

    fn of(file: &toml::Table) -> Self {
        let value = |key: &str| file.get("adapter").and_then(|adapter| adapter.get(key));
        let named = |name: &toml::Value| {
            let carriers = [Carrier::Channel, Carrier::InboxSocket, Carrier::AppServer, Carrier::Hook];
            carriers.into_iter().find(|carrier| Some(carrier.as_str()) == name.as_str())
        };
        let carriers_off = value("carriers_off").and_then(toml::Value::as_array);
        let wakeups_per_hour = value("wakeups_per_hour").and_then(toml::Value::as_integer);
        Self {
            opt_in: value("opt_in").and_then(toml::Value::as_bool) == Some(true),
            profile: value("profile").and_then(toml::Value::as_str).and_then(Profile::named).unwrap_or_default(),
            carriers_off: carriers_off.into_iter().flatten().filter_map(named).collect(),
            wakeups_per_hour: wakeups_per_hour.and_then(|count| u32::try_from(count).ok()).unwrap_or(WAKEUPS_PER_HOUR),
            wake_unattended: value("wake_unattended").and_then(toml::Value::as_bool) == Some(true),
        }
    }
}

/// What stands in a file; none where it is no TOML. Nothing but a regular file is opened: a pipe would hold us up.
fn table(path: &Path) -> Option<toml::Table> {
    path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    std::fs::read_to_string(path).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_that_is_no_toml_what_it_said_before_holds() {
        let dir = tempfile::tempdir().unwrap();
        let location = peer_proto::location::Location::resolve(Some(dir.path()), None).unwrap();
        let endpoint = Endpoint { location, executable: "/x".into(), start: peer_client::Start::Never };
        let opted = || Config::read(Some(&endpoint)).opt_in;
        std::fs::write(endpoint.location.config_kept(), "[adapter]\nopt_in = true\n").unwrap();
        assert!(!opted(), "a file that was removed says that all is as usual");
        std::fs::write(endpoint.location.config(), "[adapter").unwrap();
        assert!(opted());
        std::fs::write(endpoint.location.config(), "").unwrap();
        assert!(!opted());
    }

    fn parsed(text: &str) -> Config {
        Config::of(&text.parse().unwrap_or_default())
    }

    #[test]
    fn the_file_is_read_and_nonsense_says_nothing() {
        let usual = Config {
            opt_in: false,
            profile: Profile::Core,
            carriers_off: Vec::new(),
            wakeups_per_hour: WAKEUPS_PER_HOUR,
            wake_unattended: false,
        };
        assert_eq!(parsed(""), usual);
        assert_eq!(parsed("no toml ]"), usual);
        assert_eq!(parsed("[adapter]\nopt_in = 1\nprofile = \"all\"\ncarriers_off = \"hook\"\nwakeups_per_hour = -1\n"), usual);
        let text = "[adapter]\nopt_in = true\nprofile = \"full\"\ncarriers_off = [\"hook\", \"tool_result\", \"channel\"]\nwakeups_per_hour = 0\nwake_unattended = true\n";
        let said = Config {
            opt_in: true,
            profile: Profile::Full,
            carriers_off: vec![Carrier::Hook, Carrier::Channel],
            wakeups_per_hour: 0,
            wake_unattended: true,
        };
        assert_eq!(parsed(text), said);
    }
}
