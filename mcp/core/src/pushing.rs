//! Decides which messages are pushed next, by which carrier, and when.
//!
//! Knows the carriers, their trials and the limits. Does not know how a carrier writes. Invariant:
//! no byte leaves before the broker was told of the offer. The rules:
//!
//! - A push carrier is on trial if the client does not answer it and nothing has proved it in this
//!   session. It gets one message, which the next hook or tool result carries too, marked as a
//!   repeat.
//! - Until that message is settled, no carrier on trial gets another one; hooks and tool results
//!   carry the rest at once. If another carrier settled it, the carrier is tried again once the
//!   session is idle and a request waits.
//! - Hooks and tool results carry the messages that another adapter of this client had offered,
//!   until that offer timed out. The trial is for new messages.
//! - A proved carrier has a message alone. After the visibility timeout without evidence, the next
//!   carrier gets it, marked as a repeat. A message that could not leave goes to the next carrier
//!   at once, unmarked.
//! - A push carrier that timed out without evidence is distrusted for a minute, then two, up to an
//!   hour, until evidence proves it ([`ClientFacts`]). Without hooks, a distrusted carrier that is not on
//!   trial is used all the same. Hooks and tool results are always used.
//! - Posts into Claude Code's inbox socket are paced, because the client silently drops posts
//!   beyond its limit. Messages that do not fit one post go by the hooks of a working model.
//! - Later messages of the sender of a message in flight wait until that has arrived or timed out.
//! - An idle session is woken only by messages that may wake it, and only so many times an hour.
//!   The rest waits for its next turn. If it is unknown whether the session is idle, the channel is
//!   used at once, and the other carriers as for an idle session.
//!
//! The sequence of a push:
//!
//! 1. [`Action::Look`] asks for the available carriers, and
//!    [`Event::Ways`](crate::event::Event::Ways) answers.
//! 2. [`Action::Push`] leads to [`Event::Leaving`](crate::event::Event::Leaving).
//! 3. The broker is told of the offer, and then [`Action::Go`] is returned.
//! 4. [`Event::PushedOut`](crate::event::Event::PushedOut) ends the push, and the next one may
//!    begin.

use peer_proto::hook::Activity;
use peer_proto::message::Carrier;
use peer_proto::request::Request;

use crate::adapter::Adapter;
use crate::event::{Action, PushResult};
use crate::facts::ClientFacts;
use crate::inbox::Post;
use crate::under_way::UnderWay;
use crate::ways::Ways;

/// The longest time from the beginning of a client's turn to its first request, in milliseconds.
const PROMPT_MS: u64 = 1_000;

impl Adapter {
    /// Starts a search for carriers: there may be a message to push, or the carriers may have
    /// changed.
    pub(crate) fn search_carriers(&mut self) {
        self.pushing.is_changed = true;
        self.ask_for_ways();
    }

    fn ask_for_ways(&mut self) {
        if self.is_connected && !self.pushing.is_searching && self.pushing.under_way.is_none() {
            self.pushing.is_searching = true;
            self.actions.push(Action::Look);
        }
    }

    /// Applies the carriers that the adapter found while it did something else.
    pub(crate) fn ways_are(&mut self, ways: Ways) {
        self.carriers.ways = ways;
        self.pushing.knows_ways = true;
    }

    /// Pushes the next message by one of these carriers, which the adapter found because a push may
    /// be due.
    pub(crate) fn push_next(&mut self, now: u64, ways: Ways) {
        self.ways_are(ways);
        self.pushing.is_searching = false;
        if std::mem::take(&mut self.pushing.is_changed) {
            self.pushing.unable.clear();
        }
        if self.pushing.under_way.is_some() || !self.is_connected || self.is_closing {
            return;
        }
        // If no hooks arrive, a distrusted carrier is better than waiting for the next tool call.
        let found = self
            .next_by(now, true)
            .or_else(|| if self.facts.hooks_come { None } else { self.next_by(now, false) });
        if let Some((carrier, post)) = found {
            let rests = self.facts.activity == Some(Activity::Idle);
            self.pushing.under_way =
                Some(UnderWay { carrier, messages: post.ids(), rests, left: false });
            self.replies.push(Action::Push { carrier, post });
            self.actions.push(Action::Watch);
        }
    }

    /// Handles the moment before the bytes of a push leave. `runs`: whether the client was in a
    /// turn just now.
    pub(crate) fn leaving(&mut self, carrier: Carrier, runs: Option<bool>) {
        let was_at_work = self.facts.activity == Some(Activity::Working);
        match runs {
            Some(true) => self.set_activity(Activity::Working),
            Some(false) if was_at_work => {
                self.inbox.rests();
                self.set_activity(Activity::Idle);
            }
            Some(false) | None => {}
        }
        // A message that was chosen for a running turn may not justify a new turn, and a new turn
        // needs somebody who sees it.
        let begins = runs == Some(false);
        let may_begin =
            !begins || !was_at_work && self.carriers.is_ready(carrier, true, &self.facts);
        if !self.is_connected || self.is_closing || !may_begin {
            return;
        }
        let Some(under_way) =
            self.pushing.under_way.as_mut().filter(|under_way| under_way.carrier == carrier)
        else {
            return;
        };
        under_way.left = true;
        let messages = under_way.messages.clone();
        self.tell(Request::Offered { messages, carrier, last: false });
        self.replies.push(Action::Go);
    }

    pub(crate) fn pushed_out(&mut self, now: u64, carrier: Carrier, result: PushResult) {
        let Some(under_way) =
            self.pushing.under_way.take_if(|under_way| under_way.carrier == carrier)
        else {
            return;
        };
        if under_way.left && carrier == Carrier::InboxSocket {
            self.facts.posted(now);
        }
        let take_back = match result {
            PushResult::Left => {
                if under_way.rests {
                    self.facts.woke(now);
                }
                false
            }
            PushResult::NotNow => true,
            PushResult::Failed => {
                self.facts.doubt(carrier, now);
                // A push whose bytes began to leave may have been seen: it times out like any other
                // offer.
                !under_way.left
            }
        };
        if take_back {
            self.inbox.take_back(&under_way.messages, carrier);
            self.facts.take_back_trial(carrier);
        }
        if result != PushResult::Left {
            self.pushing.unable.insert(carrier);
        }
        self.ask_for_ways();
    }

    pub(crate) fn tick(&mut self, now: u64) {
        self.pushing.turn_runs_at.take_if(|at| *at <= now);
        self.search_carriers();
    }

    /// Delays pushes while the client takes its user's prompt, because a post would come before the
    /// prompt. Waiting messages go with the hook of that prompt, or without hooks once the turn is
    /// under way.
    pub(crate) fn turn_begins(&mut self, now: u64) {
        if self.facts.activity.replace(Activity::Working) == Some(Activity::Working) {
            return;
        }
        self.tried(None);
        if !self.facts.hooks_come {
            self.pushing.turn_runs_at = Some(now + PROMPT_MS);
        }
    }

    /// Returns when a push depends on time alone: at the next end of a distrust. If a message
    /// waits, it may also be the end of a wake-up's hour, or of the client's memory of a post.
    pub(crate) fn pushing_timeout(&self, now: u64) -> Option<u64> {
        let carriers = self.carriers.pushed();
        let doubts = carriers.iter().filter_map(|carrier| self.facts.doubted_until(*carrier, now));
        let is_any_due = carriers.iter().any(|carrier| self.inbox.is_any_due_by(*carrier));
        let woken_enough = self.facts.may_wake_from(self.settings.wakeups_per_hour, now);
        let may_post =
            self.facts.may_post_from(now).filter(|_| carriers.contains(&Carrier::InboxSocket));
        let when_due = woken_enough.into_iter().chain(may_post).filter(|_| is_any_due);
        doubts.chain(when_due).chain(self.pushing.turn_runs_at).min()
    }

    /// Returns the next push and its carrier, and counts it as given. `trusted`: without distrusted
    /// carriers.
    fn next_by(&mut self, now: u64, trusted: bool) -> Option<(Carrier, Post)> {
        let known = self.facts.activity;
        // If one carrier is proved, the others need no trial.
        let is_any_proved = self.carriers.pushed().iter().any(|carrier| {
            is_proved(&self.facts, *carrier)
                && self.facts.trusts(*carrier, now)
                && !self.pushing.unable.contains(carrier)
                && self.carriers.is_ready(*carrier, known != Some(Activity::Working), &self.facts)
        });
        for carrier in self.carriers.pushed() {
            // If it is unknown whether the session is idle, only the channel is used at once.
            let activity = known.or((*carrier != Carrier::Channel).then_some(Activity::Idle));
            let is_passed_over = (is_any_proved && !is_proved(&self.facts, *carrier))
                || (trusted && !self.facts.trusts(*carrier, now))
                || !self.may_use(*carrier, activity, now);
            let post = if is_passed_over { None } else { self.post_by(*carrier, activity, now) };
            if let Some(post) = post {
                return Some((*carrier, post));
            }
        }
        None
    }

    /// Whether this carrier may be used at this time, whatever it would carry.
    fn may_use(&mut self, carrier: Carrier, activity: Option<Activity>, now: u64) -> bool {
        let wakes = activity != Some(Activity::Working);
        let rests = activity == Some(Activity::Idle);
        // A backlog beyond one post arrives sooner with the model's next step.
        let comes_by_hook = is_proved(&self.facts, carrier) && self.facts.hooks_come && !wakes;
        // A waiting call shows the messages that arrive meanwhile; the client would delay a push
        // until that call's end.
        self.waits == 0
            && !self.pushing.unable.contains(&carrier)
            && self.carriers.is_ready(carrier, wakes, &self.facts)
            && (!rests || self.facts.may_wake(self.settings.wakeups_per_hour, now))
            && (carrier != Carrier::InboxSocket || self.facts.may_post_from(now).is_none())
            && !(comes_by_hook && self.inbox.is_backlog(carrier))
    }

    fn post_by(&mut self, carrier: Carrier, activity: Option<Activity>, now: u64) -> Option<Post> {
        let (one, home) = (carrier == Carrier::Channel, &self.settings.home);
        if is_proved(&self.facts, carrier) {
            return self.inbox.post(carrier, activity, one, home);
        }
        if !self.may_be_tried(carrier, activity, now) {
            return None;
        }
        let post = self.inbox.trial(carrier, activity == Some(Activity::Idle), one, home);
        if post.is_some() {
            self.facts.begin_trial(carrier);
        }
        post
    }

    /// Whether an unproved carrier may be given one message. If its last trial proved nothing, it
    /// is tried again only to wake an idle session: hooks and tool results carry the rest.
    fn may_be_tried(&self, carrier: Carrier, activity: Option<Activity>, now: u64) -> bool {
        let wakes = || activity != Some(Activity::Working) && self.inbox.is_any_waking_by(carrier);
        let is_free = self.facts.trusts(carrier, now) && !self.inbox.is_any_on_trial();
        is_free && (!self.facts.was_tried(carrier) || wakes())
    }
}

/// Whether evidence of this session proved this carrier. Codex answers each push, so a message that
/// it took is not on trial.
fn is_proved(facts: &ClientFacts, carrier: Carrier) -> bool {
    carrier == Carrier::AppServer || facts.is_proved(carrier)
}
