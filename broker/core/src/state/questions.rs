//! Questions by their message, and when each open one expires.
//!
//! Does not know rules, nor who was asked. Invariants: each open question has its timer. No other
//! question has one.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, Timestamp};
use peer_proto::limits::QUESTION_TTL_MS;
use peer_proto::question::QuestionState;

use crate::record::MessageHead;
use crate::shared::QuestionRecord;

/// Closed questions that are retained. Beyond it the oldest are forgotten, and their messages stay.
const CLOSED_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Questions {
    by_id: BTreeMap<MessageId, QuestionRecord>,
    /// The open questions, by their expiry time.
    open: BTreeSet<(Timestamp, MessageId)>,
}

impl QuestionRecord {
    /// Creates an open question from its message.
    pub(crate) fn asked(head: &MessageHead) -> Self {
        Self {
            question: head.id,
            asker: head.from.peer,
            to: head.to.iter().map(|(peer, _)| *peer).collect(),
            channel: head.channel.clone(),
            state: QuestionState::Open,
            asked_at: head.sent_at,
            expires_at: head.expires_at.unwrap_or(head.sent_at.plus_ms(QUESTION_TTL_MS)),
            answered: None,
        }
    }
}

impl Questions {
    pub(crate) fn load(records: Vec<QuestionRecord>) -> Self {
        let mut questions = Self::default();
        records.into_iter().for_each(|record| questions.put(record));
        questions
    }

    pub(crate) fn put(&mut self, record: QuestionRecord) {
        let timer = (record.expires_at, record.question);
        if record.state == QuestionState::Open {
            self.open.insert(timer);
        } else {
            self.open.remove(&timer);
        }
        self.by_id.insert(record.question, record);
    }

    pub(crate) fn find_open(&self, question: MessageId) -> Option<&QuestionRecord> {
        self.by_id.get(&question).filter(|record| record.state == QuestionState::Open)
    }

    pub(crate) fn is_open(&self, question: MessageId) -> bool {
        self.find_open(question).is_some()
    }

    /// Returns the time at which the next question expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.open.first().map(|(at, _)| *at)
    }

    pub(crate) fn assert_invariants(&self) {
        let open = self.by_id.values().filter(|record| record.state == QuestionState::Open);
        assert!(
            open.map(|record| (record.expires_at, record.question)).eq(self.open_by_id()),
            "each open question has its timer"
        );
    }

    pub(crate) fn get(&self, question: MessageId) -> Option<&QuestionRecord> {
        self.by_id.get(&question)
    }

    /// Returns all questions, the oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &QuestionRecord> {
        self.by_id.values()
    }

    /// Returns the open questions, in the order in which they expire.
    pub(crate) fn open(&self) -> impl Iterator<Item = &QuestionRecord> {
        self.open.iter().filter_map(|(_, question)| self.by_id.get(question))
    }

    /// Returns the first open question whose time has ended.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<&QuestionRecord> {
        self.open().next().filter(|record| record.expires_at <= now)
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Removes a question. Returns whether there was one.
    pub(crate) fn remove(&mut self, question: MessageId) -> bool {
        let Some(record) = self.by_id.remove(&question) else { return false };
        self.open.remove(&(record.expires_at, question));
        true
    }

    /// Returns the closed questions beyond the limit, the oldest first.
    pub(crate) fn surplus(&self) -> Vec<MessageId> {
        let surplus = (self.by_id.len() - self.open.len()).saturating_sub(CLOSED_MAX);
        let closed = self.by_id.values().filter(|record| record.state != QuestionState::Open);
        closed.map(|record| record.question).take(surplus).collect()
    }

    fn open_by_id(&self) -> impl Iterator<Item = (Timestamp, MessageId)> {
        let by_id: BTreeMap<MessageId, Timestamp> =
            self.open.iter().map(|(at, question)| (*question, *at)).collect();
        by_id.into_iter().map(|(question, at)| (at, question))
    }
}
