//! Channels and groups: names that stand for several peers.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// What is asked of channels (`#name`) and groups (`@name`). A name comes with its sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelRequest {
    /// All that the caller may know of, by name. Answer:
    /// [`Reply::Channels`](crate::request::Reply::Channels).
    List,
    /// Make a channel, with the caller as its first member. Answer: that channel.
    Create {
        /// Its name.
        name: String,
        /// What it is for; may be empty.
        topic: String,
        /// Only members know of it, and only members bring others in.
        private: bool,
    },
    /// Become a member; of a group, take its label. Answer: that channel. Being one already is no
    /// error.
    Join(String),
    /// End being one. A channel that nobody is a member of is gone; what was said in it stays.
    /// Answer: that channel.
    Leave(String),
    /// Make another peer a member (members, operators). Answer: that channel.
    Invite {
        /// The channel.
        name: String,
        /// A peer's name or id.
        peer: String,
    },
    /// Say what it is for (members, operators). Answer: that channel.
    SetTopic {
        /// The channel.
        name: String,
        /// An empty one clears it.
        topic: String,
    },
}

/// A channel or group, as its members and others who may know of it see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// With its sign: `#name` or `@name`.
    pub name: String,
    /// What it is for; may be empty.
    pub topic: String,
    /// Only members know of it. Groups never are.
    pub private: bool,
    /// The members' names, in order.
    pub members: Vec<String>,
    /// Whether the caller is one.
    pub joined: bool,
    /// Who made it, by the name of that time.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
}
