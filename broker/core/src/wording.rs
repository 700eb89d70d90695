//! The texts of refusals and notices, for each addressee.
//!
//! Only this file names an MCP tool or a `peerctl` command in a text of the broker. A session's
//! model is told which tool to call, and a person which command to type. An agent's shell is told
//! no command that it may not run. Invariants, checked by the tests below: a text for a model names
//! no command. A text for a person or a shell names no tool.

use std::fmt;

use peer_proto::ids::{MessageId, PeerId, TaskId};
use peer_proto::limits::{CHANNEL_NAME_CHARS_MAX, LINK_DAYS_MS, NAME_CHARS_MAX};
use peer_proto::message::{Cause, Stage};
use peer_proto::refusal::Refusal;

use crate::rejection::{
    Act, Crowd, NoMailbox, Obstacle, QuestionEnd, Rejection, RemoteBar, TaskBar,
};
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
            Self::UnknownLink { .. } => to.pick("your user can list the links", "`peerctl link ls` lists them"),
            Self::LinkRefused { alias } => to.pick(
                "your user can accept it".to_owned(),
                format!("`peerctl link set {alias} hold` lets its mail in, held for you"),
            ),
            Self::LinkIsUp { .. } => "letters are needed only while that link is down".into(),
            Self::LinkToItself => to.pick_of(
                "your user can give the copy an identity of its own",
                "if this machine is a copy of the other, run `peerctl link identity --new` here",
                "if this machine is a copy of the other, ask the person to run `peerctl link identity --new`",
            ),
            Self::OtherIdentity { .. } => to.pick_of(
                "your user can restore the file link.key",
                "put the file link.key back, or run `peerctl link identity --new`",
                "ask the person to put the file link.key back",
            ),
            Self::AlreadyRegistered => "send Bind or Rename to change its peer or its name".into(),
            Self::HelloTwice => "open another connection for another role".into(),
            Self::NoHello => "send Hello first; the broker closes this connection".into(),
            Self::BadFrame { .. } => "see docs/protocol.md; the broker closes this connection".into(),
            Self::BadToken => "register without resume".into(),
            Self::TooManyWaits { .. } => "end one of them first: send StopWaiting with its request id".into(),
            Self::HookGone => "the model did not see the mail in the answer: offer it again".into(),
            Self::AnswerTooLarge => "request less at once".into(),
            Self::Stopping => "try again: the next request starts it".into(),
            Self::TooManyConnections { .. } | Self::NoPlace { .. } => "end unused sessions, and try again".into(),

            Self::UnknownPeer { nearest, .. } => suggest(nearest, to.pick("list_peers shows", "`peerctl peers --all` shows")),
            Self::NoMailbox { .. } => "name the peers, separated by commas".into(),
            Self::NobodyToAsk | Self::AskedOneself => {
                format!("name the peers to ask: {} shows them", to.pick("list_peers", "`peerctl peers`"))
            }
            Self::BadName { .. } => {
                format!("a name is 1 to {NAME_CHARS_MAX} letters, digits, - or _, and begins with a letter or digit")
            }
            Self::ReservedName { .. } => "human, user, system, all and me have fixed meanings; choose another name".into(),
            Self::NameTaken { .. } => to.pick("choose another name", "choose another name; `peerctl peers --all` shows all names"),
            Self::NoSession { .. } => {
                format!("its mail waits; {} shows who is online", to.pick("list_peers", "`peerctl peers --all`"))
            }
            Self::TooManyPeers { .. } => to.pick_of(
                "tell your user to lower limits.forget_offline_hours in config.toml and to restart the broker",
                "lower limits.forget_offline_hours in config.toml and run `peerctl daemon restart`; `peerctl peers --all` lists them",
                "ask the person to lower limits.forget_offline_hours in config.toml; `peerctl peers --all` lists them",
            ),
            Self::TooManyNewPeers { .. } => to.pick(
                "resume existing sessions, or try again later",
                "resume existing sessions, or try again later; `peerctl peers --all` lists them",
            ),

            Self::UnknownMessage(_) => {
                format!("check the id: {} shows ids", to.pick("check_messages", "`peerctl history`"))
            }
            Self::DamagedMessage(_) => to.pick(
                "ask its sender to send it again",
                "ask its sender to send it again; `peerctl orphans` lists the recipients that it did not reach",
            ),
            Self::EmptyText => "give the message a text".into(),
            Self::TextTooLarge { .. } => "split it, or write it to a file and send the path".into(),
            Self::OutOfBounds { .. } => "keep to these bounds, and try again".into(),
            Self::IdempotencyConflict { .. } => "use a new key for a new message".into(),
            Self::NotLeased(_) => "a session can give back only messages that it holds".into(),
            Self::TooLate { message, obstacle } => too_late(*message, *obstacle, to),
            Self::BroadcastTooWide { .. } => to.pick_of(
                "name the recipients, a channel or a group; your user sets limits.broadcast_max in config.toml",
                "name the recipients, a channel or a group; limits.broadcast_max in config.toml sets the limit",
                "name the recipients, a channel or a group; the person sets limits.broadcast_max in config.toml",
            ),

            Self::RateLimited { retry_after_ms, .. } => {
                format!("try again in {} s, and put more into one message", retry_after_ms.div_ceil(1_000))
            }
            Self::MailboxFull { name, .. } => to.pick(
                "wait until it has read some",
                format!("wait until it has read some, or withdraw messages: `peerctl inbox {name}` lists them"),
            ),
            Self::IdenticalText { .. } => "it is stored already; do not repeat it".into(),
            Self::ThreadPaused { thread, .. } => to.pick_of(
                "agents can write in it again once your user writes in it or resumes it",
                format!("agents can write in it again once you do, or after `peerctl resume --thread {thread}`"),
                "agents can write in it again once the person writes in it or resumes it",
            ),
            Self::Paused { what, is_thread } => {
                let of_thread = if *is_thread { "--thread " } else { "" };
                to.pick_of(
                    "continue without it; only your user can resume it",
                    format!("`peerctl resume {of_thread}{what}` resumes it"),
                    "continue without it; only the person can resume it",
                )
            }
            Self::RefusedByPolicy { name } => to.pick_of(
                "do not repeat it; only your user can change that policy",
                format!("do not repeat it; `peerctl policy {name}` changes the policy"),
                "do not repeat it; only the person can change that policy",
            ),
            Self::NotPermitted { .. } => to.pick_of(
                "ask your user to do it in a terminal of their own",
                "do it in a terminal that no agent has started",
                "ask the person to run it in a terminal of their own, or to set operator.allow_from_agents in config.toml",
            ),
            Self::OnAnotherMachine { bar: RemoteBar::Rename, .. } => {
                let theirs = "the user of that machine can rename it there";
                to.pick_of(theirs, "run `peerctl rename` on that machine", theirs)
            }
            Self::OnAnotherMachine { name, bar: RemoteBar::ChangeChannel } => format!(
                "its members on that machine invite others and set its topic; ask one of them in {name}"
            ),
            Self::OnAnotherMachine { bar: RemoteBar::AskChannel, .. } => to.pick(
                "post it there as a message instead (send_message), or ask one peer",
                "post it there as a message instead (`peerctl send`), or ask one peer",
            )
            .to_owned(),
            Self::OnAnotherMachine { .. } => to.pick(
                "send it a message instead (send_message)",
                "send it a message instead (`peerctl send`)",
            ),

            Self::NoSpace => to.pick(
                "tell your user to free some space; sending works again by itself",
                "free some space; sending works again by itself",
            ),
            Self::NothingStored => to.pick(
                "tell your user to free some space; the request may have been carried out: check before you repeat it",
                "free some space; the request may have been carried out: check before you repeat it",
            ),
            Self::TooMany { what, .. } => room_for(*what, to),

            Self::UnknownChannel { nearest, .. } => {
                suggest(nearest, to.pick("channels(action=\"list\") shows", "`peerctl channels` shows"))
            }
            Self::NotMember { name } => format!(
                "join it first: {}, or ask a member to invite you",
                to.pick(format!("channels(action=\"join\", name=\"{name}\")"), format!("`peerctl channels join {name}`"))
            ),
            Self::NeedsInvitation { .. } => to.pick(
                "ask a member on that machine, or its user, to invite you",
                "ask a member on that machine, or its user, to invite you",
            )
            .to_owned(),
            Self::OlderThanChannel { .. } => to.pick(
                "send it again in a minute",
                "set the clocks of both machines, and send it again",
            )
            .to_owned(),
            Self::OutsideChannel { channel, name } => {
                format!("send {name} a separate message, or ask a member of {channel} to invite it")
            }
            Self::EmptyGroup { .. } => {
                format!("name a peer instead: {} shows the groups of each", to.pick("list_peers", "`peerctl peers`"))
            }
            Self::BadChannelName { .. } => {
                format!("a channel is # and 1 to {CHANNEL_NAME_CHARS_MAX} letters, digits, - or _; a group is @ and the same")
            }
            Self::ChannelTaken { .. } => "choose another name".into(),

            Self::UnknownQuestion(_) => format!(
                "check the id: {} shows open questions",
                to.pick("check_messages(kind=\"questions\")", "`peerctl questions`")
            ),
            Self::OwnQuestion(question) => to.pick(
                "leave it to the peers that you asked",
                format!("if you need no answer, withdraw it with `peerctl cancel {question}`"),
            ),
            Self::QuestionClosed { ended: QuestionEnd::Answered(..), .. } => "its asker has that answer; to correct it, send a message".into(),
            Self::QuestionClosed { .. } => "its asker no longer waits for it; if it still matters, send a message".into(),

            Self::UnknownNote { .. } => {
                format!("list the keys: {}", to.pick("memory(action=\"list\")", "`peerctl memory list`"))
            }
            Self::VersionConflict { key, version, .. } => to.pick(
                format!("read it again, and write with if_version={version} if your text is still right"),
                format!("read it again with `peerctl memory get {key}`, and write with --if-version {version} if your text is still right"),
            ),
            Self::UnknownTask(_) => format!("list them: {}", to.pick("tasks(action=\"list\")", "`peerctl tasks`")),
            Self::TaskHeld { task, holder } => {
                let other = format!("ask {holder} for it, or choose another task");
                to.pick_of(other.clone(), format!("`peerctl tasks unclaim {task}` makes it open again"), other)
            }
            Self::BadTransition { task, .. } => format!(
                "read it: {}",
                to.pick(format!("tasks(action=\"show\", task=\"{task}\")"), format!("`peerctl tasks show {task}`"))
            ),

            Self::NoIndex { .. } => to.pick_of(
                "tell your user to rebuild the search index; check_messages works without it",
                "`peerctl history` works without the index; `peerctl daemon stop`, then `peerctl daemon reindex` rebuilds it",
                "`peerctl history` works without the index; ask the person to rebuild it",
            ),
            Self::SearchDied { .. } => to.pick(
                "search again later: the broker restarts the process after a pause",
                "search again later: the broker restarts the process after a pause; `peerctl history` works without it",
            ),
            Self::SearchGivenUp { .. } => {
                "search for whole words or longer beginnings; if the machine is busy, search again".into()
            }
        }
    }
}

/// Suggests similar names, or says where all names are listed.
fn suggest(nearest: &[String], shown: String) -> String {
    match nearest {
        [] => format!("{shown} all names"),
        nearest => format!("did you mean {}? {shown} all names", nearest.join(", ")),
    }
}

fn too_late(message: MessageId, obstacle: Obstacle, to: Addressee) -> String {
    let look = format!("`peerctl show {message}` shows what happened to it");
    match obstacle {
        Obstacle::DeadLetter => to.pick_of(
            "to say it again, send another message",
            format!("`peerctl orphans drop {message}` drops it"),
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
            "ask your user to resume some",
            "resume some: `peerctl status` shows what is paused",
            "ask the person to resume some: `peerctl status` shows what is paused",
        ),
        Crowd::Channels => "leave some: the broker deletes one that has no members".into(),
        Crowd::Members => "make another channel, or wait until a member leaves".into(),
        Crowd::OpenQuestions => to.pick(
            "wait until some are answered or expire",
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
        Crowd::Links => to.pick("your user can remove some", "remove some with `peerctl link rm`"),
        Crowd::LinkPeers => "the other broker must share fewer".into(),
    }
}

/// States the act, its object, and the reason why it is refused. The same for every addressee.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => f.write_str("this connection is not registered as a session"),
            Self::AlreadyRegistered => f.write_str("this connection is registered as a session already"),
            Self::HelloTwice => f.write_str("this connection has sent Hello already"),
            Self::UnknownPeer { name, .. } => write!(f, "no peer is called {name:?}"),
            Self::NoMailbox { name, why } => write!(f, "cannot send to {name:?}: {}", no_mailbox(*why)),
            Self::UnknownMessage(message) => write!(f, "there is no message {message} that you may see"),
            Self::DamagedMessage(message) => {
                write!(f, "the record of message {message} in the database is damaged, and its text is lost")
            }
            Self::EmptyText => f.write_str("the message is empty"),
            Self::TextTooLarge { bytes, bytes_max } => write!(f, "the text has {bytes} bytes, and the limit is {bytes_max}"),
            Self::BadName { name } => write!(f, "{name:?} is not a valid name"),
            Self::ReservedName { name } => write!(f, "the name {name:?} is reserved"),
            Self::NameTaken { name } => write!(f, "the name {name:?} belongs to another peer"),
            Self::OutOfBounds { what, bound } => write!(f, "{what} is out of bounds: {bound}"),
            Self::RateLimited { who, to, per_minute, .. } => write!(f, "{who} reached {per_minute} messages a minute{to}"),
            Self::MailboxFull { name, pending } => {
                write!(f, "the mailbox of {name} is full; waiting messages: {pending}")
            }
            Self::IdenticalText { name, ago_ms, .. } => write!(f, "the same text went to {name} {ago_ms} ms ago"),
            Self::ThreadPaused { thread, turns } => {
                write!(f, "thread {thread} is paused: agents took {turns} turns in it without the person")
            }
            Self::Paused { what, .. } => write!(f, "the person has paused {what}; nothing was sent"),
            Self::RefusedByPolicy { name } => {
                write!(f, "{name} takes no mail from other sessions: its inbound policy is refuse")
            }
            Self::NotPermitted { act } => write!(f, "{} is reserved for the person", act_words(*act)),
            Self::OnAnotherMachine { name, bar } => {
                let what = match bar {
                    RemoteBar::Rename => "be renamed here",
                    RemoteBar::GiveTask => "be given a task of this machine",
                    RemoteBar::TakeLabel => "carry a group's label on this machine",
                    RemoteBar::ChangeChannel => "be changed from here",
                    RemoteBar::AskChannel => "be asked from here",
                };
                let is_channel = name.starts_with('#');
                let kind = if is_channel { "channel" } else { "peer" };
                write!(f, "{name} is a {kind} of another machine, and cannot {what}")
            }
            Self::TooLate { message, obstacle } => write!(f, "message {message} {}", stands(*obstacle)),
            Self::NoSession { name } => write!(f, "{name} has no session to end: it is offline"),
            Self::HookGone => f.write_str("the hook no longer waits for its answer"),
            Self::NoSpace => f.write_str("the disk is full: the broker delivers stored messages, and accepts no new ones"),
            Self::TooManyPeers { peers } => write!(f, "{peers} peers are known, and none of them can be forgotten yet"),
            Self::TooManyNewPeers { per_minute, of_one, .. } => {
                let by = if *of_one { " by programs of this process" } else { "" };
                write!(f, "more than {per_minute} new peers were registered within a minute{by}")
            }
            Self::TooManyWaits { waits } => write!(f, "this connection has {waits} waits for mail already"),
            Self::BadToken => f.write_str("the token does not belong to the peer's latest session"),
            Self::NotLeased(message) => write!(f, "this session does not hold message {message}"),
            Self::IdempotencyConflict { key, message } => {
                write!(f, "the idempotency key {key:?} was used for another message, {message}")
            }
            Self::UnknownChannel { name, .. } => write!(f, "there is no channel or group {name:?}"),
            Self::NotMember { name } => write!(f, "you are not a member of {name}"),
            Self::OlderThanChannel { name } => {
                write!(f, "it is older than the channel {name}: the clocks of the two machines differ")
            }
            Self::NeedsInvitation { name } => {
                write!(f, "peers of your machine join {name} by invitation only")
            }
            Self::OutsideChannel { channel, name } => write!(f, "{name} is not a member of {channel}, which is private"),
            Self::EmptyGroup { name } => write!(f, "no other peer is in {name}"),
            Self::BadChannelName { name } => write!(f, "{name:?} is not a valid name of a channel or group"),
            Self::ChannelTaken { name } => write!(f, "the name {name:?} is taken"),
            Self::BroadcastTooWide { online, broadcast_max } => {
                write!(f, "{online} other agents are online, and a message to all may go to at most {broadcast_max}")
            }
            Self::NobodyToAsk => f.write_str("no other peer is online in this repository or directory"),
            Self::AskedOneself => f.write_str("you asked only yourself, and nobody may answer their own question"),
            Self::UnknownQuestion(question) => write!(f, "there is no question {question} to you"),
            Self::OwnQuestion(question) => write!(f, "you asked question {question} yourself"),
            Self::QuestionClosed { question, ended } => {
                write!(f, "question {question} is closed: ")?;
                match ended {
                    QuestionEnd::Answered(by, answer) => write!(f, "{by} answered it with {answer}"),
                    QuestionEnd::Withdrawn => f.write_str("its asker withdrew it"),
                    QuestionEnd::Expired => f.write_str("it expired"),
                }
            }
            Self::TooMany { what, count } => write!(f, "there are {count} {} already", crowd(*what)),
            Self::UnknownNote { key } => write!(f, "there is no note {key:?}"),
            Self::VersionConflict { key, version, value } => {
                write!(f, "the note {key:?} has version {version} now: {value:?}")
            }
            Self::UnknownTask(task) => write!(f, "there is no task {task}"),
            Self::TaskHeld { task, holder } => write!(f, "task {task} belongs to {holder}"),
            Self::BadTransition { task, state, why } => write!(f, "task {task} is {}: {}", state.as_str(), task_bar(why)),
            Self::BadFrame { reason } => f.write_str(reason),
            Self::NoHello => f.write_str("the first request is not Hello"),
            Self::TooManyConnections { connections, .. } => {
                write!(f, "the broker has {connections} connections, and accepts no more")
            }
            Self::NoPlace { .. } => {
                f.write_str("the broker accepts no more sessions; its last connections are reserved for the person")
            }
            Self::NothingStored => f.write_str("the disk is full, and the broker can store nothing more, not even answers and receipts"),
            Self::AnswerTooLarge => f.write_str("the answer is larger than a frame"),
            Self::Stopping => f.write_str("the broker is stopping"),
            Self::UnknownLink { name } => write!(f, "no link is called {name:?}"),
            Self::LinkRefused { alias } => write!(f, "the link {alias} is refused by its policy"),
            Self::LinkIsUp { alias } => {
                write!(f, "the link {alias} is up already, over another connection")
            }
            Self::LinkToItself => f.write_str("both ends of the link are this broker"),
            Self::OtherIdentity { known, own } => {
                write!(f, "this broker is {known} on its links, and not {own}")
            }
            Self::NoIndex { reason } => f.write_str(reason),
            Self::SearchDied { deaths, last_words, .. } => write!(f, "the search process died {deaths} times: {last_words}"),
            Self::SearchGivenUp { after_ms } => write!(f, "the broker ended the search after {after_ms} ms"),
        }
    }
}

/// Names the act as the subject of a sentence.
fn act_words(act: Act) -> &'static str {
    match act {
        Act::ReadOthersInbox => "reading another peer's inbox",
        Act::ReadOthersMail => "reading messages between other peers",
        Act::ChangeChannels => "changing channels",
        Act::RegisterAsPeer => "registering as a peer",
        Act::RenameOther => "renaming another peer",
        Act::RenamePeer => "renaming a peer",
        Act::RenamePerson => "renaming the person",
        Act::EndSession => "ending a session",
        Act::OfferTerminal => "offering the person's terminal as a carrier",
        Act::AnswerForPerson => "answering for the person",
        Act::WithdrawOthers => "withdrawing another peer's message",
        Act::Requeue => "requeueing a dead letter",
        Act::Reassign => "reassigning a dead letter",
        Act::Drop => "dropping a dead letter",
        Act::SpeakAsHook => "sending an event as a client's hook",
        Act::Purge => "purging",
        Act::Pause => "pausing",
        Act::Resume => "resuming",
        Act::SettlePersonsMail => "settling the person's mail",
        Act::AckPersonsMail => "acknowledging the person's mail",
        Act::ChangeTasksUntold => "changing tasks from the shell of an unknown agent",
        Act::GiveAwayTask => "assigning a task that another peer made and holds",
        Act::CancelTask => "cancelling a task that another peer made",
        Act::ReopenTask => "reopening a task that another peer made",
        Act::SetPolicy => "setting a policy",
        Act::ConsentToInboxSockets => "allowing pushes into inbox sockets",
        Act::ReleaseHeld => "releasing held mail",
        Act::StopBroker => "stopping the broker",
        Act::UsePeerctl => "this",
        Act::ServeLink => "serving a link",
        Act::ChangeLinks => "changing links",
    }
}

fn no_mailbox(why: NoMailbox) -> &'static str {
    match why {
        NoMailbox::System => "it is the broker itself, which has no mailbox",
        NoMailbox::BroadcastOff => "messages to everyone are switched off",
        NoMailbox::NobodyOnline => "no other agent is online",
    }
}

fn task_bar(why: &TaskBar) -> String {
    match why {
        TaskBar::WillNotComplete => "it will not be completed, so no task may need it".into(),
        TaskBar::Ended => "it has ended".into(),
        TaskBar::ReopenFirst => "it has ended; reopen it first".into(),
        TaskBar::NotEnded => "it has not ended".into(),
        TaskBar::ClaimFirst => "nobody holds it; claim it first".into(),
        TaskBar::NobodyHasIt => "no peer has it".into(),
        TaskBar::WaitsFor(tasks) => format!("it waits for {}", listed(tasks)),
    }
}

/// Lists tasks by their ids.
pub(crate) fn listed(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ")
}

fn stands(obstacle: Obstacle) -> &'static str {
    match obstacle {
        Obstacle::Presented => "was presented already",
        Obstacle::Withdrawn => "was withdrawn already",
        Obstacle::DeadLetter => "is a dead letter",
        Obstacle::Settled => "is settled already",
        Obstacle::Orphaned => "is for a forgotten peer",
        Obstacle::There => "is with that peer already",
        Obstacle::NoDeadLetter => "is not a dead letter",
        Obstacle::HeldForOthers => "is held for other peers, and not for that one",
        Obstacle::NotHeld => "is on its way, and not held",
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
        Crowd::Links => "links",
        Crowd::LinkPeers => "peers of one link",
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
            format!("sessions that ended without evidence that their model saw it: {attempts}")
        }
        Cause::Damaged => {
            "its record in the database is damaged; if the text still matters, send it again"
                .to_owned()
        }
        Cause::Unreachable => {
            let days = LINK_DAYS_MS / 86_400_000;
            format!("no link reached the other machine within {days} days, or the link was removed")
        }
        _ => "its recipient was offline for too long and is forgotten".to_owned(),
    };
    let next = to.pick(
        "Your user can requeue, reassign or drop it",
        "`peerctl orphans` requeues, reassigns or drops it",
    );
    format!("your message {message} to {recipient} is a dead letter: {why}. {next}")
}

/// Tells a sender that another broker refused its message. `reason` is what that broker says.
pub(crate) fn refused_there(
    message: MessageId,
    recipient: &str,
    reason: &str,
    to: Addressee,
) -> String {
    let next =
        to.pick("Your user can requeue or drop it", "`peerctl orphans` requeues or drops it");
    format!(
        "your message {message} to {recipient} is a dead letter: the other machine refused it: {reason}. {next}"
    )
}

/// Tells a sender how its message fares on the recipient's machine.
pub(crate) fn stands_there(
    message: MessageId,
    recipient: &str,
    there: Stage,
    to: Addressee,
) -> String {
    let what = match there {
        Stage::Held => "is held on the other machine until its user releases it",
        Stage::Dead => "is a dead letter on the other machine, whose user can requeue it",
        _ => "expired on the other machine before it was presented",
    };
    let look = to.pick(String::new(), format!(". `peerctl show {message}` shows more"));
    format!("your message {message} to {recipient} {what}{look}")
}

/// Tells the person that agents used up a thread.
pub(crate) fn used_up_thread(thread: &str, speakers: &[String], turns: u32) -> String {
    format!(
        "thread {thread} is paused: {} took {turns} turns in it without you. `peerctl history --thread {thread}` shows \
         them. Resume the thread with `peerctl resume --thread {thread}`, or write in it",
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
        "{by} made you a member of {channel}{topic}\nRead its posts: {history}. Leave it: {leave}"
    )
}

/// Tells a peer that another machine made it a member of a channel, or that it is one no more.
pub(crate) fn membership(channel: &str, is_member: bool, to: Addressee) -> String {
    if !is_member {
        return format!(
            "you are no longer a member of {channel}: the other machine has ended your membership, or the channel"
        );
    }
    let [post, leave] = [
        to.pick(
            format!("send_message(to=\"{channel}\")"),
            format!("`peerctl send '{channel}' -- TEXT`"),
        ),
        to.pick(
            format!("channels(action=\"leave\", name=\"{channel}\")"),
            format!("`peerctl channels leave '{channel}'`"),
        ),
    ];
    format!(
        "you are a member of {channel}, a channel of another machine. You get its posts from now on. Post in it: {post}. \
         Leave it: {leave}"
    )
}

/// Says that there is no channel of this name, as a refusal says it.
pub(crate) fn no_channel(name: &str) -> String {
    Rejection::UnknownChannel { name: name.to_owned(), nearest: Vec::new() }.to_string()
}

/// Tells a peer that the other machine does not let it join.
pub(crate) fn join_refused(channel: &str, reason: &str) -> String {
    format!("you are not a member of {channel}: the other machine did not make you one: {reason}")
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
        0 => "no other peer that you asked is online".to_owned(),
        1 => "1 other peer that you asked is online".to_owned(),
        left => format!("{left} other peers that you asked are online"),
    };
    let open = to.pick(
        "It stays open for an answer".to_owned(),
        format!("It stays open; withdraw it with `peerctl cancel {question}`"),
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
