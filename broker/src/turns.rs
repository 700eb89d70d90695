//! The engine's queue: a queue per connection, and one arrival from each connection in turn.
//!
//! Pushing never blocks. A connection has a bounded number of unanswered requests (its reader
//! counts them) and of bytes (the [`budget`](crate::budget)), so the whole is bounded. However many
//! requests one connection sends, another waits for only one of them per turn.
//!
//! Invariants: the arrivals of one connection stay in order. The arrivals of a closed connection
//! are handled before those of a connection that came after its end. So a session that comes back
//! finds its earlier requests handled. A connection that leaves its answers unread gets no turn
//! until it reads, but its end is handled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peer_core::input::ConnectionId;
use peer_core::record::Process;
use peer_proto::request::{Hello, RequestId};

use crate::frames::Frame;
use crate::outbox::Outbox;

/// An event for the engine.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A connection sent `Hello`. The shell has checked its uid.
    Hello {
        connection: ConnectionId,
        id: RequestId,
        hello: Hello,
        /// The protocol version of both ends.
        protocol: u16,
        ancestors: Vec<Process>,
        outbox: Outbox,
    },
    /// A connection that sent `Hello` makes a request.
    Asked { connection: ConnectionId, frame: Frame },
    /// A connection that sent `Hello` has closed.
    Gone { connection: ConnectionId },
    /// The process must end.
    Stop,
}

/// The sending side. Dropping it ends the engine, because no connection is left.
#[derive(Debug)]
pub(crate) struct Entrance {
    shared: Arc<SharedTurns>,
}

/// The engine's side. Dropping it drops the waiting arrivals, and nothing more is accepted.
#[derive(Debug)]
pub(crate) struct TurnQueue {
    shared: Arc<SharedTurns>,
}

/// The engine's side was dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

#[derive(Debug, Default)]
struct SharedTurns {
    queue: Mutex<TurnState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct TurnState {
    lines: BTreeMap<ConnectionId, ConnectionQueue>,
    /// Connections with waiting arrivals, the next one first.
    turns: VecDeque<ConnectionId>,
    /// Connections that get no more turns in this batch.
    resting: Vec<ConnectionId>,
    /// How many ends were pushed, and which of them wait.
    ends: u64,
    ends_waiting: BTreeSet<u64>,
    stop: bool,
    /// Whether a connection reads again that had left too much unread.
    relieved: bool,
    closed: bool,
}

/// The arrivals of one connection.
#[derive(Debug)]
struct ConnectionQueue {
    waiting: VecDeque<Arrival>,
    outbox: Outbox,
    /// It gets no turn before those ends were handled.
    after_ends: u64,
    /// The number of its own end. `None`: it has not ended.
    end: Option<u64>,
    rests: bool,
}

/// Creates both sides of an empty queue.
pub(crate) fn open() -> (Entrance, TurnQueue) {
    let shared = Arc::new(SharedTurns::default());
    (Entrance { shared: Arc::clone(&shared) }, TurnQueue { shared })
}

impl Entrance {
    /// Queues an arrival for its connection's turn.
    pub(crate) fn push(&self, arrival: Arrival) -> Result<(), Closed> {
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(Closed);
        }
        queue.push(arrival);
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(())
    }

    /// Tells the engine that a crowded connection reads again.
    pub(crate) fn relieve(&self) {
        self.shared.queue().relieved = true;
        self.shared.arrived.notify_one();
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        // The engine may have ended already.
        let _ = self.push(Arrival::Stop);
    }
}

impl TurnQueue {
    /// Sleeps until there is a turn, a crowded connection reads again, or the timeout. `None`: no
    /// timeout. It clears all rests.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let mut queue = self.shared.queue();
        queue.end_rests();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while !(std::mem::take(&mut queue.relieved) || queue.has_turn()) {
            queue =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(Duration::ZERO) => return,
                    Some(rest) => self
                        .shared
                        .arrived
                        .wait_timeout(queue, rest)
                        .map_or_else(|e| e.into_inner().0, |(queue, _)| queue),
                    None => self.shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                };
        }
    }

    /// Returns the next arrival. `None`: no connection has a turn now.
    pub(crate) fn next(&self) -> Option<Arrival> {
        self.shared.queue().next()
    }

    /// Ends a connection's turns until [`TurnQueue::wait`] is called.
    pub(crate) fn rest(&self, connection: ConnectionId) {
        let queue = &mut *self.shared.queue();
        if let Some(line) = queue.lines.get_mut(&connection) {
            line.rests = true;
            queue.resting.push(connection);
        }
    }
}

impl Drop for TurnQueue {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        *queue = TurnState { closed: true, ..TurnState::default() };
    }
}

impl SharedTurns {
    fn queue(&self) -> MutexGuard<'_, TurnState> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TurnState {
    fn push(&mut self, arrival: Arrival) {
        let connection = match &arrival {
            Arrival::Hello { connection, outbox, .. } => {
                let line = ConnectionQueue {
                    outbox: outbox.clone(),
                    waiting: VecDeque::new(),
                    after_ends: self.ends,
                    end: None,
                    rests: false,
                };
                self.lines.insert(*connection, line);
                *connection
            }
            Arrival::Asked { connection, .. } | Arrival::Gone { connection } => *connection,
            Arrival::Stop => {
                self.stop = true;
                return;
            }
        };
        // Nothing of a connection is queued before its `Hello`.
        let Some(line) = self.lines.get_mut(&connection) else { return };
        if let Arrival::Gone { .. } = &arrival {
            self.ends += 1;
            self.ends_waiting.insert(self.ends);
            line.end = Some(self.ends);
        }
        line.waiting.push_back(arrival);
        if line.waiting.len() == 1 {
            self.turns.push_back(connection);
        }
    }

    fn next(&mut self) -> Option<Arrival> {
        if std::mem::take(&mut self.stop) {
            return Some(Arrival::Stop);
        }
        for _ in 0..self.turns.len() {
            let connection = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&connection) else { continue };
            let arrival =
                if line.has_turn(&self.ends_waiting) { line.waiting.pop_front() } else { None };
            if !line.waiting.is_empty() {
                self.turns.push_back(connection);
            }
            if let Some(Arrival::Gone { .. }) = &arrival
                && let Some(ConnectionQueue { end: Some(end), .. }) = self.lines.remove(&connection)
            {
                self.ends_waiting.remove(&end);
            }
            if arrival.is_some() {
                return arrival;
            }
        }
        None
    }

    fn has_turn(&self) -> bool {
        let waiting = || self.turns.iter().filter_map(|connection| self.lines.get(connection));
        self.stop || waiting().any(|line| line.has_turn(&self.ends_waiting))
    }

    fn end_rests(&mut self) {
        for connection in self.resting.drain(..) {
            if let Some(line) = self.lines.get_mut(&connection) {
                line.rests = false;
            }
        }
    }
}

impl ConnectionQueue {
    fn has_turn(&self, ends_waiting: &BTreeSet<u64>) -> bool {
        let those_before_are_heard = ends_waiting.first().is_none_or(|end| *end > self.after_ends);
        !self.rests && those_before_are_heard && !self.outbox.is_crowded()
    }
}

#[cfg(test)]
mod tests {
    use peer_proto::ids::PeerId;
    use peer_proto::refusal::Refusal;
    use peer_proto::request::{ClientFrame, Hello, Reply, Request, RequestId, Role};

    use super::*;
    use crate::frames::Frame;

    fn hello(connection: u64) -> Arrival {
        let hello =
            Hello { role: Role::Adapter, version: "0".into(), executable: "/x".into(), seat: None };
        let (connection, outbox) = (ConnectionId(connection), Outbox::default());
        Arrival::Hello { connection, id: 1, hello, protocol: 1, ancestors: Vec::new(), outbox }
    }

    fn asked(connection: u64, id: RequestId) -> Arrival {
        Arrival::Asked {
            connection: ConnectionId(connection),
            frame: Frame::of(&ClientFrame { id, request: Request::Status }),
        }
    }

    fn gone(connection: u64) -> Arrival {
        Arrival::Gone { connection: ConnectionId(connection) }
    }

    fn answer() -> Result<Reply, Refusal> {
        Ok(Reply::Renamed { peer: PeerId::HUMAN, name: "n".repeat(10_000) })
    }

    /// Describes the next arrival in letters: the kind, the connection, the request's id.
    fn said(turns: &TurnQueue) -> Option<String> {
        Some(match turns.next()? {
            Arrival::Hello { connection, .. } => format!("hello {}", connection.0),
            Arrival::Asked { connection, frame } => {
                format!("{} asks {}", connection.0, frame.decode().unwrap().id)
            }
            Arrival::Gone { connection } => format!("gone {}", connection.0),
            Arrival::Stop => "stop".into(),
        })
    }

    fn all(turns: &TurnQueue) -> Vec<String> {
        std::iter::from_fn(|| said(turns)).collect()
    }

    #[test]
    fn whoever_asks_one_thing_waits_for_one_request_of_whoever_asks_many() {
        let (entrance, turns) = open();
        for connection in [1, 2] {
            entrance.push(hello(connection)).unwrap();
        }
        assert_eq!(all(&turns), ["hello 1", "hello 2"]);
        for id in 1..=3 {
            entrance.push(asked(1, id)).unwrap();
        }
        entrance.push(asked(2, 1)).unwrap();
        assert_eq!(all(&turns), ["1 asks 1", "2 asks 1", "1 asks 2", "1 asks 3"]);
    }

    #[test]
    fn whoever_comes_after_another_ended_is_heard_after_all_that_the_other_said() {
        let (entrance, turns) = open();
        entrance.push(hello(1)).unwrap();
        for id in 1..=2 {
            entrance.push(asked(1, id)).unwrap();
        }
        entrance.push(gone(1)).unwrap();
        entrance.push(hello(2)).unwrap();
        entrance.push(asked(2, 1)).unwrap();
        // An end that came later has no influence.
        entrance.push(hello(3)).unwrap();
        entrance.push(gone(3)).unwrap();
        let heard = all(&turns);
        let place = |what: &str| heard.iter().position(|heard| heard == what).unwrap();
        assert!(
            place("1 asks 2") < place("gone 1") && place("gone 1") < place("hello 2"),
            "{heard:?}"
        );
        assert!(
            place("gone 1") < place("hello 3") && place("hello 2") < place("2 asks 1"),
            "{heard:?}"
        );
    }

    #[test]
    fn a_connection_that_leaves_its_answers_unread_is_passed_over_until_it_reads_or_ends() {
        let (entrance, turns) = open();
        let first = hello(1);
        let Arrival::Hello { outbox, .. } = &first else { unreachable!("it is a hello") };
        let outbox = outbox.clone();
        for arrival in [first, hello(2)] {
            entrance.push(arrival).unwrap();
        }
        assert_eq!(all(&turns), ["hello 1", "hello 2"]);
        let mut id = 0;
        while !outbox.is_crowded() {
            id += 1;
            outbox.reply(id, answer());
        }
        for arrival in [asked(1, 1), asked(2, 1)] {
            entrance.push(arrival).unwrap();
        }
        assert_eq!(all(&turns), ["2 asks 1"]);
        assert!(!outbox.taken().is_empty());
        assert_eq!(all(&turns), ["1 asks 1"]);
        while !outbox.is_crowded() {
            outbox.reply(1, answer());
        }
        entrance.push(asked(1, 2)).unwrap();
        entrance.push(gone(1)).unwrap();
        assert_eq!(all(&turns), Vec::<String>::new());
        outbox.close();
        assert_eq!(all(&turns), ["1 asks 2", "gone 1"]);
    }

    #[test]
    fn a_turn_that_is_over_comes_again_with_the_next_batch() {
        let (entrance, turns) = open();
        entrance.push(hello(1)).unwrap();
        for id in 1..=2 {
            entrance.push(asked(1, id)).unwrap();
        }
        assert_eq!([said(&turns), said(&turns)], [Some("hello 1".into()), Some("1 asks 1".into())]);
        turns.rest(ConnectionId(1));
        assert_eq!(said(&turns), None);
        turns.wait(None);
        assert_eq!(said(&turns), Some("1 asks 2".into()));
        // This holds even if nothing waits when the batch ends.
        turns.rest(ConnectionId(1));
        turns.wait(Some(Duration::ZERO));
        entrance.push(asked(1, 3)).unwrap();
        assert_eq!(said(&turns), Some("1 asks 3".into()));
    }

    #[test]
    fn whoever_waits_is_woken_by_an_arrival_by_the_end_and_by_whoever_reads_again() {
        let (entrance, turns) = open();
        let waiting = std::thread::spawn(move || {
            let mut heard = Vec::new();
            while heard.len() < 2 {
                turns.wait(None);
                heard.extend(all(&turns));
            }
            heard.sort();
            assert_eq!(heard, ["hello 1", "stop"]);
        });
        entrance.relieve();
        entrance.push(hello(1)).unwrap();
        // It is left to chance whether it waits already. The test hangs if a wake-up is lost.
        std::thread::yield_now();
        drop(entrance);
        waiting.join().unwrap();
    }

    #[test]
    fn nothing_is_taken_when_the_engine_is_gone() {
        let (entrance, turns) = open();
        drop(turns);
        assert_eq!(entrance.push(hello(1)), Err(Closed));
    }
}
