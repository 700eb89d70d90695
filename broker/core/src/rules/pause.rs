//! Pauses: stops agents' sends where the person asked for it.
//!
//! Knows the paused scopes, and which of them apply to a sender. Does not know rates. Invariants:
//! only the person pauses and resumes, and the person is never paused. A pause is durable, follows
//! its peer through a bind, and ends with the peer.

use peer_proto::ids::PeerId;
use peer_proto::message::{Sender, Via};
use peer_proto::request::{Pausing, Reply, WatchEvent};

use crate::broker::Broker;
use crate::check::check_thread;
use crate::record::PausesRecord;
use crate::rejection::{Act, Crowd, Rejection};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;

/// Threads that can be paused at the same time.
const THREADS_PAUSED_MAX: usize = 1_000;

impl Broker {
    pub(crate) fn pause(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        what: &Pausing,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::Pause)?;
        let mut pauses = self.pauses.clone();
        let (peer, paused) = match what {
            Pausing::All => {
                pauses.all = true;
                (None, Pausing::All)
            }
            Pausing::Peer(name) => {
                let peer = self.pausable(caller, name)?;
                if !pauses.peers.iter().any(|paused| self.is_same(peer, *paused)) {
                    pauses.peers.insert(peer);
                }
                (Some(peer), Pausing::Peer(self.name_of(peer)))
            }
            Pausing::Thread(thread) => {
                check_thread(thread)?;
                pauses.threads.insert(thread.clone());
                if pauses.threads.len() > THREADS_PAUSED_MAX {
                    return Err(Rejection::TooMany {
                        what: Crowd::PausedThreads,
                        count: THREADS_PAUSED_MAX,
                    });
                }
                (None, what.clone())
            }
        };
        if self.put_pauses(turn, pauses) {
            self.emit(turn, peer.as_slice(), &WatchEvent::Paused(paused));
        }
        turn.reply(caller, Reply::Paused(self.paused()));
        Ok(())
    }

    pub(crate) fn resume(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        what: &Pausing,
    ) -> Result<(), Rejection> {
        caller.check_person(Act::Resume)?;
        let mut pauses = self.pauses.clone();
        let (mut peer, mut was_used_up) = (None, false);
        let resumed = match what {
            // `resume all` also clears the pauses of single peers and threads.
            Pausing::All => {
                for thread in &pauses.threads {
                    self.send_limits.resume_thread(thread);
                }
                pauses = PausesRecord::default();
                Pausing::All
            }
            Pausing::Peer(name) => {
                let id = self.pausable(caller, name)?;
                pauses.peers.retain(|paused| !self.is_same(id, *paused));
                peer = Some(id);
                Pausing::Peer(self.name_of(id))
            }
            Pausing::Thread(thread) => {
                check_thread(thread)?;
                pauses.threads.remove(thread);
                // Agents may also have used up the thread.
                was_used_up = self.send_limits.resume_thread(thread);
                what.clone()
            }
        };
        if self.put_pauses(turn, pauses) || was_used_up {
            self.emit(turn, peer.as_slice(), &WatchEvent::Resumed(resumed));
        }
        turn.reply(caller, Reply::Paused(self.paused()));
        Ok(())
    }

    /// Whether this sender may send now, in this thread if there is one.
    pub(crate) fn check_pause(
        &self,
        sender: &Sender,
        thread: Option<&str>,
    ) -> Result<(), Rejection> {
        if matches!(sender.via, Via::Person | Via::Broker) {
            return Ok(());
        }
        let (what, is_thread) = if self.pauses.all {
            ("all", false)
        } else if self.pauses.peers.iter().any(|paused| self.is_same(sender.peer, *paused)) {
            (sender.name.as_str(), false)
        } else if let Some(thread) = thread.filter(|thread| self.pauses.threads.contains(*thread)) {
            (thread, true)
        } else {
            return Ok(());
        };
        Err(Rejection::Paused { what: what.to_owned(), is_thread })
    }

    /// Returns the paused scopes, with the current names.
    pub(crate) fn paused(&self) -> Vec<Pausing> {
        let all = self.pauses.all.then_some(Pausing::All);
        let name = |peer: &PeerId| self.name_of(self.presence.current(*peer).unwrap_or(*peer));
        let peers = self.pauses.peers.iter().map(|peer| Pausing::Peer(name(peer)));
        let threads = self.pauses.threads.iter().map(|thread| Pausing::Thread(thread.clone()));
        let mut paused: Vec<Pausing> = all.into_iter().chain(peers).chain(threads).collect();
        paused.sort();
        paused
    }

    /// Drops the pauses of a forgotten peer, including those of peers merged into it.
    pub(crate) fn forget_pauses(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        let mut pauses = self.pauses.clone();
        pauses.peers.retain(|paused| !self.is_same(peer, *paused));
        self.put_pauses(turn, pauses);
    }

    fn pausable(&self, caller: Caller, name: &str) -> Result<PeerId, Rejection> {
        let peer = self.presence.resolve(name, caller.peer())?;
        if peer == PeerId::HUMAN {
            let bound = "any peer but the person".to_owned();
            return Err(Rejection::OutOfBounds { what: "the peer of a pause", bound });
        }
        Ok(peer)
    }

    /// Stores the pauses. Returns whether they changed.
    fn put_pauses(&mut self, turn: &mut Turn<'_>, pauses: PausesRecord) -> bool {
        let is_news = pauses != self.pauses;
        if is_news {
            turn.change(Change::PutPauses(Box::new(pauses.clone())));
            self.pauses = pauses;
        }
        is_news
    }

    pub(crate) fn assert_pause_invariants(&self) {
        for peer in &self.pauses.peers {
            assert!(self.presence.current(*peer).is_some(), "{peer} is paused, and not retained");
        }
        assert!(self.pauses.threads.len() <= THREADS_PAUSED_MAX);
    }
}
