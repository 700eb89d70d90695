//! Writes a directory as the text that the broker gets: one text for each directory, and a
//! different text for each.
//!
//! Peers are in the same directory if these texts are equal, and people and models read them. So a
//! path that is plain text stays unchanged, and bytes that are not UTF-8 become `\xE9`. A path that
//! does not fit keeps its two ends, around a digest of the whole. Pure.
//!
//! Knows the bytes of a path. Does not know whether the directory exists. Invariant: different
//! paths have different texts.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use peer_proto::limits::PATH_BYTES_MAX;
use sha2::{Digest, Sha256};

/// The prefix of the two digits of a byte that is not text.
const ESCAPE: &str = "\\x";

/// The number of bytes that stay of each end of a path that does not fit; the digest is between
/// them.
const END_BYTES: usize = (PATH_BYTES_MAX - 2 * DIGEST_BYTES - 2 * '…'.len_utf8()) / 2;

/// The number of bytes of the digest: two paths with the same are not found by chance.
const DIGEST_BYTES: usize = 16;

/// Returns the path as text of at most [`PATH_BYTES_MAX`] bytes. Different paths have different
/// texts.
pub(crate) fn spelled(path: &Path) -> String {
    let mut text = String::with_capacity(path.as_os_str().len());
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        let mut rest = chunk.valid();
        // An escape in the path itself was in the directory's name.
        while let Some(at) = rest.find(ESCAPE) {
            let (before, found) = rest.split_at(at);
            text.push_str(before);
            let is_escape =
                found.as_bytes().get(2..4).is_some_and(|digits| digits.iter().all(is_digit));
            text.push_str(if is_escape { "\\x5C" } else { "\\" });
            rest = &found[1..];
        }
        text.push_str(rest);
        for byte in chunk.invalid() {
            text.push_str(&format!("{ESCAPE}{byte:02X}"));
        }
    }
    if text.len() <= PATH_BYTES_MAX {
        return text;
    }
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let digest: String =
        digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let beginning = (0..=END_BYTES).rev().find(is_boundary).unwrap_or(0);
    let end = (text.len() - END_BYTES..text.len()).find(is_boundary).unwrap_or(text.len());
    format!("{}…{digest}…{}", &text[..beginning], &text[end..])
}

fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    fn of(path: &[u8]) -> String {
        spelled(Path::new(OsStr::from_bytes(path)))
    }

    /// Reads the path back from its text.
    fn read(text: &str) -> Vec<u8> {
        let mut path = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, behind)) = rest.split_first() {
            match rest {
                [b'\\', b'x', high, low, ..] if is_digit(high) && is_digit(low) => {
                    path.push(
                        u8::from_str_radix(&text[text.len() - rest.len() + 2..][..2], 16).unwrap(),
                    );
                    rest = &rest[4..];
                }
                _ => {
                    path.push(first);
                    rest = behind;
                }
            }
        }
        path
    }

    #[test]
    fn a_path_that_is_text_stays_as_it_is() {
        for path in ["/home/u/api", "/tmp/café", "/a\\b", "/a\\xyz", "/日本\n語", ""] {
            assert_eq!(of(path.as_bytes()), path);
        }
    }

    #[test]
    fn bytes_that_are_no_text_can_be_told_apart() {
        assert_eq!(of(b"/caf\xe9"), "/caf\\xE9");
        assert_eq!(of(b"/caf\xe8"), "/caf\\xE8");
        assert_eq!(of(b"/caf\\xE9"), "/caf\\x5CxE9");
    }

    #[test]
    fn a_path_that_does_not_fit_keeps_its_ends_and_is_told_from_its_neighbours() {
        let long = |middle: &str| {
            of(format!("/home/u/{}{middle}{}/src", "é/".repeat(600), "d".repeat(600)).as_bytes())
        };
        assert!(long("a").len() <= PATH_BYTES_MAX, "{}", long("a").len());
        assert!(long("a").starts_with("/home/u/é/") && long("a").ends_with("d/src"));
        assert_ne!(long("a"), long("b"));
        assert_eq!(long("a"), long("a"));
        let fits = format!("/{}", "d".repeat(PATH_BYTES_MAX - 1));
        assert_eq!(of(fits.as_bytes()), fits);
    }

    proptest! {
        #[test]
        fn what_is_spelled_can_be_read_back(path in proptest::collection::vec(prop_oneof![
            any::<u8>(), proptest::sample::select(b"\\x5CxE9/\xe9\xc3".to_vec())
        ], 0..80)) {
            prop_assert_eq!(read(&of(&path)), path);
        }
    }
}
