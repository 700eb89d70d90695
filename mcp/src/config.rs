//! What `config.toml` says to adapters: its `[adapter]` table. A file that cannot be read, or that says nonsense, is the
//! broker's to complain about; here it says nothing.

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
        let text = endpoint.and_then(|endpoint| std::fs::read_to_string(endpoint.location.config()).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let file: toml::Table = text.parse().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_nonsense_says_nothing() {
        let usual = Config {
            opt_in: false,
            profile: Profile::Core,
            carriers_off: Vec::new(),
            wakeups_per_hour: WAKEUPS_PER_HOUR,
            wake_unattended: false,
        };
        assert_eq!(Config::parse(""), usual);
        assert_eq!(Config::parse("no toml ]"), usual);
        assert_eq!(
            Config::parse("[adapter]\nopt_in = 1\nprofile = \"all\"\ncarriers_off = \"hook\"\nwakeups_per_hour = -1\n"),
            usual
        );
        let text = "[adapter]\nopt_in = true\nprofile = \"full\"\ncarriers_off = [\"hook\", \"tool_result\", \"channel\"]\nwakeups_per_hour = 0\nwake_unattended = true\n";
        let said = Config {
            opt_in: true,
            profile: Profile::Full,
            carriers_off: vec![Carrier::Hook, Carrier::Channel],
            wakeups_per_hour: 0,
            wake_unattended: true,
        };
        assert_eq!(Config::parse(text), said);
    }
}
