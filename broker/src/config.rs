//! `config.toml`: what the person may change, each value checked against its bounds.
//!
//! Every key is optional and a missing file is an empty one. A key that nobody knows is an error, and nothing of the file holds
//! then: a misspelt limit must not be passed over in silence. What holds instead is said in `in_force`. Knows the file; knows
//! nothing of what the values do.

mod in_force;
mod meant;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;
use peer_core::broker::Config;
use peer_proto::limits::{LIMIT_SPECS, Limits};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

pub(crate) use self::in_force::for_start;
pub use self::in_force::{FAULT_HINT, InForce, differing, in_force};

/// More than any configuration needs; a file beyond it is not one.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bounds of all spans of `[retention]`.
const DAYS: Range<u32> = 1..36_501;

/// Bounds of `retention.settled_count`.
const SETTLED_COUNT: Range<u32> = 1..1_000_000_001;

/// Bounds of `retention.settled_mib`.
const SETTLED_MIB: Range<u32> = 1..1_048_577;

/// The effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `[limits]`.
    pub limits: Limits,
    /// `[retention]`.
    pub retention: Retention,
    /// `[policy]`.
    pub policy: Policy,
    /// `[operator]`.
    pub operator: Operator,
    /// `[adapter]`.
    pub adapter: Adapter,
}

/// How long and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that a settled message is kept.
    pub settled_days: u32,
    /// MiB of messages that are kept.
    pub settled_mib: u32,
    /// Messages that are kept.
    pub settled_count: u32,
    /// Days that a dead letter is kept.
    pub dead_days: u32,
    /// Days that a task is kept after it ended.
    pub tasks_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { settled_days: 30, settled_mib: 512, settled_count: 1_000_000, dead_days: 30, tasks_days: 30 }
    }
}

impl Retention {
    fn rules(&self) -> peer_core::retention::Retention {
        let ms = |days: u32| u64::from(days) * 24 * 3_600_000;
        peer_core::retention::Retention {
            settled_ms: ms(self.settled_days),
            settled_count: self.settled_count.into(),
            settled_bytes: u64::from(self.settled_mib) * 1024 * 1024,
            dead_ms: ms(self.dead_days),
            tasks_ms: ms(self.tasks_days),
        }
    }
}

/// What happens to inbound mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// For sessions without a policy of their own.
    pub default: Inbound,
    /// For mail from a session with less privilege than its reader's.
    pub escalation: Escalation,
}

/// An inbound policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inbound {
    /// Deliver.
    #[default]
    Accept,
    /// Keep it for the person.
    Hold,
    /// Tell the sender no.
    Refuse,
}

/// What happens to mail from less to more privilege.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Escalation {
    /// Deliver.
    #[default]
    Accept,
    /// Keep it for the person.
    Hold,
}

/// What `peerctl` may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operator {
    /// Whether `peerctl` from within an agent's process tree may act as an operator.
    pub allow_from_agents: bool,
}

/// How adapters behave where the environment does not say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adapter {
    /// Stay dormant unless the environment says otherwise.
    pub opt_in: bool,
    /// Which tools are listed.
    pub profile: Profile,
    /// Ways into the model that are not to be used.
    pub carriers_off: Vec<CarrierOff>,
    /// How often a session that rests may be woken in an hour.
    pub wakeups_per_hour: u32,
    /// A session that rests and that no terminal has open may be woken too.
    pub wake_unattended: bool,
}

impl Default for Adapter {
    fn default() -> Self {
        Self {
            opt_in: false,
            profile: Profile::default(),
            carriers_off: Vec::new(),
            wakeups_per_hour: 30,
            wake_unattended: false,
        }
    }
}

/// A way into the model that can be switched off. The end of a tool result cannot: it is every client's last way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarrierOff {
    /// Claude Code's channel.
    Channel,
    /// The Claude session's own messaging socket.
    InboxSocket,
    /// Codex's control socket.
    AppServer,
    /// The clients' hooks.
    Hook,
}

impl CarrierOff {
    fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::InboxSocket => "inbox_socket",
            Self::AppServer => "app_server",
            Self::Hook => "hook",
        }
    }
}

/// A set of tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The tools that every session needs.
    #[default]
    Core,
    /// All tools.
    Full,
}

/// One value, as `peerctl config` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Table and key, such as `limits.sender_per_minute`.
    pub key: String,
    /// What holds now.
    pub value: String,
    /// What holds without configuration.
    pub default: String,
    /// What is allowed, such as `1 to 100` or `accept, hold`.
    pub bounds: String,
    /// What it is for.
    pub meaning: &'static str,
}

impl Settings {
    /// What the rules need of it.
    #[must_use]
    pub fn rules(&self) -> Config {
        Config {
            limits: self.limits.clone(),
            allow_operator_from_agents: self.operator.allow_from_agents,
            default_policy: match self.policy.default {
                Inbound::Accept => peer_proto::policy::Policy::Accept,
                Inbound::Hold => peer_proto::policy::Policy::Hold,
                Inbound::Refuse => peer_proto::policy::Policy::Refuse,
            },
            hold_escalation: self.policy.escalation == Escalation::Hold,
            retention: self.retention.rules(),
        }
    }

    /// Every value with its default and bounds, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let usual = Self::default();
        let number = |key: &str, value: u32, default: u32, bounds: Range<u32>, meaning| Entry {
            key: key.into(),
            value: value.to_string(),
            default: default.to_string(),
            bounds: format!("{} to {}", bounds.start, bounds.end - 1),
            meaning,
        };
        let word = |key: &str, value: &str, default: &str, bounds: &str, meaning| Entry {
            key: key.into(),
            value: value.into(),
            default: default.into(),
            bounds: bounds.into(),
            meaning,
        };
        let named = |carriers: &[CarrierOff]| match carriers {
            [] => "none".to_owned(),
            some => some.iter().map(|carrier| carrier.as_str()).collect::<Vec<_>>().join(", "),
        };
        let mut entries: Vec<Entry> = LIMIT_SPECS
            .iter()
            .map(|spec| {
                let value = self.limits.get(spec.key).unwrap_or(spec.default);
                number(&format!("limits.{}", spec.key), value, spec.default, spec.min..spec.max + 1, spec.meaning)
            })
            .collect();
        entries.extend([
            number(
                "retention.settled_days",
                self.retention.settled_days,
                usual.retention.settled_days,
                DAYS,
                "days that a settled message is kept",
            ),
            number(
                "retention.settled_count",
                self.retention.settled_count,
                usual.retention.settled_count,
                SETTLED_COUNT,
                "messages that are kept; beyond it the oldest settled ones go",
            ),
            number(
                "retention.settled_mib",
                self.retention.settled_mib,
                usual.retention.settled_mib,
                SETTLED_MIB,
                "MiB of texts that are kept; beyond it the oldest settled ones go",
            ),
            number(
                "retention.dead_days",
                self.retention.dead_days,
                usual.retention.dead_days,
                DAYS,
                "days that a dead letter is kept",
            ),
            number(
                "retention.tasks_days",
                self.retention.tasks_days,
                usual.retention.tasks_days,
                DAYS,
                "days that a task is kept after it ended",
            ),
            word(
                "policy.default",
                self.policy.default.as_str(),
                usual.policy.default.as_str(),
                "accept, hold, refuse",
                "what happens to mail for a session without a policy of its own, unless `peerctl policy all` says",
            ),
            word(
                "policy.escalation",
                self.policy.escalation.as_str(),
                usual.policy.escalation.as_str(),
                "accept, hold",
                "what happens to mail from a session with less privilege than its reader's",
            ),
            word(
                "operator.allow_from_agents",
                truth(self.operator.allow_from_agents),
                truth(usual.operator.allow_from_agents),
                "true, false",
                "whether peerctl may act as an operator from within an agent's process tree",
            ),
            word(
                "adapter.opt_in",
                truth(self.adapter.opt_in),
                truth(usual.adapter.opt_in),
                "true, false",
                "whether adapters stay dormant unless PEERD_ENABLED is 1",
            ),
            word(
                "adapter.profile",
                self.adapter.profile.as_str(),
                usual.adapter.profile.as_str(),
                "core, full",
                "which tools adapters list unless PEERD_PROFILE says it",
            ),
            word(
                "adapter.carriers_off",
                &named(&self.adapter.carriers_off),
                &named(&usual.adapter.carriers_off),
                "channel, inbox_socket, app_server, hook",
                "ways into the model that adapters do not use",
            ),
            number(
                "adapter.wakeups_per_hour",
                self.adapter.wakeups_per_hour,
                usual.adapter.wakeups_per_hour,
                0..u32::MAX,
                "how often a session that rests may be woken in an hour",
            ),
            word(
                "adapter.wake_unattended",
                truth(self.adapter.wake_unattended),
                truth(usual.adapter.wake_unattended),
                "true, false",
                "whether a resting Codex session that no terminal has open may be woken",
            ),
        ]);
        entries
    }
}

impl Inbound {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Hold => "hold",
            Self::Refuse => "refuse",
        }
    }
}

impl Escalation {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Hold => "hold",
        }
    }
}

impl Profile {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Full => "full",
        }
    }
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Reads the configuration. A missing file means that everything is as it usually is.
///
/// # Errors
/// Where the file is not this user's alone to write, or says something that it may not. Nothing of it holds then.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let Some(text) = read(path)? else { return Ok(Settings::default()) };
    parse(path, &text)
}

/// The text of the file, if there is one and nobody else could have written it.
fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.into(), source };
    let named = match path.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named.map_err(failed)?,
    };
    let user = geteuid().as_raw();
    let ours = |owner: u32| {
        if owner == user { Ok(()) } else { Err(ConfigError::Owner { path: path.into(), owner, user }) }
    };
    // A link of our own is how some people keep their configuration in one place; then what it leads to is checked too.
    ours(named.uid())?;
    // A pipe that nobody writes to would hold us up.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    ours(found.uid())?;
    if !found.is_file() {
        return Err(ConfigError::NotAFile { path: path.into() });
    }
    if found.mode() & 0o022 != 0 {
        return Err(ConfigError::Mode { path: path.into(), mode: found.mode() & 0o777 });
    }
    if found.len() > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.into(), bytes: found.len() });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// The file as it stands, before bounds.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tables {
    limits: BTreeMap<String, Spanned<i64>>,
    retention: RetentionTable,
    policy: Policy,
    operator: Operator,
    adapter: Adapter,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RetentionTable {
    settled_days: Option<Spanned<i64>>,
    settled_mib: Option<Spanned<i64>>,
    settled_count: Option<Spanned<i64>>,
    dead_days: Option<Spanned<i64>>,
    tasks_days: Option<Spanned<i64>>,
}

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let tables: Tables = toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.into(),
        line: source.span().map_or(1, |span| line_of(text, span.start)),
        reason: meant::reason(text, &source),
    })?;
    let bounded = |key: &str, value: &Spanned<i64>, bounds: Range<u32>| {
        u32::try_from(*value.get_ref()).ok().filter(|value| bounds.contains(value)).ok_or_else(|| ConfigError::OutOfBounds {
            path: path.into(),
            line: line_of(text, value.span().start),
            key: key.into(),
            value: *value.get_ref(),
            min: bounds.start,
            max: bounds.end - 1,
        })
    };
    let mut settings =
        Settings { policy: tables.policy, operator: tables.operator, adapter: tables.adapter, ..Settings::default() };
    for (key, value) in &tables.limits {
        let Some(spec) = LIMIT_SPECS.iter().find(|spec| spec.key == key) else {
            return Err(ConfigError::UnknownLimit {
                path: path.into(),
                line: line_of(text, value.span().start),
                meant: meant::question(Some("limits"), key),
                key: key.clone(),
            });
        };
        settings.limits.set(key, bounded(&format!("limits.{key}"), value, spec.min..spec.max + 1)?);
    }
    let RetentionTable { settled_days, settled_mib, settled_count, dead_days, tasks_days } = &tables.retention;
    let kept = &mut settings.retention;
    for (key, given, slot, bounds) in [
        ("retention.settled_days", settled_days, &mut kept.settled_days, DAYS),
        ("retention.settled_mib", settled_mib, &mut kept.settled_mib, SETTLED_MIB),
        ("retention.settled_count", settled_count, &mut kept.settled_count, SETTLED_COUNT),
        ("retention.dead_days", dead_days, &mut kept.dead_days, DAYS),
        ("retention.tasks_days", tasks_days, &mut kept.tasks_days, DAYS),
    ] {
        if let Some(given) = given {
            *slot = bounded(key, given, bounds)?;
        }
    }
    Ok(settings)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// Why the configuration does not hold.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("{} is no regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It, or the link that leads to it, belongs to another user.
    #[error("{} belongs to user {owner}, and user {user} is expected", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the broker.
        user: u32,
    },
    /// Others may write it.
    #[error("{} has mode {mode:04o}, and others may write it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than a configuration.
    #[error("{} has {bytes} bytes, and {FILE_BYTES_MAX} are the most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not TOML, or has a key that nobody knows, or a value of the wrong type.
    #[error("{}, line {line}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// The parser's reason.
        reason: String,
    },
    /// There is no such limit.
    #[error("{}, line {line}: there is no limit called {key}{meant}", path.display())]
    UnknownLimit {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What it says.
        key: String,
        /// Which one was meant, as the end of a sentence.
        meant: String,
    },
    /// The number is too small or too large.
    #[error("{}, line {line}: {key} is {value}, and it may be {min} to {max}", path.display())]
    OutOfBounds {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Table and key.
        key: String,
        /// What it says.
        value: i64,
        /// The least it may be.
        min: u32,
        /// The most it may be.
        max: u32,
    },
}

impl ConfigError {
    /// The next step; empty where there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotAFile { .. } => "move it away".to_owned(),
            Self::Owner { path, user, .. } => format!("run `sudo chown -h {user} '{}'` where it should be yours", path.display()),
            Self::Mode { path, .. } => format!("run `chmod go-w '{}'`", path.display()),
            Self::TooLarge { .. } => "is it a configuration?".to_owned(),
            Self::Parse { .. } => "`peerctl config` lists what may stand there".to_owned(),
            Self::UnknownLimit { .. } => format!("the limits are {}", limit_keys()),
            _ => String::new(),
        }
    }
}

fn limit_keys() -> String {
    let keys: Vec<&str> = LIMIT_SPECS.iter().map(|spec| spec.key).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn parsed(text: &str) -> Result<Settings, String> {
        parse(Path::new("/p/config.toml"), text).map_err(|error| format!("{error}; {}", error.hint()))
    }

    #[test]
    fn an_empty_and_a_missing_file_mean_the_usual() {
        assert_eq!(parsed(""), Ok(Settings::default()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(&dir.path().join("config.toml")).unwrap(), Settings::default());
    }

    #[test]
    fn every_table_is_read() {
        let settings = parsed(
            "[limits]\nsender_per_minute = 1000\nidentical_text_ms = 0\n[retention]\nsettled_days = 7\nsettled_mib = 64\n\
             [policy]\ndefault = \"hold\"\nescalation = \"hold\"\n[operator]\nallow_from_agents = true\n\
             [adapter]\nopt_in = true\nprofile = \"full\"\n",
        )
        .unwrap();
        assert_eq!((settings.limits.sender_per_minute, settings.limits.identical_text_ms), (1_000, 0));
        assert_eq!(settings.limits.pair_per_minute, 30);
        assert_eq!(settings.retention, Retention { settled_days: 7, settled_mib: 64, ..Retention::default() });
        assert_eq!(settings.policy, Policy { default: Inbound::Hold, escalation: Escalation::Hold });
        let rules = settings.rules();
        assert!(rules.allow_operator_from_agents && rules.hold_escalation);
        assert_eq!(rules.default_policy, peer_proto::policy::Policy::Hold);
        assert_eq!(settings.adapter, Adapter { opt_in: true, profile: Profile::Full, ..Adapter::default() });
    }

    #[test]
    fn a_mistake_is_named_with_file_line_key_and_bounds() {
        for (text, parts) in [
            ("[limits]\n\nsender_per_minute = 0", &["/p/config.toml", "line 3", "limits.sender_per_minute", "1 to 1000000"][..]),
            ("[limits]\npair_per_minute = 99999999999", &["line 2", "limits.pair_per_minute"]),
            ("[limits]\nsender_per_hour = 5", &["line 2", "sender_per_hour", "pair_per_minute"]),
            ("[limits]\nsender_per_minut = 5", &["line 2", "did you mean sender_per_minute?"]),
            ("sender_per_minute = 5", &["line 1", "did you mean sender_per_minute under [limits]?"]),
            ("[operator]\n[adapter]\nopt_inn = true", &["line 3", "did you mean opt_in?"]),
            ("[limit]\nsender_per_minute = 5", &["line 1", "did you mean [limits]?"]),
            ("[limits]\nattempts_max = \"many\"", &["line 2", "string"]),
            ("\n[limit]\n", &["line 2", "limit", "retention"]),
            ("[retention]\nsettled_day = 3", &["line 2", "settled_day", "settled_mib"]),
            ("[retention]\nsettled_days = 0", &["line 2", "retention.settled_days", "1 to 36500"]),
            ("[policy]\ndefault = \"maybe\"", &["line 2", "maybe", "hold"]),
            ("[adapter]\nopt_in = 1", &["line 2"]),
            ("[limits", &["line 1"]),
        ] {
            let error = parsed(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in {error:?}");
            }
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn what_others_could_have_written_does_not_hold() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("config.toml"), dir.path().join("link.toml"));
        write(&path, "[operator]\nallow_from_agents = true\n").unwrap();
        symlink(&path, &link).unwrap();
        for mode in [0o622, 0o660] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(load(&path), Err(ConfigError::Mode { .. })));
            assert!(matches!(load(&link), Err(ConfigError::Mode { .. })));
        }
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(load(&link).unwrap().operator.allow_from_agents, "a link of our own is fine");
        if geteuid().is_root() {
            chown(&path, Some(65_534), None).unwrap();
            assert!(matches!(load(&path), Err(ConfigError::Owner { owner: 65_534, .. })));
            assert!(matches!(load(&link), Err(ConfigError::Owner { .. })));
        }
        assert!(matches!(load(dir.path()), Err(ConfigError::NotAFile { .. })));
    }

    #[test]
    fn every_value_is_listed_with_its_default_and_bounds() {
        let mut settings = Settings::default();
        settings.limits.set("attempts_max", 9);
        let entries = settings.entries();
        assert_eq!(entries.len(), LIMIT_SPECS.len() + 13);
        let attempts = entries.iter().find(|entry| entry.key == "limits.attempts_max").unwrap();
        assert_eq!((&*attempts.value, &*attempts.default, &*attempts.bounds), ("9", "5", "1 to 100"));
    }
}
