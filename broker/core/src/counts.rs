//! The totals that a request for the broker's status gets.

use peer_proto::brake::UsedUpThread;
use peer_proto::ids::Timestamp;
use peer_proto::request::Pausing;

/// The totals that the rules know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Peers that are online, the person not counted.
    pub peers_online: u64,
    /// Retained peers that are offline, the person not counted.
    pub peers_offline: u64,
    /// Deliveries that are pending without a lease, and not held.
    pub stored: u64,
    /// Deliveries that a session holds, offered or not.
    pub leased: u64,
    /// Deliveries that are held for the person.
    pub held: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages in the store, settled ones included.
    pub messages: u64,
    /// The time at which the oldest pending message was accepted.
    pub oldest_at: Option<Timestamp>,
    /// The pauses, with the current names.
    pub paused: Vec<Pausing>,
    /// How often each send limit refused a send since the broker started, by error code.
    pub refused: Vec<(String, u64)>,
    /// Threads that agents used up, oldest first.
    pub used_up: Vec<UsedUpThread>,
}
