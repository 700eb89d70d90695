//! What may happen in a random world.

use proptest::prelude::*;

use super::{AGENTS, CHANNELS};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        who: usize,
        channel: usize,
        private: bool,
    },
    Join {
        who: usize,
        channel: usize,
    },
    Leave {
        who: usize,
        channel: usize,
    },
    /// All leave, and another channel takes the name.
    Refound {
        who: usize,
        channel: usize,
        private: bool,
    },
    Invite {
        who: usize,
        channel: usize,
        whom: usize,
    },
    Post {
        who: usize,
        channel: usize,
        short: bool,
    },
    Say {
        who: usize,
        to: Vec<usize>,
        shell: bool,
    },
    Reply {
        who: usize,
        message: usize,
    },
    Ask {
        who: usize,
        to: Result<usize, usize>,
    },
    Answer {
        who: usize,
        message: usize,
    },
    Cancel {
        who: usize,
        message: usize,
    },
    Policy {
        whom: usize,
        hold: bool,
    },
    Release {
        message: usize,
    },
    Reassign {
        message: usize,
        to: usize,
    },
    Show {
        whom: usize,
    },
    Go {
        whom: usize,
    },
    Come {
        whom: usize,
    },
    /// The other broker's peer joins, leaves, or posts in a channel of this broker.
    FromAfar {
        channel: usize,
        what: Option<&'static str>,
    },
    /// The other broker tells of its channel, or that there is none.
    Told {
        members: Option<Vec<usize>>,
        private: bool,
        again: bool,
    },
    /// The other broker brings a post, of its own peer or of a third broker's.
    Brought {
        to: Vec<usize>,
        third: bool,
    },
    /// The other broker takes, or refuses, what waits for it.
    Taken {
        refused: bool,
    },
    Pass,
    Restart,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let who = || 0..AGENTS.len();
    let channel = || 0..CHANNELS.len();
    let message = || 0..16usize;
    prop_oneof![
        3 => (who(), channel(), any::<bool>()).prop_map(|(who, channel, private)| Op::Create { who, channel, private }),
        2 => (who(), channel()).prop_map(|(who, channel)| Op::Join { who, channel }),
        2 => (who(), channel()).prop_map(|(who, channel)| Op::Leave { who, channel }),
        2 => (who(), channel(), any::<bool>()).prop_map(|(who, channel, private)| Op::Refound { who, channel, private }),
        3 => (who(), channel(), who()).prop_map(|(who, channel, whom)| Op::Invite { who, channel, whom }),
        5 => (who(), channel(), any::<bool>()).prop_map(|(who, channel, short)| Op::Post { who, channel, short }),
        4 => (who(), prop::collection::vec(who(), 1..3), any::<bool>()).prop_map(|(who, to, shell)| Op::Say { who, to, shell }),
        3 => (who(), message()).prop_map(|(who, message)| Op::Reply { who, message }),
        3 => (who(), channel()).prop_map(|(who, to)| Op::Ask { who, to: Ok(to) }),
        2 => (who(), who()).prop_map(|(who, to)| Op::Ask { who, to: Err(to) }),
        5 => (who(), message()).prop_map(|(who, message)| Op::Answer { who, message }),
        1 => (who(), message()).prop_map(|(who, message)| Op::Cancel { who, message }),
        2 => (who(), any::<bool>()).prop_map(|(whom, hold)| Op::Policy { whom, hold }),
        2 => message().prop_map(|message| Op::Release { message }),
        2 => (message(), who()).prop_map(|(message, to)| Op::Reassign { message, to }),
        2 => who().prop_map(|whom| Op::Show { whom }),
        2 => who().prop_map(|whom| Op::Go { whom }),
        2 => who().prop_map(|whom| Op::Come { whom }),
        4 => (channel(), prop::sample::select(vec![None, None, Some("join"), Some("leave")])).prop_map(|(channel, what)| Op::FromAfar { channel, what }),
        4 => (prop::option::weighted(0.8, prop::collection::vec(who(), 0..4)), any::<bool>(), any::<bool>()).prop_map(|(members, private, again)| Op::Told { members, private, again }),
        4 => (prop::collection::vec(who(), 1..3), any::<bool>()).prop_map(|(to, third)| Op::Brought { to, third }),
        3 => any::<bool>().prop_map(|refused| Op::Taken { refused }),
        1 => Just(Op::Pass),
        1 => Just(Op::Restart),
    ]
}
