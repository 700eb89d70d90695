//! The carriers of each client: one row for each client.
//!
//! | client | pushed, in this order | taken when the client calls |
//! |---|---|---|
//! | Claude Code | `inbox_socket`, `channel` (reversed if the client loaded the channel) | `hook`, `tool_result` |
//! | Codex | `app_server` | `hook`, `tool_result` |
//! | others | – | `hook`, `tool_result` |
//!
//! Knows which carriers a client has, in which order they are tried, and what each needs. Does not
//! know what any of them carries. Invariant: a distrusted carrier is left out only if hooks can
//! deliver instead. A new client is a new row. A new carrier is a file beside the other carriers of
//! the adapter, a field in [`Ways`] and an arm in `Carriers::is_ready`.

use peer_proto::hook::Mode;
use peer_proto::message::Carrier;

use crate::ClientKind;
use crate::facts::ClientFacts;

/// The carriers that the adapter found available at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Whether the client is ready for notifications, may show them, and has read all that it was
    /// sent before.
    pub channel: bool,
    /// Whether the client was started with a channel of ours.
    pub channel_loaded: bool,
    /// Whether the client's inbox socket exists and belongs to the client.
    pub inbox_socket: bool,
    /// Whether nothing can make the client's session act without asking.
    pub asks_first: bool,
    /// Whether the client's thread can be reached through its host.
    pub app_server: bool,
    /// Whether somebody has the conversation open.
    pub attended: bool,
}

/// A row of the table.
struct CarrierRow {
    client: ClientKind,
    pushed: &'static [Carrier],
    /// The order if the client is known to have loaded the channel.
    pushed_with_channel: &'static [Carrier],
}

const ROWS: [CarrierRow; 3] = [
    CarrierRow {
        client: ClientKind::Claude,
        pushed: &[Carrier::InboxSocket, Carrier::Channel],
        pushed_with_channel: &[Carrier::Channel, Carrier::InboxSocket],
    },
    CarrierRow {
        client: ClientKind::Codex,
        pushed: &[Carrier::AppServer],
        pushed_with_channel: &[Carrier::AppServer],
    },
    CarrierRow { client: ClientKind::Other, pushed: &[], pushed_with_channel: &[] },
];

/// The carriers of this session's client, and the person's choices.
#[derive(Clone, Debug)]
pub(crate) struct Carriers {
    pub(crate) client: ClientKind,
    pub(crate) ways: Ways,
    /// Carriers that the person switched off.
    pub(crate) off: Vec<Carrier>,
    /// Whether an idle session may also be woken while nobody has it open.
    pub(crate) wake_unattended: bool,
}

impl Carriers {
    /// Returns the push carriers of this client, in the order in which they are tried.
    pub(crate) fn pushed(&self) -> &'static [Carrier] {
        let row = ROWS.iter().find(|row| row.client == self.client);
        row.map_or(
            &[],
            |row| if self.ways.channel_loaded { row.pushed_with_channel } else { row.pushed },
        )
    }

    /// Whether this push carrier can be used now. `wakes`: whether the push begins a turn.
    pub(crate) fn is_ready(&self, carrier: Carrier, wakes: bool, facts: &ClientFacts) -> bool {
        let ways = &self.ways;
        !self.off.contains(&carrier)
            && match carrier {
                Carrier::Channel => ways.channel,
                // Posts into a session that acts without asking, or may come to, need the person's
                // permission.
                Carrier::InboxSocket => {
                    let asks_first = facts.mode != Some(Mode::Bypass) && ways.asks_first;
                    ways.inbox_socket && (facts.inbox_socket_in_bypass || asks_first)
                }
                Carrier::AppServer => {
                    ways.app_server && (!wakes || self.wake_unattended || ways.attended)
                }
                Carrier::Hook | Carrier::ToolResult | Carrier::Peerctl => false,
            }
    }

    /// Returns all available carriers, in the order in which they are tried. A distrusted carrier
    /// is left out if hooks can deliver instead.
    pub(crate) fn available_carriers(&self, facts: &ClientFacts, now: u64) -> Vec<Carrier> {
        let ready =
            self.pushed().iter().copied().filter(|carrier| self.is_ready(*carrier, false, facts));
        let mut present: Vec<Carrier> = ready.collect();
        if facts.hooks_come {
            present.retain(|carrier| facts.trusts(*carrier, now));
            present.push(Carrier::Hook);
        }
        present.push(Carrier::ToolResult);
        present
    }
}
