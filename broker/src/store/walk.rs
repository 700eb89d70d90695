//! Reads every record of a large database in small steps, while the engine is idle.
//!
//! Skips the records that the start reads anyway: peers, pending deliveries, settings, shared
//! records. Damage that is found is recorded as by any other reader.

use std::ops::Bound;

use peer_core::record::MessageRecord;

use super::error::{Doing, READ, RecordName, StoreError};
use super::{Snapshot, schema};

/// Bytes of messages that one step reads: some tenths of a millisecond.
const STEP_BYTES_MAX: usize = 256 * 1024;

/// Rows that one step reads.
const STEP_ROWS_MAX: usize = 256;

/// The position of a walk.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    table: WalkTable,
    after: Option<schema::DeliveryKey>,
    records: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WalkTable {
    #[default]
    Messages,
    /// One of [`schema::DELIVERIES`]. Pending deliveries were read at the start.
    Deliveries(usize),
    Nothing,
}

impl Walk {
    /// Reads on for one step. Returns whether there is more to read.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn step(&mut self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let last = match self.table {
            WalkTable::Messages => self.messages(snapshot)?,
            WalkTable::Deliveries(table) => self.deliveries(snapshot, table)?,
            WalkTable::Nothing => return Ok(false),
        };
        self.after = last;
        if last.is_none() {
            self.table = match self.table {
                WalkTable::Messages => WalkTable::Deliveries(1),
                WalkTable::Deliveries(table) if table + 1 < schema::DELIVERIES.len() => {
                    WalkTable::Deliveries(table + 1)
                }
                _ => WalkTable::Nothing,
            };
        }
        Ok(self.table != WalkTable::Nothing)
    }

    /// The number of records that were read.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Returns the last key that was read. `None`: there are no more.
    fn messages(&mut self, snapshot: &Snapshot) -> Result<Option<schema::DeliveryKey>, StoreError> {
        let damage = snapshot.damage();
        let start = self.after.map_or(Bound::Unbounded, |(message, _)| Bound::Excluded(message));
        let (mut rows, mut bytes) = (0, 0);
        for row in snapshot.messages()?.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
            let (key, value) = row.doing(READ)?;
            if let Some(id) = damage.message_id(key.value()) {
                let _: Option<MessageRecord> = damage.read(&RecordName::Message(id), value.value());
            }
            self.records += 1;
            rows += 1;
            bytes += value.value().len();
            if rows >= STEP_ROWS_MAX || bytes >= STEP_BYTES_MAX {
                return Ok(Some((key.value(), 0)));
            }
        }
        Ok(None)
    }

    fn deliveries(
        &mut self,
        snapshot: &Snapshot,
        table: usize,
    ) -> Result<Option<schema::DeliveryKey>, StoreError> {
        let start = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let read = snapshot.deliveries_in(table, (start, Bound::Unbounded), STEP_ROWS_MAX)?;
        self.records += read.len() as u64;
        Ok(read.last().filter(|_| read.len() == STEP_ROWS_MAX).map(schema::key_of))
    }
}
