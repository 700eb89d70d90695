//! Reads `config.toml` strictly.
//!
//! Knows the file and the place of each mistake in it. The keys and their bounds are in
//! `peer_proto::settings`. Invariant: a file with one mistake does not take effect at all, because
//! a misspelt limit must not be ignored. `in_force` decides which settings take effect instead.

mod in_force;
mod meant;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;
use peer_core::broker::Config;
use peer_proto::policy::Policy;
use peer_proto::settings::{KEYS, Key, Misfit, Settings, TABLES, Value};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

pub use self::in_force::{FAULT_HINT, InForce, differing, in_force};
pub(crate) use self::in_force::{for_start, of_the_broker};

/// The size of the largest file that is accepted.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Converts the settings to the configuration of the rules.
#[must_use]
pub fn rules(settings: &Settings) -> Config {
    Config {
        limits: settings.limits.clone(),
        allow_operator_from_agents: settings.operator.allow_from_agents,
        default_policy: settings.policy.default,
        hold_escalation: settings.policy.escalation == Policy::Hold,
        retention: (&settings.retention).into(),
    }
}

/// Reads the configuration. A missing file means the default settings.
///
/// # Errors
/// If another user can write the file, or if it contains a mistake. Then no part of the file takes
/// effect.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let Some(text) = read(path)? else { return Ok(Settings::default()) };
    parse(path, &text)
}

/// Returns the text of the file. `None`: there is no file. Fails if another user could have written
/// it.
fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.into(), source };
    let named = match path.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        named => named.map_err(failed)?,
    };
    let user = geteuid().as_raw();
    let ours = |owner: u32| {
        if owner == user {
            Ok(())
        } else {
            Err(ConfigError::Owner { path: path.into(), owner, user })
        }
    };
    // Some people keep their configuration elsewhere, behind a link of their own. Then the target
    // is checked too.
    ours(named.uid())?;
    // Opening a pipe without a writer would block.
    let file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
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

fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let at = |span: Range<usize>| ConfigLine { path: path.into(), line: line_of(text, span.start) };
    let file = DeTable::parse(text).map_err(|source| ConfigError::Syntax {
        place: at(source.span().unwrap_or_default()),
        reason: source.message().trim().replace('\n', ", "),
    })?;
    let mut settings = Settings::default();
    for (table, keys) in in_order(file.get_ref()) {
        let name = table.get_ref().as_ref();
        let DeValue::Table(keys) = keys.get_ref() else {
            let reason = if TABLES.contains(&name) { "is a table" } else { "is in no table" };
            let key = name.to_owned();
            return Err(ConfigError::NoTable {
                place: at(table.span()),
                reason,
                meant: meant::question(None, name),
                key,
            });
        };
        if !TABLES.contains(&name) {
            let table_name = name.to_owned();
            return Err(ConfigError::UnknownTable {
                place: at(table.span()),
                meant: meant::question(None, name),
                table: table_name,
            });
        }
        for (key, value) in in_order(keys) {
            let Some(known) = Key::find(name, key.get_ref()) else {
                return Err(ConfigError::UnknownKey {
                    place: at(key.span()),
                    meant: meant::question(Some(name), key.get_ref()),
                    table: name.to_owned(),
                    key: key.get_ref().to_string(),
                });
            };
            let set = known.set(&mut settings, &value_of(value.get_ref()));
            set.map_err(|misfit| ConfigError::Misfit { place: at(value.span()), misfit })?;
        }
    }
    Ok(settings)
}

/// Returns the keys of a table in the order of the file: the first mistake is reported.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        // A number that is too large for this type is too large for every key.
        DeValue::Integer(number) => {
            Value::Number(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX))
        }
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| value_of(item.get_ref())).collect())
        }
        DeValue::Float(_) => Value::Other("a decimal number"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// The reason why the configuration does not take effect.
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
    /// The path has another file type.
    #[error("{} is not a regular file", path.display())]
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
    /// Other users can write it.
    #[error("{} has mode {mode:04o}, so that other users may write it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than the limit.
    #[error("{} has {bytes} bytes, and the limit is {FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// The place of the mistake.
        place: ConfigLine,
        /// The parser's reason.
        reason: String,
    },
    /// Another value is where a table must be, or a value is outside of all tables.
    #[error("{place}: {key} {reason}{meant}")]
    NoTable {
        /// The place of the mistake.
        place: ConfigLine,
        /// The key.
        key: String,
        /// The reason why the value is not allowed.
        reason: &'static str,
        /// The suggested key, as the end of a sentence.
        meant: String,
    },
    /// The table is unknown.
    #[error("{place}: there is no table [{table}]{meant}")]
    UnknownTable {
        /// The place of the mistake.
        place: ConfigLine,
        /// The name of the table.
        table: String,
        /// The suggested table, as the end of a sentence.
        meant: String,
    },
    /// The key is unknown in this table.
    #[error("{place}: there is no {key} under [{table}]{meant}")]
    UnknownKey {
        /// The place of the mistake.
        place: ConfigLine,
        /// The table of the key.
        table: String,
        /// The key.
        key: String,
        /// The suggested key, as the end of a sentence.
        meant: String,
    },
    /// The value is not allowed for its key.
    #[error("{place}: {misfit}")]
    Misfit {
        /// The place of the mistake.
        place: ConfigLine,
        /// The value, and the allowed values.
        misfit: Misfit,
    },
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLine {
    path: PathBuf,
    line: usize,
}

impl fmt::Display for ConfigLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

impl ConfigError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotAFile { .. } => "move it away".to_owned(),
            Self::Owner { path, user, .. } => {
                format!("if it should be yours, run `sudo chown -h {user} '{}'`", path.display())
            }
            Self::Mode { path, .. } => format!("run `chmod go-w '{}'`", path.display()),
            Self::TooLarge { .. } => "check that it is the configuration of peerd".to_owned(),
            Self::Syntax { .. } | Self::Misfit { .. } => {
                "`peerctl config` lists the possible keys".to_owned()
            }
            Self::NoTable { .. } | Self::UnknownTable { .. } => {
                format!("the tables are {}", TABLES.join(", "))
            }
            Self::UnknownKey { table, .. } => {
                let keys: Vec<&str> =
                    KEYS.iter().filter(|key| key.table == table).map(|key| key.name).collect();
                format!("the keys under [{table}] are {}", keys.join(", "))
            }
            Self::Read { .. } => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer_proto::settings::{Adapter, Profile, Retention};
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn parsed(text: &str) -> Result<Settings, String> {
        parse(Path::new("/p/config.toml"), text)
            .map_err(|error| format!("{error}; {}", error.hint()))
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
        assert_eq!(
            (settings.limits.sender_per_minute, settings.limits.identical_text_ms),
            (1_000, 0)
        );
        assert_eq!(settings.limits.pair_per_minute, 30);
        assert_eq!(
            settings.retention,
            Retention { settled_days: 7, settled_mib: 64, ..Retention::default() }
        );
        let rules = rules(&settings);
        assert!(rules.allow_operator_from_agents && rules.hold_escalation);
        assert_eq!(
            (rules.default_policy, rules.retention.settled_ms),
            (Policy::Hold, 7 * 24 * 3_600_000)
        );
        assert_eq!(
            settings.adapter,
            Adapter { opt_in: true, profile: Profile::Full, ..Adapter::default() }
        );
    }

    #[test]
    fn a_mistake_is_named_with_file_line_key_and_bounds() {
        for (text, parts) in [
            (
                "[limits]\n\nsender_per_minute = 0",
                &["/p/config.toml", "line 3", "limits.sender_per_minute", "1 to 1000000"][..],
            ),
            ("[limits]\npair_per_minute = 99999999999", &["line 2", "limits.pair_per_minute"]),
            ("[limits]\nsender_per_hour = 5", &["line 2", "sender_per_hour", "pair_per_minute"]),
            ("[limits]\nsender_per_minut = 5", &["line 2", "did you mean sender_per_minute?"]),
            (
                "sender_per_minute = 5",
                &["line 1", "did you mean sender_per_minute under [limits]?"],
            ),
            ("[operator]\n[adapter]\nopt_inn = true", &["line 3", "did you mean opt_in?"]),
            ("[limit]\nsender_per_minute = 5", &["line 1", "did you mean [limits]?"]),
            (
                "[limits]\nattempts_max = \"many\"",
                &["line 2", "limits.attempts_max is \"many\"", "1 to 100"],
            ),
            ("[limits]\nattempts_max = 1.5", &["line 2", "a decimal number"]),
            ("limits = 5", &["line 1", "limits is a table"]),
            ("[policy]\nescalation = \"hodl\"\n[limit]", &["line 2", "hodl"]),
            (
                "[adapter]\ncarriers_off = [\"tool_result\"]",
                &["line 2", "tool_result", "a list of channel"],
            ),
            ("[adapter.profile]\ncore = true", &["line 1", "adapter.profile is a table"]),
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
}
