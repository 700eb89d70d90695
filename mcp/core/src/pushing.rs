//! What is pushed next, by which carrier, and when. The rules:
//!
//! - A push carrier that the client does not answer and nothing has proved in this session is on trial: it gets one message,
//!   which the next hook or tool result carries too, marked as a repeat. Until that is settled no such carrier gets another;
//!   the rest is due to what the client calls, at once. Settled by another way, the carrier is tried again when the session
//!   rests and a request waits.
//! - What another adapter of this client had offered is left to what the client calls until that had its time: the trial is
//!   for what is new.
//! - A carrier that is proved has a message alone. After the visibility timeout without evidence the next one gets it, marked
//!   as a repeat; what could not leave at all goes to the next one at once, unmarked.
//! - A push carrier that had its time without evidence is left alone for a minute, then two, and so on up to an hour, until
//!   evidence proves it ([`Facts`]). Without hooks, one that is not on trial is used all the same. What the client calls is
//!   always there.
//! - Posts into Claude Code's inbox socket are paced, because the client drops what is too much for it without a word; what
//!   does not fit one post is left to the hooks of a model at work. What a sender wrote after a message in flight waits until
//!   that has arrived or had its time.
//! - A session that rests is woken only by what may wake it, and only so many times an hour; the rest waits for its next turn.
//!   Where nobody knows whether it rests, the channel is used at once and the others as if it did.
//!
//! A push goes so: [`Action::Look`] → [`Event::Ways`](crate::event::Event::Ways) → [`Action::Push`] →
//! [`Event::Leaving`](crate::event::Event::Leaving) → the broker is told, [`Action::Go`] →
//! [`Event::PushedOut`](crate::event::Event::PushedOut), and then the next.

use peer_proto::hook::Activity;
use peer_proto::message::Carrier;
use peer_proto::request::Request;

use crate::adapter::Adapter;
use crate::event::{Action, PushResult};
use crate::facts::Facts;
use crate::inbox::Post;
use crate::under_way::UnderWay;
use crate::ways::Ways;

/// How long a client takes at most from the beginning of a turn to its first request, in milliseconds.
const PROMPT_MS: u64 = 1_000;

impl Adapter {
    /// There may be something to push, or other ways to do it.
    pub(crate) fn look(&mut self) {
        self.pushing.is_changed = true;
        self.ask_for_ways();
    }

    fn ask_for_ways(&mut self) {
        if self.is_connected && !self.pushing.is_looking && self.pushing.under_way.is_none() {
            self.pushing.is_looking = true;
            self.actions.push(Action::Look);
        }
    }

    /// The hands have seen which ways there are.
    pub(crate) fn ways_are(&mut self, ways: Ways) {
        self.carriers.ways = ways;
        self.pushing.knows_ways = true;
    }

    /// The hands have looked for ways because there may be something to push.
    pub(crate) fn push_next(&mut self, now: u64, ways: Ways) {
        self.ways_are(ways);
        self.pushing.is_looking = false;
        if std::mem::take(&mut self.pushing.is_changed) {
            self.pushing.unable.clear();
        }
        if self.pushing.under_way.is_some() || !self.is_connected || self.is_closing {
            return;
        }
        // Where no hook comes, a carrier in doubt is better than to wait for the next tool call.
        let found = self.next_by(now, true).or_else(|| if self.facts.hooks_come { None } else { self.next_by(now, false) });
        if let Some((carrier, post)) = found {
            let rests = self.facts.activity == Some(Activity::Idle);
            self.pushing.under_way = Some(UnderWay { carrier, messages: post.ids(), rests, left: false });
            self.replies.push(Action::Push { carrier, post });
            self.actions.push(Action::Watch);
        }
    }

    /// The bytes of a push are about to leave. `runs`: whether the client was found in a turn just now.
    pub(crate) fn leaving(&mut self, carrier: Carrier, runs: Option<bool>) {
        let was_at_work = self.facts.activity == Some(Activity::Working);
        match runs {
            Some(true) => self.set_activity(Activity::Working),
            Some(false) if was_at_work => self.set_activity(Activity::Idle),
            Some(false) | None => {}
        }
        // What was chosen for a turn that runs may not be worth a new one, and that needs somebody who sees it.
        let begins = runs == Some(false);
        let may_begin = !begins || !was_at_work && self.carriers.is_ready(carrier, true, &self.facts);
        if !self.is_connected || self.is_closing || !may_begin {
            return;
        }
        let Some(under_way) = self.pushing.under_way.as_mut().filter(|under_way| under_way.carrier == carrier) else { return };
        under_way.left = true;
        let messages = under_way.messages.clone();
        self.tell(Request::Offered { messages, carrier, last: false });
        self.replies.push(Action::Go);
    }

    pub(crate) fn pushed_out(&mut self, now: u64, carrier: Carrier, result: PushResult) {
        let Some(under_way) = self.pushing.under_way.take_if(|under_way| under_way.carrier == carrier) else { return };
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
                // What had begun to leave may have been seen: it has its time, like any other offer.
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
        self.look();
    }

    /// The client takes its user's prompt just now, and a post would come before it. What waits goes with the hook of that
    /// prompt, or where none comes, when the turn is under way.
    pub(crate) fn turn_begins(&mut self, now: u64) {
        if self.facts.activity.replace(Activity::Working) == Some(Activity::Working) {
            return;
        }
        self.tried(None);
        if !self.facts.hooks_come {
            self.pushing.turn_runs_at = Some(now + PROMPT_MS);
        }
    }

    /// When time alone makes a difference: at the next end of a doubt, or, where something waits, of the hour of a wake-up, or
    /// of the client's memory of a post.
    pub(crate) fn pushing_timeout(&self, now: u64) -> Option<u64> {
        let carriers = self.carriers.pushed();
        let doubts = carriers.iter().filter_map(|carrier| self.facts.doubted_until(*carrier, now));
        let is_any_due = carriers.iter().any(|carrier| self.inbox.is_any_due_by(*carrier));
        let woken_enough = self.facts.may_wake_from(self.settings.wakeups_per_hour, now);
        let may_post = self.facts.may_post_from(now).filter(|_| carriers.contains(&Carrier::InboxSocket));
        let when_due = woken_enough.into_iter().chain(may_post).filter(|_| is_any_due);
        doubts.chain(when_due).chain(self.pushing.turn_runs_at).min()
    }

    /// What goes next, and by which carrier; counted as given to it. `trusted`: not by one that is in doubt.
    fn next_by(&mut self, now: u64, trusted: bool) -> Option<(Carrier, Post)> {
        let known = self.facts.activity;
        // Where one is proved the others need no trial.
        let is_any_proved = self.carriers.pushed().iter().any(|carrier| {
            is_proved(&self.facts, *carrier)
                && self.facts.trusts(*carrier, now)
                && !self.pushing.unable.contains(carrier)
                && self.carriers.is_ready(*carrier, known != Some(Activity::Working), &self.facts)
        });
        for carrier in self.carriers.pushed() {
            // The channel alone is sent to at once where nobody knows whether the session rests.
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
        // What is too much for one post comes sooner with the model's next step.
        let comes_by_hook = is_proved(&self.facts, carrier) && self.facts.hooks_come && !wakes;
        // A call that waits shows what comes meanwhile; the client would hold a push back until that call's end.
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

    /// Whether a carrier that nothing has proved may be given one message. One whose last trial proved nothing is tried again
    /// only to wake a session that rests: what the client calls brings everything else.
    fn may_be_tried(&self, carrier: Carrier, activity: Option<Activity>, now: u64) -> bool {
        let wakes = || activity != Some(Activity::Working) && self.inbox.is_any_waking_by(carrier);
        let is_free = self.facts.trusts(carrier, now) && !self.inbox.is_any_on_trial();
        is_free && (!self.facts.was_tried(carrier) || wakes())
    }
}

/// Whether evidence of this session proved this carrier. Codex answers each push, so nothing that it took is on trial.
fn is_proved(facts: &Facts, carrier: Carrier) -> bool {
    carrier == Carrier::AppServer || facts.is_proved(carrier)
}
