//! Notes: what sessions remember together, under keys.
//!
//! Knows each note's head; the values are in the store alone. Does not know what they mean.

use std::collections::BTreeMap;

use peer_proto::note::NoteRequest;

use crate::broker::{Broker, Caller};
use crate::input::{Facts, Now};
use crate::rejection::Rejection;
use crate::step::Step;
use crate::thing::NoteHead;

/// All notes, by key.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    by_key: BTreeMap<String, NoteHead>,
}

impl Notes {
    pub(crate) fn load(heads: Vec<NoteHead>) -> Self {
        Self { by_key: heads.into_iter().map(|head| (head.key.clone(), head)).collect() }
    }
}

impl Broker {
    pub(crate) fn note(
        &mut self,
        now: Now,
        caller: Caller,
        request: NoteRequest,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let _ = (now, caller, request, facts, step, &self.notes.by_key);
        Err(Rejection::NotPermitted { act: "this" })
    }
}
