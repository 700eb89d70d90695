//! Records what send limits refused: threads that agents used up, and recent refusals.
//!
//! In memory only, like the send limits. Invariants: in a used-up thread, nobody but the person may
//! send. The person gets a notice of it, and sees it in every listing of pauses. Only the person
//! and the sender may know of a refused send.

use peer_proto::brake::{RefusedSend, UsedUpThread};
use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::limits::{REFUSED_REASON_CHARS_MAX, REFUSED_TEXT_CHARS_MAX};
use peer_proto::message::Sender;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Reply, WatchEvent};

use crate::broker::Broker;
use crate::rejection::Rejection;
use crate::rules::notices::Notice;
use crate::state::refusals::RecordedRefusal;
use crate::turn::Turn;
use crate::who::{Actor, Caller};
use crate::wording;

/// Names of senders that the notice about a used-up thread lists.
const SPEAKERS_NAMED_MAX: usize = 8;

impl Broker {
    /// Closes a thread after a send met its limit of turns. From then on only the person may send
    /// there, and gets a notice. `channel`: the channel of that send. Other agents' shells may not
    /// learn the name of a private one.
    pub(crate) fn use_up_thread(
        &mut self,
        turn: &mut Turn<'_>,
        thread: &str,
        channel: Option<&str>,
    ) {
        let private = channel.filter(|name| self.is_private(name)).map(str::to_owned);
        let Some((turns, speakers)) = self.send_limits.use_up_thread(thread, turn.now.wall) else {
            return;
        };
        let names = self.speakers(&speakers);
        let event = WatchEvent::Loop { thread: thread.to_owned(), turns };
        let sees = |actor: Actor| private.is_none() || actor.is_person();
        self.emit_where(turn, &speakers, &event, sees);
        let text = wording::used_up_thread(thread, &names, turns);
        let is_private = private.is_some();
        let notice = Notice {
            channel: private,
            private: is_private,
            ..Notice::new(PeerId::HUMAN, thread.to_owned(), text)
        };
        self.post_notice(turn, notice);
    }

    /// Returns the threads that agents used up, oldest first.
    pub(crate) fn used_up_threads(&self) -> Vec<UsedUpThread> {
        let mut threads: Vec<UsedUpThread> = self
            .send_limits
            .used_up_threads()
            .map(|(thread, turns, speakers, since)| UsedUpThread {
                thread: thread.to_owned(),
                turns,
                speakers: self.speakers(speakers),
                since,
            })
            .collect();
        threads.sort_by(|one, other| (one.since, &one.thread).cmp(&(other.since, &other.thread)));
        threads
    }

    fn speakers(&self, speakers: &[PeerId]) -> Vec<String> {
        let name = |peer: &PeerId| self.name_of(self.presence.current(*peer).unwrap_or(*peer));
        speakers.iter().take(SPEAKERS_NAMED_MAX).map(name).collect()
    }

    /// Records a refusal of a send limit or a policy. `to` and `text` are empty if the request was
    /// not a message.
    pub(crate) fn remember_refused(
        &mut self,
        at: Timestamp,
        sender: &Sender,
        (to, thread, text): (&str, Option<&str>, &str),
        refusal: &Refusal,
    ) {
        let beginning =
            |text: &str, chars_max: usize| text.chars().take(chars_max).collect::<String>();
        let send = RefusedSend {
            at,
            from: sender.name.clone(),
            to: beginning(to, REFUSED_REASON_CHARS_MAX),
            thread: thread.map(str::to_owned),
            code: refusal.code,
            message: beginning(&refusal.message, REFUSED_REASON_CHARS_MAX),
            beginning: beginning(text, REFUSED_TEXT_CHARS_MAX),
        };
        self.refusals.push(RecordedRefusal { by: sender.peer, via: sender.via, send });
    }

    /// Answers with the recent refusals: all of them for the person, their own for a session and
    /// its shell.
    pub(crate) fn list_refusals(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        let sees = |refused: &&RecordedRefusal| self.sees_refused(actor, refused.by, refused.via);
        let refusals =
            self.refusals.iter().filter(sees).map(|refused| refused.send.clone()).collect();
        turn.reply(caller, Reply::Refusals(refusals));
        Ok(())
    }
}
