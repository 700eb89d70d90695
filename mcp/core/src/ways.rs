//! The ways into a client's model: one row for each client.
//!
//! | client | pushed, in this order | taken when the client calls |
//! |---|---|---|
//! | Claude Code | `inbox_socket`, `channel` (the other way round where the client says it loaded the channel) | `hook`, `tool_result` |
//! | Codex | `app_server` | `hook`, `tool_result` |
//! | others | – | `hook`, `tool_result` |
//!
//! Knows which carriers a client has, in which order they are tried, and what each needs in order to be used. Does not know
//! what any of them carries. A new client is a new row; a new carrier is a file beside the other hands, a field in [`Ways`]
//! and an arm in [`Carriers::is_ready`].

use peer_proto::hook::Mode;
use peer_proto::message::Carrier;

use crate::ClientKind;
use crate::facts::Facts;

/// Which ways into the model there are, as the hands see them at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The client is ready for notifications, may show them, and has read what it was sent before.
    pub channel: bool,
    /// The client was started with a channel of ours.
    pub channel_loaded: bool,
    /// The client's inbox socket is there, and is the client's.
    pub inbox_socket: bool,
    /// Nothing lets the client's session come to act without asking.
    pub asks_first: bool,
    /// The client's thread can be reached through its host.
    pub app_server: bool,
    /// Somebody has the conversation open.
    pub attended: bool,
}

/// A row of the table.
struct Row {
    client: ClientKind,
    pushed: &'static [Carrier],
    /// Where the client is known to have loaded the channel.
    pushed_with_channel: &'static [Carrier],
}

const ROWS: [Row; 3] = [
    Row {
        client: ClientKind::Claude,
        pushed: &[Carrier::InboxSocket, Carrier::Channel],
        pushed_with_channel: &[Carrier::Channel, Carrier::InboxSocket],
    },
    Row { client: ClientKind::Codex, pushed: &[Carrier::AppServer], pushed_with_channel: &[Carrier::AppServer] },
    Row { client: ClientKind::Other, pushed: &[], pushed_with_channel: &[] },
];

/// The carriers of this session's client, and what the person allows.
#[derive(Clone, Debug)]
pub(crate) struct Carriers {
    pub(crate) client: ClientKind,
    pub(crate) ways: Ways,
    /// Carriers that the person switched off.
    pub(crate) off: Vec<Carrier>,
    /// A session that rests and that nobody has open may be woken too.
    pub(crate) wake_unattended: bool,
}

impl Carriers {
    /// The push carriers of this client, the first to be tried first.
    pub(crate) fn pushed(&self) -> &'static [Carrier] {
        let row = ROWS.iter().find(|row| row.client == self.client);
        row.map_or(&[], |row| if self.ways.channel_loaded { row.pushed_with_channel } else { row.pushed })
    }

    /// Whether this push carrier can be used now; `wakes`: to begin a turn.
    pub(crate) fn is_ready(&self, carrier: Carrier, wakes: bool, facts: &Facts) -> bool {
        let ways = &self.ways;
        !self.off.contains(&carrier)
            && match carrier {
                Carrier::Channel => ways.channel,
                // Not into a session that acts without asking, or may come to, unless the person has said yes to that.
                Carrier::InboxSocket => {
                    let asks_first = facts.mode != Some(Mode::Bypass) && ways.asks_first;
                    ways.inbox_socket && (facts.inbox_socket_in_bypass || asks_first)
                }
                Carrier::AppServer => ways.app_server && (!wakes || self.wake_unattended || ways.attended),
                Carrier::Hook | Carrier::ToolResult | Carrier::Peerctl => false,
            }
    }

    /// All carriers that are there now, in the order in which they are tried. One in doubt is left out where hooks can
    /// deliver instead.
    pub(crate) fn present(&self, facts: &Facts, now: u64) -> Vec<Carrier> {
        let ready = self.pushed().iter().copied().filter(|carrier| self.is_ready(*carrier, false, facts));
        let mut present: Vec<Carrier> = ready.collect();
        if facts.hooks_come {
            present.retain(|carrier| facts.trusts(*carrier, now));
            present.push(Carrier::Hook);
        }
        present.push(Carrier::ToolResult);
        present
    }
}
