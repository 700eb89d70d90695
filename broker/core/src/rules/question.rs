//! Questions: requests that close with their first answer.
//!
//! Knows which questions are open, their askers and recipients, and when they expire. Does not know
//! how mail travels: a question and its answer are ordinary messages. Invariants: a question closes
//! once, by its first answer, its timeout or its asker. Its asker is told of the end
//! exactly once.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{PAGE_ENTRIES_MAX, QUESTION_TTL_MS, QUESTIONS_OPEN_MAX, RECIPIENTS_MAX};
use peer_proto::message::{Intent, Kind, Stage};
use peer_proto::question::{Answer, Ask, QuestionInfo, QuestionState, QuestionsQuery};
use peer_proto::request::{Reply, Send};
use peer_proto::text::{is_blank, single_line};

use crate::broker::Broker;
use crate::input::{Facts, StoredMessage};
use crate::rejection::{Act, Crowd, QuestionEnd, Rejection, RemoteBar};
use crate::rules::audience::Audience;
use crate::rules::notices::Notice;
use crate::rules::sending::Outgoing;
use crate::shared::{QuestionRecord, SharedKey, SharedRecord};
use crate::state::channels::{began_before, is_elsewhere};
use crate::state::presence::is_same_place;
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;
use crate::wording::{self, Addressee};

impl Broker {
    pub(crate) fn ask_question(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        ask: Ask,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let Ask { to, question, context_hint, ttl_ms, idempotency_key } = ask;
        if is_blank(&question) {
            return Err(Rejection::EmptyText);
        }
        let nobody_named =
            to.iter().flat_map(|name| name.split(',')).all(|name| name.trim().is_empty());
        let (asker, _) = self.sender(caller)?;
        let is_asker = |name: &str| self.presence.resolve(name, Some(asker.peer)) == Ok(asker.peer);
        let mut names = to
            .iter()
            .flat_map(|name| name.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty());
        if let Some(name) = names.clone().find(|name| is_elsewhere(name)) {
            let (name, bar) = (name.chars().take(64).collect(), RemoteBar::AskChannel);
            return Err(Rejection::OnAnotherMachine { name, bar });
        }
        if !nobody_named && names.all(is_asker) {
            return Err(Rejection::AskedOneself);
        }
        let audience = match nobody_named {
            // A repeat gets the first outcome, whoever is online now.
            true if facts.prior.is_some() => Some(Audience { peers: Vec::new(), channel: None }),
            true => Some(self.whoever_works_there(caller)?),
            false => None,
        };
        if facts.prior.is_none() && self.questions.open_count() >= QUESTIONS_OPEN_MAX {
            return Err(Rejection::TooMany {
                what: Crowd::OpenQuestions,
                count: QUESTIONS_OPEN_MAX,
            });
        }
        let hint = context_hint.map(|hint| single_line(&hint)).filter(|hint| !hint.is_empty());
        let send = Send {
            to,
            text: hint
                .map_or_else(|| question.clone(), |hint| format!("{question}\ncontext: {hint}")),
            intent: Some(Intent::Request),
            reply_to: None,
            thread: None,
            ttl_ms: Some(ttl_ms.unwrap_or(QUESTION_TTL_MS)),
            sources: Vec::new(),
            idempotency_key,
        };
        let outgoing = Outgoing { send, kind: Kind::Question, audience };
        self.post(turn, caller, outgoing, facts)
    }

    /// Stores a new open question.
    pub(crate) fn open_question(&mut self, turn: &mut Turn<'_>, record: QuestionRecord) {
        self.put_question(turn, record);
        self.forget_old_questions(turn);
    }

    /// Returns the audience of a question without recipients: every peer that is online and works
    /// in the same repository, or else in the same directory.
    fn whoever_works_there(&self, caller: Caller) -> Result<Audience, Rejection> {
        let (sender, _) = self.sender(caller)?;
        let asker = self
            .presence
            .get(sender.peer)
            .filter(|record| record.id != PeerId::HUMAN)
            .ok_or(Rejection::NobodyToAsk)?;
        let here = || {
            self.presence
                .iter()
                .filter(|record| record.id != asker.id && self.presence.is_online(record.id))
        };
        let in_repository = here().filter(|record| match (&record.repo, &asker.repo) {
            (Some(theirs), Some(ours)) => is_same_place(theirs, ours),
            _ => false,
        });
        let mut peers: Vec<PeerId> = in_repository.map(|record| record.id).collect();
        if peers.is_empty() {
            peers = here()
                .filter(|record| is_same_place(&record.cwd, &asker.cwd))
                .map(|record| record.id)
                .collect();
        }
        match peers.len() {
            0 => Err(Rejection::NobodyToAsk),
            1..=RECIPIENTS_MAX => Ok(Audience { peers, channel: None }),
            _ => Err(Rejection::too_many_recipients()),
        }
    }

    pub(crate) fn answer_question(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        answer: Answer,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let Answer { question, answer, sources, idempotency_key } = answer;
        let stored = facts.stored.get(&question).ok_or(Rejection::UnknownQuestion(question))?;
        self.check_sees(caller, stored).map_err(|_| Rejection::UnknownQuestion(question))?;
        let record = self.questions.get(question).ok_or(Rejection::UnknownQuestion(question))?;
        let (sender, _) = self.sender(caller)?;
        let actor = caller.actor()?;
        let Some(speaker) = actor.member() else {
            return Err(Rejection::NotPermitted { act: Act::AnswerForPerson });
        };
        let asked = actor.is_person() || self.was_asked(record, speaker);
        if self.is_same(sender.peer, record.asker) {
            return Err(Rejection::OwnQuestion(question));
        }
        if !asked {
            return Err(Rejection::UnknownQuestion(question));
        }
        // A repeat gets the first outcome, even if that closed the question.
        if facts.prior.is_none() && record.state != QuestionState::Open {
            return Err(self.closed(record));
        }
        let asker = self.presence.current(record.asker).ok_or_else(|| Rejection::UnknownPeer {
            name: stored.head.from.name.clone(),
            nearest: Vec::new(),
        })?;
        let send = Send {
            to: Vec::new(),
            text: answer,
            intent: None,
            reply_to: Some(question),
            thread: None,
            ttl_ms: None,
            sources,
            idempotency_key,
        };
        let audience = Some(Audience { peers: vec![asker], channel: None });
        self.post(turn, caller, Outgoing { send, kind: Kind::Answer, audience }, facts)
    }

    fn closed(&self, record: &QuestionRecord) -> Rejection {
        let ended = match record.answered {
            Some((by, answer)) => QuestionEnd::Answered(self.name_of(by), answer),
            None if record.state == QuestionState::Cancelled => QuestionEnd::Withdrawn,
            None => QuestionEnd::Expired,
        };
        Rejection::QuestionClosed { question: record.question, ended }
    }

    /// Whether this peer was asked, by name or as a member of the channel or group, even if it
    /// joined later. A new channel with the name of a deleted one was not asked.
    pub(crate) fn was_asked(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        let of_channel = || {
            let now = record.channel.as_ref().and_then(|name| self.channels.get(name));
            now.is_some_and(|now| began_before(now, record.question) && now.members.contains(&peer))
        };
        record.to.iter().any(|asked| self.is_same(peer, *asked)) || of_channel()
    }

    /// Whether an ordinary reply to these recipients answers an open question.
    pub(crate) fn is_answer(
        &self,
        speaker: PeerId,
        original: &StoredMessage,
        recipients: &[(PeerId, Stage)],
    ) -> bool {
        self.questions.find_open(original.head.id).is_some_and(|record| {
            let asker = self.presence.current(record.asker);
            let reaches = recipients.iter().any(|(peer, _)| Some(*peer) == asker);
            reaches && !self.is_same(speaker, record.asker) && self.was_asked(record, speaker)
        })
    }

    /// Closes an answered question. Cancels its deliveries to other named peers that have not seen
    /// it.
    pub(crate) fn close_answered(
        &mut self,
        turn: &mut Turn<'_>,
        question: MessageId,
        answered: (PeerId, MessageId),
    ) {
        let Some(record) = self.questions.find_open(question).cloned() else { return };
        self.close_question(turn, question, QuestionState::Answered, Some(answered));
        if record.channel.is_some() {
            return;
        }
        for peer in record.to {
            let peer = self.presence.current(peer).unwrap_or(peer);
            let unseen =
                self.mailboxes.get(peer, question).is_some_and(|entry| !entry.shown_before());
            if unseen {
                self.withdraw_from(turn, peer, question, None);
                self.fill_window(turn, peer);
            }
        }
    }

    pub(crate) fn close_question(
        &mut self,
        turn: &mut Turn<'_>,
        question: MessageId,
        state: QuestionState,
        answered: Option<(PeerId, MessageId)>,
    ) {
        if let Some(record) = self.questions.find_open(question).cloned() {
            self.put_question(turn, QuestionRecord { state, answered, ..record });
        }
    }

    fn put_question(&mut self, turn: &mut Turn<'_>, record: QuestionRecord) {
        turn.change(Change::PutShared(Box::new(SharedRecord::Question(record.clone()))));
        self.questions.put(record);
    }

    /// Closes and deletes the question of a message that is being forgotten.
    pub(crate) fn forget_question(&mut self, turn: &mut Turn<'_>, question: MessageId) {
        if self.questions.remove(question) {
            turn.change(Change::RemoveShared(SharedKey::Question(question)));
        }
    }

    fn forget_old_questions(&mut self, turn: &mut Turn<'_>) {
        for question in self.questions.surplus() {
            self.forget_question(turn, question);
        }
    }

    // ---- notices to askers

    /// Expires the questions whose time has ended.
    pub(crate) fn expire_questions(&mut self, turn: &mut Turn<'_>) {
        while let Some(record) = self.questions.expired(turn.now.wall).cloned() {
            let question = record.question;
            self.close_question(turn, question, QuestionState::Expired, None);
            let text = format!(
                "your question {question} to {} expired: nobody answered it",
                self.asked(&record).join(", ")
            );
            self.notify_asker(turn, &record, text);
        }
    }

    /// Tells askers that a session they asked has ended. For a channel, tells them once no member
    /// is left to answer.
    pub(crate) fn notify_askers(&mut self, turn: &mut Turn<'_>, gone: PeerId) {
        let concerned: Vec<QuestionRecord> = self
            .questions
            .open()
            .filter(|record| {
                record.to.iter().any(|asked| self.is_same(gone, *asked))
                    && !self.is_same(gone, record.asker)
            })
            .cloned()
            .collect();
        for record in concerned {
            let here = |peer: &&PeerId| {
                self.presence.current(**peer).is_some_and(|peer| self.presence.is_online(peer))
            };
            let left = record.to.iter().filter(here).count();
            if record.channel.is_some() && left > 0 {
                continue;
            }
            let asker = Addressee::of_mail_to(record.asker);
            let text =
                wording::asked_session_ended(&self.name_of(gone), record.question, left, asker);
            self.notify_asker(turn, &record, text);
        }
    }

    /// Sent as a `Request`, so that an idle asker is woken.
    fn notify_asker(&mut self, turn: &mut Turn<'_>, record: &QuestionRecord, text: String) {
        let thread = record.question.default_thread();
        let reply_to = Some(record.question);
        let private = !self.is_public(record.channel.as_deref(), record.question);
        let channel = record.channel.clone();
        let notice = Notice {
            intent: Intent::Request,
            reply_to,
            channel,
            private,
            ..Notice::new(record.asker, thread, text)
        };
        self.post_notice(turn, notice);
    }

    /// Returns who was asked, as text: a channel or group, or the peers' current names.
    fn asked(&self, record: &QuestionRecord) -> Vec<String> {
        match &record.channel {
            Some(channel) => vec![channel.clone()],
            None => record.to.iter().map(|peer| self.name_of(*peer)).collect(),
        }
    }

    // ---- listings

    pub(crate) fn list_questions(
        &self,
        turn: &mut Turn<'_>,
        caller: Caller,
        query: &QuestionsQuery,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        let of = query
            .peer
            .as_ref()
            .map(|name| self.presence.resolve(name, caller.peer()))
            .transpose()?;
        let fits = |record: &&QuestionRecord| {
            (!query.open || record.state == QuestionState::Open)
                && query.before.is_none_or(|before| record.question < before)
                && self.sees_question(actor, record)
                && of.is_none_or(|peer| self.is_party(record, peer))
        };
        let mut found = self.questions.iter().rev().filter(fits);
        let questions: Vec<QuestionInfo> = found
            .by_ref()
            .take(PAGE_ENTRIES_MAX)
            .map(|record| self.question_info(record))
            .collect();
        let next = found.next().and_then(|_| questions.last()).map(|question| question.question);
        turn.reply(caller, Reply::Questions { questions, next });
        Ok(())
    }

    fn question_info(&self, record: &QuestionRecord) -> QuestionInfo {
        QuestionInfo {
            question: record.question,
            from: self.name_of(record.asker),
            to: self.asked(record),
            state: record.state,
            asked_at: record.asked_at,
            expires_at: record.expires_at,
            answered: record.answered.map(|(by, answer)| (self.name_of(by), answer)),
        }
    }
}
