//! A table of one transaction, opened by the first change to it.
//!
//! Knows redb's tables, but not what is in them. Invariant: a table that no change needs stays
//! closed, because an opened table costs pages.

use redb::{Key, Table, TableDefinition, Value, WriteTransaction};

use super::error::{Doing, StoreError, WRITE};

/// A table that a transaction opens once, when the first change needs it. An opened table costs
/// pages, even if nothing in it changes.
pub(super) struct Touched<'txn, K: Key + 'static, V: Value + 'static> {
    writing: &'txn WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'txn, K, V>>,
}

impl<'txn, K: Key + 'static, V: Value + 'static> Touched<'txn, K, V> {
    pub(super) fn new(
        writing: &'txn WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Self {
        Self { writing, definition, table: None }
    }

    pub(super) fn open(&mut self) -> Result<&mut Table<'txn, K, V>, StoreError> {
        match &mut self.table {
            Some(table) => Ok(table),
            closed => Ok(closed.insert(self.writing.open_table(self.definition).doing(WRITE)?)),
        }
    }
}
