//! Every bound of the product in one place, with its unit and its reason. `docs/protocol.md` lists the same numbers, and
//! a test compares the two.

/// Largest payload of one frame, in either direction. A text of [`TEXT_BYTES_MAX`] fits with room for lists, and a
/// hostile length costs at most this much memory.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame a program may send before it has said [`Hello`](crate::request::Request::Hello): a stranger gets little.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// How long the broker waits for the preface and the first request of a new connection, and for the rest of a frame that
/// was begun.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// Requests of one connection that may be unanswered at once; beyond it the broker stops reading from that connection.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of one connection's requests that may wait for the broker to work on them; beyond it that connection is not read.
/// A single request may have more.
pub const CONNECTION_BYTES_MAX: usize = 256 * 1024;

/// Bytes of requests that may wait for all connections of one process together, so that one program leaves room for others.
/// What a stranger may send ([`HELLO_BYTES_MAX`]) is not counted here: every connection has that much of its own, and
/// small requests never wait for room.
pub const PROCESS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of requests that may wait for all connections together, counted as for [`PROCESS_BYTES_MAX`].
pub const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// No request that the rules allow is larger. A larger frame is read only to be refused in words.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Bytes of frames beyond [`REQUEST_BYTES_MAX`] that are read at once, for all connections together. The others wait, and
/// nobody waits for them.
pub const OVERSIZED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest text of a message. With redb's overhead a record then stays below 64 KiB: its pages are powers of two, and a
/// record of 64 KiB took 143 KiB when measured.
pub const TEXT_BYTES_MAX: usize = 61_440;

/// Longest name of a peer, in ASCII characters.
pub const NAME_CHARS_MAX: usize = 32;

/// Longest name of a thread, in bytes.
pub const THREAD_BYTES_MAX: usize = 64;

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Longest seat key (a client's own session id), in bytes.
pub const SEAT_KEY_BYTES_MAX: usize = 256;

/// Refused sends that the broker remembers, in memory: enough to find out why a message never arrived.
pub const REFUSALS_KEPT_MAX: usize = 200;

/// How much of a refused text is remembered, in characters: enough to recognise it.
pub const REFUSED_TEXT_CHARS_MAX: usize = 80;

/// How much of a refusal's reason and of its list of recipients is remembered, in characters.
pub const REFUSED_REASON_CHARS_MAX: usize = 400;

/// Most recipients of one send.
pub const RECIPIENTS_MAX: usize = 100;

/// Most identifiers in one `Offered`, `Tried`, `Presented`, `Ack` or `Nack`.
pub const MESSAGES_PER_REQUEST_MAX: usize = 256;

/// Most sources that one message names.
pub const SOURCES_MAX: usize = 16;

/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 512;

/// Longest summary, state or task that a session tells of itself, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 400;

/// Longest path or client name that a session reports, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Deliveries that a session may hold without having offered them: beyond it the broker waits before pushing more.
pub const LEASE_WINDOW_MESSAGES: usize = 64;

/// Bytes of text that a session may hold without having offered them.
pub const LEASE_WINDOW_BYTES: usize = 512 * 1024;

/// How long a carrier may hold a message without evidence before the next one gets it.
pub const VISIBILITY_TIMEOUT_MS: u64 = 30_000;

/// Sessions that may end with a message offered and unproved; then it is a dead letter.
pub const ATTEMPTS_MAX: u32 = 5;

/// Entries in a delivery's trace; the oldest after the first give way.
pub const TRACE_ENTRIES_MAX: usize = 32;

/// Longest time to live of a message: 30 days.
pub const TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Shortest time to live of a message.
pub const TTL_MS_MIN: u64 = 1_000;

/// Nothing expires this soon after the broker started or the machine woke: mail that fell due meanwhile gets one chance.
pub const EXPIRY_GRACE_MS: u64 = 30_000;

/// Nothing expires for at most this long after the wall clock was set forward: for as long as it was set forward by, but at
/// least [`EXPIRY_GRACE_MS`]. A wrong date is often mended within minutes.
pub const CLOCK_STEP_GRACE_MS: u64 = 3_600_000;

/// An offline peer without mail leaves the default listing after this long.
pub const LISTED_OFFLINE_MS: u64 = 10 * 60_000;

/// An offline peer is forgotten after this long; its mail becomes dead letters.
pub const FORGET_OFFLINE_MS: u64 = 7 * 24 * 3_600_000;

/// Peers that the broker retains, online or not.
pub const PEERS_MAX: usize = 10_000;

/// New peers that programs of one process may register in any minute: more than any person starts sessions.
pub const NEW_PEERS_PER_PROCESS: u32 = 300;

/// New peers that all programs together may register in any minute.
pub const NEW_PEERS_PER_MINUTE: u32 = 1_000;

/// A peer that was seen this recently is not forgotten to make room for another: a day.
pub const KEPT_FROM_ROOM_MS: u64 = 24 * 3_600_000;

/// Connections that the broker keeps open at once.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Of these, the last ones that are kept for operators: so `peerctl` gets through when sessions took all others. Where there
/// may be few connections, a quarter of them.
pub const OPERATOR_CONNECTIONS: usize = 16;

/// Aliases that one peer keeps; the oldest gives way.
pub const ALIASES_MAX: usize = 16;

/// Seats that one peer keeps; the oldest gives way.
pub const SEATS_MAX: usize = 16;

/// Entries in one page of a listing (peers, inbox, history, orphans).
pub const PAGE_ENTRIES_MAX: usize = 200;

/// Bytes of text in one page of a listing; a page ends early rather than exceed it by more than one entry.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Rows that one history request looks at before it returns a cursor, so that no reader stops the engine for long.
pub const HISTORY_ROWS_MAX: usize = 5_000;

/// Bytes of events that a watcher may leave unread before it is disconnected.
pub const WATCH_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest path of the socket, in bytes. Linux takes 107 and macOS 103, so that one directory works on both.
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Free space that must remain on the file system; below it the broker refuses sends and goes on delivering.
pub const DISK_RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// Longest name of a channel or group, without its sign, in ASCII characters.
pub const CHANNEL_NAME_CHARS_MAX: usize = 32;

/// Longest topic of a channel, in bytes.
pub const TOPIC_BYTES_MAX: usize = 400;

/// Channels and groups that there may be.
pub const CHANNELS_MAX: usize = 1_000;

/// Members that one channel or group may have: as many as one send may have recipients.
pub const CHANNEL_MEMBERS_MAX: usize = 100;

/// How long a question waits for its answer unless its asker says otherwise: a day.
pub const QUESTION_TTL_MS: u64 = 24 * 3_600_000;

/// Open questions that there may be.
pub const QUESTIONS_OPEN_MAX: usize = 10_000;

/// Longest title of a task, in bytes.
pub const TASK_TITLE_BYTES_MAX: usize = 200;

/// Longest description or result of a task, in bytes.
pub const TASK_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Tasks that one task may need.
pub const TASK_NEEDS_MAX: usize = 32;

/// Tasks that there may be which are not final.
pub const TASKS_OPEN_MAX: usize = 10_000;

/// Longest key of a note, in bytes.
pub const NOTE_KEY_BYTES_MAX: usize = 128;

/// Longest value of a note, in bytes: a text, as a message has.
pub const NOTE_BYTES_MAX: usize = 61_440;

/// Tags that one note may have.
pub const NOTE_TAGS_MAX: usize = 16;

/// Longest tag, in bytes.
pub const NOTE_TAG_BYTES_MAX: usize = 32;

/// Notes that there may be.
pub const NOTES_MAX: usize = 100_000;

/// Longest text to search for, in bytes.
pub const SEARCH_BYTES_MAX: usize = 1_000;

/// Most beginnings (`word*`) in one search.
pub const SEARCH_BEGINNINGS_MAX: usize = 8;

/// Most hits of a search that can be left out from the front.
pub const SEARCH_OFFSET_MAX: u32 = 10_000;

/// The limits that `config.toml` may change, with their present values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that one sender may send in any minute.
    pub sender_per_minute: u32,
    /// Messages that one sender may send to one recipient in any minute.
    pub pair_per_minute: u32,
    /// Unsettled messages that may wait for one peer.
    pub pending_per_peer: u32,
    /// Largest text, in bytes.
    pub text_bytes_max: u32,
    /// Agents' turns in one thread without a word from the person; then the thread pauses.
    pub thread_turns_max: u32,
    /// How long the same text from the same sender to the same recipient is refused. Zero switches it off.
    pub identical_text_ms: u32,
    /// See [`VISIBILITY_TIMEOUT_MS`].
    pub visibility_timeout_ms: u32,
    /// See [`ATTEMPTS_MAX`].
    pub attempts_max: u32,
    /// See [`FORGET_OFFLINE_MS`], in hours.
    pub forget_offline_hours: u32,
    /// Agents that a message to `all` may go to. Zero switches it off.
    pub broadcast_max: u32,
}

/// One limit that `config.toml` may change.
#[derive(Clone, Copy, Debug)]
pub struct LimitSpec {
    /// Its key in `[limits]`.
    pub key: &'static str,
    /// What it is without configuration.
    pub default: u32,
    /// The least it may be.
    pub min: u32,
    /// The most it may be.
    pub max: u32,
    /// What it bounds, for `peerctl config`.
    pub meaning: &'static str,
}

/// The configurable limits, in the order in which `peerctl config` prints them.
pub const LIMIT_SPECS: &[LimitSpec] = &[
    LimitSpec {
        key: "sender_per_minute",
        default: 60,
        min: 1,
        max: 1_000_000,
        meaning: "messages a sender may send in any minute",
    },
    LimitSpec {
        key: "pair_per_minute",
        default: 30,
        min: 1,
        max: 1_000_000,
        meaning: "messages a sender may send to one recipient in any minute",
    },
    LimitSpec {
        key: "pending_per_peer",
        default: 1_000,
        min: 1,
        max: 10_000_000,
        meaning: "messages that may wait for one peer",
    },
    LimitSpec {
        key: "text_bytes_max",
        default: TEXT_BYTES_MAX as u32,
        min: 1,
        max: TEXT_BYTES_MAX as u32,
        meaning: "bytes of one text",
    },
    LimitSpec {
        key: "thread_turns_max",
        default: 12,
        min: 2,
        max: 1_000_000,
        meaning: "agents' turns in a thread without a word from the person",
    },
    LimitSpec {
        key: "identical_text_ms",
        default: 60_000,
        min: 0,
        max: 3_600_000,
        meaning: "how long an identical text is refused, in ms; 0: never",
    },
    LimitSpec {
        key: "visibility_timeout_ms",
        default: VISIBILITY_TIMEOUT_MS as u32,
        min: 100,
        max: 3_600_000,
        meaning: "how long a carrier may hold a message without evidence, in ms",
    },
    LimitSpec {
        key: "attempts_max",
        default: ATTEMPTS_MAX,
        min: 1,
        max: 100,
        meaning: "sessions that may end with a message offered before it is a dead letter",
    },
    LimitSpec {
        key: "forget_offline_hours",
        default: 168,
        min: 1,
        max: 8_760,
        meaning: "hours after which an offline peer is forgotten",
    },
    LimitSpec {
        key: "broadcast_max",
        default: 0,
        min: 0,
        max: RECIPIENTS_MAX as u32,
        meaning: "online agents that a message to `all` may go to; 0: there is no such thing",
    },
];

impl Limits {
    /// Sets the limit called `key`; says whether there is such a limit. The caller checks the bounds.
    pub fn set(&mut self, key: &str, value: u32) -> bool {
        match self.slot(key) {
            Some(slot) => {
                *slot = value;
                true
            }
            None => false,
        }
    }

    /// The present value of the limit called `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<u32> {
        self.clone().slot(key).map(|slot| *slot)
    }

    fn slot(&mut self, key: &str) -> Option<&mut u32> {
        Some(match key {
            "sender_per_minute" => &mut self.sender_per_minute,
            "pair_per_minute" => &mut self.pair_per_minute,
            "pending_per_peer" => &mut self.pending_per_peer,
            "text_bytes_max" => &mut self.text_bytes_max,
            "thread_turns_max" => &mut self.thread_turns_max,
            "identical_text_ms" => &mut self.identical_text_ms,
            "visibility_timeout_ms" => &mut self.visibility_timeout_ms,
            "attempts_max" => &mut self.attempts_max,
            "forget_offline_hours" => &mut self.forget_offline_hours,
            "broadcast_max" => &mut self.broadcast_max,
            _ => return None,
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        let mut limits = Self {
            sender_per_minute: 0,
            pair_per_minute: 0,
            pending_per_peer: 0,
            text_bytes_max: 0,
            thread_turns_max: 0,
            identical_text_ms: 0,
            visibility_timeout_ms: 0,
            attempts_max: 0,
            forget_offline_hours: 0,
            broadcast_max: 0,
        };
        for spec in LIMIT_SPECS {
            limits.set(spec.key, spec.default);
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configurable_limit_has_a_slot_and_a_default_within_its_bounds() {
        let limits = Limits::default();
        for spec in LIMIT_SPECS {
            assert_eq!(limits.get(spec.key), Some(spec.default), "{}", spec.key);
            assert!((spec.min..=spec.max).contains(&spec.default), "{}", spec.key);
        }
        assert_eq!(limits.get("nonsense"), None);
    }
}
