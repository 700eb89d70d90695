//! The ways into the client's model, which of them is tried when, and what becomes of what one could not do.
//!
//! | client | pushed, in this order | taken when the client calls |
//! |---|---|---|
//! | Claude Code | `inbox_socket`, `channel` (the other way round where the client says it loaded the channel) | `hook`, `tool_result` |
//! | Codex | `app_server` | `hook`, `tool_result` |
//! | others | – | `tool_result` |
//!
//! - A push carrier that the client does not answer and nothing has proved in this session is on trial: it gets one message, which the next hook or tool
//!   result carries too, marked as a repeat. Until that is settled no such carrier gets another; the rest is due to what the
//!   client calls, at once. Settled by another way, the carrier is tried again when the session rests and a request waits.
//! - What another adapter of this client had offered is left to what the client calls until that had its time: the trial is
//!   for what is new.
//! - A carrier that is proved has a message alone. After the visibility timeout without evidence the next one gets it, marked as a
//!   repeat; what could not leave at all goes to the next one at once, unmarked.
//! - A push carrier that had its time without evidence is left alone for a minute, then two, and so on up to an hour, until
//!   evidence proves it ([`Facts`](crate::session::Facts)); without hooks it is used all the same where nothing else is. What
//!   the client calls is always there.
//! - Posts into Claude Code's inbox socket are paced, because the client drops what is too much for it without a word; what
//!   does not fit one post is left to the hooks of a model at work. What a sender wrote after a message in flight waits
//!   until that has arrived or had its time.
//! - A session that rests is woken only by what may wake it, and only so many times an hour; the rest waits for its next
//!   turn. Where nobody knows whether it rests, the channel is used at once and the others as if it did.
//!
//! Each push carrier has two functions: `is_ready(session, wakes)`, cheap and without waiting, and `push`, which calls
//! [`Leave::now`] just before the first byte of the message leaves. Evidence comes from elsewhere: tool calls
//! ([`tool_result`]), hooks ([`hook`]) and the client's own record ([`transcript`](crate::transcript)).

pub(crate) mod app_server;
pub(crate) mod channel;
pub(crate) mod hook;
pub(crate) mod inbox_socket;
pub(crate) mod tool_result;

use std::sync::Arc;

use peer_client::Connection;
use peer_proto::hook::Activity;
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;
use peer_proto::request::Request;

use crate::codex::ControlError;
use crate::facts::Facts;
use crate::inbox::Post;
use crate::session::{ClientKind, Session, State};

/// Tells the broker of an offer, before its bytes leave.
pub(crate) struct Leave<'a> {
    connection: &'a Connection,
    messages: Vec<MessageId>,
    carrier: Carrier,
    left: &'a mut bool,
}

impl Leave<'_> {
    /// The next thing that happens is that bytes leave.
    pub(crate) fn now(self) {
        *self.left = true;
        drop(self.connection.submit(Request::Offered { messages: self.messages, carrier: self.carrier, last: false }));
    }
}

/// The push carriers of this client, the first to be tried first.
pub(crate) fn pushes(session: &Session) -> &'static [Carrier] {
    match session.client().kind {
        ClientKind::Claude if channel::is_known_to_be_loaded(session) => &[Carrier::Channel, Carrier::InboxSocket],
        ClientKind::Claude => &[Carrier::InboxSocket, Carrier::Channel],
        ClientKind::Codex => &[Carrier::AppServer],
        ClientKind::Other => &[],
    }
}

/// All carriers that are there now, in the order in which they are tried. One in doubt is none where another way is left.
pub(crate) fn present(session: &Session) -> Vec<Carrier> {
    let ready = pushes(session).iter().copied().filter(|carrier| is_ready(session, *carrier, false));
    let mut present: Vec<Carrier> = ready.collect();
    let (facts, now) = (&session.state().facts, session.now());
    if facts.hooks_come {
        present.retain(|carrier| facts.trusts(*carrier, now));
        present.push(Carrier::Hook);
    }
    present.push(Carrier::ToolResult);
    present
}

/// Whether this push carrier can be used now; `wakes`: to begin a turn.
fn is_ready(session: &Session, carrier: Carrier, wakes: bool) -> bool {
    if session.surroundings.carriers_off.contains(&carrier) {
        return false;
    }
    match carrier {
        Carrier::Channel => channel::is_ready(session),
        Carrier::InboxSocket => inbox_socket::is_ready(session),
        Carrier::AppServer => app_server::is_ready(session, wakes),
        Carrier::Hook | Carrier::ToolResult | Carrier::Peerctl => false,
    }
}

/// Offers what may be pushed, whenever there is reason to look. Never returns.
pub(crate) async fn run(session: Arc<Session>) {
    loop {
        match time_to_look(&session) {
            Some(time) => drop(tokio::time::timeout_at(session.instant(time), session.offer_wanted()).await),
            None => session.offer_wanted().await,
        }
        session.report();
        // Carriers that could do nothing this time: another try comes with the next reason to look.
        let mut unable = Vec::new();
        while let Some((connection, carrier, post)) = next(&session, &unable) {
            if !hand_over(&session, &connection, carrier, post).await {
                unable.push(carrier);
            }
        }
        // A carrier may have come into doubt.
        session.report();
    }
}

/// What goes next, and by which carrier; counted as given to it.
fn next(session: &Session, unable: &[Carrier]) -> Option<(Connection, Carrier, Post)> {
    let connection = session.connected().filter(|_| !session.is_closing())?;
    // Where no hook comes, a carrier in doubt is better than to wait for the next tool call.
    let hooks_come = session.state().facts.hooks_come;
    let found = next_by(session, unable, true).or_else(|| if hooks_come { None } else { next_by(session, unable, false) });
    found.map(|(carrier, post)| (connection, carrier, post))
}

/// When time alone makes a difference: at the next end of a doubt, or, where something waits, of the hour of a wake-up, or
/// of the client's memory of a post.
fn time_to_look(session: &Session) -> Option<u64> {
    let (now, carriers) = (session.now(), pushes(session));
    let state = session.state();
    let doubts = carriers.iter().filter_map(|carrier| state.facts.doubted_until(*carrier, now));
    let is_any_due = carriers.iter().any(|carrier| state.inbox.is_any_due_by(*carrier));
    let woken_enough = state.facts.may_wake_from(session.surroundings.wakeups_per_hour, now);
    let may_post = state.facts.may_post_from(now).filter(|_| carriers.contains(&Carrier::InboxSocket));
    doubts.chain(woken_enough.into_iter().chain(may_post).filter(|_| is_any_due)).min()
}

fn next_by(session: &Session, unable: &[Carrier], trusted: bool) -> Option<(Carrier, Post)> {
    let now = session.now();
    let known = session.state().facts.activity;
    let pushes = pushes(session);
    // Where one is proved the others need no trial.
    let is_any_proved = pushes.iter().any(|carrier| {
        let is_proved = {
            let facts = &session.state().facts;
            is_proved(facts, *carrier) && facts.trusts(*carrier, now)
        };
        is_proved && !unable.contains(carrier) && is_ready(session, *carrier, known != Some(Activity::Working))
    });
    for carrier in pushes {
        // The channel alone is sent to at once where nobody knows whether the session rests.
        let activity = known.or((*carrier != Carrier::Channel).then_some(Activity::Idle));
        let wakes = activity != Some(Activity::Working);
        if unable.contains(carrier) || !is_ready(session, *carrier, wakes) {
            continue;
        }
        let mut state = session.state();
        // A call that waits shows what comes meanwhile; the client would hold a push back until that call's end.
        let is_proved = is_proved(&state.facts, *carrier);
        if state.waits > 0 || (is_any_proved && !is_proved) || (trusted && !state.facts.trusts(*carrier, now)) {
            continue;
        }
        let rests = activity == Some(Activity::Idle);
        if rests && !state.facts.may_wake(session.surroundings.wakeups_per_hour, now) {
            continue;
        }
        if *carrier == Carrier::InboxSocket && state.facts.may_post_from(now).is_some() {
            continue;
        }
        // What is too much for one post comes sooner with the model's next step.
        let comes_by_hook = is_proved && state.facts.hooks_come && activity == Some(Activity::Working);
        if comes_by_hook && state.inbox.is_backlog(*carrier) {
            continue;
        }
        let (one, home) = (*carrier == Carrier::Channel, &session.surroundings.home);
        let post = if is_proved {
            state.inbox.post(*carrier, activity, one, home)
        } else if may_be_tried(&state, *carrier, activity, now) {
            state.inbox.trial(*carrier, rests, one, home)
        } else {
            None
        };
        if let Some(post) = post {
            if !is_proved {
                state.facts.begin_trial(*carrier);
            }
            drop(state);
            session.given();
            return Some((*carrier, post));
        }
    }
    None
}

/// Whether evidence of this session proved this carrier. Codex answers each push, so nothing that it took is on trial.
fn is_proved(facts: &Facts, carrier: Carrier) -> bool {
    carrier == Carrier::AppServer || facts.is_proved(carrier)
}

/// Whether a carrier that nothing has proved may be given one message. One whose last trial proved nothing is tried again
/// only to wake a session that rests: what the client calls brings everything else.
fn may_be_tried(state: &State, carrier: Carrier, activity: Option<Activity>, now: u64) -> bool {
    let wakes = || activity != Some(Activity::Working) && state.inbox.is_any_waking_by(carrier);
    let is_free = state.facts.trusts(carrier, now) && !state.inbox.is_any_on_trial();
    is_free && (!state.facts.was_tried(carrier) || wakes())
}

/// Returns whether the carrier may have the next one at once.
async fn hand_over(session: &Arc<Session>, connection: &Connection, carrier: Carrier, post: Post) -> bool {
    let rests = session.state().facts.activity == Some(Activity::Idle);
    let mut left = false;
    let leave = Leave { connection, messages: post.ids(), carrier, left: &mut left };
    let pushed = match carrier {
        Carrier::Channel => channel::push(session, &post, leave),
        Carrier::InboxSocket => inbox_socket::push(session, &post, leave).await,
        Carrier::AppServer => app_server::push(session, &post, leave).await,
        Carrier::Hook | Carrier::ToolResult | Carrier::Peerctl => Err(PushError::Gone),
    };
    let mut state = session.state();
    if left && carrier == Carrier::InboxSocket {
        state.facts.posted(session.now());
    }
    match pushed {
        Ok(()) if rests => state.facts.woke(session.now()),
        Ok(()) => {}
        Err(PushError::NotNow) => {
            state.inbox.take_back(&post.ids(), carrier);
            state.facts.take_back_trial(carrier);
            return false;
        }
        Err(_) => {
            state.facts.doubt(carrier, session.now());
            // What had begun to leave may have been seen: it has its time, like any other offer.
            if !left {
                state.inbox.take_back(&post.ids(), carrier);
                state.facts.take_back_trial(carrier);
            }
            return false;
        }
    }
    true
}

/// Why a push carrier could not hand something over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// What it needs is not there any more.
    #[error("it is not there any more")]
    Gone,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What was found is not what it should be.
    #[error("{0}")]
    Refused(String),
    /// The client said that it takes nothing now, and nobody was shown anything: another try comes with the next event.
    #[error("the client takes nothing now")]
    NotNow,
    /// Codex's control socket failed.
    #[error("{0}")]
    Control(#[from] ControlError),
}
