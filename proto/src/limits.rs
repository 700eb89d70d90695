//! Every fixed bound of the product in one place, with its unit and its reason. What `config.toml`
//! may change is in [`settings`](crate::settings). `docs/protocol.md` lists the same numbers, and a
//! test compares the two.

/// Largest payload of one frame, in either direction. A text of [`TEXT_BYTES_MAX`] fits with room
/// for lists, and a hostile length costs at most this much memory.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame a program may send before it has said [`Hello`](crate::request::Request::Hello): a
/// stranger gets little.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// How long the broker waits for the preface and the first request of a new connection, and for the
/// rest of a frame that was begun.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// Requests of one connection that may be unanswered at once; beyond it the broker stops reading
/// from that connection.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of one connection's requests that may wait for the broker to work on them; beyond it that
/// connection is not read. A single request may have more.
pub const CONNECTION_BYTES_MAX: usize = 256 * 1024;

/// Bytes of requests that may wait for all connections of one process together, so that one program
/// leaves room for others. What a stranger may send ([`HELLO_BYTES_MAX`]) is not counted here:
/// every connection has that much of its own, and small requests never wait for room.
pub const PROCESS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of requests that may wait for all connections together, counted as for
/// [`PROCESS_BYTES_MAX`].
pub const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// No request that the rules allow is larger. A larger frame is read only to be refused in words.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Bytes of frames beyond [`REQUEST_BYTES_MAX`] that are read at once, for all connections
/// together. The others wait, and nobody waits for them.
pub const OVERSIZED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest text of a message. With redb's overhead a record then stays below 64 KiB: its pages are
/// powers of two, and a record of 64 KiB took 143 KiB when measured.
pub const TEXT_BYTES_MAX: usize = 61_440;

/// Longest name of a peer, in ASCII characters.
pub const NAME_CHARS_MAX: usize = 32;

/// Longest name of a thread, in bytes.
pub const THREAD_BYTES_MAX: usize = 64;

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Longest seat key (a client's own session id), in bytes.
pub const SEAT_KEY_BYTES_MAX: usize = 256;

/// Refused sends that the broker remembers, in memory: enough to find out why a message never
/// arrived.
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

/// Deliveries that a session may hold without having offered them: beyond it the broker waits
/// before pushing more.
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

/// Nothing expires this soon after the broker started or the machine woke: mail that fell due
/// meanwhile gets one chance.
pub const EXPIRY_GRACE_MS: u64 = 30_000;

/// Nothing expires for at most this long after the wall clock was set forward: for as long as it
/// was set forward by, but at least [`EXPIRY_GRACE_MS`]. A wrong date is often mended within
/// minutes.
pub const CLOCK_STEP_GRACE_MS: u64 = 3_600_000;

/// An offline peer without mail leaves the default listing after this long.
pub const LISTED_OFFLINE_MS: u64 = 10 * 60_000;

/// An offline peer is forgotten after this long; its mail becomes dead letters.
pub const FORGET_OFFLINE_MS: u64 = 7 * 24 * 3_600_000;

/// Peers that the broker retains, online or not.
pub const PEERS_MAX: usize = 10_000;

/// New peers that programs of one process may register in any minute: more than any person starts
/// sessions.
pub const NEW_PEERS_PER_PROCESS: u32 = 300;

/// New peers that all programs together may register in any minute.
pub const NEW_PEERS_PER_MINUTE: u32 = 1_000;

/// A peer that was seen this recently is not forgotten to make room for another: a day.
pub const KEPT_FROM_ROOM_MS: u64 = 24 * 3_600_000;

/// Connections that the broker keeps open at once.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Of these, the last ones that are kept for operators: so `peerctl` gets through when sessions
/// took all others. Where there may be few connections, a quarter of them.
pub const OPERATOR_CONNECTIONS: usize = 16;

/// Aliases that one peer keeps; the oldest gives way.
pub const ALIASES_MAX: usize = 16;

/// Seats that one peer keeps; the oldest gives way.
pub const SEATS_MAX: usize = 16;

/// Entries in one page of a listing (peers, inbox, history, orphans).
pub const PAGE_ENTRIES_MAX: usize = 200;

/// Bytes of text in one page of a listing; a page ends early rather than exceed it by more than one
/// entry.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Rows that one history request looks at before it returns a cursor, so that no reader stops the
/// engine for long.
pub const HISTORY_ROWS_MAX: usize = 5_000;

/// Bytes of events that a watcher may leave unread before it is disconnected.
pub const WATCH_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest path of the socket, in bytes. Linux takes 107 and macOS 103, so that one directory works
/// on both.
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Free space that must remain on the file system; below it the broker refuses sends and goes on
/// delivering.
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
