//! Watches what the client writes of itself: which session it is, whether it works, and what its model was shown.
//!
//! Claude Code's registry is watched for as long as this adapter lives: it tells of a turn's beginning and end, and of a
//! new session id, also where no hook does. A record is watched only while something that was given to the client lacks
//! proof. Invariant: between two changes nothing is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peer_proto::request::{Seat, SeatKind};
use tokio::time::Instant;

use super::{ClientKind, Session};
use crate::claude;
use crate::event::Event;
use crate::transcript::Looked;
use crate::watch::Watch;

/// How late a client writes its record, in milliseconds, with some to spare: up to 100 were seen.
const RECORD_LAG_MS: u64 = 250;

/// How long Codex may take to write its last words, in milliseconds, on a machine that is busy. It ends its servers before it
/// has written them, and kills those that are still there after two seconds.
const LAST_WORDS_MS: u64 = 1_500;

impl Session {
    /// Never returns.
    pub(super) async fn watch_client(self: Arc<Self>) {
        let mut watch = Watch::on(Vec::new());
        loop {
            let files = self.files_to_watch();
            let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
            // The watch is there before anything is read, so that no change is missed.
            if !watch.is_on(&paths) {
                watch = Watch::on(files.clone());
            }
            self.look_into_registry().await;
            self.look_into_transcript();
            if self.files_to_watch() != files {
                continue;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = self.given.notified() => {}
            }
        }
    }

    /// Looks for proof in the client's own record of the session.
    pub(crate) fn look_into_transcript(self: &Arc<Self>) {
        let client = self.client().kind;
        let (looked, speaks) = {
            let state = &mut *self.state();
            let inbox = state.core.inbox();
            let (open, wanted) = (inbox.unsettled(), !inbox.unproved().is_empty());
            let Some(path) = state.core.record().map(Path::to_owned) else { return };
            (state.transcript.look(client, &path, &open, wanted), state.transcript.speaks())
        };
        let Looked { seen, withdrawn } = looked;
        self.handle(Event::Recorded { seen, withdrawn, speaks });
    }

    /// Waits for what the client's record is about to say, where a message would be shown once more without it. Clients
    /// write their records a little late.
    pub(crate) async fn settle_record(self: &Arc<Self>) {
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        let mut watch = None;
        loop {
            self.look_into_transcript();
            let record = {
                let state = self.state();
                state.core.record().filter(|_| state.core.inbox().would_repeat_push()).map(Path::to_owned)
            };
            let Some(record) = record else { return };
            let Some(watch) = &mut watch else {
                // Looks once more, now that no change is missed.
                watch = Some(Watch::on(vec![record]));
                continue;
            };
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return;
            }
        }
    }

    /// The client ends this adapter: its last words may prove what it was given, and else the mail goes to the next session.
    pub(crate) async fn last_look(self: &Arc<Self>) {
        let patience_ms = match self.client().kind {
            ClientKind::Codex => LAST_WORDS_MS,
            _ => RECORD_LAG_MS,
        };
        let deadline = Instant::now() + Duration::from_millis(patience_ms);
        let mut watch: Option<Watch> = None;
        let mut news = self.news();
        loop {
            self.look_into_transcript();
            let record = {
                let state = self.state();
                state.core.record().filter(|_| state.core.inbox().is_any_given()).map(Path::to_owned)
            };
            let Some(record) = record.filter(|_| self.connected().is_some()) else { return };
            let Some(watch) = &mut watch else {
                watch = Some(Watch::on(vec![record]));
                continue;
            };
            let changed = async {
                tokio::select! {
                    () = watch.changed() => {}
                    // The broker may have confirmed a proof.
                    _ = news.changed() => {}
                }
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return;
            }
        }
    }

    /// Whether a subagent made the tool call of this name: as a hook told, else as the client's records say.
    pub(crate) async fn is_subagents_call(self: &Arc<Self>, tool_use: &str) -> bool {
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        loop {
            let (told, record) = {
                let state = self.state();
                (state.core.is_subagents_call(tool_use), state.core.record().map(Path::to_owned))
            };
            if let Some(told) = told {
                return told;
            }
            let Some(record) = record.filter(|_| self.client().kind == ClientKind::Claude) else { return false };
            let mut watched = claude::subagents(&record);
            // A subagent that is new makes a file here; the name matters to nobody.
            watched.extend([record.clone(), record.with_extension("").join("subagents/new")]);
            let mut watch = Watch::on(watched);
            if let Some(is_subagents) = claude::is_subagents_call(&record, tool_use) {
                self.handle(Event::CallerTold { tool_use: Some(tool_use.to_owned()), is_subagent: is_subagents });
                return is_subagents;
            }
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Whether Claude Code's registry has our client under this session id; where it has nothing of our client, whoever says
    /// so is believed. The client changes it just before it tells its hooks.
    pub(super) async fn is_registered_as(&self, session: &str) -> bool {
        let (claude, pid) = (&self.surroundings.claude, self.surroundings.client_pid);
        let deadline = Instant::now() + Duration::from_millis(RECORD_LAG_MS);
        let mut watch = Watch::on(vec![claude.registry(pid)]);
        loop {
            if claude.registered(pid).is_none_or(|registered| registered.session == session) {
                return true;
            }
            if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
                return false;
            }
        }
    }

    fn files_to_watch(&self) -> Vec<PathBuf> {
        let registry =
            (self.client().kind == ClientKind::Claude).then(|| self.surroundings.claude.registry(self.surroundings.client_pid));
        let record = self.state().core.record_to_watch().map(Path::to_owned);
        registry.into_iter().chain(record).collect()
    }

    /// What Claude Code says of its session.
    async fn look_into_registry(self: &Arc<Self>) {
        if self.client().kind != ClientKind::Claude {
            return;
        }
        let Some(registered) = self.surroundings.claude.registered(self.surroundings.client_pid) else { return };
        let seat = Seat { kind: SeatKind::Claude, key: registered.session.clone() };
        if self.seat().as_ref() != Some(&seat) {
            // Told anew by the next change or the next hook, where it could not be told now.
            let _ = self.rebind(seat).await;
        }
        // What was given before is looked for in the record that was there then, and from now on in the new one.
        let transcript = self.surroundings.claude.transcript(&registered.session, self.surroundings.cwd.as_deref());
        if let Some(transcript) = transcript {
            self.move_on_to(transcript);
        }
        self.see_ways();
        if let Some(activity) = registered.activity {
            self.handle(Event::RegistrySays(activity));
        }
    }

    fn move_on_to(self: &Arc<Self>, transcript: PathBuf) {
        let before = self.state().core.record().map(Path::to_owned);
        // A hook knows better where the record of this session will be; before it is there, ours is a guess.
        if before.is_some_and(|before| before.file_name() == transcript.file_name() && (before.exists() || !transcript.exists()))
        {
            return;
        }
        self.look_into_transcript();
        self.handle(Event::RecordAt(transcript));
    }
}
