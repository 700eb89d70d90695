//! Reads all inner pages, which are one in eighty.
//!
//! Reports which of them are damaged, and the checksum that each other page must have. It reads
//! leaves only if redb keeps its own data in them.

use std::fmt;
use std::io;

use super::super::file::HEAD_BYTES;
use super::super::schema;
use super::format::{self, BRANCH, LEAF, PAGE_BYTES, PageNumber, Root, Shape};
use super::repair::KeyBounds;

/// Children of a branch whose kind is checked.
const CHILDREN_ASKED: usize = 5;

/// A depth that no tree has.
const DEPTH_MAX: usize = 64;

/// Reads bytes of the file.
pub(crate) type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// The expected checksum and layout of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The first half of its checksum.
    sum: u64,
    /// The number of its table's shape, from one on: see [`Expected::WRITTEN`]. Zero: the page is
    /// unknown.
    shape: u8,
    order: u8,
}

impl Expected {
    /// This process wrote the page: the checksum is of all its bytes.
    const WRITTEN: u8 = u8::MAX;

    /// Returns the shape of its table, if it is known from there.
    pub(crate) fn shape(self) -> Option<Shape> {
        (self.shape != Self::WRITTEN).then(|| shapes(self.shape)).flatten()
    }

    /// Whether the page is the expected one.
    pub(crate) fn is(self, page: &[u8]) -> bool {
        let sum = match self.shape() {
            Some(shape) => format::page_sum(page, &shape),
            None => Some(format::sum(page)),
        };
        sum.is_some_and(|sum| sum as u64 == self.sum)
    }
}

/// The expected pages of a file, as far as they are known: 10 bytes per page.
#[derive(Debug, Default)]
pub(crate) struct Known {
    sums: Vec<u64>,
    kinds: Vec<(u8, u8)>,
}

impl Known {
    /// Returns the expected page of `bytes` bytes at `at`. `None`: it is unknown.
    pub(crate) fn at(&self, at: u64, bytes: usize) -> Option<Expected> {
        let index = index_of(at)?;
        let (shape, order) = *self.kinds.get(index)?;
        let expected = Expected { sum: *self.sums.get(index)?, shape, order };
        (shape != 0 && PAGE_BYTES << order == bytes).then_some(expected)
    }

    /// Records a page that is being written.
    pub(crate) fn write(&mut self, at: u64, page: &[u8]) {
        let Some(index) = index_of(at) else { return };
        let pages = page.len() / PAGE_BYTES;
        self.forget(index, pages.max(1));
        if page.len().is_multiple_of(PAGE_BYTES) && pages.is_power_of_two() {
            let expected = Expected {
                sum: format::sum(page) as u64,
                shape: Expected::WRITTEN,
                order: pages.ilog2() as u8,
            };
            self.put(index, expected);
        }
    }

    /// Adapts to a new length of the file.
    pub(crate) fn cut(&mut self, bytes: u64) {
        let pages = index_of(bytes).unwrap_or(usize::MAX);
        self.sums.truncate(pages);
        self.kinds.truncate(pages);
    }

    fn put(&mut self, index: usize, expected: Expected) {
        if index >= self.sums.len() {
            self.sums.resize(index + 1, 0);
            self.kinds.resize(index + 1, (0, 0));
        }
        self.sums[index] = expected.sum;
        self.kinds[index] = (expected.shape, expected.order);
    }

    fn forget(&mut self, index: usize, pages: usize) {
        let end = self.kinds.len().min(index.saturating_add(pages));
        self.kinds.get_mut(index..end).into_iter().flatten().for_each(|kind| *kind = (0, 0));
    }
}

fn index_of(at: u64) -> Option<usize> {
    usize::try_from(at / PAGE_BYTES as u64).ok()
}

/// Returns a shape by its number, from one on.
fn shapes(number: u8) -> Option<Shape> {
    let tables = &schema::SHAPES;
    match usize::from(number).checked_sub(1)? {
        0 => Some(format::TABLES),
        // redb's own tables: keys of sixteen bytes, of five, or of eight.
        1 => Some(Shape { key: Some(16), ..format::TABLES }),
        2 => Some(Shape { key: Some(5), ..format::TABLES }),
        3 => Some(Shape { key: Some(8), ..format::TABLES }),
        other => tables.get(other - 4).map(|(_, shape)| *shape),
    }
}

/// A table that a tree of tables names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableTree {
    pub(crate) name: Vec<u8>,
    pub(crate) root: Option<Root>,
    /// The number of its shape, for [`Expected`].
    number: u8,
}

/// The trees that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trees {
    /// Ours.
    User,
    /// redb's own.
    System,
}

/// Damage on which redb would fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PageFault {
    /// The first bytes of the file, or the slot of the commit in force.
    Head,
    /// The page at this place of the file.
    Page(u64),
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the first bytes of the file are damaged"),
            Self::Page(u64::MAX) => f.write_str("the number of a page is beyond any file"),
            Self::Page(at) => write!(f, "the page at byte {at} is damaged"),
        }
    }
}

/// The result of a survey.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) known: Known,
    pub(crate) faults: Vec<PageFault>,
    /// Pages that were read.
    pub(crate) pages: u64,
}

/// A page that was found by its place.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) shape: Shape,
    pub(crate) bounds: KeyBounds,
    pub(crate) is_leaf: bool,
}

/// Surveys the commit in force.
pub(crate) fn survey(read: ReadAt<'_>, file_bytes: u64) -> io::Result<Survey> {
    let mut walk =
        TreeWalk { read, file_bytes, found: Survey::default(), sought: None, located: None };
    walk.run()?;
    Ok(walk.found)
}

/// Returns the page at `at`, if it belongs to the commit in force.
pub(crate) fn locate(read: ReadAt<'_>, file_bytes: u64, at: u64) -> io::Result<Option<Located>> {
    let mut walk =
        TreeWalk { read, file_bytes, found: Survey::default(), sought: Some(at), located: None };
    walk.run()?;
    Ok(walk.located)
}

struct TreeWalk<'a> {
    read: ReadAt<'a>,
    file_bytes: u64,
    found: Survey,
    sought: Option<u64>,
    located: Option<Located>,
}

impl TreeWalk<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        if self.file_bytes < HEAD_BYTES as u64 {
            self.found.faults.push(PageFault::Head);
            return Ok(());
        }
        (self.read)(0, &mut head)?;
        let [slot, _] = format::slots(&head);
        if !format::is_head(&head) || !slot.is_sound {
            self.found.faults.push(PageFault::Head);
        }
        for (trees, root) in [(Trees::User, slot.user), (Trees::System, slot.system)] {
            let Some(root) = root else { continue };
            for table in self.tables(trees, root)? {
                let Some(root) = table.root else { continue };
                self.tree(root, table.number)?;
            }
        }
        Ok(())
    }

    /// Reads all tables of a tree of tables.
    fn tables(&mut self, trees: Trees, root: Root) -> io::Result<Vec<TableTree>> {
        let mut tables = Vec::new();
        for leaf in self.tree(root, 1)? {
            for (name, bytes) in format::rows(&leaf, &format::TABLES).unwrap_or_default() {
                match format::definition(bytes)
                    .map(|definition| (definition.root, number_of(trees, name, &definition)))
                {
                    Some((root, Some(number))) => {
                        tables.push(TableTree { name: name.to_vec(), root, number })
                    }
                    // A table that is not ours is never read.
                    Some((_, None)) => {}
                    None => self.fault(root.page),
                }
            }
        }
        Ok(tables)
    }

    /// Surveys a tree. Returns its leaves if all of them are read.
    fn tree(&mut self, root: Root, number: u8) -> io::Result<Vec<Vec<u8>>> {
        let Some(shape) = shapes(number) else { return Ok(Vec::new()) };
        let reads_leaves = shape.keys == format::Keys::Guarded;
        let mut leaves = Vec::new();
        let mut open = vec![(root, KeyBounds::default(), 0, None)];
        while let Some((root, bounds, depth, is_leaf)) = open.pop() {
            let place =
                root.page.place().filter(|(at, bytes)| at + *bytes as u64 <= self.file_bytes);
            let Some((at, bytes)) = place.filter(|_| depth < DEPTH_MAX) else {
                self.fault(root.page);
                continue;
            };
            self.expect(at, bytes, root, number);
            let is_leaf = match is_leaf {
                Some(is_leaf) => is_leaf,
                None => self.first_byte(at)? == LEAF,
            };
            if self.sought == Some(at) {
                self.located = Some(Located { shape, bounds: bounds.clone(), is_leaf });
            }
            // A root that claims to be a leaf is read, because a whole table depends on whether it
            // is one.
            if is_leaf && !reads_leaves && depth > 0 {
                continue;
            }
            let mut page = vec![0; bytes];
            (self.read)(at, &mut page)?;
            self.found.pages += 1;
            if is_leaf && !reads_leaves {
                page[0] = BRANCH;
                if format::page_sum(&page, &shape) == Some(root.sum) {
                    self.fault(root.page);
                }
                continue;
            }
            if format::page_sum(&page, &shape) != Some(root.sum) {
                self.fault(root.page);
            } else if page[0] == BRANCH {
                let children = format::children(
                    &page,
                    &shape,
                    bounds.after.as_deref(),
                    bounds.up_to.as_deref(),
                );
                let children_are = self.children_are(&children)?;
                open.extend(children.into_iter().map(|child| {
                    (
                        child.root,
                        KeyBounds { after: child.after, up_to: child.up_to },
                        depth + 1,
                        children_are,
                    )
                }));
            } else {
                leaves.push(page);
            }
        }
        Ok(leaves)
    }

    /// Returns whether all children of a branch are leaves. All leaves of a tree are on one level,
    /// so a majority of a few decides. `None`: they differ, because one of two is damaged.
    fn children_are(&self, children: &[format::ChildPage]) -> io::Result<Option<bool>> {
        let (mut leaves, mut others) = (0, 0);
        for child in children.iter().step_by((children.len() / CHILDREN_ASKED).max(1)) {
            if let Some((at, _)) = child.root.page.place().filter(|(at, _)| *at < self.file_bytes) {
                if self.first_byte(at)? == LEAF { leaves += 1 } else { others += 1 }
            }
        }
        Ok((leaves != others).then_some(leaves > others))
    }

    fn first_byte(&self, at: u64) -> io::Result<u8> {
        let mut byte = [0];
        (self.read)(at, &mut byte)?;
        Ok(byte[0])
    }

    fn expect(&mut self, at: u64, bytes: usize, root: Root, shape: u8) {
        if let Some(index) = index_of(at) {
            let order = (bytes / PAGE_BYTES).ilog2() as u8;
            self.found.known.put(index, Expected { sum: root.sum as u64, shape, order });
        }
    }

    fn fault(&mut self, page: PageNumber) {
        let at = page.place().map_or(u64::MAX, |(at, _)| at);
        self.found.faults.push(PageFault::Page(at));
    }
}

/// Returns the number of a table's shape. `None`: nobody reads the table, or its definition differs
/// from ours.
fn number_of(trees: Trees, name: &[u8], definition: &format::Definition) -> Option<u8> {
    let number = match trees {
        Trees::System => match definition.key {
            Some(16) => 2,
            Some(5) => 3,
            Some(8) => 4,
            _ => return None,
        },
        Trees::User => {
            u8::try_from(5 + schema::SHAPES.iter().position(|(ours, _)| ours.as_bytes() == name)?)
                .ok()?
        }
    };
    let shape = shapes(number)?;
    (shape.key == definition.key && shape.value == definition.value).then_some(number)
}
