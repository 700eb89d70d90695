//! Facts about the client's session that the broker does not have: from hooks, from the client's
//! files and sockets, and from the results of its carriers.
//!
//! Knows these facts. Does not know the messages. Pure except for the time that it is passed. The
//! invariants:
//!
//! - A carrier that timed out without evidence is distrusted for a while, longer each time, until
//!   evidence proves it again.
//! - An idle session is woken at most a configured number of times an hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use peer_proto::hook::{Activity, Mode};
use peer_proto::message::Carrier;

/// How long a push carrier is distrusted after its first failure, in milliseconds; doubled each
/// time.
const BACKOFF_MS: u64 = 60_000;

/// The longest time for which a push carrier is distrusted, in milliseconds.
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// Posts that may follow each other without a pause. Claude Code accepts 30 and then one every two
/// seconds, from all senders to a session. It drops the rest silently.
const POSTS_MAX: u64 = 24;

/// The time after which one more post is possible, in milliseconds.
const POST_MS: u64 = 2_500;

/// The number of tool calls for which the maker is remembered.
const CALLERS_MAX: usize = 256;

/// The period for which wake-ups are counted: one hour, in milliseconds.
const WAKES_SPAN_MS: u64 = 3_600_000;

/// Facts about the client's session.
#[derive(Debug, Default)]
pub(crate) struct ClientFacts {
    /// Whether the model is at work.
    pub(crate) activity: Option<Activity>,
    /// The acts that the session may do without asking.
    pub(crate) mode: Option<Mode>,
    /// Whether the client's hooks reach this adapter.
    pub(crate) hooks_come: bool,
    /// Whether those hooks come through the broker. Without a connection they are missed.
    pub(crate) hooks_are_relayed: bool,
    /// Whether the person allows posts into the inbox socket of a session that bypasses
    /// permissions.
    pub(crate) inbox_socket_in_bypass: bool,
    trust: BTreeMap<Carrier, Trust>,
    /// Carriers that evidence of this session proved, and that have not failed since.
    proved: BTreeSet<Carrier>,
    /// Carriers that were given a message on trial, and that nothing proved since.
    tried: BTreeSet<Carrier>,
    wakes: VecDeque<u64>,
    /// The time at which the client has forgotten all posts into its inbox socket.
    posts_forgotten: Option<u64>,
    /// Tool calls by the client's name of each, and whether a subagent made it.
    callers: VecDeque<(String, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Trust {
    failures: u32,
    doubted_until: Option<u64>,
}

impl ClientFacts {
    /// Whether this carrier may be tried at this time.
    pub(crate) fn trusts(&self, carrier: Carrier, now: u64) -> bool {
        self.doubted_until(carrier, now).is_none()
    }

    /// Returns the time until which a distrusted carrier must not be tried.
    pub(crate) fn doubted_until(&self, carrier: Carrier, now: u64) -> Option<u64> {
        self.trust.get(&carrier)?.doubted_until.filter(|until| *until > now)
    }

    /// Distrusts a carrier that timed out without evidence, or that could not be used.
    pub(crate) fn doubt(&mut self, carrier: Carrier, now: u64) {
        self.proved.remove(&carrier);
        let trust = self.trust.entry(carrier).or_default();
        // Pushes already under way at the first failure do not count as further failures.
        if trust.doubted_until.is_none_or(|until| until <= now) {
            let backoff_ms =
                BACKOFF_MS.saturating_mul(1 << trust.failures.min(16)).min(BACKOFF_MS_MAX);
            trust.failures += 1;
            trust.doubted_until = Some(now + backoff_ms);
        }
    }

    /// Trusts a carrier after evidence.
    pub(crate) fn prove(&mut self, carrier: Carrier) {
        self.trust.remove(&carrier);
        self.tried.remove(&carrier);
        self.proved.insert(carrier);
    }

    /// Whether evidence of this session has proved this carrier, and it has not failed since.
    pub(crate) fn is_proved(&self, carrier: Carrier) -> bool {
        self.proved.contains(&carrier)
    }

    /// Whether this carrier had a trial that proved nothing.
    pub(crate) fn was_tried(&self, carrier: Carrier) -> bool {
        self.tried.contains(&carrier)
    }

    /// Records that the carrier is given a message on trial.
    pub(crate) fn begin_trial(&mut self, carrier: Carrier) {
        self.tried.insert(carrier);
    }

    /// Undoes the trial of a carrier that could not take the message.
    pub(crate) fn take_back_trial(&mut self, carrier: Carrier) {
        self.tried.remove(&carrier);
    }

    /// Whether an idle session may be woken once more.
    pub(crate) fn may_wake(&mut self, per_hour: u32, now: u64) -> bool {
        while self.wakes.front().is_some_and(|at| now.saturating_sub(*at) >= WAKES_SPAN_MS) {
            self.wakes.pop_front();
        }
        self.wakes.len() < per_hour as usize
    }

    /// Returns the next time at which an idle session may be woken, if that is later than now.
    pub(crate) fn may_wake_from(&self, per_hour: u32, now: u64) -> Option<u64> {
        let first = self.wakes.get(self.wakes.len().checked_sub(per_hour as usize)?)?;
        Some(*first + WAKES_SPAN_MS).filter(|time| *time > now)
    }

    /// Returns the next time at which the inbox socket may get a post, if that is later than now.
    pub(crate) fn may_post_from(&self, now: u64) -> Option<u64> {
        let from = self.posts_forgotten?.checked_sub((POSTS_MAX - 1) * POST_MS)?;
        (from > now).then_some(from)
    }

    /// Counts a post into the client's inbox socket.
    pub(crate) fn posted(&mut self, now: u64) {
        let forgotten = self.posts_forgotten.filter(|at| *at > now).unwrap_or(now);
        self.posts_forgotten = Some(forgotten + POST_MS);
    }

    /// Counts a wake-up of the session.
    pub(crate) fn woke(&mut self, now: u64) {
        self.wakes.push_back(now);
    }

    /// Records who makes the tool call of that name, as a hook reported it.
    pub(crate) fn record_caller(&mut self, tool_use: String, is_subagent: bool) {
        if self.callers.len() == CALLERS_MAX {
            self.callers.pop_front();
        }
        self.callers.push_back((tool_use, is_subagent));
    }

    /// Whether a subagent made the tool call of that name; `None`: no hook reported it.
    pub(crate) fn is_subagent(&self, tool_use: &str) -> Option<bool> {
        self.callers
            .iter()
            .rev()
            .find(|(name, _)| name == tool_use)
            .map(|(_, is_subagent)| *is_subagent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_that_failed_is_left_alone_for_longer_each_time_until_it_is_proved() {
        let (mut facts, start) = (ClientFacts::default(), 1_000);
        let after = |ms: u64| start + ms;
        assert!(facts.trusts(Carrier::Channel, start));
        facts.doubt(Carrier::Channel, start);
        facts.doubt(Carrier::Channel, after(1));
        assert!(
            !facts.trusts(Carrier::Channel, after(BACKOFF_MS - 1))
                && facts.trusts(Carrier::Channel, after(BACKOFF_MS))
        );
        facts.doubt(Carrier::Channel, after(BACKOFF_MS));
        assert!(
            !facts.trusts(Carrier::Channel, after(3 * BACKOFF_MS - 1))
                && facts.trusts(Carrier::Channel, after(3 * BACKOFF_MS))
        );
        assert_eq!(
            facts.doubted_until(Carrier::Channel, after(BACKOFF_MS)),
            Some(after(3 * BACKOFF_MS))
        );
        assert_eq!(facts.doubted_until(Carrier::Channel, after(3 * BACKOFF_MS)), None);
        assert!(facts.trusts(Carrier::InboxSocket, start));
        facts.prove(Carrier::Channel);
        assert!(facts.trusts(Carrier::Channel, start));
        for _ in 0..100 {
            facts.doubt(Carrier::Hook, after(u64::from(u32::MAX)));
        }
    }

    #[test]
    fn a_carrier_is_proved_until_it_fails_and_a_trial_counts_until_it_is() {
        let (mut facts, start) = (ClientFacts::default(), 1_000);
        assert!(!facts.is_proved(Carrier::Channel) && !facts.was_tried(Carrier::Channel));
        facts.begin_trial(Carrier::Channel);
        assert!(facts.was_tried(Carrier::Channel) && !facts.was_tried(Carrier::InboxSocket));
        facts.prove(Carrier::Channel);
        assert!(facts.is_proved(Carrier::Channel) && !facts.was_tried(Carrier::Channel));
        facts.doubt(Carrier::Channel, start);
        assert!(!facts.is_proved(Carrier::Channel));
        facts.begin_trial(Carrier::InboxSocket);
        facts.take_back_trial(Carrier::InboxSocket);
        assert!(!facts.was_tried(Carrier::InboxSocket), "it could not take the message");
    }

    #[test]
    fn posts_are_paced_so_that_the_client_drops_none() {
        let (mut facts, start) = (ClientFacts::default(), 3_600_000);
        let after = |ms: u64| start + ms;
        // The client's own count: a bucket of 30, refilled every two seconds, in milliseconds.
        let (mut bucket_ms, mut at, mut now, mut posts) = (60_000_u64, 0_u64, 0_u64, 0);
        while now < 600_000 {
            match facts.may_post_from(after(now)) {
                None => {
                    bucket_ms = (bucket_ms + now - at).min(60_000);
                    assert!(bucket_ms >= 2_000, "post {posts} at {now} ms is dropped");
                    bucket_ms -= 2_000;
                    facts.posted(after(now));
                    (at, posts) = (now, posts + 1);
                }
                Some(from) => now = (from - start).max(now + 1),
            }
        }
        assert!(posts > 200, "{posts} posts in ten minutes");
        assert_eq!(facts.may_post_from(after(900_000)), None);
    }

    #[test]
    fn wake_ups_are_counted_by_the_hour() {
        let (mut facts, start) = (ClientFacts::default(), 1_000);
        for _ in 0..3 {
            assert!(facts.may_wake(3, start));
            facts.woke(start);
        }
        let again = start + WAKES_SPAN_MS;
        assert!(!facts.may_wake(3, start + WAKES_SPAN_MS - 1));
        assert_eq!(
            (
                facts.may_wake_from(3, start),
                facts.may_wake_from(4, start),
                facts.may_wake_from(3, again)
            ),
            (Some(again), None, None)
        );
        assert!(facts.may_wake(3, start + WAKES_SPAN_MS));
    }

    #[test]
    fn callers_are_remembered_up_to_a_bound() {
        let mut facts = ClientFacts::default();
        facts.record_caller("first".into(), true);
        assert_eq!((facts.is_subagent("first"), facts.is_subagent("other")), (Some(true), None));
        for number in 0..CALLERS_MAX {
            facts.record_caller(number.to_string(), false);
        }
        assert_eq!((facts.is_subagent("first"), facts.is_subagent("7")), (None, Some(false)));
    }
}
