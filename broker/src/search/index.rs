//! The index: the words of messages, notes and tasks, in a directory that can be deleted at any
//! time.
//!
//! Only this file and `words` use tantivy. Knows the indexed fields, and how to run a search that
//! the rules permitted. Does not know who searches, nor the store. A hit is an id or a key.
//!
//! Invariants: the cursor is in the same commit as the entries up to it, and states how many
//! entries there are. So a kill at any time loses only work, and any other loss is detected. No
//! file is read before its checksum was checked. An index that cannot be read is deleted and
//! rebuilt.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use peer_core::step::Search;
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::search::HitKind;
use sha2::{Digest, Sha256};
use tantivy::collector::TopDocs;
use tantivy::columnar::Column;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{
    BooleanQuery, ConstScoreQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery,
    Query, RangeQuery, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption, Value};
use tantivy::{
    Directory as _, DocAddress, IndexReader, IndexSettings, IndexWriter, Order, ReloadPolicy,
    Searcher, SegmentReader, TantivyDocument, TantivyError, Term,
};
use thiserror::Error;

use super::entry::{DIRECT, Fields, KEPT_FROM_ALL, KEPT_FROM_SOME, key_of, schema};
use super::wire::{Cursor, Put, SearchHits};
use super::words::{self, Part};
use crate::store::{Reference, StoreError};

/// Incremented when the indexed fields or the definition of a word change. An index with another
/// number is rebuilt.
const FORMAT: &str = "peerd-4";

/// Memory for entries that are not on the disk yet: the least that tantivy accepts.
const WRITER_BYTES: usize = 15_000_000;

/// Bytes of texts between two commits. Nothing else bounds what waits for tantivy's thread.
pub(super) const COMMIT_BYTES: usize = 8 * 1024 * 1024;

/// The number of segments of about one size that are merged into one.
const MERGED_SEGMENTS_MIN: usize = 4;

/// Words that a prefix within a phrase can stand for.
const EXPANSIONS_MAX: u32 = 1_000;

pub(super) struct Index {
    index: tantivy::Index,
    searching: IndexReader,
    views: Views,
    /// Opened when there is something to write.
    writing: Option<IndexWriter>,
    fields: Fields,
    committed: Cursor,
    /// The position after the last whole batch that the writer got.
    handed: Cursor,
    /// The number of entries, including those that the writer got.
    entries: u64,
    /// Whether the writer got anything since the last commit.
    touched: bool,
    /// Entries that were updated since the last commit, by key: whether each exists now.
    looked_at: BTreeMap<String, bool>,
    /// Whether anything new was added since the last commit.
    added: bool,
}

/// The result of opening a directory.
pub(super) enum Looked {
    /// No index, or one of another format.
    None,
    /// An index with this number of damaged files.
    Damaged(u64),
    /// An index that can be read.
    Sound(Box<Index>),
}

/// The committed entries, for searches during the next write.
pub(super) struct View {
    searcher: Searcher,
    /// The columns of each segment from which an entry is read.
    columns: Vec<Columns>,
    fields: Fields,
}

/// The newest view of an index.
#[derive(Clone)]
pub(super) struct Views(Arc<RwLock<Arc<View>>>);

impl Views {
    /// Returns the view of the last commit.
    pub(super) fn current(&self) -> Arc<View> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, view: View) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

/// Columns of one segment.
struct Columns {
    kind: Column<u64>,
    at: Column<u64>,
    number: Column<u64>,
}

impl Index {
    /// Empties `dir`, which must exist, and creates a new index.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(super) fn create(dir: &Path) -> Result<Self, IndexError> {
        empty(dir).map_err(|source| IndexError::Directory { path: dir.into(), source })?;
        let settings =
            IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let index =
            tantivy::Index::builder().schema(schema().0).settings(settings).create_in_dir(dir)?;
        Self::with(index, Cursor::default(), 0)
    }

    /// Opens the index in `dir` for reading, after the checksum of every file was checked. The
    /// library trusts its files: on a wrong byte it returns wrong hits or ends the process.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn open_dir(dir: &Path) -> Result<Looked, IndexError> {
        match std::fs::metadata(dir.join("meta.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Looked::None),
            Err(source) => return Err(IndexError::Directory { path: dir.into(), source }),
            Ok(_) => {}
        }
        // A file that cannot be parsed is damaged as well. It has no checksum, and its relevant
        // content is compared below.
        let Ok(index) = tantivy::Index::open_in_dir(dir) else { return Ok(Looked::Damaged(1)) };
        let Ok(metas) = index.load_metas() else { return Ok(Looked::Damaged(1)) };
        let Some(payload) = metas.payload.as_deref().filter(|payload| payload.starts_with(FORMAT))
        else {
            return Ok(Looked::None);
        };
        let Some((cursor, entries)) = parsed(payload) else { return Ok(Looked::Damaged(1)) };
        if index.schema() != schema().0 {
            return Ok(Looked::None);
        }
        let damaged = damaged_files(&index)?;
        if damaged > 0 {
            return Ok(Looked::Damaged(damaged));
        }
        match Self::with(index, cursor, entries) {
            Ok(index) if index.searching.searcher().num_docs() == entries => {
                Ok(Looked::Sound(Box::new(index)))
            }
            Ok(_) | Err(IndexError::Index(_)) => Ok(Looked::Damaged(1)),
            Err(error) => Err(error),
        }
    }

    fn with(
        mut index: tantivy::Index,
        committed: Cursor,
        entries: u64,
    ) -> Result<Self, IndexError> {
        index.tokenizers().register("words", words::analyzer());
        // One thread searches. An executor with several threads would start them all.
        index.set_executor(tantivy::Executor::single_thread());
        // Watching for commits of other processes would read the directory twice a second.
        let searching: IndexReader =
            index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let views = Views(Arc::new(RwLock::new(Arc::new(view(&searching)?))));
        Ok(Self {
            index,
            searching,
            views,
            writing: None,
            fields: schema().1,
            committed,
            handed: committed,
            entries,
            touched: false,
            looked_at: BTreeMap::new(),
            added: false,
        })
    }

    /// Returns the views of this and later commits.
    pub(super) fn views(&self) -> Views {
        self.views.clone()
    }

    /// Returns the durable position.
    pub(super) fn cursor(&self) -> Cursor {
        self.committed
    }

    /// Returns the number of entries.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Indexes one item in its current state, in place of its old entry. In a batch, updates come
    /// before new items.
    ///
    /// # Errors
    /// If the index cannot be written. Then it must be opened again.
    pub(super) fn put(&mut self, put: &Put) -> Result<(), IndexError> {
        self.touched = true;
        if !put.fresh {
            let key = key_of(&put.reference);
            if self.added {
                // Whether an entry exists is read from the last commit. Updates come first in a
                // batch.
                self.commit()?;
            }
            let was_there = match self.looked_at.get(&key) {
                Some(there) => *there,
                None => self.views.current().count(&key)? > 0,
            };
            let term = Term::from_field_text(self.fields.key, &key);
            self.writer()?.delete_term(term);
            self.entries -= u64::from(was_there);
            self.looked_at.insert(key, put.entry.is_some());
        }
        let Some(entry) = &put.entry else { return Ok(()) };
        self.added |= put.fresh;
        let entry = self.fields.entry(entry);
        self.writer()?.add_document(entry)?;
        self.entries += 1;
        Ok(())
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
                // Each segment costs every search. So more merging is worth it, and nobody waits
                // for it.
                let mut policy = LogMergePolicy::default();
                policy.set_min_num_segments(MERGED_SEGMENTS_MIN);
                writer.set_merge_policy(Box::new(policy));
                Ok(closed.insert(writer))
            }
        }
    }

    /// Marks the entries since the last call as a whole batch, which ends at `cursor`.
    pub(super) fn through(&mut self, cursor: Cursor) {
        self.handed = cursor;
    }

    /// Makes whole batches durable and searchable.
    ///
    /// # Errors
    /// If the index cannot be written, or lost entries. Then it must be opened again.
    pub(super) fn commit(&mut self) -> Result<(), IndexError> {
        if !self.touched && self.handed == self.committed {
            return Ok(());
        }
        let payload = payload(self.handed, self.entries);
        let mut prepared = self.writer()?.prepare_commit()?;
        prepared.set_payload(&payload);
        prepared.commit()?;
        self.reload()?;
        let found = self.searching.searcher().num_docs();
        if found != self.entries {
            return Err(IndexError::Lost { expected: self.entries, found });
        }
        self.committed = self.handed;
        self.looked_at.clear();
        (self.touched, self.added) = (false, false);
        Ok(())
    }

    fn reload(&mut self) -> Result<(), IndexError> {
        self.searching.reload()?;
        self.views.set(view(&self.searching)?);
        Ok(())
    }

    /// Waits until the commits are merged into as few segments as intended, for measurements.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub(super) fn merge(&mut self) -> Result<(), IndexError> {
        if let Some(writer) = self.writing.take() {
            writer.wait_merging_threads()?;
        }
        self.reload()
    }
}

impl View {
    /// Returns how many entries have a key.
    pub(super) fn count(&self, key: &str) -> Result<u64, IndexError> {
        Ok(self.exactly(self.fields.key, key).count(&self.searcher)? as u64)
    }

    /// Runs a search for `parts` among the entries that it may find.
    pub(super) fn find(&self, search: &Search, parts: &[Part]) -> Result<SearchHits, IndexError> {
        if parts.is_empty() {
            return Ok(SearchHits::default());
        }
        let asked = &search.query;
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = parts
            .iter()
            .map(|part| (Occur::Must, self.part_query(part)))
            .chain(self.filters(search))
            .collect();
        // A single clause is fastest in tantivy.
        let query = match clauses.pop() {
            Some((Occur::Must, only)) if clauses.is_empty() => only,
            last => Box::new(BooleanQuery::new(clauses.into_iter().chain(last).collect())),
        };
        let searcher = &self.searcher;
        let top =
            TopDocs::with_limit((asked.limit as usize).max(1)).and_offset(asked.offset as usize);
        // Prefixes have no rank: all matches are equal.
        let unranked = parts.iter().all(|part| part.open && part.words.len() == 1);
        let addresses: Vec<DocAddress> = if asked.newest || unranked {
            let found =
                searcher.search(&query, &top.order_by_fast_field::<u64>("at", Order::Desc))?;
            found.into_iter().map(|(_, address)| address).collect()
        } else {
            let found = searcher.search(&query, &top.order_by_score())?;
            found.into_iter().map(|(_, address)| address).collect()
        };
        // If the page is not full, the end was reached.
        let seen = u64::from(asked.offset) + addresses.len() as u64;
        let ended =
            addresses.len() < asked.limit as usize && (asked.offset == 0 || !addresses.is_empty());
        let total = if ended { seen } else { query.count(searcher)? as u64 };
        let mut references = Vec::with_capacity(addresses.len());
        for address in addresses {
            references.extend(self.reference(address)?);
        }
        Ok(SearchHits { references, total })
    }

    /// Returns the item of an entry.
    fn reference(&self, address: DocAddress) -> Result<Option<Reference>, IndexError> {
        let Some(columns) = self.columns.get(address.segment_ord as usize) else { return Ok(None) };
        let read = |column: &Column<u64>| column.first(address.doc_id).unwrap_or(0);
        let kind = read(&columns.kind);
        if kind == HitKind::Task as u64 {
            return Ok(Some(Reference::Task(TaskId(read(&columns.number)))));
        }
        if kind == HitKind::Note as u64 {
            let entry: TantivyDocument = self.searcher.doc(address)?;
            let key = entry
                .get_first(self.fields.note)
                .and_then(|value| value.as_str().map(str::to_owned));
            return Ok(key.map(Reference::Note));
        }
        let id = u128::from(read(&columns.at)) << 32 | u128::from(read(&columns.number));
        Ok(MessageId::try_from(id).ok().map(Reference::Message))
    }

    fn part_query(&self, part: &Part) -> Box<dyn Query> {
        let terms: Vec<Term> =
            part.words.iter().map(|word| Term::from_field_text(self.fields.text, word)).collect();
        let words: Box<dyn Query> = match (terms.as_slice(), part.open) {
            ([only], false) => Box::new(TermQuery::new(only.clone(), IndexRecordOption::WithFreqs)),
            ([only], true) => {
                // No word has a byte of that value, so all words with this prefix sort before it.
                let mut end = Term::from_field_text(self.fields.text, &part.words[0]);
                end.append_bytes(&[0xff]);
                Box::new(InvertedIndexRangeQuery::new(
                    Bound::Included(only.clone()),
                    Bound::Excluded(end),
                ))
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
            Some(id) => {
                Box::new(BooleanQuery::union(vec![words, self.exactly(self.fields.key, &id)]))
            }
            None => words,
        }
    }

    /// Returns the clauses that limit what the search may find, whatever its words are.
    fn filters(&self, search: &Search) -> Vec<(Occur, Box<dyn Query>)> {
        let (fields, asked) = (self.fields, &search.query);
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        let mut must = |query: Box<dyn Query>| {
            clauses.push((Occur::Must, Box::new(ConstScoreQuery::new(query, 0.0))))
        };
        let any = |queries: Vec<Box<dyn Query>>| -> Box<dyn Query> {
            Box::new(BooleanQuery::union(queries))
        };
        if let Some(seen_by) = &search.seen_by {
            let mut ways = self.one_of(fields.party, seen_by);
            let said_in =
                |(channel, began_at): &(String, Timestamp)| self.said_in(channel, *began_at);
            let as_member: Vec<_> = search.channels.iter().map(said_in).collect();
            let mut as_anybody: Vec<_> = search.open_channels.iter().map(said_in).collect();
            as_anybody.extend(search.direct.then(|| self.said_directly()));
            for (found, kept) in [(as_member, KEPT_FROM_ALL), (as_anybody, KEPT_FROM_SOME)] {
                if !found.is_empty() {
                    let kept = self.number(fields.kept, kept);
                    ways.push(Box::new(BooleanQuery::new(vec![
                        (Occur::Must, any(found)),
                        (Occur::MustNot, kept),
                    ])));
                }
            }
            ways.extend(
                [HitKind::Note, HitKind::Task].map(|kind| self.number(fields.kind, kind as u64)),
            );
            must(any(ways));
        }
        if asked.peer.is_some() {
            must(any(self.one_of(fields.party, &search.peers)));
        }
        if !asked.kinds.is_empty() {
            must(any(asked
                .kinds
                .iter()
                .map(|kind| self.number(fields.kind, *kind as u64))
                .collect()));
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

    /// Matches posts to a channel since the channel of that name was created.
    fn said_in(&self, channel: &str, began_at: Timestamp) -> Box<dyn Query> {
        Box::new(BooleanQuery::intersection(vec![
            self.exactly(self.fields.channel, channel),
            self.since(began_at),
        ]))
    }

    /// Matches messages outside of channels that are not private.
    fn said_directly(&self) -> Box<dyn Query> {
        self.exactly(self.fields.channel, DIRECT)
    }

    fn since(&self, at: Timestamp) -> Box<dyn Query> {
        Box::new(RangeQuery::new(
            Bound::Included(Term::from_field_u64(self.fields.at, at.0)),
            Bound::Unbounded,
        ))
    }

    fn number(&self, field: Field, number: u64) -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_u64(field, number), IndexRecordOption::Basic))
    }

    fn exactly(&self, field: Field, text: &str) -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_text(field, text), IndexRecordOption::Basic))
    }
}

/// Counts the damaged files of the index. The library's own check skips files that are missing in
/// its list of files, which has no checksum.
fn damaged_files(index: &tantivy::Index) -> Result<u64, IndexError> {
    let directory = index.directory();
    let mut damaged = 0;
    for file in index.load_metas()?.list_segment_files() {
        // Not every segment has a file of every kind. If a needed one is missing, opening the index
        // fails.
        let there = directory.exists(&file).map_err(TantivyError::from)?;
        damaged += u64::from(there && !directory.validate_checksum(&file).unwrap_or(false));
    }
    Ok(damaged)
}

/// Deletes everything in a directory but the lock of the process that has it.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn view(searching: &IndexReader) -> Result<View, IndexError> {
    let open = |segment: &SegmentReader| -> Result<Columns, TantivyError> {
        // A column without any entry in the segment, as when all are notes, is treated as empty.
        let column = |name: &str| {
            Ok::<_, TantivyError>(
                segment.fast_fields().u64_lenient(name)?.map(|(column, _)| column),
            )
        };
        let empty = || Column::build_empty_column(segment.max_doc());
        Ok(Columns {
            kind: column("kind")?.unwrap_or_else(empty),
            at: column("at")?.unwrap_or_else(empty),
            number: column("number")?.unwrap_or_else(empty),
        })
    };
    let searcher = searching.searcher();
    let columns = searcher.segment_readers().iter().map(open).collect::<Result<_, _>>()?;
    Ok(View { searcher, columns, fields: schema().1 })
}

/// Bytes of the checksum behind a cursor.
const SUM_BYTES: usize = 8;

fn sum(text: &str) -> String {
    Sha256::digest(text)[..SUM_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The payload of a commit: its position and its number of entries, with a checksum.
fn payload(cursor: Cursor, entries: u64) -> String {
    let message = cursor.message.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let text = format!("{FORMAT} {message} {} {} {entries}", cursor.row, u8::from(cursor.shared));
    format!("{text} {}", sum(&text))
}

fn parsed(payload: &str) -> Option<(Cursor, u64)> {
    let (text, said) = payload.rsplit_once(' ')?;
    let mut words = text.strip_prefix(FORMAT)?.split_whitespace();
    let message = match words.next()? {
        "-" => None,
        id => Some(id.parse().ok()?),
    };
    let cursor = Cursor { message, row: words.next()?.parse().ok()?, shared: words.next()? == "1" };
    let entries = words.next()?.parse().ok()?;
    (said == sum(text)).then_some((cursor, entries))
}

/// Locked by the process that has the index open. A process that was told to end may need a moment.
pub(super) const LOCK: &str = ".process.lock";

/// The reason why an index operation failed.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The index itself.
    #[error("cannot use the search index")]
    Index(#[from] TantivyError),
    /// Its directory.
    #[error("cannot use the search index in {}", path.display())]
    Directory {
        /// Where it is.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Entries that were handed over are missing.
    #[error("the search index has {found} entries instead of {expected}, and is rebuilt")]
    Lost {
        /// The number that was handed over.
        expected: u64,
        /// The number that exists.
        found: u64,
    },
    /// The store has deleted the changes that the index has missed.
    #[error("the search index is too far behind, and is rebuilt")]
    Behind,
    /// An item to index cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IndexError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Index(_) => {
                "delete the directory of the index; the broker then rebuilds it".to_owned()
            }
            Self::Directory { .. } => {
                "check the disk and the permissions of that directory".to_owned()
            }
            Self::Store(error) => error.hint(),
            Self::Lost { .. } | Self::Behind => String::new(),
        }
    }
}
