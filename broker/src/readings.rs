//! Readings of the store that are under way, a queue for each connection, and a piece of one from each in turn.
//!
//! A long one (a history that looks at thousands of rows) would hold up everybody's commit; so the engine works on it a
//! piece at a time, between its batches. A reading that nobody waits for any more is dropped. Knows no rules and no store.

use std::collections::{BTreeMap, VecDeque};

use peer_core::input::ConnectionId;
use peer_core::step::Query;
use peer_proto::request::RequestId;

use crate::query::Progress;

/// One reading.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) id: RequestId,
    pub(crate) query: Query,
    /// What was found up to now.
    pub(crate) progress: Progress,
}

/// All readings that are under way.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    lines: BTreeMap<ConnectionId, VecDeque<Reading>>,
    /// Connections that wait for a reading, the next one first.
    turns: VecDeque<ConnectionId>,
}

/// Whether a connection's reading may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its answer has room.
    Free,
    /// Answers wait that it does not read.
    Crowded,
    /// Nobody waits for it.
    Gone,
}

impl Readings {
    /// Takes a reading up.
    pub(crate) fn add(&mut self, connection: ConnectionId, id: RequestId, query: Query) {
        let line = self.lines.entry(connection).or_default();
        line.push_back(Reading { id, query, progress: Progress::default() });
        if line.len() == 1 {
            self.turns.push_back(connection);
        }
    }

    /// The next reading to work on, taken out; [`Readings::put_back`] it where it is not done. What nobody waits for is
    /// dropped on the way.
    pub(crate) fn next(&mut self, place: impl Fn(ConnectionId) -> Place) -> Option<(ConnectionId, Reading)> {
        for _ in 0..self.turns.len() {
            let connection = self.turns.pop_front()?;
            match place(connection) {
                Place::Gone => {
                    self.lines.remove(&connection);
                }
                Place::Crowded => self.turns.push_back(connection),
                Place::Free => {
                    let line = self.lines.get_mut(&connection)?;
                    let reading = line.pop_front()?;
                    if line.is_empty() {
                        self.lines.remove(&connection);
                    } else {
                        self.turns.push_back(connection);
                    }
                    return Some((connection, reading));
                }
            }
        }
        None
    }

    /// Lays a reading back: it goes on at its connection's next turn, before what was asked after it.
    pub(crate) fn put_back(&mut self, connection: ConnectionId, reading: Reading) {
        let line = self.lines.entry(connection).or_default();
        line.push_front(reading);
        if line.len() == 1 {
            self.turns.push_back(connection);
        }
    }

    /// Whether a connection still waits for any.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.lines.contains_key(&connection)
    }

    /// Whether there is anything to work on.
    pub(crate) fn can_go_on(&self, place: impl Fn(ConnectionId) -> Place) -> bool {
        self.turns.iter().any(|connection| place(*connection) != Place::Crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(readings: &mut Readings, place: impl Fn(ConnectionId) -> Place) -> Vec<(u64, RequestId)> {
        std::iter::from_fn(|| readings.next(&place).map(|(connection, reading)| (connection.0, reading.id))).collect()
    }

    #[test]
    fn readings_take_turns_keep_their_order_and_are_dropped_with_whoever_waited() {
        let mut readings = Readings::default();
        for id in 1..=3 {
            readings.add(ConnectionId(1), id, Query::Status);
        }
        readings.add(ConnectionId(2), 1, Query::Status);
        let (connection, first) = readings.next(|_| Place::Free).unwrap();
        assert_eq!((connection.0, first.id), (1, 1));
        readings.put_back(connection, first);
        let crowded = |connection: ConnectionId| if connection.0 == 1 { Place::Crowded } else { Place::Free };
        assert_eq!(ids(&mut readings, crowded), [(2, 1)]);
        assert!(!readings.can_go_on(crowded) && readings.can_go_on(|_| Place::Free));
        readings.add(ConnectionId(2), 2, Query::Status);
        assert_eq!(ids(&mut readings, |_| Place::Free), [(1, 1), (2, 2), (1, 2), (1, 3)]);
        readings.add(ConnectionId(1), 4, Query::Status);
        assert_eq!(ids(&mut readings, |_| Place::Gone), []);
        assert!(readings.lines.is_empty());
    }
}
