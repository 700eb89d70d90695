//! Questions: requests that their first answer closes.
//!
//! Knows which questions are open, who asked whom, and when they expire. Does not know how mail travels: a question and its
//! answer are messages like any other.

use std::collections::BTreeMap;

use peer_proto::ids::MessageId;
use peer_proto::question::{Answer, Ask, QuestionsQuery};

use crate::broker::{Broker, Caller};
use crate::input::{Facts, Now};
use crate::rejection::Rejection;
use crate::step::Step;
use crate::thing::QuestionRecord;

/// All questions.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    by_id: BTreeMap<MessageId, QuestionRecord>,
}

impl Questions {
    pub(crate) fn load(records: Vec<QuestionRecord>) -> Self {
        Self { by_id: records.into_iter().map(|record| (record.question, record)).collect() }
    }
}

impl Broker {
    pub(crate) fn ask_question(
        &mut self,
        now: Now,
        caller: Caller,
        ask: Ask,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let _ = (now, caller, ask, facts, step, &self.questions.by_id);
        Err(Rejection::NotPermitted { act: "this" })
    }

    pub(crate) fn answer_question(
        &mut self,
        now: Now,
        caller: Caller,
        answer: Answer,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let _ = (now, caller, answer, facts, step);
        Err(Rejection::NotPermitted { act: "this" })
    }

    pub(crate) fn list_questions(&self, caller: Caller, query: &QuestionsQuery, step: &mut Step) -> Result<(), Rejection> {
        let _ = (caller, query, step);
        Err(Rejection::NotPermitted { act: "this" })
    }
}
