//! The send limits: how much one sender may send, to whom, and how long agents may exchange
//! messages without a person.
//!
//! In memory only: a restart of the broker resets the limits once, so the effect is bounded by how
//! often a broker restarts.

use std::collections::{BTreeMap, VecDeque};

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::limits::{NEW_PEERS_PER_MINUTE, NEW_PEERS_PER_PROCESS};
use peer_proto::refusal::ErrorCode;
use peer_proto::settings::Limits;

use crate::record::Process;
use crate::rejection::Rejection;

/// The window that rates count in.
const MINUTE_MS: u64 = 60_000;

/// Threads whose turns are remembered. Beyond it the half that was idle longest is forgotten, so
/// that this is rare.
const THREADS_MAX: usize = 4_096;

/// Speakers of a thread that are remembered.
const SPEAKERS_MAX: usize = 8;

/// Pairs and senders that are remembered. Beyond it those without a recent message are dropped.
const RATES_MAX: usize = 4_096;

/// The error codes of send limits and policies.
const COUNTED: [ErrorCode; 6] = [
    ErrorCode::RateLimited,
    ErrorCode::MailboxFull,
    ErrorCode::IdenticalText,
    ErrorCode::ThreadPaused,
    ErrorCode::RefusedByPolicy,
    ErrorCode::Paused,
];

/// The kind of sender, for the send limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderClass {
    Agent,
    /// An agent's shell. Its scripts may repeat a text often, but it is not the person.
    Shell,
    /// The person: only the limit per sender applies.
    Person,
}

#[derive(Debug, Default)]
pub(crate) struct SendLimits {
    senders: Rates<PeerId>,
    pairs: Rates<(PeerId, PeerId)>,
    said: RecentTexts,
    threads: BTreeMap<String, ThreadTurns>,
    /// Registrations of new peers: per process, and in all.
    newcomers: Rates<Option<Process>>,
    /// Refusals since the broker started.
    refused: BTreeMap<ErrorCode, u64>,
}

/// A text that one peer sends to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saying<'a> {
    pub(crate) sender: PeerId,
    pub(crate) recipient: PeerId,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) text: &'a str,
}

/// The sender, the recipient, the answered message, and the text's digest.
type RecentTextKey = (PeerId, PeerId, Option<MessageId>, u64);

impl Saying<'_> {
    fn key(&self) -> RecentTextKey {
        (self.sender, self.recipient, self.reply_to, fnv1a(self.text))
    }
}

/// The time at which each text was sent last.
#[derive(Debug, Default)]
struct RecentTexts {
    at: BTreeMap<RecentTextKey, u64>,
    /// The number of entries beyond which outdated ones are searched and dropped, as in [`Rates`].
    searched_beyond: usize,
}

#[derive(Debug)]
struct ThreadTurns {
    count: u32,
    last_speaker: PeerId,
    last_mono_ms: u64,
    /// The agents that sent in it, the first first.
    speakers: Vec<PeerId>,
    /// The time when a send in it was first refused. From then on the thread is closed to all its
    /// agents.
    used_up_at: Option<Timestamp>,
}

impl SendLimits {
    /// Checks whether `sender` may send anything now.
    pub(crate) fn check_sender(
        &self,
        limits: &Limits,
        now_ms: u64,
        sender: PeerId,
        name: &str,
    ) -> Result<(), Rejection> {
        match retry_after(self.senders.sent.get(&sender), now_ms, limits.sender_per_minute) {
            None => Ok(()),
            Some(retry_after_ms) => Err(Rejection::RateLimited {
                who: name.to_owned(),
                to: String::new(),
                per_minute: limits.sender_per_minute,
                retry_after_ms,
            }),
        }
    }

    /// Checks whether `sender` may send to this recipient now.
    pub(crate) fn check_pair(
        &self,
        limits: &Limits,
        now_ms: u64,
        (sender, sender_name): (PeerId, &str),
        (recipient, recipient_name): (PeerId, &str),
    ) -> Result<(), Rejection> {
        match retry_after(self.pairs.sent.get(&(sender, recipient)), now_ms, limits.pair_per_minute)
        {
            None => Ok(()),
            Some(retry_after_ms) => Err(Rejection::RateLimited {
                who: sender_name.to_owned(),
                to: format!(" to {recipient_name}"),
                per_minute: limits.pair_per_minute,
                retry_after_ms,
            }),
        }
    }

    /// Checks whether one of these processes may register a new peer now.
    pub(crate) fn check_newcomer(
        &self,
        now_ms: u64,
        processes: &[Process],
    ) -> Result<(), Rejection> {
        let of_all = (None, NEW_PEERS_PER_MINUTE);
        let of_each = processes.iter().map(|process| (Some(*process), NEW_PEERS_PER_PROCESS));
        for (key, per_minute) in of_each.chain([of_all]) {
            if let Some(retry_after_ms) =
                retry_after(self.newcomers.sent.get(&key), now_ms, per_minute)
            {
                return Err(Rejection::TooManyNewPeers {
                    per_minute,
                    of_one: key.is_some(),
                    retry_after_ms,
                });
            }
        }
        Ok(())
    }

    /// Counts a new peer that a program of these processes registered.
    pub(crate) fn count_newcomer(&mut self, now_ms: u64, processes: &[Process]) {
        for key in processes.iter().map(|process| Some(*process)).chain([None]) {
            self.newcomers.count(key, now_ms);
        }
    }

    /// Checks that this text is new between the two peers.
    pub(crate) fn check_text(
        &self,
        limits: &Limits,
        now_ms: u64,
        saying: Saying<'_>,
        recipient_name: &str,
    ) -> Result<(), Rejection> {
        let window_ms = u64::from(limits.identical_text_ms);
        match self.said.at.get(&saying.key()) {
            Some(said_at) if now_ms.saturating_sub(*said_at) < window_ms => {
                let ago_ms = now_ms.saturating_sub(*said_at);
                Err(Rejection::IdenticalText {
                    name: recipient_name.to_owned(),
                    ago_ms,
                    retry_after_ms: window_ms - ago_ms,
                })
            }
            _ => Ok(()),
        }
    }

    /// Checks whether agents may still send in this thread. Consecutive messages of one sender are
    /// one turn. So the last sender may go on until another one is refused.
    pub(crate) fn check_thread(
        &self,
        limits: &Limits,
        thread: &str,
        sender: PeerId,
    ) -> Result<(), Rejection> {
        match self.threads.get(thread) {
            Some(turns)
                if turns.used_up_at.is_some()
                    || (turns.count >= limits.thread_turns_max && turns.last_speaker != sender) =>
            {
                Err(Rejection::ThreadPaused { thread: thread.to_owned(), turns: turns.count })
            }
            _ => Ok(()),
        }
    }

    /// Counts one act that notifies others, such as on a task, as one of its sender's sends.
    pub(crate) fn count_act(&mut self, now_ms: u64, sender: PeerId) {
        self.senders.count(sender, now_ms);
    }

    /// Counts one accepted message.
    pub(crate) fn count_send(
        &mut self,
        now_ms: u64,
        sender: PeerId,
        class: SenderClass,
        thread: &str,
    ) {
        self.senders.count(sender, now_ms);
        if class == SenderClass::Person {
            self.threads.remove(thread);
            return;
        }
        if self.threads.len() >= THREADS_MAX && !self.threads.contains_key(thread) {
            let mut rested: Vec<u64> =
                self.threads.values().map(|turns| turns.last_mono_ms).collect();
            let (_, middle, _) = rested.select_nth_unstable(THREADS_MAX / 2);
            let middle = *middle;
            // A used-up thread stays closed, unless there are so many that no other thread fits.
            self.threads
                .retain(|_, turns| turns.last_mono_ms > middle || turns.used_up_at.is_some());
            if self.threads.len() >= THREADS_MAX {
                self.threads.retain(|_, turns| turns.last_mono_ms > middle);
            }
        }
        let turns = self.threads.entry(thread.to_owned()).or_insert(ThreadTurns {
            count: 0,
            last_speaker: PeerId::SYSTEM,
            last_mono_ms: now_ms,
            speakers: Vec::new(),
            used_up_at: None,
        });
        if turns.last_speaker != sender {
            turns.count += 1;
            turns.last_speaker = sender;
        }
        if turns.speakers.len() < SPEAKERS_MAX && !turns.speakers.contains(&sender) {
            turns.speakers.push(sender);
        }
        turns.last_mono_ms = now_ms;
    }

    /// Counts one accepted delivery.
    pub(crate) fn count_delivery(&mut self, limits: &Limits, now_ms: u64, saying: Saying<'_>) {
        self.pairs.count((saying.sender, saying.recipient), now_ms);
        let window_ms = u64::from(limits.identical_text_ms);
        if window_ms > 0 {
            if self.said.at.len() >= RATES_MAX.max(self.said.searched_beyond) {
                self.said.at.retain(|_, said_at| now_ms.saturating_sub(*said_at) < window_ms);
                self.said.searched_beyond = 2 * self.said.at.len();
            }
            self.said.at.insert(saying.key(), now_ms);
        }
    }

    /// Counts a refusal by a send limit or a policy. Returns whether it was one.
    pub(crate) fn count_refused(&mut self, code: ErrorCode) -> bool {
        let counts = COUNTED.contains(&code);
        if counts {
            *self.refused.entry(code).or_default() += 1;
        }
        counts
    }

    /// Returns how often each send limit refused something since the broker started, by error code.
    pub(crate) fn refused(&self) -> Vec<(String, u64)> {
        self.refused.iter().map(|(code, count)| (code.as_str().to_owned(), *count)).collect()
    }

    /// Closes a thread in which a send was refused. If it was open, returns its number of turns and
    /// its senders.
    pub(crate) fn use_up_thread(
        &mut self,
        thread: &str,
        at: Timestamp,
    ) -> Option<(u32, Vec<PeerId>)> {
        let turns = self.threads.get_mut(thread).filter(|turns| turns.used_up_at.is_none())?;
        turns.used_up_at = Some(at);
        Some((turns.count, turns.speakers.clone()))
    }

    /// Returns the closed threads: name, turns, senders, and since when.
    pub(crate) fn used_up_threads(
        &self,
    ) -> impl Iterator<Item = (&str, u32, &[PeerId], Timestamp)> {
        self.threads.iter().filter_map(|(thread, turns)| {
            Some((thread.as_str(), turns.count, turns.speakers.as_slice(), turns.used_up_at?))
        })
    }

    /// Resets the turns of a thread. Returns whether there were any.
    pub(crate) fn resume_thread(&mut self, thread: &str) -> bool {
        self.threads.remove(thread).is_some()
    }

    /// Deletes the state of a forgotten peer.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.senders.sent.remove(&peer);
        self.pairs.sent.retain(|(sender, recipient), _| *sender != peer && *recipient != peer);
        self.said.at.retain(|(sender, recipient, ..), _| *sender != peer && *recipient != peer);
    }
}

/// Returns the time until one more is allowed. `None`: it is allowed now.
fn retry_after(sent: Option<&VecDeque<u64>>, now_ms: u64, per_minute: u32) -> Option<u64> {
    let sent = sent?;
    let per_minute = per_minute as usize;
    if sent.len() < per_minute {
        return None;
    }
    // The message that must leave the window before one more fits.
    let blocking = sent[sent.len() - per_minute];
    let free_at = blocking.saturating_add(MINUTE_MS);
    (free_at > now_ms).then(|| free_at - now_ms)
}

/// The times of each sender's sends in the last minute.
#[derive(Debug)]
struct Rates<Key> {
    sent: BTreeMap<Key, VecDeque<u64>>,
    /// The number of entries beyond which those without a recent message are searched and dropped.
    /// It is twice the number that the last search left, so that the cost per new entry is
    /// constant.
    searched_beyond: usize,
}

impl<Key> Default for Rates<Key> {
    fn default() -> Self {
        Self { sent: BTreeMap::new(), searched_beyond: RATES_MAX }
    }
}

impl<Key: Ord + Copy> Rates<Key> {
    fn count(&mut self, key: Key, now_ms: u64) {
        if self.sent.len() >= self.searched_beyond && !self.sent.contains_key(&key) {
            self.sent.retain(|_, sent| {
                sent.back().is_some_and(|last| last.saturating_add(MINUTE_MS) > now_ms)
            });
            self.searched_beyond = RATES_MAX.max(2 * self.sent.len());
        }
        let sent = self.sent.entry(key).or_default();
        while sent.front().is_some_and(|first| first.saturating_add(MINUTE_MS) <= now_ms) {
            sent.pop_front();
        }
        sent.push_back(now_ms);
    }
}

/// Returns a 64-bit digest that tells texts apart. A sender that makes two texts collide only gets
/// its own message refused.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(2);
    const B: PeerId = PeerId(3);

    #[test]
    fn a_process_that_registers_more_peers_than_anybody_needs_waits_and_others_do_not() {
        let mut sent = SendLimits::default();
        let (greedy, modest) = (Process { pid: 7, started: 1 }, Process { pid: 8, started: 1 });
        for n in 0..u64::from(NEW_PEERS_PER_PROCESS) {
            assert_eq!(sent.check_newcomer(n, &[greedy]), Ok(()));
            sent.count_newcomer(n, &[greedy]);
        }
        let refused = sent.check_newcomer(1_000, &[modest, greedy]).unwrap_err();
        assert!(
            matches!(
                refused,
                Rejection::TooManyNewPeers { of_one: true, retry_after_ms: 59_000, .. }
            ),
            "{refused:?}"
        );
        assert_eq!(sent.check_newcomer(1_000, &[modest]), Ok(()));
        for pid in 9.. {
            let each = Process { pid, started: 1 };
            match sent.check_newcomer(1_000, &[each]) {
                Ok(()) => sent.count_newcomer(1_000, &[each]),
                Err(refused) => {
                    assert!(
                        matches!(refused, Rejection::TooManyNewPeers { of_one: false, .. }),
                        "{refused:?}"
                    );
                    assert_eq!(pid - 9, NEW_PEERS_PER_MINUTE - NEW_PEERS_PER_PROCESS);
                    break;
                }
            }
        }
        assert_eq!(sent.check_newcomer(61_000, &[greedy]), Ok(()));
    }

    #[test]
    fn the_sixty_first_message_in_a_minute_waits_for_the_first_to_age() {
        let limits = Limits::default();
        let mut sent = SendLimits::default();
        for n in 0..u64::from(limits.sender_per_minute) {
            assert_eq!(sent.check_sender(&limits, n, A, "a"), Ok(()));
            sent.count_send(n, A, SenderClass::Agent, "t");
        }
        let refused = sent.check_sender(&limits, 1_000, A, "a").unwrap_err();
        assert!(
            matches!(refused, Rejection::RateLimited { retry_after_ms: 59_000, .. }),
            "{refused:?}"
        );
        assert_eq!(sent.check_sender(&limits, 60_000, A, "a"), Ok(()));
        assert_eq!(
            sent.check_sender(&limits, 1_000, B, "b"),
            Ok(()),
            "one sender's rate never stops another"
        );
    }

    #[test]
    fn a_thread_pauses_after_its_turns_and_the_person_lets_it_go_on() {
        let limits = Limits::default();
        let mut sent = SendLimits::default();
        for n in 0..limits.thread_turns_max {
            let speaker = if n % 2 == 0 { A } else { B };
            assert_eq!(sent.check_thread(&limits, "t", speaker), Ok(()));
            sent.count_send(0, speaker, SenderClass::Agent, "t");
        }
        assert!(matches!(sent.check_thread(&limits, "t", A), Err(Rejection::ThreadPaused { .. })));
        sent.count_send(0, PeerId::HUMAN, SenderClass::Person, "t");
        assert_eq!(sent.check_thread(&limits, "t", A), Ok(()));
    }

    #[test]
    fn a_thread_that_is_used_up_is_shut_for_the_last_speaker_too() {
        let limits = Limits { thread_turns_max: 2, ..Limits::default() };
        let mut sent = SendLimits::default();
        for speaker in [A, B] {
            sent.count_send(0, speaker, SenderClass::Agent, "t");
        }
        assert_eq!(
            sent.check_thread(&limits, "t", B),
            Ok(()),
            "its turn goes on while nobody was refused"
        );
        assert!(sent.check_thread(&limits, "t", A).is_err());
        assert_eq!(sent.use_up_thread("t", Timestamp(5)), Some((2, vec![A, B])));
        assert_eq!(sent.use_up_thread("t", Timestamp(6)), None, "it is told once");
        assert!(sent.check_thread(&limits, "t", B).is_err());
        assert_eq!(sent.used_up_threads().map(|(thread, ..)| thread).collect::<Vec<_>>(), ["t"]);
        assert!(sent.resume_thread("t"));
        assert_eq!(sent.check_thread(&limits, "t", A), Ok(()));
        assert_eq!(sent.used_up_threads().count(), 0);
    }

    #[test]
    fn what_one_speaker_says_in_a_row_is_one_turn() {
        let limits = Limits::default();
        let mut sent = SendLimits::default();
        for _ in 0..100 {
            assert_eq!(sent.check_thread(&limits, "t", A), Ok(()));
            sent.count_send(0, A, SenderClass::Agent, "t");
        }
    }

    #[test]
    fn an_identical_text_is_refused_for_as_long_as_configured() {
        let limits = Limits { identical_text_ms: 60_000, ..Limits::default() };
        let mut sent = SendLimits::default();
        let saying = |text| Saying { sender: A, recipient: B, reply_to: None, text };
        sent.count_delivery(&limits, 0, saying("hi"));
        assert!(sent.check_text(&limits, 1, saying("hi"), "b").is_err());
        assert!(sent.check_text(&limits, 1, saying("ho"), "b").is_ok());
        sent.count_delivery(&limits, 1, saying("ho"));
        assert!(
            sent.check_text(&limits, 2, saying("hi"), "b").is_err(),
            "also with another text between them"
        );
        assert!(sent.check_text(&limits, 60_000, saying("hi"), "b").is_ok());
    }
}
