//! Channels (`#name`) and groups (`@name`): names that stand for several peers.
//!
//! Knows who is a member of what, and who may know of it. Does not know how mail travels: a message to a channel is one
//! message with one delivery per member.

use std::collections::BTreeMap;

use peer_proto::channel::ChannelRequest;

use crate::broker::{Broker, Caller};
use crate::input::Now;
use crate::rejection::Rejection;
use crate::step::Step;
use crate::thing::ChannelRecord;

/// All channels and groups, by name in lower case.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_name: BTreeMap<String, ChannelRecord>,
}

impl Channels {
    pub(crate) fn load(records: Vec<ChannelRecord>) -> Self {
        Self { by_name: records.into_iter().map(|record| (record.name.to_ascii_lowercase(), record)).collect() }
    }
}

impl Broker {
    pub(crate) fn channel(
        &mut self,
        now: Now,
        caller: Caller,
        request: ChannelRequest,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let _ = (now, caller, request, step, &self.channels.by_name);
        Err(Rejection::NotPermitted { act: "this" })
    }
}
