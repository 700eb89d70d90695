//! The index: which words stand in which message, note and task, in a directory that can be thrown away.
//!
//! The only place that says tantivy, beside the words. Knows what is indexed of each thing, and how a search that the rules
//! allowed is asked. Does not know who asks. What is found is an id or a key; everything else is read from the store.
//!
//! Invariants: the cursor stands in the same commit as what was indexed up to it, and says how many entries there are, so that
//! a kill at any time loses work and nothing else, and what is lost otherwise is missed. No file is read before its checksum
//! was looked at. An index that does not fit the store, or that cannot be read, is thrown away and made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use peer_core::step::Search;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::search::HitKind;
use sha2::{Digest, Sha256};
use tantivy::collector::TopDocs;
use tantivy::columnar::Column;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{
    BooleanQuery, ConstScoreQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery, Query, RangeQuery, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption, Value};
use tantivy::{
    Directory as _, DocAddress, IndexReader, IndexSettings, IndexWriter, Order, ReloadPolicy, Searcher, SegmentReader,
    TantivyDocument, TantivyError, Term,
};
use thiserror::Error;

use super::entry::{DIRECT, Fields, KEPT_FROM_ALL, KEPT_FROM_SOME, key_of, schema};
use super::words::{self, Part};
use crate::store::{Reader, Reference, Snapshot, StoreError};

/// Raised when what is indexed changes, or what a word is: an index with another number is made anew.
const FORMAT: &str = "peerd-2";

/// Memory for what was indexed and is not on the disk yet: the least that tantivy takes.
const WRITER_BYTES: usize = 15_000_000;

/// Bytes of texts between two commits: what waits for tantivy's thread is not bounded otherwise.
const COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// As many pieces of about one size become one.
const MERGED_SEGMENTS_MIN: usize = 4;

/// What one snapshot is held for.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 1024 * 1024;

/// Words that a beginning within a phrase can stand for.
const EXPANSIONS_MAX: u32 = 1_000;

/// How far the store is indexed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// All messages up to this one.
    message: Option<MessageId>,
    /// All rows of what had to be looked at again, up to this number.
    row: u64,
    /// Notes and tasks that were there when it was begun.
    things: bool,
    /// How many entries there are.
    entries: u64,
}

/// An open index.
pub struct Index {
    index: tantivy::Index,
    searching: IndexReader,
    /// Of each segment that is searched: what an entry is read from.
    columns: Vec<Columns>,
    /// Opened when there is something to write.
    writing: Option<IndexWriter>,
    fields: Fields,
    /// What was handed to the writer, committed or not.
    cursor: Cursor,
    uncommitted_bytes: usize,
    committed: Cursor,
    /// What was looked at again since the last commit, by its key: whether there is an entry of it now.
    looked_at: BTreeMap<String, bool>,
    /// Messages were added since the last commit.
    added: bool,
}

/// What is in a directory.
pub enum Looked {
    /// No index, or one of another store or another format.
    None,
    /// An index of which so many files are not what was written.
    Damaged(u64),
    /// An index that fits the store.
    Sound(Box<Index>),
}

/// Columns of one segment.
struct Columns {
    kind: Column<u64>,
    at: Column<u64>,
    number: Column<u64>,
}

/// What a catching-up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// Everything that the store held is indexed.
    Whole,
    /// It was told to stop before.
    Part,
}

/// What was found: keys in order, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) references: Vec<Reference>,
    pub(super) total: u64,
}

impl Index {
    /// Opens the index in `dir`, or begins a new one where there is none, where it is not of this store, or where it
    /// cannot be read.
    ///
    /// # Errors
    /// Where the directory cannot be written, or the store cannot be read.
    pub fn open(dir: &Path, store: &Snapshot) -> Result<Self, IndexError> {
        match Self::look(dir, store) {
            Ok(Looked::Sound(index)) => return Ok(*index),
            Ok(Looked::None) => {}
            Ok(Looked::Damaged(files)) => tracing::warn!(files, "the search index is damaged; it is made anew"),
            Err(IndexError::Store(error)) => return Err(error.into()),
            Err(error) => tracing::warn!(cause = %error, "the search index cannot be read; it is made anew"),
        }
        Self::create(dir)
    }

    /// Throws away what is there and begins a new index.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn create(dir: &Path) -> Result<Self, IndexError> {
        let io = |source| IndexError::Directory { path: dir.into(), source };
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        make_private(dir).map_err(io)?;
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let index = tantivy::Index::builder().schema(schema().0).settings(settings).create_in_dir(dir)?;
        Self::with(index, Cursor::default())
    }

    /// Opens the index in `dir` for looking alone, after every file's checksum was looked at: the library trusts what it
    /// reads, and answers wrongly or ends the process where it is wrong.
    ///
    /// # Errors
    /// Where the directory or the store cannot be read.
    pub fn look(dir: &Path, store: &Snapshot) -> Result<Looked, IndexError> {
        match std::fs::metadata(dir.join("meta.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Looked::None),
            Err(source) => return Err(IndexError::Directory { path: dir.into(), source }),
            Ok(_) => {}
        }
        // What cannot be parsed is damaged as well. The file has no checksum: what matters in it is compared below.
        let Ok(index) = tantivy::Index::open_in_dir(dir) else { return Ok(Looked::Damaged(1)) };
        let Ok(metas) = index.load_metas() else { return Ok(Looked::Damaged(1)) };
        let Some(payload) = metas.payload.as_deref().filter(|payload| payload.starts_with(FORMAT)) else {
            return Ok(Looked::None);
        };
        let Some(cursor) = Cursor::parse(payload) else { return Ok(Looked::Damaged(1)) };
        let fits = match cursor.message {
            Some(id) => store.message(id)?.is_some(),
            None => true,
        };
        let unbroken = match store.reindex_bounds()? {
            Some((first, last)) => first <= cursor.row + 1 && cursor.row <= last,
            None => cursor.row == 0,
        };
        if !fits || !unbroken || index.schema() != schema().0 {
            return Ok(Looked::None);
        }
        let damaged = damaged_files(&index)?;
        if damaged > 0 {
            return Ok(Looked::Damaged(damaged));
        }
        match Self::with(index, cursor) {
            Ok(index) if index.entries() == cursor.entries => Ok(Looked::Sound(Box::new(index))),
            Ok(_) | Err(IndexError::Index(_)) => Ok(Looked::Damaged(1)),
            Err(error) => Err(error),
        }
    }

    fn with(mut index: tantivy::Index, cursor: Cursor) -> Result<Self, IndexError> {
        index.tokenizers().register("words", words::analyzer());
        // One thread searches: an executor of several would start them all.
        index.set_executor(tantivy::Executor::single_thread());
        // Watching for commits of others would look at the directory twice a second.
        let searching = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let fields = schema().1;
        let columns = columns(&searching)?;
        Ok(Self {
            index,
            searching,
            columns,
            writing: None,
            fields,
            cursor,
            uncommitted_bytes: 0,
            committed: cursor,
            looked_at: BTreeMap::new(),
            added: false,
        })
    }

    /// Up to which row the store need not keep what was to be looked at again.
    #[must_use]
    pub fn seen_row(&self) -> u64 {
        self.committed.row
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.searching.searcher().num_docs()
    }

    /// Indexes what the store has and the index has not. `stop` is asked now and then.
    ///
    /// # Errors
    /// [`IndexError::Behind`] where the index must be made anew; or the index cannot be written, or the store not be read.
    pub fn catch_up(&mut self, store: &Reader, mut stop: impl FnMut() -> bool) -> Result<CaughtUp, IndexError> {
        loop {
            let more = self.batch(&store.snapshot()?)?;
            let stopped = more && stop();
            if !more || stopped || self.uncommitted_bytes >= COMMIT_BYTES {
                self.commit()?;
            }
            match (more, stopped) {
                (false, _) => return Ok(CaughtUp::Whole),
                (_, true) => return Ok(CaughtUp::Part),
                _ => {}
            }
        }
    }

    /// One batch of work; says whether there was any.
    fn batch(&mut self, store: &Snapshot) -> Result<bool, IndexError> {
        if !self.cursor.things {
            self.cursor.row = store.reindex_bounds()?.map_or(0, |(_, last)| last);
            store.things(|reference| self.look_at(store, &reference))?;
            self.cursor.things = true;
            return Ok(true);
        }
        if store.reindex_bounds()?.is_some_and(|(first, _)| first > self.cursor.row + 1) {
            return Err(IndexError::Behind);
        }
        let rows = store.reindex_after(self.cursor.row, BATCH_ROWS)?;
        if self.added && !rows.is_empty() {
            // Whether there is an entry of what is looked at again is asked of what was committed.
            self.commit()?;
        }
        for (number, reference) in &rows {
            match reference {
                // Its turn comes, and it is seen as it is then.
                Some(Reference::Message(id)) if Some(*id) > self.cursor.message => {}
                Some(reference) => self.look_at(store, reference)?,
                // Written by a newer broker.
                None => {}
            }
            self.cursor.row = *number;
        }
        let mut messages = Vec::new();
        let mut bytes = 0;
        store.messages_after(self.cursor.message, |message| {
            bytes += message.text.len();
            messages.push(message);
            if messages.len() >= BATCH_ROWS || bytes >= BATCH_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for message in &messages {
            let entry = self.fields.message(message, &store.deliveries(message.head.id)?);
            self.add(entry, message.text.len())?;
            self.added = true;
            self.cursor.message = Some(message.head.id);
        }
        Ok(!rows.is_empty() || !messages.is_empty())
    }

    /// Indexes one thing as it is now, in place of what it was.
    fn look_at(&mut self, store: &Snapshot, reference: &Reference) -> Result<(), IndexError> {
        let key = key_of(reference);
        let was_there = match self.looked_at.get(&key) {
            Some(there) => *there,
            None => self.exactly(self.fields.key, &key).count(&self.searching.searcher())? > 0,
        };
        let term = Term::from_field_text(self.fields.key, &key);
        self.writer()?.delete_term(term);
        self.cursor.entries -= u64::from(was_there);
        let entry = match reference {
            Reference::Message(id) => match store.message(*id)? {
                Some(message) => Some((self.fields.message(&message, &store.deliveries(*id)?), message.text.len())),
                None => None,
            },
            Reference::Note(key) => store.note(key)?.map(|note| (self.fields.note_entry(&note), note.value.len())),
            Reference::Task(id) => {
                store.task(*id)?.map(|task| (self.fields.task(&task), task.description.len() + task.result.len()))
            }
        };
        self.looked_at.insert(key, entry.is_some());
        match entry {
            Some((entry, bytes)) => self.add(entry, bytes),
            None => Ok(()),
        }
    }

    fn writer(&mut self) -> Result<&mut IndexWriter, IndexError> {
        match &mut self.writing {
            Some(writer) => Ok(writer),
            closed => {
                let options = IndexWriterOptions::builder()
                    .num_worker_threads(1)
                    .num_merge_threads(1)
                    .memory_budget_per_thread(WRITER_BYTES)
                    .build();
                let writer: IndexWriter = self.index.writer_with_options(options)?;
                // Every piece of the index costs every search: fewer are worth more merging, which nobody waits for.
                let mut policy = LogMergePolicy::default();
                policy.set_min_num_segments(MERGED_SEGMENTS_MIN);
                writer.set_merge_policy(Box::new(policy));
                Ok(closed.insert(writer))
            }
        }
    }

    fn add(&mut self, entry: TantivyDocument, bytes: usize) -> Result<(), IndexError> {
        // An entry takes some memory whatever it says.
        self.uncommitted_bytes += bytes + 64;
        self.writer()?.add_document(entry)?;
        self.cursor.entries += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), IndexError> {
        if self.cursor == self.committed {
            return Ok(());
        }
        let payload = self.cursor.to_string();
        let mut prepared = self.writer()?.prepare_commit()?;
        prepared.set_payload(&payload);
        prepared.commit()?;
        // Only then is it what a search sees: whoever fails in between opens the index anew.
        self.reload()?;
        let found = self.entries();
        if found != self.cursor.entries {
            return Err(IndexError::Lost { expected: self.cursor.entries, found });
        }
        self.committed = self.cursor;
        self.uncommitted_bytes = 0;
        self.looked_at.clear();
        self.added = false;
        Ok(())
    }

    fn reload(&mut self) -> Result<(), IndexError> {
        self.searching.reload()?;
        self.columns = columns(&self.searching)?;
        Ok(())
    }

    /// Waits until what was committed is in as few pieces as it shall be, for measurements.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn settle(&mut self) -> Result<(), IndexError> {
        if let Some(writer) = self.writing.take() {
            writer.wait_merging_threads()?;
        }
        self.reload()
    }

    /// Checks the index against the store: every file's checksum, and one entry for each thing that it has seen.
    ///
    /// # Errors
    /// Where the index or the store cannot be read.
    pub fn check(&self, store: &Snapshot) -> Result<IndexReport, IndexError> {
        let searcher = self.searching.searcher();
        let damaged_files = damaged_files(&self.index)?;
        let mut report = IndexReport { damaged_files, entries: searcher.num_docs(), ..IndexReport::default() };
        let changed = store.reindex_after(self.cursor.row, usize::MAX)?.into_iter().filter_map(|(_, reference)| reference);
        let mut changed: BTreeSet<String> = changed.map(|reference| key_of(&reference)).collect();
        let mut accounted = 0;
        let mut look = |report: &mut IndexReport, key: String, seen: bool| -> Result<(), IndexError> {
            let query = TermQuery::new(Term::from_field_text(self.fields.key, &key), IndexRecordOption::Basic);
            let count = query.count(&searcher)? as u64;
            accounted += count;
            match seen && !changed.remove(&key) {
                true => report.missing += u64::from(count != 1),
                false => report.behind += 1,
            }
            Ok(())
        };
        store.things(|reference| look(&mut report, key_of(&reference), true))?;
        let mut last = None;
        loop {
            let mut ids = Vec::new();
            store.messages_after(last, |message| {
                ids.push(message.head.id);
                if ids.len() >= BATCH_ROWS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let Some(newest) = ids.last() else { break };
            last = Some(*newest);
            for id in ids {
                look(&mut report, id.to_string(), Some(id) <= self.cursor.message)?;
            }
        }
        // What is gone from the store and not yet from the index.
        for key in std::mem::take(&mut changed) {
            let query = TermQuery::new(Term::from_field_text(self.fields.key, &key), IndexRecordOption::Basic);
            accounted += query.count(&searcher)? as u64;
            report.behind += 1;
        }
        report.left_over = report.entries.saturating_sub(accounted);
        Ok(report)
    }

    /// What is found for `parts`, among what the search may find.
    pub(super) fn find(&self, search: &Search, parts: &[Part]) -> Result<Found, IndexError> {
        if parts.is_empty() {
            return Ok(Found::default());
        }
        let asked = &search.query;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> =
            parts.iter().map(|part| (Occur::Must, self.part_query(part))).chain(self.filters(search)).collect();
        // One clause by itself is what tantivy answers quickest.
        let query = match clauses.pop() {
            Some((Occur::Must, only)) if clauses.is_empty() => only,
            last => Box::new(BooleanQuery::new(clauses.into_iter().chain(last).collect())),
        };
        let searcher = self.searching.searcher();
        let top = TopDocs::with_limit((asked.limit as usize).max(1)).and_offset(asked.offset as usize);
        // Beginnings have no rank: all that matches matches alike.
        let unranked = parts.iter().all(|part| part.open && part.words.len() == 1);
        let addresses: Vec<DocAddress> = if asked.newest || unranked {
            let found = searcher.search(&query, &top.order_by_fast_field::<u64>("at", Order::Desc))?;
            found.into_iter().map(|(_, address)| address).collect()
        } else {
            let found = searcher.search(&query, &top.order_by_score())?;
            found.into_iter().map(|(_, address)| address).collect()
        };
        // Where the page is not full, the end was seen.
        let seen = u64::from(asked.offset) + addresses.len() as u64;
        let ended = addresses.len() < asked.limit as usize && (asked.offset == 0 || !addresses.is_empty());
        let total = if ended { seen } else { query.count(&searcher)? as u64 };
        let mut references = Vec::with_capacity(addresses.len());
        for address in addresses {
            references.extend(self.reference(&searcher, address)?);
        }
        Ok(Found { references, total })
    }

    /// What an entry stands for.
    fn reference(&self, searcher: &Searcher, address: DocAddress) -> Result<Option<Reference>, IndexError> {
        let Some(columns) = self.columns.get(address.segment_ord as usize) else { return Ok(None) };
        let read = |column: &Column<u64>| column.first(address.doc_id).unwrap_or(0);
        let kind = read(&columns.kind);
        if kind == HitKind::Task as u64 {
            return Ok(Some(Reference::Task(TaskId(read(&columns.number)))));
        }
        if kind == HitKind::Note as u64 {
            let entry: TantivyDocument = searcher.doc(address)?;
            let key = entry.get_first(self.fields.note).and_then(|value| value.as_str().map(str::to_owned));
            return Ok(key.map(Reference::Note));
        }
        let id = u128::from(read(&columns.at)) << 32 | u128::from(read(&columns.number));
        Ok(MessageId::try_from(id).ok().map(Reference::Message))
    }

    fn part_query(&self, part: &Part) -> Box<dyn Query> {
        let terms: Vec<Term> = part.words.iter().map(|word| Term::from_field_text(self.fields.text, word)).collect();
        let words: Box<dyn Query> = match (terms.as_slice(), part.open) {
            ([only], false) => Box::new(TermQuery::new(only.clone(), IndexRecordOption::WithFreqs)),
            ([only], true) => {
                // No word has a byte of that value, so all that begin so stand before it.
                let mut end = Term::from_field_text(self.fields.text, &part.words[0]);
                end.append_bytes(&[0xff]);
                Box::new(InvertedIndexRangeQuery::new(Bound::Included(only.clone()), Bound::Excluded(end)))
            }
            (_, false) => Box::new(PhraseQuery::new(terms)),
            (_, true) => {
                let mut query = PhrasePrefixQuery::new(terms);
                query.set_max_expansions(EXPANSIONS_MAX);
                Box::new(query)
            }
        };
        let id = part.typed.parse::<MessageId>().map(|id| id.to_string()).ok();
        match id.or_else(|| part.typed.parse::<TaskId>().map(|id| id.to_string()).ok()) {
            Some(id) => Box::new(BooleanQuery::union(vec![words, self.exactly(self.fields.key, &id)])),
            None => words,
        }
    }

    /// What a search leaves out, whatever its words are.
    fn filters(&self, search: &Search) -> Vec<(Occur, Box<dyn Query>)> {
        let (fields, asked) = (self.fields, &search.query);
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        let mut must = |query: Box<dyn Query>| clauses.push((Occur::Must, Box::new(ConstScoreQuery::new(query, 0.0))));
        let any = |queries: Vec<Box<dyn Query>>| -> Box<dyn Query> { Box::new(BooleanQuery::union(queries)) };
        if let Some(seen_by) = &search.seen_by {
            let mut ways = self.one_of(fields.party, seen_by);
            let said_in = |(channel, began_at): &(String, Timestamp)| self.said_in(channel, *began_at);
            let as_member: Vec<_> = search.channels.iter().map(said_in).collect();
            let mut as_anybody: Vec<_> = search.open_channels.iter().map(said_in).collect();
            as_anybody.extend(search.direct.then(|| self.said_directly()));
            for (found, kept) in [(as_member, KEPT_FROM_ALL), (as_anybody, KEPT_FROM_SOME)] {
                if !found.is_empty() {
                    let kept = self.number(fields.kept, kept);
                    ways.push(Box::new(BooleanQuery::new(vec![(Occur::Must, any(found)), (Occur::MustNot, kept)])));
                }
            }
            ways.extend([HitKind::Note, HitKind::Task].map(|kind| self.number(fields.kind, kind as u64)));
            must(any(ways));
        }
        if asked.peer.is_some() {
            must(any(self.one_of(fields.party, &search.peers)));
        }
        if !asked.kinds.is_empty() {
            must(any(asked.kinds.iter().map(|kind| self.number(fields.kind, *kind as u64)).collect()));
        }
        if let Some(channel) = &asked.channel {
            must(self.exactly(fields.channel, channel));
        }
        if let Some(thread) = &asked.thread {
            must(self.exactly(fields.thread, thread));
        }
        if let Some(since) = asked.since {
            must(self.since(since));
        }
        if let Some(own) = search.seen_by.as_ref().filter(|own| !own.is_empty()) {
            let kept = BooleanQuery::new(vec![
                (Occur::Must, any(self.one_of(fields.kept, own))),
                (Occur::MustNot, any(self.one_of(fields.from, own))),
            ]);
            clauses.push((Occur::MustNot, Box::new(kept)));
        }
        clauses
    }

    fn one_of(&self, field: Field, peers: &[PeerId]) -> Vec<Box<dyn Query>> {
        peers.iter().map(|peer| self.number(field, peer.0)).collect()
    }

    /// What was said in a channel since there is this one of that name.
    fn said_in(&self, channel: &str, began_at: Timestamp) -> Box<dyn Query> {
        Box::new(BooleanQuery::intersection(vec![self.exactly(self.fields.channel, channel), self.since(began_at)]))
    }

    /// What was said in no channel. An answer may be one to a question of a private channel: it is for its ends alone.
    fn said_directly(&self) -> Box<dyn Query> {
        let direct = self.exactly(self.fields.channel, DIRECT);
        let answer = self.number(self.fields.kind, HitKind::Answer as u64);
        Box::new(BooleanQuery::new(vec![(Occur::Must, direct), (Occur::MustNot, answer)]))
    }

    fn since(&self, at: Timestamp) -> Box<dyn Query> {
        Box::new(RangeQuery::new(Bound::Included(Term::from_field_u64(self.fields.at, at.0)), Bound::Unbounded))
    }

    fn number(&self, field: Field, number: u64) -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_u64(field, number), IndexRecordOption::Basic))
    }

    fn exactly(&self, field: Field, text: &str) -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_text(field, text), IndexRecordOption::Basic))
    }
}

/// What a check of the index found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Files that are not what was written.
    pub damaged_files: u64,
    /// Entries that can be found.
    pub entries: u64,
    /// What changed since: it is indexed with the next search, or when the broker is idle.
    pub behind: u64,
    /// Things of the store that are not there once.
    pub missing: u64,
    /// Entries of things that are not in the store.
    pub left_over: u64,
}

impl IndexReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged_files == 0 && self.missing == 0 && self.left_over == 0
    }
}

/// How many files of the index are not what was written. The library's own check leaves out what is missing in its list of
/// files, which has no checksum.
fn damaged_files(index: &tantivy::Index) -> Result<u64, IndexError> {
    let directory = index.directory();
    let mut damaged = 0;
    for file in index.load_metas()?.list_segment_files() {
        // Not every segment has a file of every kind. One that is needed and not there shows when the index is opened.
        let there = directory.exists(&file).map_err(TantivyError::from)?;
        damaged += u64::from(there && !directory.validate_checksum(&file).unwrap_or(false));
    }
    Ok(damaged)
}

fn columns(searching: &IndexReader) -> Result<Vec<Columns>, IndexError> {
    let open = |segment: &SegmentReader| -> Result<Columns, TantivyError> {
        // One that no entry of the segment has, such as where all are notes, is as good as empty.
        let column = |name: &str| Ok::<_, TantivyError>(segment.fast_fields().u64_lenient(name)?.map(|(column, _)| column));
        let empty = || Column::build_empty_column(segment.max_doc());
        Ok(Columns {
            kind: column("kind")?.unwrap_or_else(empty),
            at: column("at")?.unwrap_or_else(empty),
            number: column("number")?.unwrap_or_else(empty),
        })
    };
    Ok(searching.searcher().segment_readers().iter().map(open).collect::<Result<_, _>>()?)
}

/// A directory that nobody else can read.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// Bytes of the checksum behind a cursor.
const SUM_BYTES: usize = 8;

fn sum(text: &str) -> String {
    Sha256::digest(text)[..SUM_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = self.message.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let text = format!("{FORMAT} {message} {} {}", self.row, self.entries);
        write!(f, "{text} {}", sum(&text))
    }
}

impl Cursor {
    fn parse(payload: &str) -> Option<Self> {
        let (text, said) = payload.rsplit_once(' ')?;
        let mut words = text.strip_prefix(FORMAT)?.split_whitespace();
        let message = match words.next()? {
            "-" => None,
            id => Some(id.parse().ok()?),
        };
        let cursor = Self { message, row: words.next()?.parse().ok()?, things: true, entries: words.next()?.parse().ok()? };
        (said == sum(text)).then_some(cursor)
    }
}

/// Why the index could not do what it was asked.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The index itself.
    #[error("cannot use the search index; it is made anew when it is thrown away")]
    Index(#[from] TantivyError),
    /// Its directory.
    #[error("cannot use the search index in {}; see the disk and who may write there", path.display())]
    Directory {
        /// Where it is.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Entries that were handed over are not there.
    #[error("the search index has {found} entries in place of {expected}, and is made anew")]
    Lost {
        /// What was handed over.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The store no longer knows what the index has missed.
    #[error("the search index is too far behind, and is made anew")]
    Behind,
    /// What is indexed cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
