//! The texts of refusals and notices, for each addressee.
//!
//! Only this file names an MCP tool or a `peerctl` command in a text of the broker. A session's
//! model is told which tool to call, and a person which command to type. An agent's shell is told
//! no command that it may not run. Invariants, checked by the tests below: a text for a model names
//! no command. A text for a person or a shell names no tool.

use std::fmt;

use peer_proto::ids::{MessageId, PeerId, TaskId};
use peer_proto::limits::{CHANNEL_NAME_CHARS_MAX, NAME_CHARS_MAX};
use peer_proto::message::Cause;
use peer_proto::refusal::Refusal;

use crate::rejection::{Act, Crowd, NoMailbox, Obstacle, QuestionEnd, Rejection, TaskBar};
use crate::who::{Actor, Caller};

/// The addressee for whom a text is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The model of a session: it calls tools.
    Model,
    /// The person: they type commands.
    Person,
    /// An agent's shell: it types commands too, and may not run all of them.
    Shell,
}

impl Caller {
    /// The addressee for whom the caller's texts are worded.
    pub(crate) fn addressee(self) -> Addressee {
        Addressee::of(self.actor)
    }
}

impl Addressee {
    /// Returns the addressee of answers to this actor. Texts to a session, or to an adapter that
    /// has not registered, reach a model. A shell with the person's rights reads the person's
    /// texts.
    #[must_use]
    pub fn of(actor: Option<Actor>) -> Self {
        match actor {
            Some(Actor::Session(_)) | None => Self::Model,
            Some(actor) if actor.is_person() => Self::Person,
            Some(Actor::Person | Actor::Shell { .. }) => Self::Shell,
        }
    }

    /// Returns the addressee of mail to this peer.
    pub(crate) fn of_mail_to(peer: PeerId) -> Self {
        if peer == PeerId::HUMAN { Self::Person } else { Self::Model }
    }

    /// Picks the text for this addressee. A shell reads the person's text.
    fn pick(self, model: impl Into<String>, person: impl Into<String>) -> String {
        match self {
            Self::Model => model.into(),
            Self::Person | Self::Shell => person.into(),
        }
    }

    /// Picks the text for this addressee.
    fn pick_of(
        self,
        model: impl Into<String>,
        person: impl Into<String>,
        shell: impl Into<String>,
    ) -> String {
        match self {
            Self::Model => model.into(),
            Self::Person => person.into(),
            Self::Shell => shell.into(),
        }
    }
}

// ---- refusals

impl Rejection {
    /// The refusal as this addressee reads it.
    #[must_use]
    pub fn refusal(&self, addressee: Addressee) -> Refusal {
        Refusal {
            code: self.code(),
            message: self.to_string(),
            hint: self.hint(addressee),
            retry_after_ms: self.retry_after_ms(),
        }
    }

    fn hint(&self, to: Addressee) -> String {
        match self {
            Self::NotRegistered => "send Register first".into(),
            Self::AlreadyRegistered => "use Bind or Rename to change who it is".into(),
            Self::HelloTwice => "open another connection for another role".into(),
            Self::NoHello => "say hello first; the broker closes this connection".into(),
            Self::BadFrame { .. } => "see docs/protocol.md; the broker closes this connection".into(),
            Self::BadToken => "register without resume".into(),
            Self::TooManyWaits { .. } => "end one of them first: StopWaiting with its request's id".into(),
            Self::HookGone => "nobody was shown what the answer carried: offer it again".into(),
            Self::AnswerTooLarge => "ask for less at once".into(),
            Self::Stopping => "ask again: the next command starts it".into(),
            Self::TooManyConnections { .. } | Self::NoPlace { .. } => "end sessions that nobody needs, and try again".into(),

            Self::UnknownPeer { nearest, .. } => suggest(nearest, to.pick("list_peers shows", "`peerctl peers --all` shows")),
            Self::NoMailbox { .. } => "name the peers, separated by commas".into(),
            Self::NobodyToAsk | Self::AskedOneself => {
                format!("name whom you ask: {} shows everyone", to.pick("list_peers", "`peerctl peers`"))
            }
            Self::BadName { .. } => {
                format!("a name is 1 to {NAME_CHARS_MAX} letters, digits, - or _, and begins with a letter or digit")
            }
            Self::ReservedName { .. } => "human, user, system, all and me have meanings of their own; choose another".into(),
            Self::NameTaken { .. } => to.pick("choose another", "choose another; `peerctl peers --all` shows all names"),
            Self::NoSession { .. } => {
                format!("its mail waits; {} shows who is online", to.pick("list_peers", "`peerctl peers --all`"))
            }
            Self::TooManyPeers { .. } => to.pick_of(
                "tell your user to lower limits.forget_offline_hours in config.toml and to restart the broker",
                "lower limits.forget_offline_hours in config.toml and run `peerctl daemon restart`; `peerctl peers --all` lists them",
                "ask the person to lower limits.forget_offline_hours in config.toml; `peerctl peers --all` lists them",
            ),
            Self::TooManyNewPeers { .. } => to.pick(
                "resume the sessions that there are, or try again later",
                "resume the sessions that there are, or try again later; `peerctl peers --all` shows who came",
            ),

            Self::UnknownMessage(_) => {
                format!("check the id: {} shows ids", to.pick("check_messages", "`peerctl history`"))
            }
            Self::DamagedMessage(_) => to.pick(
                "ask its sender to send it again",
                "ask its sender to send it again; `peerctl orphans` lists whom it did not reach",
            ),
            Self::EmptyText => "give the message a text".into(),
            Self::TextTooLarge { .. } => "split it, or write it to a file and send the path".into(),
            Self::OutOfBounds { .. } => "keep to these bounds, and try again".into(),
            Self::IdempotencyConflict { .. } => "use a new key for a new message".into(),
            Self::NotLeased(_) => "only what this session holds can be given back".into(),
            Self::TooLate { message, obstacle } => too_late(*message, *obstacle, to),
            Self::BroadcastTooWide { .. } => to.pick_of(
                "name whom you mean, or a channel or group; your user sets limits.broadcast_max in config.toml",
                "name whom you mean, or a channel or group; limits.broadcast_max in config.toml sets the limit",
                "name whom you mean, or a channel or group; the person sets limits.broadcast_max in config.toml",
            ),

            Self::RateLimited { retry_after_ms, .. } => {
                format!("try again in {} s, and say more in one message", retry_after_ms.div_ceil(1_000))
            }
            Self::MailboxFull { name, .. } => to.pick(
                "wait until it has read some",
                format!("wait until it has read some, or withdraw something: `peerctl inbox {name}` shows what waits"),
            ),
            Self::IdenticalText { .. } => "it is stored already; do not repeat it".into(),
            Self::ThreadPaused { thread, .. } => to.pick_of(
                "no agent can write in it until your user writes in it or resumes it",
                format!("no agent can write in it until you do, or until `peerctl resume --thread {thread}`"),
                "no agent can write in it until the person writes in it or resumes it",
            ),
            Self::Paused { what, is_thread } => {
                let of_thread = if *is_thread { "--thread " } else { "" };
                to.pick_of(
                    "go on without it; only your user resumes it",
                    format!("`peerctl resume {of_thread}{what}` lets it go on"),
                    "go on without it; only the person resumes it",
                )
            }
            Self::RefusedByPolicy { name } => to.pick_of(
                "do not repeat it; your user set that, and only they change it",
                format!("do not repeat it; `peerctl policy {name}` changes that"),
                "do not repeat it; the person set that, and only they change it",
            ),
            Self::NotPermitted { .. } => to.pick_of(
                "ask your user to do it in a terminal of their own",
                "do it in a terminal that no agent has started",
                "ask the person to run it in a terminal of their own, or to set operator.allow_from_agents in config.toml",
            ),

            Self::NoSpace => to.pick(
                "tell your user to free some space; sending works again by itself",
                "free some space; sending works again by itself",
            ),
            Self::NothingStored => to.pick(
                "tell your user to free some space, and look before you repeat what was asked: it may have been done",
                "free some space, and look before you repeat what was asked: it may have been done",
            ),
            Self::TooMany { what, .. } => room_for(*what, to),

            Self::UnknownChannel { nearest, .. } => {
                suggest(nearest, to.pick("channels(action=\"list\") shows", "`peerctl channels` shows"))
            }
            Self::NotMember { name } => format!(
                "join it first: {}, or ask a member to invite you",
                to.pick(format!("channels(action=\"join\", name=\"{name}\")"), format!("`peerctl channels join {name}`"))
            ),
            Self::OutsideChannel { channel, name } => {
                format!("send {name} a message of its own, or let a member of {channel} invite it first")
            }
            Self::EmptyGroup { .. } => {
                format!("name a peer instead: {} shows who carries what", to.pick("list_peers", "`peerctl peers`"))
            }
            Self::BadChannelName { .. } => {
                format!("a channel is # and 1 to {CHANNEL_NAME_CHARS_MAX} letters, digits, - or _; a group is @ and the same")
            }
            Self::ChannelTaken { .. } => "choose another".into(),

            Self::UnknownQuestion(_) => format!(
                "check the id: {} shows what is open",
                to.pick("check_messages(kind=\"questions\")", "`peerctl questions`")
            ),
            Self::OwnQuestion(question) => to.pick(
                "leave it to those whom you asked",
                format!("where you need no answer, `peerctl cancel {question}` withdraws it"),
            ),
            Self::QuestionClosed { ended: QuestionEnd::Answered(..), .. } => "its asker has the answer; if you know better, send a message".into(),
            Self::QuestionClosed { .. } => "nobody waits for it; if it still matters, send a message".into(),

            Self::UnknownNote { .. } => {
                format!("list the keys: {}", to.pick("memory(action=\"list\")", "`peerctl memory list`"))
            }
            Self::VersionConflict { key, version, .. } => to.pick(
                format!("read it again, and write with if_version={version} if what you write still holds"),
                format!("read it again with `peerctl memory get {key}`, and write with --if-version {version} if that still holds"),
            ),
            Self::UnknownTask(_) => format!("list them: {}", to.pick("tasks(action=\"list\")", "`peerctl tasks`")),
            Self::TaskHeld { task, .. } => to.pick_of(
                "ask for it, or choose another",
                format!("`peerctl tasks unclaim {task}` frees it"),
                "ask for it, or choose another",
            ),
            Self::BadTransition { task, .. } => format!(
                "look at it: {}",
                to.pick(format!("tasks(action=\"show\", task=\"{task}\")"), format!("`peerctl tasks show {task}`"))
            ),

            Self::NoIndex { .. } => to.pick_of(
                "tell your user that the search index must be made anew; check_messages works without it",
                "`peerctl history` reads without the index; `peerctl daemon stop`, then `peerctl daemon reindex` makes it anew",
                "`peerctl history` reads without the index; ask the person to make it anew",
            ),
            Self::SearchDied { .. } => to.pick(
                "ask again later: it is started again after a pause",
                "ask again later: it is started again after a pause; `peerctl history` reads without it",
            ),
            Self::SearchGivenUp { .. } => {
                "look for whole words or longer beginnings; or ask again, where the machine is busy".into()
            }
        }
    }
}

/// Suggests similar names, or says where all names are listed.
fn suggest(nearest: &[String], shown: String) -> String {
    match nearest {
        [] => format!("{shown} which there are"),
        nearest => format!("did you mean {}? {shown} all", nearest.join(", ")),
    }
}

fn too_late(message: MessageId, obstacle: Obstacle, to: Addressee) -> String {
    let look = format!("`peerctl show {message}` tells what happened to it");
    match obstacle {
        Obstacle::DeadLetter => to.pick_of(
            "to say it again, send another message",
            format!("`peerctl orphans drop {message}` ends it"),
            look,
        ),
        Obstacle::Orphaned => to.pick_of(
            "to say it again, send another message",
            format!("`peerctl orphans reassign {message} PEER` gives it to another peer"),
            look,
        ),
        Obstacle::Presented
        | Obstacle::Withdrawn
        | Obstacle::Settled
        | Obstacle::There
        | Obstacle::NoDeadLetter
        | Obstacle::HeldForOthers
        | Obstacle::NotHeld => to.pick("to correct what was said, send another message", look),
    }
}

/// Says how to make room.
fn room_for(what: Crowd, to: Addressee) -> String {
    match what {
        Crowd::PausedThreads => to.pick_of(
            "your user can resume some",
            "resume some: `peerctl status` shows what is paused",
            "ask the person to resume some: `peerctl status` shows what is paused",
        ),
        Crowd::Channels => "leave some: what nobody is a member of is gone".into(),
        Crowd::Members => "somebody must leave first, or make another channel".into(),
        Crowd::OpenQuestions => to.pick(
            "wait until some are answered, or end",
            "withdraw some with `peerctl cancel`: `peerctl questions --open` shows them",
        ),
        Crowd::OpenTasks => {
            format!(
                "complete or cancel some: {} shows them",
                to.pick("tasks(action=\"list\")", "`peerctl tasks`")
            )
        }
        Crowd::Notes => format!(
            "delete some: {}",
            to.pick("memory(action=\"delete\", key=…)", "`peerctl memory delete KEY`")
        ),
        Crowd::Purges => "wait until they are done".into(),
    }
}

/// States the act, its object, and the reason why it is refused. The same for every addressee.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => f.write_str("this connection is no session yet"),
            Self::AlreadyRegistered => f.write_str("this connection is a session already"),
            Self::HelloTwice => f.write_str("hello was said on this connection already"),
            Self::UnknownPeer { name, .. } => write!(f, "no peer is called {name:?}"),
            Self::NoMailbox { name, why } => write!(f, "{name:?} cannot be written to: {}", no_mailbox(*why)),
            Self::UnknownMessage(message) => write!(f, "no message {message} that concerns you"),
            Self::DamagedMessage(message) => {
                write!(f, "the record of message {message} in the database is damaged, and its text is lost")
            }
            Self::EmptyText => f.write_str("the message is empty"),
            Self::TextTooLarge { bytes, bytes_max } => write!(f, "the text is {bytes} bytes long, and {bytes_max} is the most"),
            Self::BadName { name } => write!(f, "{name:?} is not a name"),
            Self::ReservedName { name } => write!(f, "the name {name:?} is reserved"),
            Self::NameTaken { name } => write!(f, "the name {name:?} belongs to another peer"),
            Self::OutOfBounds { what, bound } => write!(f, "{what} is out of bounds: {bound}"),
            Self::RateLimited { who, to, per_minute, .. } => write!(f, "{who} reached {per_minute} messages a minute{to}"),
            Self::MailboxFull { name, pending } => {
                write!(f, "{name} takes no more messages before it has read some; waiting: {pending}")
            }
            Self::IdenticalText { name, ago_ms, .. } => write!(f, "the same text went to {name} {ago_ms} ms ago"),
            Self::ThreadPaused { thread, turns } => {
                write!(f, "thread {thread} is paused after {turns} turns between agents without the person")
            }
            Self::Paused { what, .. } => write!(f, "the person has paused {what}; nothing was sent"),
            Self::RefusedByPolicy { name } => {
                write!(f, "{name} takes no mail from other sessions: its inbound policy is refuse")
            }
            Self::NotPermitted { act } => write!(f, "{} is for the person, not for an agent or its shell", act_words(*act)),
            Self::TooLate { message, obstacle } => write!(f, "it is too late for {message}: {}", stands(*obstacle)),
            Self::NoSession { name } => write!(f, "{name} has no session that could be ended: it is offline"),
            Self::HookGone => f.write_str("the hook does not wait for its answer any more"),
            Self::NoSpace => f.write_str("the disk is full; nothing new is accepted, what is stored is still delivered"),
            Self::TooManyPeers { peers } => write!(f, "{peers} peers are known, and none of them can be forgotten yet"),
            Self::TooManyNewPeers { per_minute, of_one, .. } => {
                let by = if *of_one { " by programs of this process" } else { "" };
                write!(f, "more than {per_minute} new peers were registered within a minute{by}")
            }
            Self::TooManyWaits { waits } => write!(f, "this connection waits for mail {waits} times already"),
            Self::BadToken => f.write_str("this token is not that of the peer's latest session"),
            Self::NotLeased(message) => write!(f, "this session does not hold message {message}"),
            Self::IdempotencyConflict { key, message } => {
                write!(f, "the idempotency key {key:?} was used for another message, {message}")
            }
            Self::UnknownChannel { name, .. } => write!(f, "there is no channel or group {name:?}"),
            Self::NotMember { name } => write!(f, "{name} is for its members, and you are not one of them"),
            Self::OutsideChannel { channel, name } => write!(f, "{name} is not a member of {channel}, which is private"),
            Self::EmptyGroup { name } => write!(f, "nobody else carries {name}"),
            Self::BadChannelName { name } => write!(f, "{name:?} is not the name of a channel or group"),
            Self::ChannelTaken { name } => write!(f, "the name {name:?} is taken"),
            Self::BroadcastTooWide { online, broadcast_max } => {
                write!(f, "{online} other agents are online, and a message to all may go to {broadcast_max}")
            }
            Self::NobodyToAsk => f.write_str("nobody else is online in this repository or directory"),
            Self::AskedOneself => f.write_str("a question to yourself alone has nobody who may answer it"),
            Self::UnknownQuestion(question) => write!(f, "no question {question} that you were asked"),
            Self::OwnQuestion(question) => write!(f, "question {question} is your own"),
            Self::QuestionClosed { question, ended } => {
                write!(f, "question {question} is closed: ")?;
                match ended {
                    QuestionEnd::Answered(by, answer) => write!(f, "{by} answered it with {answer}"),
                    QuestionEnd::Withdrawn => f.write_str("its asker withdrew it"),
                    QuestionEnd::Expired => f.write_str("its time ended"),
                }
            }
            Self::TooMany { what, count } => write!(f, "there are {count} {} already", crowd(*what)),
            Self::UnknownNote { key } => write!(f, "there is no note {key:?}"),
            Self::VersionConflict { key, version, value } => {
                write!(f, "the note {key:?} has version {version} now: {value:?}")
            }
            Self::UnknownTask(task) => write!(f, "there is no task {task}"),
            Self::TaskHeld { task, holder } => write!(f, "task {task} is {holder}'s"),
            Self::BadTransition { task, state, why } => write!(f, "task {task} is {}: {}", state.as_str(), task_bar(why)),
            Self::BadFrame { reason } => f.write_str(reason),
            Self::NoHello => f.write_str("the first request is not hello"),
            Self::TooManyConnections { connections, .. } => {
                write!(f, "the broker has {connections} connections, and keeps no more")
            }
            Self::NoPlace { .. } => {
                f.write_str("the broker has no room for more sessions' connections; the last places are the person's")
            }
            Self::NothingStored => f.write_str("the disk is full, and nothing more can be stored, answers and receipts included"),
            Self::AnswerTooLarge => f.write_str("the answer does not fit a frame"),
            Self::Stopping => f.write_str("the broker is stopping"),
            Self::NoIndex { reason } => f.write_str(reason),
            Self::SearchDied { deaths, last_words, .. } => write!(f, "the search process died {deaths} times: {last_words}"),
            Self::SearchGivenUp { after_ms } => write!(f, "the search was given up after {after_ms} ms"),
        }
    }
}

/// Names the act as the subject of a sentence.
fn act_words(act: Act) -> &'static str {
    match act {
        Act::ReadOthersInbox => "reading another's inbox",
        Act::ReadOthersMail => "reading what others said to each other",
        Act::ChangeChannels => "changing channels",
        Act::RegisterAsPeer => "registering as a peer",
        Act::RenameOther => "renaming another peer",
        Act::RenamePeer => "renaming a peer",
        Act::RenamePerson => "renaming the person",
        Act::EndSession => "ending a session",
        Act::OfferTerminal => "offering the person's terminal as a carrier",
        Act::AnswerForPerson => "answering for the person",
        Act::WithdrawOthers => "withdrawing another's message",
        Act::Requeue => "requeueing a dead letter",
        Act::Reassign => "reassigning a dead letter",
        Act::Drop => "dropping a dead letter",
        Act::SpeakAsHook => "speaking as a client's hook",
        Act::Purge => "purging",
        Act::Pause => "pausing",
        Act::Resume => "resuming",
        Act::SettlePersonsMail => "settling the person's mail",
        Act::AckPersonsMail => "acknowledging the person's mail",
        Act::ChangeTasksUntold => "changing tasks from the shell of an agent that cannot be told",
        Act::GiveAwayTask => "giving away a task that another made and holds",
        Act::CancelTask => "cancelling a task that another made",
        Act::ReopenTask => "reopening a task that another made",
        Act::SetPolicy => "setting a policy",
        Act::ConsentToInboxSockets => "saying yes to posts into inbox sockets",
        Act::ReleaseHeld => "releasing held mail",
        Act::StopBroker => "stopping the broker",
        Act::UsePeerctl => "this",
    }
}

fn no_mailbox(why: NoMailbox) -> &'static str {
    match why {
        NoMailbox::System => "it is the broker itself and reads nothing",
        NoMailbox::BroadcastOff => "sending to everyone is not switched on",
        NoMailbox::NobodyOnline => "no other agent is online",
    }
}

fn task_bar(why: &TaskBar) -> String {
    match why {
        TaskBar::WillNotComplete => "it will not be completed, so nothing can need it".into(),
        TaskBar::Ended => "it has ended".into(),
        TaskBar::ReopenFirst => "it has ended; reopen it first".into(),
        TaskBar::NotEnded => "it has not ended".into(),
        TaskBar::ClaimFirst => "nobody holds it; claim it first".into(),
        TaskBar::NobodyHasIt => "nobody has it".into(),
        TaskBar::WaitsFor(tasks) => format!("it waits for {}", listed(tasks)),
    }
}

/// Lists tasks by their ids.
pub(crate) fn listed(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ")
}

fn stands(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Presented => "it was presented already",
        Obstacle::Withdrawn => "it was withdrawn already",
        Obstacle::DeadLetter => "it is a dead letter",
        Obstacle::Settled => "it is settled already",
        Obstacle::Orphaned => "its reader is forgotten",
        Obstacle::There => "that peer has it already",
        Obstacle::NoDeadLetter => "it is no dead letter",
        Obstacle::HeldForOthers => "it is held for others, and not for that peer",
        Obstacle::NotHeld => "it is on its way, and not held",
    }
}

fn crowd(what: Crowd) -> &'static str {
    match what {
        Crowd::PausedThreads => "paused threads",
        Crowd::Channels => "channels and groups",
        Crowd::Members => "members",
        Crowd::OpenQuestions => "open questions",
        Crowd::OpenTasks => "open tasks",
        Crowd::Notes => "notes",
        Crowd::Purges => "purges under way",
    }
}

// ---- notices

/// Tells a sender that a delivery of its message became a dead letter.
pub(crate) fn dead_letter(
    message: MessageId,
    recipient: &str,
    cause: Cause,
    attempts: u32,
    to: Addressee,
) -> String {
    let why = match cause {
        Cause::AttemptsExceeded => {
            format!("sessions that were offered it and ended without evidence: {attempts}")
        }
        Cause::Damaged => {
            "its record in the database is damaged; if the text still matters, send it again"
                .to_owned()
        }
        _ => "its reader was offline too long and is forgotten".to_owned(),
    };
    let next = to.pick(
        "Your user can requeue, reassign or drop it",
        "`peerctl orphans` requeues, reassigns or drops it",
    );
    format!("your message {message} to {recipient} is a dead letter: {why}. {next}")
}

/// Tells the person that agents used up a thread.
pub(crate) fn used_up_thread(thread: &str, speakers: &[String], turns: u32) -> String {
    format!(
        "thread {thread} is paused: {} took {turns} turns in it without you. `peerctl history --thread {thread}` shows \
         them, `peerctl resume --thread {thread}` lets them go on, and so does a message of yours in it",
        speakers.join(", ")
    )
}

/// Tells a peer that it is a member of a channel now. `topic` says what that is for, or is empty.
pub(crate) fn invitation(by: &str, channel: &str, topic: &str, to: Addressee) -> String {
    let [history, leave] = ["history", "leave"].map(|action| {
        to.pick(
            format!("channels(action=\"{action}\", name=\"{channel}\")"),
            format!("`peerctl channels {action} {channel}`"),
        )
    });
    format!(
        "{by} made you a member of {channel}{topic}\n{history} shows what was said there, {leave} ends it"
    )
}

/// Tells an asker that a session that it asked ended without an answer; `left` others who were
/// asked are online.
pub(crate) fn asked_session_ended(
    asked: &str,
    question: MessageId,
    left: usize,
    to: Addressee,
) -> String {
    let others = match left {
        0 => "nobody else who was asked is online".to_owned(),
        1 => "1 other who was asked is online".to_owned(),
        left => format!("{left} others who were asked are online"),
    };
    let open = to.pick(
        "It stays open, and may still be answered".to_owned(),
        format!("It stays open, and can be withdrawn with `peerctl cancel {question}`"),
    );
    format!(
        "the session of {asked} ended without answering your question {question}; {others}. {open}"
    )
}

/// How to take up a task that was given to a peer.
pub(crate) fn claim_it(task: TaskId, to: Addressee) -> String {
    let claim = to.pick(
        format!("tasks(action=\"claim\", task=\"{task}\")"),
        format!("`peerctl tasks claim {task}`"),
    );
    format!("claim it with {claim}")
}

#[cfg(test)]
mod tests;
