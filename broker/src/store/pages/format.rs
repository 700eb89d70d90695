//! redb's pages as bytes: page numbers, commit slots, branch pages, leaf pages, definitions of
//! tables.
//!
//! Knows file format 3, as redb's own design document states it. Reads and never panics, whatever
//! the bytes are: each function that takes bytes from the disk returns `None` if they are invalid.

use std::cmp::Ordering;

use twox_hash::XxHash3_128;

use super::super::file::{FLAG_PRIMARY, FLAGS_OFFSET, HEAD_BYTES, SLOT_BYTES, SLOT_OFFSETS};

/// The smallest page. The first one of the file is its head.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Pages of one region, in a file that this redb creates. They are set at the creation and never
/// change.
const REGION_PAGES: u32 = 1 << 20;

/// The size of the longest page that we write. A page that claims to be longer is not read into
/// memory.
const PAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

const MAGIC: [u8; FLAGS_OFFSET] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const FORMAT_VERSION: u8 = 3;

/// The first byte of a page.
pub(crate) const LEAF: u8 = 1;
/// The first byte of a page.
pub(crate) const BRANCH: u8 = 2;

/// The bytes that redb leaves where nothing is written: zeros, and another value in a build for
/// tests.
pub(crate) const UNUSED: [u8; 2] = [0, 0xff];

const LEAF_HEAD: usize = 4;
const BRANCH_HEAD: usize = 8;
const SUM_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
const CHILD_BYTES: usize = SUM_BYTES + NUMBER_BYTES;
pub(crate) const ROOT_BYTES: usize = NUMBER_BYTES + SUM_BYTES + 8;

/// The offset of the checksum in a commit slot.
const SLOT_SUM: usize = SLOT_BYTES - SUM_BYTES;
/// The offsets of the roots in a slot: of the user's tables, and of redb's own.
const SLOT_ROOTS: [usize; 2] = [8, 40];
const SLOT_HAS_ROOT: [usize; 2] = [1, 2];

/// The number of a page: region, index, and how many times doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageNumber(pub(crate) u64);

impl PageNumber {
    fn order(self) -> u32 {
        (self.0 >> 59) as u32
    }

    /// Returns the place and size of the page. `None`: no page has this number.
    pub(crate) fn place(self) -> Option<(u64, usize)> {
        let index_bits = 20u32.checked_sub(self.order())?;
        let bytes = PAGE_BYTES << self.order();
        let index = self.0 & ((1 << index_bits) - 1);
        let region = (self.0 >> 20) & 0xf_ffff;
        let at = PAGE_BYTES as u64 * (1 + region * u64::from(REGION_PAGES)) + index * bytes as u64;
        (bytes <= PAGE_BYTES_MAX).then_some((at, bytes))
    }
}

/// The root of a tree, as its parent names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) page: PageNumber,
    pub(crate) sum: u128,
}

impl Root {
    /// From page number, checksum, and the number of rows.
    pub(crate) fn from_bytes(bytes: &[u8; ROOT_BYTES]) -> Self {
        let (page, rest) = bytes.split_at(NUMBER_BYTES);
        Self { page: PageNumber(u64_at(page, 0).unwrap_or(0)), sum: u128_at(rest, 0).unwrap_or(0) }
    }
}

/// A commit, as a slot of the head names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Whether the slot has the checksum that it states.
    pub(crate) is_sound: bool,
    pub(crate) user: Option<Root>,
    pub(crate) system: Option<Root>,
}

/// Returns the slots of a head, the one in force first.
pub(crate) fn slots(head: &[u8; HEAD_BYTES]) -> [Slot; 2] {
    let mut slots = SLOT_OFFSETS.map(|at| slot(&head[at..at + SLOT_BYTES]));
    if head[FLAGS_OFFSET] & FLAG_PRIMARY != 0 {
        slots.reverse();
    }
    slots
}

fn slot(bytes: &[u8]) -> Slot {
    let root = |tree: usize| {
        let root = bytes[SLOT_ROOTS[tree]..].first_chunk::<ROOT_BYTES>().map(Root::from_bytes);
        root.filter(|_| bytes[SLOT_HAS_ROOT[tree]] != 0)
    };
    let is_sound =
        bytes[0] == FORMAT_VERSION && u128_at(bytes, SLOT_SUM) == Some(sum(&bytes[..SLOT_SUM]));
    Slot { is_sound, user: root(0), system: root(1) }
}

/// Whether the bytes before the slots are as redb writes them. Only the flags and the size of the
/// last region ever change.
pub(crate) fn is_head(head: &[u8; HEAD_BYTES]) -> bool {
    let number = |at: usize| u32_at(head, at);
    head[..FLAGS_OFFSET] == MAGIC
        && number(12) == Some(PAGE_BYTES as u32)
        && number(16) == Some(0)
        && number(20) == Some(REGION_PAGES)
}

/// How the keys of a table are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// One number, little-endian.
    Number,
    /// A message, then a recipient.
    Delivery,
    /// A number of eight bytes, then bytes.
    NumberAndBytes,
    Bytes,
    /// Keys on which redb panics if they are damaged, or whose order only redb knows.
    Guarded,
}

/// The layout of the rows of a table. `None`: the width differs per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) key: Option<usize>,
    pub(crate) value: Option<usize>,
    pub(crate) keys: Keys,
    /// The smallest size of a value.
    pub(crate) value_min: usize,
}

/// A tree of tables: its rows are definitions under names.
pub(crate) const TABLES: Shape =
    Shape { key: None, value: None, keys: Keys::Guarded, value_min: 0 };

impl Shape {
    /// Returns the smallest size of a key.
    pub(crate) fn key_min(&self) -> usize {
        match self.keys {
            Keys::NumberAndBytes => 8,
            _ => self.key.unwrap_or(0),
        }
    }

    /// Returns which of two keys comes first.
    pub(crate) fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        match self.keys {
            Keys::Number => a.iter().rev().cmp(b.iter().rev()),
            Keys::Delivery => part(a, 0, 16)
                .rev()
                .cmp(part(b, 0, 16).rev())
                .then(part(a, 16, 8).rev().cmp(part(b, 16, 8).rev())),
            Keys::NumberAndBytes => part(a, 0, 8)
                .rev()
                .cmp(part(b, 0, 8).rev())
                .then_with(|| part(a, 8, usize::MAX).cmp(part(b, 8, usize::MAX))),
            Keys::Bytes | Keys::Guarded => a.cmp(b),
        }
    }
}

fn part(bytes: &[u8], at: usize, length: usize) -> std::slice::Iter<'_, u8> {
    bytes.get(at..bytes.len().min(at.saturating_add(length))).unwrap_or_default().iter()
}

/// The definition of a table, as redb stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) root: Option<Root>,
    pub(crate) key: Option<usize>,
    pub(crate) value: Option<usize>,
}

/// Decodes a definition from a tree of tables.
pub(crate) fn definition(bytes: &[u8]) -> Option<Definition> {
    let width = |at: usize| match bytes.get(at)? {
        0 => Some(None),
        _ => Some(Some(u32_at(bytes, at + 1)? as usize)),
    };
    let has_root = *bytes.get(9)? != 0;
    let root = Root::from_bytes(bytes.get(10..)?.first_chunk()?);
    let (key, value) = (width(42)?, width(47)?);
    (bytes[0] == 3).then_some(Definition { root: has_root.then_some(root), key, value })
}

/// Returns the checksum of a page's used bytes, as its parent states it. `None`: the page does not
/// state how many are used.
pub(crate) fn page_sum(page: &[u8], shape: &Shape) -> Option<u128> {
    page.get(..used(page, shape)?).map(sum)
}

/// Returns how many bytes of a page are used, as it states.
pub(crate) fn used(page: &[u8], shape: &Shape) -> Option<usize> {
    match *page.first()? {
        LEAF => leaf_used(page, shape),
        BRANCH => branch_used(page, shape),
        _ => None,
    }
}

/// The checksum that redb uses for everything.
pub(crate) fn sum(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// Returns how many rows a leaf states, or how many keys a branch.
pub(crate) fn count(page: &[u8]) -> usize {
    page.get(2..4)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)))
}

/// Returns where the keys of a leaf with `rows` rows begin.
pub(crate) fn leaf_keys(rows: usize, shape: &Shape) -> usize {
    LEAF_HEAD + 4 * rows * (usize::from(shape.key.is_none()) + usize::from(shape.value.is_none()))
}

fn leaf_used(page: &[u8], shape: &Shape) -> Option<usize> {
    let rows = count(page);
    let last = rows.checked_sub(1)?;
    let keys = leaf_keys(rows, shape);
    let keys_end = match shape.key {
        Some(width) => keys + width * rows,
        None => u32_at(page, LEAF_HEAD + 4 * last)? as usize,
    };
    match shape.value {
        Some(width) => Some(keys_end + width * rows),
        None => {
            Some(u32_at(page, LEAF_HEAD + 4 * (last + if shape.key.is_none() { rows } else { 0 }))?
                as usize)
        }
    }
}

fn branch_used(page: &[u8], shape: &Shape) -> Option<usize> {
    let keys = count(page);
    let last = keys.checked_sub(1)?;
    let children_end = BRANCH_HEAD + CHILD_BYTES * (keys + 1);
    match shape.key {
        Some(width) => Some(children_end + width * keys),
        None => Some(u32_at(page, children_end + 4 * last)? as usize),
    }
}

/// Returns the ends that a leaf states, of its keys and then of its values, if their widths differ.
pub(crate) fn leaf_ends(page: &[u8], shape: &Shape) -> Vec<usize> {
    let words = (leaf_keys(count(page), shape) - LEAF_HEAD) / 4;
    (0..words)
        .map_while(|word| u32_at(page, LEAF_HEAD + 4 * word))
        .map(|end| end as usize)
        .collect()
}

/// Returns where a leaf states its end number `word`.
pub(crate) fn leaf_word(word: usize) -> usize {
    LEAF_HEAD + 4 * word
}

/// Returns the rows of a leaf. `None`: its layout is invalid.
pub(crate) fn rows<'a>(page: &'a [u8], shape: &Shape) -> Option<Vec<(&'a [u8], &'a [u8])>> {
    let rows = count(page);
    let keys = leaf_keys(rows, shape);
    let ends = leaf_ends(page, shape);
    let mut found = Vec::with_capacity(rows);
    let values = shape.key.map_or_else(
        || rows.checked_sub(1).and_then(|last| ends.get(last).copied()),
        |width| Some(keys + width * rows),
    )?;
    let words = if shape.key.is_none() { rows } else { 0 };
    let (mut key_at, mut value_at) = (keys, values);
    for row in 0..rows {
        let key_end =
            shape.key.map_or_else(|| ends.get(row).copied(), |width| Some(key_at + width))?;
        let value_end = shape
            .value
            .map_or_else(|| ends.get(words + row).copied(), |width| Some(value_at + width))?;
        found.push((page.get(key_at..key_end)?, page.get(value_at..value_end)?));
        (key_at, value_at) = (key_end, value_end);
    }
    Some(found)
}

/// Builds a leaf of `bytes` bytes with these rows. `None`: they do not fit.
pub(crate) fn leaf(rows: &[(&[u8], &[u8])], shape: &Shape, bytes: usize) -> Option<Vec<u8>> {
    let mut page = vec![LEAF, 0];
    page.extend(u16::try_from(rows.len()).ok()?.to_le_bytes());
    let mut end = leaf_keys(rows.len(), shape);
    let parts = [(shape.key, 0), (shape.value, 1)];
    for (width, part) in parts {
        for row in rows {
            end += [row.0, row.1][part].len();
            if width.is_none() {
                page.extend(u32::try_from(end).ok()?.to_le_bytes());
            }
        }
    }
    rows.iter().for_each(|(key, _)| page.extend_from_slice(key));
    rows.iter().for_each(|(_, value)| page.extend_from_slice(value));
    if page.len() > bytes {
        return None;
    }
    page.resize(bytes, 0);
    Some(page)
}

/// A child of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildPage {
    pub(crate) root: Root,
    /// The keys in it come after this one.
    pub(crate) after: Option<Vec<u8>>,
    /// The keys in it do not come after this one.
    pub(crate) up_to: Option<Vec<u8>>,
}

/// Returns the children of a branch, as far as it can be read. `after` and `up_to` bound the branch
/// itself.
pub(crate) fn children(
    page: &[u8],
    shape: &Shape,
    after: Option<&[u8]>,
    up_to: Option<&[u8]>,
) -> Vec<ChildPage> {
    let keys = count(page);
    let numbers = BRANCH_HEAD + SUM_BYTES * (keys + 1);
    let ends = BRANCH_HEAD + CHILD_BYTES * (keys + 1);
    let key_end = |key: usize| match shape.key {
        Some(width) => Some(ends + width * (key + 1)),
        None => u32_at(page, ends + 4 * key).map(|end| end as usize),
    };
    let first_key = if shape.key.is_some() { ends } else { ends + 4 * keys };
    let key = |key: usize| {
        let start = key.checked_sub(1).map_or(Some(first_key), key_end)?;
        page.get(start..key_end(key)?)
            .filter(|bytes| bytes.len() >= shape.key_min())
            .map(<[u8]>::to_vec)
    };
    let mut found = Vec::new();
    for child in 0..=keys {
        let sum = u128_at(page, BRANCH_HEAD + SUM_BYTES * child);
        let (Some(sum), Some(number)) = (sum, u64_at(page, numbers + NUMBER_BYTES * child)) else {
            break;
        };
        let after = if child == 0 { after.map(<[u8]>::to_vec) } else { key(child - 1) };
        let up_to = if child == keys { up_to.map(<[u8]>::to_vec) } else { key(child) };
        found.push(ChildPage { root: Root { page: PageNumber(number), sum }, after, up_to });
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..)?.first_chunk().map(|bytes| u128::from_le_bytes(*bytes))
}
