//! Resolves who acts on a connection, and as whom that actor sends.
//!
//! Knows connections and the operator setting of the configuration. Does not know what an actor may
//! see or do.

use peer_proto::ids::PeerId;
use peer_proto::message::{Sender, Via};
use peer_proto::request::{Authority, Role};

use crate::broker::Broker;
use crate::input::ConnectionId;
use crate::rejection::Rejection;
use crate::state::presence::Ancestry;
use crate::state::send_limits::SenderClass;
use crate::who::{Actor, Caller};
use crate::wording::Addressee;

/// The name of a shell whose agent is unknown.
const UNKNOWN_AGENT: &str = "unknown-agent";

impl Broker {
    /// The actor of a connection. `None`: the connection is unknown, or its adapter has not
    /// registered.
    pub(crate) fn actor_on(&self, connection: ConnectionId) -> Option<Actor> {
        let open = self.presence.connections.get(&connection)?;
        match open.role {
            Role::Operator => Some(match self.presence.ancestry(connection) {
                Ancestry::Person => Actor::Person,
                Ancestry::Agent(agent) => {
                    Actor::Shell { agent, is_trusted: self.config.allow_operator_from_agents }
                }
            }),
            Role::Link => None,
            Role::Adapter | Role::Hook => {
                open.session.as_ref().map(|session| Actor::Session(session.peer))
            }
        }
    }

    /// The authority that the program on a connection is told.
    pub(crate) fn authority_on(&self, connection: ConnectionId) -> Authority {
        match self.actor_on(connection) {
            Some(Actor::Person) => Authority::Person,
            Some(Actor::Shell { agent, .. }) => {
                Authority::Shell(agent.and_then(|peer| self.presence.name(peer)).map(str::to_owned))
            }
            Some(Actor::Session(_)) | None => Authority::Session,
        }
    }

    /// Returns the peer of the session that asks.
    pub(crate) fn session_peer(&self, caller: Caller) -> Result<PeerId, Rejection> {
        self.presence
            .session(caller.connection)
            .map(|session| session.peer)
            .ok_or(Rejection::NotRegistered)
    }

    /// The addressee for whom texts on this connection are worded.
    #[must_use]
    pub fn addressee(&self, connection: ConnectionId) -> Addressee {
        Addressee::of(self.actor_on(connection))
    }

    /// Returns the sender, as the broker stamps it on a message.
    pub(crate) fn sender(&self, caller: Caller) -> Result<(Sender, SenderClass), Rejection> {
        let of = |peer: PeerId, via: Via| {
            self.presence
                .get(peer)
                .map(|record| Sender {
                    peer,
                    name: record.name.clone(),
                    client: record.client.clone(),
                    cwd: record.cwd.clone(),
                    via,
                })
                .ok_or(Rejection::NotRegistered)
        };
        let actor = caller.actor()?;
        let mut sender = of(actor.peer(), actor.via())?;
        let class = match actor {
            Actor::Person => SenderClass::Person,
            Actor::Session(_) => SenderClass::Agent,
            Actor::Shell { .. } => SenderClass::Shell,
        };
        if let Actor::Shell { agent: None, .. } = actor {
            UNKNOWN_AGENT.clone_into(&mut sender.name);
        }
        Ok((sender, class))
    }
}
