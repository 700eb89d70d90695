//! redb's pages, looked at before redb uses them.
//!
//! redb has a checksum of each page and looks at it only where it walks through the whole file. Elsewhere it believes what a
//! page says of where things stand, and panics where that makes no sense. So the pages are looked at here: those that lead
//! to others at the start ([`survey`]), each one whenever it is read from the disk ([`guard`]). What is left of a damaged one
//! is found by [`mend`]; `salvage.rs` makes a new file where that is not enough.
//!
//! Knows pages and checksums. Does not know records.

pub(super) mod format;
pub(super) mod guard;
pub(super) mod mend;
pub(super) mod remains;
pub(super) mod survey;
