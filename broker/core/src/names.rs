//! Names: friendly names for peers without a chosen one, suffixes for collisions, and similar names
//! for a mistyped one.

use peer_proto::limits::NAME_CHARS_MAX;

const ADJECTIVES: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "cosmic", "crisp", "deft", "eager", "early",
    "fleet", "frank", "gentle", "glad", "golden", "keen", "kind", "lively", "lucid", "merry",
    "nimble", "noble", "quick", "quiet", "rapid", "sharp", "silver", "steady", "sunny", "swift",
    "vivid", "warm",
];

const NOUNS: [&str; 32] = [
    "badger", "bison", "crane", "condor", "dolphin", "falcon", "ferret", "finch", "fox", "gecko",
    "heron", "ibex", "jackal", "kestrel", "lark", "lemur", "lynx", "marten", "mole", "newt",
    "orca", "osprey", "otter", "owl", "panda", "puma", "raven", "robin", "seal", "stoat", "tapir",
    "wren",
];

/// The most names that a refusal offers in place of an unknown one.
pub(crate) const NEAREST_MAX: usize = 3;

/// An `adjective-noun` that `is_free` accepts, drawn by `entropy`; with a number once the pairs are
/// used up.
pub(crate) fn friendly(entropy: u64, is_free: impl Fn(&str) -> bool) -> String {
    let pairs = ADJECTIVES.len() * NOUNS.len();
    let start = (entropy % pairs as u64) as usize;
    let pair = |index: usize| {
        format!(
            "{}-{}",
            ADJECTIVES[index % ADJECTIVES.len()],
            NOUNS[index / ADJECTIVES.len() % NOUNS.len()]
        )
    };
    // A stride that shares no factor with the number of pairs visits each pair once.
    (0..pairs).map(|n| pair((start + n * 37) % pairs)).find(|name| is_free(name)).unwrap_or_else(
        || {
            let base = pair(start);
            (2u64..).map(|n| with_suffix(&base, n)).find(|name| is_free(name)).unwrap_or(base)
        },
    )
}

/// `base-n`, cut so that it stays a name.
pub(crate) fn with_suffix(base: &str, n: u64) -> String {
    // `p-2` is a peer's id.
    let separator = if base == "p" { '_' } else { '-' };
    let suffix = format!("{separator}{n}");
    let keep = base.len().min(NAME_CHARS_MAX - suffix.len());
    format!("{}{suffix}", &base[..keep])
}

/// Names that are compared letter by letter for one refusal. With thousands of peers, comparing all
/// would delay every other request.
const COMPARED_MAX: usize = 500;

/// Returns up to [`NEAREST_MAX`] of `names` that are most like `wanted`, nearest first. Compares
/// only a limited number of them.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = wanted.to_ascii_lowercase();
    let is_part =
        |name: &str| name.contains(&wanted) || (!name.is_empty() && wanted.contains(name));
    let mut compared = 0;
    let mut ranked: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_ascii_lowercase();
            let (is_part, near) = (is_part(&lower), 1 + lower.len() / 4);
            // A difference in length is at least that distance.
            if (!is_part && wanted.len().abs_diff(lower.len()) > near) || compared >= COMPARED_MAX {
                return None;
            }
            compared += 1;
            let distance = distance(&wanted, &lower);
            (is_part || distance <= near).then_some((distance, name))
        })
        .collect();
    ranked.sort_unstable();
    ranked.truncate(NEAREST_MAX);
    ranked.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// Returns Levenshtein's distance in bytes. Names are ASCII, and `wanted` is cut to a bounded
/// length.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(2 * NAME_CHARS_MAX)], b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    #[test]
    fn friendly_names_are_names_and_do_not_run_out() {
        let taken = RefCell::new(BTreeSet::new());
        for _ in 0..1_100 {
            let name = friendly(7, |name| !taken.borrow().contains(name));
            assert!(peer_proto::ids::is_peer_name(&name), "{name}");
            assert!(taken.borrow_mut().insert(name));
        }
    }

    #[test]
    fn a_suffix_keeps_a_long_name_a_name() {
        let name = with_suffix(&"n".repeat(32), 17);
        assert_eq!(name.len(), 32);
        assert!(name.ends_with("-17"));
        assert!(
            peer_proto::ids::is_peer_name(&with_suffix("p", 2)),
            "a suffix makes no id of a name"
        );
    }

    #[test]
    fn a_mistyped_name_finds_its_neighbours() {
        let names = ["luna", "lune-2", "orion", "backend"];
        assert_eq!(nearest("lnua", names.into_iter()), ["luna"]);
        assert_eq!(nearest("zephyr", names.into_iter()), Vec::<String>::new());
        assert_eq!(nearest("lunna", names.into_iter()), ["luna"]);
        assert_eq!(nearest("back", names.into_iter()), ["backend"]);
        assert_eq!(nearest("Orian", names.into_iter()), ["orion"]);
        let crowd: Vec<String> =
            (0..10_000).map(|number| format!("agent-{number}-at-work")).collect();
        let names = crowd.iter().map(String::as_str).chain(["luna"]);
        assert_eq!(nearest("lnua", names), ["luna"], "names of another length are passed over");
    }
}
