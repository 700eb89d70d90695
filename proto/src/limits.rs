//! Every fixed bound of the product, with its unit and its reason.
//!
//! The bounds that `config.toml` may change are in [`settings`](crate::settings).
//! `docs/protocol.md` lists the same numbers, and a test compares the two.

/// Largest payload of one frame, in bytes, in either direction. A text of [`TEXT_BYTES_MAX`] fits
/// with room for lists. A hostile length costs at most this much memory.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Largest frame, in bytes, that a program may send before
/// [`Hello`](crate::request::Request::Hello): an unknown program gets little memory.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Milliseconds that the broker waits for the preface and the first request of a new connection,
/// and for the rest of a started frame.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// Requests of one connection that may be unanswered at once. With more, the broker stops reading
/// from that connection.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;

/// Bytes of one connection's requests that may wait for the broker. With more, the broker stops
/// reading from that connection. A single request may have more.
pub const CONNECTION_BYTES_MAX: usize = 256 * 1024;

/// Bytes of requests that may wait for all connections of one process together, so that one program
/// leaves room for others. The bytes before `Hello` ([`HELLO_BYTES_MAX`]) are not counted: every
/// connection has its own, and small requests never wait for room.
pub const PROCESS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of requests that may wait for all connections together, counted as for
/// [`PROCESS_BYTES_MAX`].
pub const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the largest request that the rules allow. A larger frame is read only to be refused
/// with a reason.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Bytes of frames beyond [`REQUEST_BYTES_MAX`] that are read at once, for all connections
/// together. Further ones wait, and delay no other frame.
pub const OVERSIZED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest text of a message, in bytes. With redb's overhead, a record then stays below 64 KiB.
/// redb's pages are powers of two, and a record of 64 KiB took 143 KiB when measured.
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

/// Characters of a refused text that are remembered: enough to recognise it.
pub const REFUSED_TEXT_CHARS_MAX: usize = 80;

/// Characters of a refusal's reason, and of its list of recipients, that are remembered.
pub const REFUSED_REASON_CHARS_MAX: usize = 400;

/// Most recipients of one send.
pub const RECIPIENTS_MAX: usize = 100;

/// Most identifiers in one `Offered`, `Tried`, `Presented`, `Ack` or `Nack`.
pub const MESSAGES_PER_REQUEST_MAX: usize = 256;

/// Most sources that one message names.
pub const SOURCES_MAX: usize = 16;

/// Longest source, in bytes.
pub const SOURCE_BYTES_MAX: usize = 512;

/// Longest summary, state or task of a session, in bytes.
pub const SUMMARY_BYTES_MAX: usize = 400;

/// Longest path or client name that a session reports, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Deliveries that a session may hold without having offered them. With more, the broker waits
/// before it pushes further ones.
pub const LEASE_WINDOW_MESSAGES: usize = 64;

/// Bytes of text that a session may hold without having offered them.
pub const LEASE_WINDOW_BYTES: usize = 512 * 1024;

/// Milliseconds that a carrier may hold a message without evidence, before the next carrier gets
/// it.
pub const VISIBILITY_TIMEOUT_MS: u64 = 30_000;

/// Sessions that may end while they have a message offered without evidence. After that it is a
/// dead letter.
pub const ATTEMPTS_MAX: u32 = 5;

/// Entries in a delivery's trace. Beyond that, the oldest after the first is removed.
pub const TRACE_ENTRIES_MAX: usize = 32;

/// Longest time to live of a message, in milliseconds: 30 days.
pub const TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Shortest time to live of a message, in milliseconds.
pub const TTL_MS_MIN: u64 = 1_000;

/// Milliseconds after a start of the broker, or after the machine woke, in which nothing expires.
/// Mail that fell due meanwhile gets one chance.
pub const EXPIRY_GRACE_MS: u64 = 30_000;

/// Most milliseconds in which nothing expires after the wall clock was set forward. The time is as
/// long as the step, but at least [`EXPIRY_GRACE_MS`]. A wrong date is often corrected within
/// minutes.
pub const CLOCK_STEP_GRACE_MS: u64 = 3_600_000;

/// Milliseconds after which an offline peer without mail leaves the default listing.
pub const LISTED_OFFLINE_MS: u64 = 10 * 60_000;

/// Milliseconds after which an offline peer is forgotten. Its mail becomes dead letters.
pub const FORGET_OFFLINE_MS: u64 = 7 * 24 * 3_600_000;

/// Peers that the broker retains, online or not.
pub const PEERS_MAX: usize = 10_000;

/// New peers that the programs of one process may register in any minute: more than the sessions
/// that a person starts.
pub const NEW_PEERS_PER_PROCESS: u32 = 300;

/// New peers that all programs together may register in any minute.
pub const NEW_PEERS_PER_MINUTE: u32 = 1_000;

/// Milliseconds since a peer was last seen during which it is not forgotten to make room for
/// another: a day.
pub const KEPT_FROM_ROOM_MS: u64 = 24 * 3_600_000;

/// Connections that the broker keeps open at once.
pub const CONNECTIONS_MAX: usize = 4_096;

/// The last of these, which are reserved for operators. So `peerctl` gets through when sessions
/// have all others. If fewer connections are possible, a quarter of them is reserved.
pub const OPERATOR_CONNECTIONS: usize = 16;

/// Aliases of one peer. Beyond that, the oldest is removed.
pub const ALIASES_MAX: usize = 16;

/// Seats of one peer. Beyond that, the oldest is removed.
pub const SEATS_MAX: usize = 16;

/// Entries in one page of a listing (peers, inbox, history, orphans).
pub const PAGE_ENTRIES_MAX: usize = 200;

/// Bytes of text in one page of a listing. A page exceeds this by at most one entry.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Rows that one history request reads before it returns a cursor, so that no request stops the
/// engine for long.
pub const HISTORY_ROWS_MAX: usize = 5_000;

/// Bytes of events that a watcher may leave unread before it is disconnected.
pub const WATCH_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Longest path of the socket, in bytes. Linux allows 107 and macOS 103; one directory must work on
/// both.
pub const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Free bytes that must remain on the file system. Below that, the broker refuses sends and
/// continues to deliver.
pub const DISK_RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// Longest name of a channel or group, without its sign, in ASCII characters.
pub const CHANNEL_NAME_CHARS_MAX: usize = 32;

/// Longest topic of a channel, in bytes.
pub const TOPIC_BYTES_MAX: usize = 400;

/// Most channels and groups.
pub const CHANNELS_MAX: usize = 1_000;

/// Members of one channel or group: as many as one send may have recipients.
pub const CHANNEL_MEMBERS_MAX: usize = 100;

/// Milliseconds that a question waits for its answer, unless its asker sets another time: a day.
pub const QUESTION_TTL_MS: u64 = 24 * 3_600_000;

/// Most open questions.
pub const QUESTIONS_OPEN_MAX: usize = 10_000;

/// Longest title of a task, in bytes.
pub const TASK_TITLE_BYTES_MAX: usize = 200;

/// Longest description or result of a task, in bytes.
pub const TASK_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Tasks that one task may need.
pub const TASK_NEEDS_MAX: usize = 32;

/// Most tasks that are not final.
pub const TASKS_OPEN_MAX: usize = 10_000;

/// Longest key of a note, in bytes.
pub const NOTE_KEY_BYTES_MAX: usize = 128;

/// Longest value of a note, in bytes: the same as the text of a message.
pub const NOTE_BYTES_MAX: usize = 61_440;

/// Tags that one note may have.
pub const NOTE_TAGS_MAX: usize = 16;

/// Longest tag, in bytes.
pub const NOTE_TAG_BYTES_MAX: usize = 32;

/// Most notes.
pub const NOTES_MAX: usize = 100_000;

/// Longest text to search for, in bytes.
pub const SEARCH_BYTES_MAX: usize = 1_000;

/// Most word beginnings (`word*`) in one search.
pub const SEARCH_BEGINNINGS_MAX: usize = 8;

/// Most hits that a search can skip.
pub const SEARCH_OFFSET_MAX: u32 = 10_000;

/// Deliveries that a link may hold without an answer of the other broker.
pub const LINK_WINDOW_MESSAGES: usize = 256;

/// Bytes of text that a link may hold without an answer.
pub const LINK_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Links that there may be.
pub const LINKS_MAX: usize = 256;

/// Peers that one link may bring.
pub const LINK_PEERS_MAX: usize = 500;

/// Channels that one broker tells another of.
pub const LINK_CHANNELS_MAX: usize = 100;

/// Pending deliveries that one link may have brought.
pub const LINK_PENDING_MAX: usize = 5_000;

/// Bytes of text of the pending deliveries that one link may have brought.
pub const LINK_PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Messages that one link may bring in any minute.
pub const LINK_PER_MINUTE: u32 = 600;

/// A message for another broker becomes a dead letter if it was not relayed within this time: 7
/// days.
pub const LINK_DAYS_MS: u64 = 7 * 24 * 3_600_000;

/// How far the clocks of two linked brokers may differ. A broker also takes a message this long
/// after its time to live, and ends its own not before twice that.
pub const LINK_CLOCK_MS: u64 = 60_000;

/// How long a broker remembers that a message was withdrawn before it came: a day longer than a
/// message may be on its way. Messages of other brokers are retained as long.
pub const LINK_MEMORY_MS: u64 = 8 * 24 * 3_600_000;

/// Withdrawn messages that one link may have named before they came.
pub const LINK_WITHDRAWN_MAX: usize = 10_000;
