//! `config.toml`: every key, with its default, its bounds and its meaning, each at one place.
//!
//! Knows the keys and their values. Does not know the file, nor what happens after a mistake in it:
//! the broker refuses the whole file, and an adapter uses the default of that key. Invariant: a
//! [`Settings`] that was changed only through [`Key::set`] is within its bounds.

use std::fmt;

use strum::{EnumString, IntoStaticStr};

use crate::limits::{
    ATTEMPTS_MAX, FORGET_OFFLINE_MS, RECIPIENTS_MAX, TEXT_BYTES_MAX, VISIBILITY_TIMEOUT_MS,
};
use crate::message::Carrier;
use crate::policy::Policy;

/// One key of `config.toml`.
#[derive(Clone, Copy)]
pub struct Key {
    /// The table of the key.
    pub table: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// The values that it may have.
    pub bounds: Bounds,
    /// Its purpose.
    pub meaning: &'static str,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, &Value, &Bounds) -> Option<()>,
}

/// The values that a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds {
    /// A whole number, both ends included.
    Number {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// True or false.
    Truth,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these words.
    Words(&'static [&'static str]),
}

/// A value of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// True or false.
    Truth(bool),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A value that no key may have: its kind, such as `a table`.
    Other(&'static str),
}

/// A value outside of a key's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The table and the key.
    pub key: String,
    /// The value in the file.
    pub value: Value,
    /// The values that the key may have.
    pub bounds: Bounds,
}

/// The tools that an adapter lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Profile {
    /// The tools that every session needs.
    #[default]
    Core,
    /// All tools.
    Full,
}

/// Declares the tables of the file: the structs with their defaults, and [`KEYS`].
macro_rules! settings {
    ($(
        $(#[$table_doc:meta])*
        $table:ident: $Table:ident {
            $( $key:ident: $kind:ty = $default:expr, $bounds:expr, $meaning:literal; )*
        }
    )*) => {
        $(
            $(#[$table_doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Table {
                $( #[doc = $meaning] pub $key: $kind, )*
            }

            impl Default for $Table {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        /// All values of `config.toml`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Settings {
            $( $(#[$table_doc])* pub $table: $Table, )*
        }

        /// The tables, in the order in which `peerctl config` prints them.
        pub const TABLES: &[&str] = &[$( stringify!($table), )*];

        /// The keys, in the order in which `peerctl config` prints them.
        pub const KEYS: &[Key] = &[$( $(
            Key {
                table: stringify!($table),
                name: stringify!($key),
                bounds: $bounds,
                meaning: $meaning,
                get: |settings| settings.$table.$key.value(),
                set: |settings, value, bounds| {
                    settings.$table.$key = Setting::read(value, bounds)?;
                    Some(())
                },
            },
        )* )*];
    };
}

settings! {
    /// `[limits]`: what sessions may send.
    limits: Limits {
        sender_per_minute: u32 = 60, number(1, 1_000_000), "messages a sender may send in any minute";
        pair_per_minute: u32 = 30, number(1, 1_000_000), "messages a sender may send to one recipient in any minute";
        pending_per_peer: u32 = 1_000, number(1, 10_000_000), "messages that may wait for one peer";
        text_bytes_max: u32 = TEXT_BYTES_MAX as u32, number(1, TEXT_BYTES_MAX as u32), "bytes of one text";
        thread_turns_max: u32 = 12, number(2, 1_000_000), "turns of agents in a thread without a message from the person";
        identical_text_ms: u32 = 60_000, number(0, 3_600_000), "how long an identical text is refused, in ms; 0: never";
        visibility_timeout_ms: u32 = VISIBILITY_TIMEOUT_MS as u32, number(100, 3_600_000),
            "how long a carrier may hold a message without evidence, in ms";
        attempts_max: u32 = ATTEMPTS_MAX, number(1, 100),
            "sessions that may end with a message offered before it is a dead letter";
        forget_offline_hours: u32 = (FORGET_OFFLINE_MS / 3_600_000) as u32, number(1, 8_760),
            "hours after which an offline peer is forgotten";
        broadcast_max: u32 = 0, number(0, RECIPIENTS_MAX as u32),
            "online agents that a message to `all` may go to; 0: such messages are refused";
    }

    /// `[retention]`: how long and how much is stored.
    retention: Retention {
        settled_days: u32 = 30, DAYS, "days that a settled message is stored";
        settled_count: u32 = 1_000_000, number(1, 1_000_000_000),
            "messages that are stored; beyond that, the oldest settled ones are deleted";
        settled_mib: u32 = 512, number(1, 1_048_576), "MiB of texts that are stored; beyond that, the oldest settled ones are deleted";
        dead_days: u32 = 30, DAYS, "days that a dead letter is stored";
        tasks_days: u32 = 30, DAYS, "days that a task is stored after it ended";
    }

    /// `[policy]`: what happens to inbound mail.
    policy: Inbound {
        default: Policy = Policy::Accept, Bounds::Word(&["accept", "hold", "refuse"]),
            "policy for mail to a session without its own policy, unless `peerctl policy all` sets one";
        escalation: Policy = Policy::Accept, Bounds::Word(&["accept", "hold"]),
            "policy for mail from a session that may do less than its recipient";
    }

    /// `[operator]`: what `peerctl` may do.
    operator: Operator {
        allow_from_agents: bool = false, Bounds::Truth,
            "whether peerctl may act as an operator from within an agent's process tree";
    }

    /// `[adapter]`: the behaviour of adapters, unless the environment sets it.
    adapter: Adapter {
        opt_in: bool = false, Bounds::Truth, "whether adapters stay dormant unless PEERD_ENABLED is 1";
        profile: Profile = Profile::Core, Bounds::Word(&["core", "full"]),
            "which tools adapters list unless PEERD_PROFILE sets it";
        // The end of a tool result cannot be disabled: it is the last carrier of every client.
        carriers_off: Vec<Carrier> = Vec::new(), Bounds::Words(&["channel", "inbox_socket", "app_server", "hook"]),
            "carriers that adapters do not use";
        wakeups_per_hour: u32 = 30, number(0, u32::MAX), "how often an idle session may be woken in an hour";
        wake_unattended: bool = false, Bounds::Truth,
            "whether an idle Codex session that no terminal has open may be woken";
    }
}

const DAYS: Bounds = number(1, 36_500);

const fn number(min: u32, max: u32) -> Bounds {
    Bounds::Number { min, max }
}

impl Key {
    /// The key with this name in this table.
    #[must_use]
    pub fn find(table: &str, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.table == table && key.name == name)
    }

    /// The table and the key, such as `limits.sender_per_minute`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// The key's value in `settings`.
    #[must_use]
    pub fn get(&self, settings: &Settings) -> Value {
        (self.get)(settings)
    }

    /// Sets the key in `settings`.
    ///
    /// # Errors
    /// The value is outside of the bounds. Then `settings` is unchanged.
    pub fn set(&self, settings: &mut Settings, value: &Value) -> Result<(), Misfit> {
        let misfit = || Misfit { key: self.path(), value: value.clone(), bounds: self.bounds };
        (self.set)(settings, value, &self.bounds).ok_or_else(misfit)
    }
}

impl Limits {
    /// Sets the limit with this name. Returns whether it exists and may have this value.
    pub fn set(&mut self, name: &str, value: u32) -> bool {
        let mut settings = Settings { limits: self.clone(), ..Settings::default() };
        let is_set = Key::find("limits", name)
            .is_some_and(|key| key.set(&mut settings, &Value::Number(value.into())).is_ok());
        *self = settings.limits;
        is_set
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max } => write!(f, "{min} to {max}"),
            Self::Truth => f.write_str("true, false"),
            Self::Word(words) | Self::Words(words) => f.write_str(&words.join(", ")),
        }
    }
}

/// The value as `peerctl config` prints it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Text(text) => f.write_str(text),
            Self::List(items) if items.is_empty() => f.write_str("none"),
            Self::List(items) => {
                f.write_str(&items.iter().map(Self::to_string).collect::<Vec<_>>().join(", "))
            }
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, bounds } = self;
        match value {
            Value::Text(text) => write!(f, "{key} is {text:?}")?,
            Value::List(items) => {
                let item = |item: &Value| {
                    if let Value::Text(text) = item {
                        format!("{text:?}")
                    } else {
                        item.to_string()
                    }
                };
                write!(f, "{key} is [{}]", items.iter().map(item).collect::<Vec<_>>().join(", "))?;
            }
            other => write!(f, "{key} is {other}")?,
        }
        let list = if matches!(bounds, Bounds::Words(_)) { "a list of " } else { "" };
        write!(f, ", and it may be {list}{bounds}")
    }
}

impl Profile {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The profile with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        name.trim().parse().ok()
    }
}

/// A type of a key's value.
trait Setting: Sized {
    /// `None`: the value is of another kind or outside of the bounds.
    fn read(value: &Value, bounds: &Bounds) -> Option<Self>;
    fn value(&self) -> Value;
}

impl Setting for u32 {
    fn read(value: &Value, bounds: &Bounds) -> Option<Self> {
        match (value, bounds) {
            (Value::Number(number), Bounds::Number { min, max }) => {
                Self::try_from(*number).ok().filter(|number| (*min..=*max).contains(number))
            }
            _ => None,
        }
    }

    fn value(&self) -> Value {
        Value::Number((*self).into())
    }
}

impl Setting for bool {
    fn read(value: &Value, _bounds: &Bounds) -> Option<Self> {
        if let Value::Truth(truth) = value { Some(*truth) } else { None }
    }

    fn value(&self) -> Value {
        Value::Truth(*self)
    }
}

impl Setting for Policy {
    fn read(value: &Value, bounds: &Bounds) -> Option<Self> {
        word(value, bounds)?.parse().ok()
    }

    fn value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

impl Setting for Profile {
    fn read(value: &Value, bounds: &Bounds) -> Option<Self> {
        word(value, bounds).and_then(Self::named)
    }

    fn value(&self) -> Value {
        Value::Text(self.as_str().into())
    }
}

impl Setting for Vec<Carrier> {
    fn read(value: &Value, bounds: &Bounds) -> Option<Self> {
        let Value::List(items) = value else { return None };
        items.iter().map(|item| word(item, bounds)?.parse().ok()).collect()
    }

    fn value(&self) -> Value {
        Value::List(self.iter().map(|carrier| Value::Text(carrier.as_str().into())).collect())
    }
}

/// The value's word, if it is one of those in the bounds.
fn word<'v>(value: &'v Value, bounds: &Bounds) -> Option<&'v str> {
    match (value, bounds) {
        (Value::Text(said), Bounds::Word(words) | Bounds::Words(words)) => {
            words.contains(&said.as_str()).then_some(said.as_str())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value that is allowed for a key; of a number, both ends.
    fn allowed(bounds: &Bounds) -> Vec<Value> {
        let text = |word: &&str| Value::Text((*word).into());
        match bounds {
            Bounds::Number { min, max } => {
                vec![Value::Number((*min).into()), Value::Number((*max).into())]
            }
            Bounds::Truth => vec![Value::Truth(false), Value::Truth(true)],
            Bounds::Word(words) => words.iter().map(text).collect(),
            Bounds::Words(words) => {
                vec![Value::List(Vec::new()), Value::List(words.iter().map(text).collect())]
            }
        }
    }

    #[test]
    fn every_key_takes_what_it_may_be_and_gives_it_back() {
        for key in KEYS {
            for value in allowed(&key.bounds) {
                let mut settings = Settings::default();
                key.set(&mut settings, &value).unwrap();
                assert_eq!(key.get(&settings), value, "{key:?}");
                let others = KEYS.iter().filter(|other| other.path() != key.path());
                for other in others {
                    assert_eq!(
                        other.get(&settings),
                        other.get(&Settings::default()),
                        "{key:?} set {other:?}"
                    );
                }
            }
            let usual = key.get(&Settings::default());
            key.set(&mut Settings::default(), &usual).expect("the default is allowed");
            assert_eq!(Key::find(key.table, key.name).map(Key::path), Some(key.path()));
        }
        assert!(Key::find("limits", "settled_days").is_none());
        assert_eq!(TABLES, ["limits", "retention", "policy", "operator", "adapter"]);
    }

    #[test]
    fn every_key_refuses_what_it_may_not_be_and_stays_as_it_was() {
        let odd = [
            Value::Number(-1),
            Value::Number(i64::MAX),
            Value::Text("nonsense".into()),
            Value::List(vec![Value::Text("tool_result".into())]),
            Value::List(vec![Value::Text("hook".into()), Value::Number(1)]),
            Value::Other("a table"),
        ];
        for key in KEYS {
            for value in &odd {
                let mut settings = Settings::default();
                let misfit = key.set(&mut settings, value).unwrap_err();
                assert_eq!(settings, Settings::default(), "{misfit}");
            }
        }
        let said = |table, name, value| {
            Key::find(table, name).unwrap().set(&mut Settings::default(), &value).unwrap_err()
        };
        assert_eq!(
            said("limits", "attempts_max", Value::Number(0)).to_string(),
            "limits.attempts_max is 0, and it may be 1 to 100"
        );
        assert_eq!(
            said("policy", "escalation", Value::Text("refuse".into())).to_string(),
            "policy.escalation is \"refuse\", and it may be accept, hold"
        );
        assert_eq!(
            said("adapter", "carriers_off", odd[4].clone()).to_string(),
            "adapter.carriers_off is [\"hook\", 1], and it may be a list of channel, inbox_socket, app_server, hook"
        );
    }
}
