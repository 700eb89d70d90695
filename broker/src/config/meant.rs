//! Suggests the key of `config.toml` that an unknown key was meant to be.

use peer_proto::settings::{KEYS, TABLES};

/// The question which key was meant, as the end of a sentence. Empty if no key is similar.
pub(super) fn question(table: Option<&str>, typed: &str) -> String {
    nearest(table, typed).map(|key| format!(": did you mean {key}?")).unwrap_or_default()
}

/// Returns the key most like `typed`: with its table, or without it if `table` is the right one.
fn nearest(table: Option<&str>, typed: &str) -> Option<String> {
    /// From 0 to 1: a typing mistake is above it, another word below.
    const SIMILARITY_MIN: f64 = 0.7;

    let alike = |name: &str| strsim::normalized_damerau_levenshtein(typed, name);
    let best = KEYS
        .iter()
        .map(|key| (alike(key.name), key.table, key.name))
        .max_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let near_table = TABLES
        .iter()
        .map(|name| (alike(name), *name))
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match (best, near_table.filter(|_| table.is_none())) {
        (Some((key, ..)), Some((of_table, name)))
            if of_table >= SIMILARITY_MIN && of_table > key =>
        {
            Some(format!("[{name}]"))
        }
        (Some((key, of, name)), _) if key >= SIMILARITY_MIN => {
            Some(if table == Some(of) { name.to_owned() } else { format!("{name} under [{of}]") })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_told_from_another_word() {
        assert_eq!(
            nearest(Some("limits"), "sender_per_minut").as_deref(),
            Some("sender_per_minute")
        );
        assert_eq!(
            nearest(None, "sender_per_minute").as_deref(),
            Some("sender_per_minute under [limits]")
        );
        assert_eq!(
            nearest(Some("limits"), "settled_day").as_deref(),
            Some("settled_days under [retention]")
        );
        assert_eq!(nearest(None, "limit").as_deref(), Some("[limits]"));
        assert_eq!(nearest(Some("limits"), "colour"), None);
    }
}
