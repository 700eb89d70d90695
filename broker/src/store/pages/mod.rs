//! Checks redb's pages before redb uses them.
//!
//! redb has a checksum of each page, but checks it only when it reads the whole file. Otherwise it
//! trusts the offsets in a page, and panics if they are invalid. So the pages are checked here:
//! inner pages at the start ([`survey`]), and each page whenever it is read from the disk
//! ([`guard`]). [`repair`] finds the remains of a damaged page. If that is not enough, `salvage.rs`
//! makes a new file.
//!
//! Knows pages and checksums. Does not know records.

pub(super) mod format;
pub(super) mod guard;
pub(super) mod remains;
pub(super) mod repair;
pub(super) mod survey;
