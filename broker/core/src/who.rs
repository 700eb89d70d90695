//! The actors: the person, an agent's session, or an agent's shell.
//!
//! The actor of each request is resolved once, before any rule reads it (`rules/actors.rs`). Does
//! not know what an actor may see or do.

use peer_proto::ids::PeerId;
use peer_proto::message::Via;
use peer_proto::request::RequestId;

use crate::input::ConnectionId;
use crate::rejection::{Act, Rejection};

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The person, who uses `peerctl`, as far as the broker can know.
    Person,
    /// An agent, through its session.
    Session(PeerId),
    /// An agent, through `peerctl` in its process tree.
    Shell {
        /// The agent. `None`: it is unknown.
        agent: Option<PeerId>,
        /// Whether the configuration lets an agent's shell do what the person may.
        is_trusted: bool,
    },
}

impl Actor {
    /// Whether it may see and do all that the person may.
    #[must_use]
    pub fn is_person(self) -> bool {
        matches!(self, Self::Person | Self::Shell { is_trusted: true, .. })
    }

    /// Returns the agent. `None`: it is the person, or an unknown agent.
    #[must_use]
    pub fn agent(self) -> Option<PeerId> {
        match self {
            Self::Person => None,
            Self::Session(peer) => Some(peer),
            Self::Shell { agent, .. } => agent,
        }
    }

    /// The peer whose name it uses, and whose mailbox gets the replies.
    #[must_use]
    pub fn peer(self) -> PeerId {
        self.agent().unwrap_or(PeerId::HUMAN)
    }

    /// The door that its messages come in by.
    #[must_use]
    pub fn via(self) -> Via {
        match self {
            Self::Person => Via::Person,
            Self::Session(_) => Via::Session,
            Self::Shell { .. } => Via::Shell,
        }
    }

    /// Returns the peer as which it joins channels and is asked questions. `None` for the shell of
    /// an unknown agent.
    pub(crate) fn member(self) -> Option<PeerId> {
        if self.is_person() { Some(PeerId::HUMAN) } else { self.agent() }
    }
}

/// The actor of a request, with its connection and request id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) connection: ConnectionId,
    pub(crate) id: RequestId,
    /// Absent for an adapter that has not registered.
    pub(crate) actor: Option<Actor>,
}

impl Caller {
    pub(crate) fn actor(self) -> Result<Actor, Rejection> {
        self.actor.ok_or(Rejection::NotRegistered)
    }

    /// Refuses an act that only the person may do. `act` names it.
    pub(crate) fn check_person(self, act: Act) -> Result<(), Rejection> {
        if self.actor()?.is_person() { Ok(()) } else { Err(Rejection::NotPermitted { act }) }
    }

    /// Refuses a request that is for `peerctl` alone.
    pub(crate) fn check_operator(self) -> Result<(), Rejection> {
        match self.actor()? {
            Actor::Session(_) => Err(Rejection::NotPermitted { act: Act::UsePeerctl }),
            Actor::Person | Actor::Shell { .. } => Ok(()),
        }
    }

    /// Returns the peer whose name the caller uses. `None`: it has none yet.
    pub(crate) fn peer(self) -> Option<PeerId> {
        self.actor.map(Actor::peer)
    }

    /// Returns whose mail the caller may settle: its own for a session, their own for the person.
    pub(crate) fn mail_owner(self, act: Act) -> Result<PeerId, Rejection> {
        match self.actor()? {
            Actor::Session(peer) => Ok(peer),
            actor if actor.is_person() => Ok(PeerId::HUMAN),
            _ => Err(Rejection::NotPermitted { act }),
        }
    }
}
