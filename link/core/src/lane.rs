//! A lane: entries that go to the broker in batches, one batch at a time, in order.

/// The entries that wait for their turn, and whether a batch is under way.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    waiting: Vec<T>,
    busy: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), busy: false }
    }
}

impl<T> Lane<T> {
    pub(crate) fn push(&mut self, entry: T) {
        self.waiting.push(entry);
    }

    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = T>) {
        self.waiting.extend(entries);
    }

    /// Takes the next batch if none is under way: entries from the front, while `fits` says that
    /// one more fits. The first always does.
    pub(crate) fn next(&mut self, mut fits: impl FnMut(&[T], &T) -> bool) -> Option<Vec<T>> {
        if self.busy || self.waiting.is_empty() {
            return None;
        }
        let mut end = 1;
        while end < self.waiting.len() && fits(&self.waiting[..end], &self.waiting[end]) {
            end += 1;
        }
        self.busy = true;
        Some(self.waiting.drain(..end).collect())
    }

    /// The batch that was under way is done.
    pub(crate) fn done(&mut self) {
        self.busy = false;
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.busy = false;
    }
}
