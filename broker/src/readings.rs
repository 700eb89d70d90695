//! Long readings of the store: a queue per connection, and one piece from each in turn.
//!
//! A long reading (a history over thousands of rows) would delay every commit. So the engine works
//! on it a piece at a time, between its batches. A reading whose connection has closed is dropped.
//! Knows neither rules nor the store.

use std::collections::{BTreeMap, VecDeque};

use peer_core::input::ConnectionId;
use peer_core::step::Query;
use peer_proto::request::RequestId;

use crate::query::Progress;

#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) id: RequestId,
    pub(crate) query: Query,
    /// The part that was read until now.
    pub(crate) progress: Progress,
}

/// All readings under way.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    lines: BTreeMap<ConnectionId, VecDeque<Reading>>,
    /// Connections with a reading, the next one first.
    turns: VecDeque<ConnectionId>,
}

/// Whether a connection's reading may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadingState {
    /// Its outbox has room.
    Free,
    /// It has unread answers.
    Crowded,
    Gone,
}

impl Readings {
    pub(crate) fn add(&mut self, connection: ConnectionId, id: RequestId, query: Query) {
        let line = self.lines.entry(connection).or_default();
        line.push_back(Reading { id, query, progress: Progress::default() });
        if line.len() == 1 {
            self.turns.push_back(connection);
        }
    }

    /// Takes the next reading out. If it is not done, [`Readings::put_back`] it. Drops readings of
    /// closed connections on the way.
    pub(crate) fn next(
        &mut self,
        place: impl Fn(ConnectionId) -> ReadingState,
    ) -> Option<(ConnectionId, Reading)> {
        for _ in 0..self.turns.len() {
            let connection = self.turns.pop_front()?;
            match place(connection) {
                ReadingState::Gone => {
                    self.lines.remove(&connection);
                }
                ReadingState::Crowded => self.turns.push_back(connection),
                ReadingState::Free => {
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

    /// Puts a reading back. It continues at its connection's next turn, before later requests.
    pub(crate) fn put_back(&mut self, connection: ConnectionId, reading: Reading) {
        let line = self.lines.entry(connection).or_default();
        line.push_front(reading);
        if line.len() == 1 {
            self.turns.push_back(connection);
        }
    }

    /// Whether a connection still has a reading.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.lines.contains_key(&connection)
    }

    /// Whether any reading can continue.
    pub(crate) fn can_go_on(&self, place: impl Fn(ConnectionId) -> ReadingState) -> bool {
        self.turns.iter().any(|connection| place(*connection) != ReadingState::Crowded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(
        readings: &mut Readings,
        place: impl Fn(ConnectionId) -> ReadingState,
    ) -> Vec<(u64, RequestId)> {
        std::iter::from_fn(|| {
            readings.next(&place).map(|(connection, reading)| (connection.0, reading.id))
        })
        .collect()
    }

    #[test]
    fn readings_take_turns_keep_their_order_and_are_dropped_with_whoever_waited() {
        let mut readings = Readings::default();
        for id in 1..=3 {
            readings.add(ConnectionId(1), id, Query::Status);
        }
        readings.add(ConnectionId(2), 1, Query::Status);
        let (connection, first) = readings.next(|_| ReadingState::Free).unwrap();
        assert_eq!((connection.0, first.id), (1, 1));
        readings.put_back(connection, first);
        let crowded = |connection: ConnectionId| {
            if connection.0 == 1 { ReadingState::Crowded } else { ReadingState::Free }
        };
        assert_eq!(ids(&mut readings, crowded), [(2, 1)]);
        assert!(!readings.can_go_on(crowded) && readings.can_go_on(|_| ReadingState::Free));
        readings.add(ConnectionId(2), 2, Query::Status);
        assert_eq!(ids(&mut readings, |_| ReadingState::Free), [(1, 1), (2, 2), (1, 2), (1, 3)]);
        readings.add(ConnectionId(1), 4, Query::Status);
        assert_eq!(ids(&mut readings, |_| ReadingState::Gone), []);
        assert!(readings.lines.is_empty());
    }
}
