//! The heads of all notes by key, and when each expires. The values are in the store alone.
//!
//! Does not know rules. Invariants: each note is under its own key. Each note that expires has its
//! time in the index.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use peer_proto::ids::Timestamp;

use crate::input::Now;
use crate::shared::NoteHead;

/// All notes, by key.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    by_key: BTreeMap<String, NoteHead>,
    expiries: BTreeSet<(Timestamp, String)>,
}

impl Notes {
    pub(crate) fn load(heads: Vec<NoteHead>) -> Self {
        let mut notes = Self::default();
        heads.into_iter().for_each(|head| notes.put(head));
        notes
    }

    pub(crate) fn put(&mut self, head: NoteHead) {
        self.remove(&head.key);
        self.expiries.extend(head.expires_at.map(|at| (at, head.key.clone())));
        self.by_key.insert(head.key.clone(), head);
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<NoteHead> {
        let head = self.by_key.remove(key)?;
        if let Some(at) = head.expires_at {
            self.expiries.remove(&(at, head.key.clone()));
        }
        Some(head)
    }

    pub(crate) fn live(&self, now: Now, key: &str) -> Option<&NoteHead> {
        self.by_key.get(key).filter(|head| is_live(now, head))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns the notes from this key on, in the order of the keys.
    pub(crate) fn from(&self, key: Bound<&str>) -> impl Iterator<Item = &NoteHead> {
        self.by_key.range::<str, _>((key, Bound::Unbounded)).map(|(_, head)| head)
    }

    /// Returns the key of a note that has expired.
    pub(crate) fn expired(&self, now: Now) -> Option<String> {
        self.expiries.first().filter(|(at, _)| *at <= now.wall).map(|(_, key)| key.clone())
    }

    /// Checks the invariants of notes between two inputs.
    pub(crate) fn assert_invariants(&self) {
        let expiring = self.by_key.values().filter(|head| head.expires_at.is_some()).count();
        assert_eq!(
            expiring,
            self.expiries.len(),
            "each note that expires has its time, and no other"
        );
        for (key, head) in &self.by_key {
            assert!(
                head.key == *key && head.version > 0,
                "{key} stands under its key, and was written"
            );
        }
    }

    /// Returns the time at which the next note expires.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }
}

pub(crate) fn is_live(now: Now, head: &NoteHead) -> bool {
    head.expires_at.is_none_or(|at| at > now.wall)
}
