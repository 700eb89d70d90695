//! Recovers the rows of a damaged leaf.
//!
//! There are two ways. If one word of the layout is wrong, the page's checksum shows which value it
//! had: the page is as it was written, and nothing is lost. Otherwise the rows with a plausible
//! place and order are retained, and the rest is left out. Retained rows may still be damaged,
//! which the checksum of each record shows.
//!
//! Invariant: redb can read the result, and its keys ascend and are within the bounds of the page.

use super::format::{self, LEAF, Shape, UNUSED};

/// The keys that a page may hold: after the first bound, and not after the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyBounds {
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) up_to: Option<Vec<u8>>,
}

/// The most bytes that are checksummed in search of a wrong word: some milliseconds.
const SUMMED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Returns the page as it was written, if `is_it` recognizes it after one word of its layout was
/// corrected.
pub(crate) fn repaired(
    page: &[u8],
    shape: &Shape,
    mut is_it: impl FnMut(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let mut budget = SUMMED_BYTES_MAX;
    let mut tried = page.to_vec();
    let mut is_it = |page: &[u8]| {
        budget = budget.checked_sub(page.len())?;
        Some(is_it(page))
    };
    // The head: the kind of page, and its number of rows.
    let row_bytes = (format::leaf_keys(1, shape) - format::leaf_keys(0, shape))
        + shape.key.unwrap_or(0)
        + shape.value.unwrap_or(0);
    let rows_max = u16::try_from(page.len() / row_bytes.max(1)).unwrap_or(u16::MAX);
    let head = *page.first_chunk::<4>()?;
    let stated = u16::from_le_bytes([head[2], head[3]]);
    for unused in UNUSED {
        for rows in std::iter::once(stated).chain(1..=rows_max) {
            let [low, high] = rows.to_le_bytes();
            tried.get_mut(..4)?.copy_from_slice(&[LEAF, unused, low, high]);
            if is_it(&tried)? {
                return Some(tried);
            }
        }
    }
    tried[..4].copy_from_slice(&head);
    tried[0] = LEAF;
    // One end, which is between its neighbours.
    let ends = format::leaf_ends(&tried, shape);
    let first = format::leaf_keys(format::count(&tried), shape)
        + shape.key.map_or(0, |width| width * format::count(&tried));
    for (word, stated) in ends.iter().enumerate() {
        let at = format::leaf_word(word)..format::leaf_word(word) + 4;
        let low = word.checked_sub(1).map_or(first, |before| ends[before]);
        let high = ends.get(word + 1).copied().unwrap_or(page.len()).min(page.len());
        for end in low..=high {
            tried[at.clone()].copy_from_slice(&u32::try_from(end).ok()?.to_le_bytes());
            if end != *stated && is_it(&tried)? {
                return Some(tried);
            }
        }
        tried[at].copy_from_slice(&u32::try_from(*stated).ok()?.to_le_bytes());
    }
    None
}

/// A row of a leaf: key and value.
pub(crate) type RowBytes<'a> = (&'a [u8], &'a [u8]);

/// Returns the rows of a damaged leaf at plausible places, in ascending order and within the
/// bounds.
pub(crate) fn plausible_rows<'a>(
    page: &'a [u8],
    shape: &Shape,
    bounds: &KeyBounds,
) -> Vec<RowBytes<'a>> {
    let mut rows = placed_rows(page, shape);
    rows.retain(|(key, value)| {
        key.len() >= shape.key_min()
            && value.len() >= shape.value.unwrap_or(shape.value_min)
            && bounds.after.as_ref().is_none_or(|after| shape.compare(key, after).is_gt())
            && bounds.up_to.as_ref().is_none_or(|up_to| shape.compare(key, up_to).is_le())
    });
    let ascending = longest(&rows, |before, after| shape.compare(before.0, after.0).is_lt());
    let mut kept = ascending.into_iter();
    rows.retain(|_| kept.next() == Some(true));
    rows
}

/// Returns the rows whose keys are between plausible ends. If the value is not, it is returned
/// empty, which no record is. So the row can still be named.
fn placed_rows<'a>(page: &'a [u8], shape: &Shape) -> Vec<RowBytes<'a>> {
    let widths = format::leaf_keys(1, shape) - format::leaf_keys(0, shape)
        + shape.key.unwrap_or(0)
        + shape.value.unwrap_or(0);
    let rows = format::count(page)
        .min((page.len() - format::leaf_keys(0, shape).min(page.len())) / widths.max(1));
    let keys = format::leaf_keys(rows, shape);
    let ends: Vec<usize> = (0..)
        .map_while(|word| (format::leaf_word(word) < keys).then(|| end_at(page, word)))
        .collect();
    let key_ends = if shape.key.is_none() { rows } else { 0 };
    let low = keys + shape.key.map_or(0, |width| width * rows);
    let mut fits = vec![false; ends.len()];
    let within: Vec<usize> =
        (0..ends.len()).filter(|word| (low..=page.len()).contains(&ends[*word])).collect();
    let places: Vec<usize> = within.iter().map(|word| ends[*word]).collect();
    for (word, kept) in within.iter().zip(longest(&places, |before, after| before <= after)) {
        fits[*word] = kept;
    }
    // The end of a part. The first part starts after the last word.
    let end = |word: usize| fits.get(word).copied().unwrap_or(false).then(|| ends[word]);
    let values = match shape.key {
        Some(_) => Some(low),
        None => key_ends.checked_sub(1).and_then(end),
    };
    let place = |row: usize, width: Option<usize>, base: Option<usize>, words: usize| match width {
        Some(width) => Some((base? + width * row, base? + width * (row + 1))),
        None => Some((if row == 0 { base? } else { end(words + row - 1)? }, end(words + row)?)),
    };
    (0..rows)
        .filter_map(|row| {
            let key = place(row, shape.key, Some(keys), 0)?;
            let value = place(row, shape.value, values, key_ends)
                .and_then(|value| page.get(value.0..value.1));
            Some((page.get(key.0..key.1)?, value.unwrap_or_default()))
        })
        .collect()
}

fn end_at(page: &[u8], word: usize) -> usize {
    let at = format::leaf_word(word);
    page.get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(usize::MAX, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// Returns which items belong to the longest sequence in which each fits after the one before.
fn longest<T>(items: &[T], fits: impl Fn(&T, &T) -> bool) -> Vec<bool> {
    // The last item of the best sequence of each length, and the predecessor of each item in its
    // sequence.
    let mut last: Vec<usize> = Vec::new();
    let mut before = vec![None; items.len()];
    for item in 0..items.len() {
        let length = last.partition_point(|end| fits(&items[*end], &items[item]));
        before[item] = length.checked_sub(1).map(|length| last[length]);
        if length == last.len() { last.push(item) } else { last[length] = item }
    }
    let mut kept = vec![false; items.len()];
    let mut item = last.last().copied();
    while let Some(index) = item {
        kept[index] = true;
        item = before[index];
    }
    kept
}

/// Returns a leaf of the same size with the plausible rows of a damaged one, or with one row in
/// place of all of them.
pub(crate) fn readable(page: &[u8], shape: &Shape, bounds: &KeyBounds) -> Vec<u8> {
    let rows = plausible_rows(page, shape, bounds);
    let (key, value) = stand_in(shape, bounds);
    let rows = if rows.is_empty() { vec![(&*key, &*value)] } else { rows };
    format::leaf(&rows, shape, page.len()).unwrap_or_else(|| page.to_vec())
}

/// Returns a row that is no record, if the bounds permit a row.
fn stand_in(shape: &Shape, bounds: &KeyBounds) -> (Vec<u8>, Vec<u8>) {
    let value = vec![0; shape.value.unwrap_or(shape.value_min)];
    let key = match (&bounds.up_to, &bounds.after) {
        (Some(up_to), _) => up_to.clone(),
        (None, Some(after)) => next_key(shape, after),
        (None, None) => vec![0; shape.key_min()],
    };
    (key, value)
}

/// Returns the next greater key. Numbers are little-endian, and the recipient comes last. Of two
/// byte keys with the same beginning, the longer one is greater.
fn next_key(shape: &Shape, key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    let from = match shape.key {
        Some(24) => 16,
        Some(_) => 0,
        None => {
            next.push(0);
            return next;
        }
    };
    for byte in next.iter_mut().skip(from) {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    next
}
