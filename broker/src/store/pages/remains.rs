//! Finds the leaves that remain of a damaged tree.
//!
//! A page with the checksum that its parent states is the right page, even if the parent itself is
//! damaged. So each child of a damaged branch is checked on its own. A child that is not at the
//! stated place is searched in the whole file by its checksum. A child whose checksum is also lost
//! is read at the stated place. The rows of such a leaf, and of a damaged one, are marked: they
//! need a checksum of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::format::{
    self, BRANCH, ChildPage, LEAF, PAGE_BYTES, PageNumber, Root, Shape, TABLES, UNUSED,
};
use super::repair::{self, KeyBounds, RowBytes};
use super::survey::ReadAt;

/// Children that a branch of 4 KiB may have.
const CHILDREN_MAX: usize = PAGE_BYTES / 24;

/// The size up to which a leaf is read when pages are searched in the file. Few are longer.
const SOUGHT_BYTES_MAX: usize = 256 * 1024;

/// The reader of the remains.
pub(crate) struct Remains<'a> {
    read: ReadAt<'a>,
    file_bytes: u64,
    /// Pages that were read: a damaged number may lead in a cycle.
    seen: BTreeSet<u64>,
    /// The places of damaged pages.
    pub(crate) damaged: Vec<u64>,
    /// A copy of the page that names the tables, if there is one.
    pub(crate) tables: Option<Vec<u8>>,
}

/// A page that was found.
struct FoundPage {
    at: u64,
    page: Vec<u8>,
    /// Whether it is the one that its parent means.
    is_sound: bool,
}

/// Takes the rows of a leaf, and whether they are as they were written.
pub(crate) type Sink<'a, E> = &'a mut dyn FnMut(&[RowBytes<'_>], bool) -> Result<(), E>;

impl<'a> Remains<'a> {
    pub(crate) fn new(read: ReadAt<'a>, file_bytes: u64) -> Self {
        Self { read, file_bytes, seen: BTreeSet::new(), damaged: Vec::new(), tables: None }
    }

    /// Whether the page of a root is the right one.
    pub(crate) fn is_sound(&self, root: Root, shape: &Shape) -> bool {
        self.find(root, shape).is_some_and(|found| found.is_sound)
    }

    /// Reads the leaves of a tree. `is_named`: the page that names its root is sound.
    pub(crate) fn tree<E>(
        &mut self,
        root: Root,
        is_named: bool,
        shape: &Shape,
        sink: Sink<'_, E>,
    ) -> Result<(), E> {
        let child = ChildPage { root, after: None, up_to: None };
        self.subtrees(&[child], is_named, shape, sink)
    }

    fn subtrees<E>(
        &mut self,
        children: &[ChildPage],
        is_named: bool,
        shape: &Shape,
        sink: Sink<'_, E>,
    ) -> Result<(), E> {
        let mut found: Vec<Option<FoundPage>> =
            children.iter().map(|child| self.find(child.root, shape)).collect();
        if !is_named {
            self.seek(children, &mut found, shape);
        }
        let has_leaves =
            found.iter().flatten().any(|found| found.is_sound && found.page.first() == Some(&LEAF));
        let has_branches = found
            .iter()
            .flatten()
            .any(|found| found.is_sound && found.page.first() == Some(&BRANCH));
        for (child, found) in children.iter().zip(found) {
            let Some(found) = found else {
                self.damaged.push(child.root.page.place().map_or(u64::MAX, |(at, _)| at));
                continue;
            };
            if !self.seen.insert(found.at) {
                continue;
            }
            if !found.is_sound {
                self.damaged.push(found.at);
            }
            // A damaged page is of the same kind as its neighbours.
            let is_leaf = match found.page.first() {
                _ if !found.is_sound && has_leaves => true,
                _ if !found.is_sound && has_branches => false,
                first => first != Some(&BRANCH),
            };
            if is_leaf {
                let bounds = if is_named {
                    KeyBounds { after: child.after.clone(), up_to: child.up_to.clone() }
                } else {
                    KeyBounds::default()
                };
                let rows = if found.is_sound { format::rows(&found.page, shape) } else { None };
                match rows {
                    Some(rows) => sink(&rows, true)?,
                    None => sink(&repair::plausible_rows(&found.page, shape, &bounds), false)?,
                }
            } else {
                let below = if found.is_sound {
                    format::children(
                        &found.page,
                        shape,
                        child.after.as_deref(),
                        child.up_to.as_deref(),
                    )
                } else {
                    self.likely_children(&found.page, shape)
                };
                self.subtrees(&below, found.is_sound, shape, sink)?;
            }
        }
        Ok(())
    }

    fn page(&self, number: PageNumber) -> Option<(u64, Vec<u8>)> {
        let (at, bytes) = number.place()?;
        // Of a cut file, the existing part of the page.
        let there = usize::try_from(self.file_bytes.checked_sub(at)?).ok()?.min(bytes);
        let mut page = vec![0; bytes];
        (self.read)(at, page.get_mut(..there)?).ok()?;
        Some((at, page))
    }

    fn find(&self, root: Root, shape: &Shape) -> Option<FoundPage> {
        let (at, page) = self.page(root.page)?;
        let is_it = |page: &[u8]| format::page_sum(page, shape) == Some(root.sum);
        if is_it(&page) {
            return Some(FoundPage { at, page, is_sound: true });
        }
        if let Some(copy) = self.tables.as_ref().filter(|copy| *shape == TABLES && is_it(copy)) {
            return Some(FoundPage { at, page: copy.clone(), is_sound: true });
        }
        let leaf = || {
            if page.first() == Some(&BRANCH) { None } else { repair::repaired(&page, shape, is_it) }
        };
        if let Some(mended) = repaired_branch(&page, is_it).or_else(leaf) {
            return Some(FoundPage { at, page: mended, is_sound: true });
        }
        Some(FoundPage { at, page, is_sound: false })
    }

    /// Searches the whole file for the children that are not at the place that a damaged branch
    /// states.
    fn seek(&self, children: &[ChildPage], found: &mut [Option<FoundPage>], shape: &Shape) {
        let sought: BTreeMap<u128, usize> = (0..children.len())
            .filter(|child| !found[*child].as_ref().is_some_and(|found| found.is_sound))
            .map(|child| (children[child].root.sum, child))
            .collect();
        if sought.is_empty() {
            return;
        }
        let mut at = PAGE_BYTES as u64;
        let mut page = vec![0; SOUGHT_BYTES_MAX];
        while at + PAGE_BYTES as u64 <= self.file_bytes {
            let bytes =
                usize::try_from(self.file_bytes - at).unwrap_or(usize::MAX).min(SOUGHT_BYTES_MAX);
            if let Ok(sum) = self.sum_at(at, &mut page[..bytes], shape)
                && let Some(child) = sum.and_then(|sum| sought.get(&sum))
            {
                found[*child] =
                    Some(FoundPage { at, page: page[..bytes].to_vec(), is_sound: true });
            }
            at += PAGE_BYTES as u64;
        }
    }

    /// Returns the checksum of the used part of the page at `at`. Bytes beyond the page are
    /// ignored.
    fn sum_at(&self, at: u64, page: &mut [u8], shape: &Shape) -> io::Result<Option<u128>> {
        (self.read)(at, &mut page[..PAGE_BYTES])?;
        if !matches!(page[0], LEAF | BRANCH) {
            return Ok(None);
        }
        if let Some(sum) = format::page_sum(&page[..PAGE_BYTES], shape) {
            return Ok(Some(sum));
        }
        if format::used(page, shape).is_none_or(|used| used > page.len()) {
            return Ok(None);
        }
        (self.read)(at, page)?;
        Ok(format::page_sum(page, shape))
    }

    /// Returns the children of a damaged branch: as it states, or with the number of keys that
    /// finds most of them.
    fn likely_children(&self, page: &[u8], shape: &Shape) -> Vec<ChildPage> {
        let sound = |page: &[u8]| {
            let children = format::children(page, shape, None, None);
            let sound = children.iter().filter(|child| self.stands(child.root, shape)).count();
            (sound, children)
        };
        let stated = sound(page);
        if stated.0 > 0 {
            return stated.1;
        }
        let mut tried = page.to_vec();
        let most = (1..CHILDREN_MAX as u16).map(|keys| {
            tried[2..4].copy_from_slice(&keys.to_le_bytes());
            sound(&tried)
        });
        most.max_by_key(|(sound, _)| *sound).filter(|(sound, _)| *sound > 0).unwrap_or(stated).1
    }

    /// Whether the page is the right one, without a repair.
    fn stands(&self, root: Root, shape: &Shape) -> bool {
        self.page(root.page)
            .is_some_and(|(_, page)| format::page_sum(&page, shape) == Some(root.sum))
    }
}

/// Returns a branch as it was written, if only its head is wrong.
fn repaired_branch(page: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut tried = page.to_vec();
    for unused in UNUSED {
        for keys in std::iter::once(format::count(page) as u16).chain(1..CHILDREN_MAX as u16) {
            let [low, high] = keys.to_le_bytes();
            tried
                .get_mut(..8)?
                .copy_from_slice(&[BRANCH, unused, low, high, unused, unused, unused, unused]);
            if is_it(&tried) {
                return Some(tried);
            }
        }
    }
    None
}
