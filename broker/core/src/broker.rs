//! The one match from input to room.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::Limits;
use peer_proto::request::{Request, Status};

use crate::input::{ConnectionId, Input, Lookups, Now};
use crate::record::{DeliveryRecord, Image};
use crate::step::Step;

/// What the person configured.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Limits.
    pub limits: Limits,
    /// Whether `peerctl` from within an agent's process tree may act as an operator.
    pub allow_operator_from_agents: bool,
}

/// All rules and all that they remember.
#[derive(Debug)]
pub struct Broker {}

impl Broker {
    /// A broker that goes on where the store's image ends.
    #[must_use]
    pub fn new(_config: Config, _image: Image, _now: Now) -> Self {
        unimplemented!("being written")
    }
    /// What the store must be asked before this request can be handled.
    #[must_use]
    pub fn lookups(&self, _connection: ConnectionId, _request: &Request) -> Lookups {
        unimplemented!("being written")
    }
    /// Applies one input. A refused request leaves no change behind.
    pub fn handle(&mut self, _now: Now, _input: Input, _step: &mut Step) {
        unimplemented!("being written")
    }
    /// Applies what time has brought: visibility timeouts, ends of time to live, forgotten peers.
    pub fn handle_timeout(&mut self, _now: Now, _step: &mut Step) {
        unimplemented!("being written")
    }
    /// In how many milliseconds `handle_timeout` is next worth calling; none while nothing runs.
    #[must_use]
    pub fn poll_timeout(&self, _now: Now) -> Option<u64> {
        unimplemented!("being written")
    }
    /// The present name of a retained peer.
    #[must_use]
    pub fn peer_name(&self, _peer: PeerId) -> Option<&str> {
        unimplemented!("being written")
    }
    /// A pending delivery as it stands now, with leases: its stage may be `Leased`, and its trace ends with it then.
    #[must_use]
    pub fn pending_delivery(&self, _message: MessageId, _peer: PeerId) -> Option<DeliveryRecord> {
        unimplemented!("being written")
    }
    /// Fills in the counts of a status.
    pub fn count(&self, _status: &mut Status) {
        unimplemented!("being written")
    }
}
