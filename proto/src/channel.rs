//! Channels and groups: names that stand for several peers.
//!
//! Knows the requests about them and their answers. Does not know who may do what: the broker's
//! rules do.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::request::PeerLink;

/// A request about channels (`#name`) and groups (`@name`). A name has its sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelRequest {
    /// All that the caller may see, by name. Answer:
    /// [`Reply::Channels`](crate::request::Reply::Channels).
    List,
    /// Create a channel, with the caller as its first member. Answer: that channel.
    Create {
        /// Its name.
        name: String,
        /// What the channel is for; may be empty.
        topic: String,
        /// Whether only members may see it and add others.
        private: bool,
    },
    /// Become a member of a channel, or take the label of a group. Answer: that channel. It is no
    /// error to be a member already. A channel of another broker, such as `#build@desk`, is asked of
    /// that broker: then the answer says so, and a notice tells the outcome.
    Join(String),
    /// Leave. A channel without members is deleted; its messages stay. Answer: that channel.
    Leave(String),
    /// Make another peer a member (members, operators). Answer: that channel.
    Invite {
        /// The channel.
        name: String,
        /// A peer's name or id.
        peer: String,
    },
    /// Set the topic (members, operators). Answer: that channel.
    SetTopic {
        /// The channel.
        name: String,
        /// The new topic; an empty text clears it.
        topic: String,
    },
}

impl ChannelRequest {
    /// The channel or group that it is about.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::List => None,
            Self::Create { name, .. }
            | Self::Join(name)
            | Self::Leave(name)
            | Self::Invite { name, .. }
            | Self::SetTopic { name, .. } => Some(name),
        }
    }
}

/// A channel or group, as a peer that may see it gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// The name with its sign: `#name` or `@name`.
    pub name: String,
    /// What the channel is for; may be empty.
    pub topic: String,
    /// Whether only members may see it. Groups never are private.
    pub private: bool,
    /// The members' names, in order. Of a channel of another broker, those of this broker are known
    /// while its link is down.
    pub members: Vec<String>,
    /// Whether the caller is a member.
    pub joined: bool,
    /// The name that its creator had then.
    pub created_by: String,
    /// When it was created. For a channel of another broker: when this one first had a member in it.
    pub created_at: Timestamp,
    /// The link to its broker; absent for a channel of this broker.
    pub link: Option<PeerLink>,
    /// The caller asked that broker to join or to leave, and it has not answered.
    pub asked: bool,
}
