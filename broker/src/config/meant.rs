//! Which key of `config.toml` was meant, where nobody knows the one that stands there.

use super::Settings;

/// The parser's reason. Where it is a key that nobody knows, also which one was meant.
pub(super) fn reason(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().trim().replace('\n', ", ");
    let Some(typed) = reason.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) else { return reason };
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let opened = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split(']').next());
    // The table's own name is what nobody knows.
    let table = opened.map(str::trim).filter(|table| *table != typed && !table.is_empty());
    format!("{reason}{}", question(table, typed))
}

/// The question which key was meant, as the end of a sentence; empty where none is like it.
pub(super) fn question(table: Option<&str>, typed: &str) -> String {
    nearest(table, typed).map(|key| format!(": did you mean {key}?")).unwrap_or_default()
}

/// The key that was meant, where one is much like `typed`: with its table, and without where `table` is the right one.
fn nearest(table: Option<&str>, typed: &str) -> Option<String> {
    /// From 0 to 1: a slip of the fingers is above it, another word below.
    const SIMILARITY_MIN: f64 = 0.7;

    let entries = Settings::default().entries();
    let keys = entries.iter().filter_map(|entry| entry.key.split_once('.'));
    let alike = |name: &str| strsim::normalized_damerau_levenshtein(typed, name);
    let best = keys.map(|(of, name)| (alike(name), of, name)).max_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let tables = ["limits", "retention", "policy", "operator", "adapter"].map(|name| (alike(name), name));
    let near_table = tables.into_iter().max_by(|(one, _), (other, _)| one.total_cmp(other));
    match (best, near_table.filter(|_| table.is_none())) {
        (Some((key, ..)), Some((of_table, name))) if of_table >= SIMILARITY_MIN && of_table > key => Some(format!("[{name}]")),
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
        assert_eq!(nearest(Some("limits"), "sender_per_minut").as_deref(), Some("sender_per_minute"));
        assert_eq!(nearest(None, "sender_per_minute").as_deref(), Some("sender_per_minute under [limits]"));
        assert_eq!(nearest(Some("limits"), "settled_day").as_deref(), Some("settled_days under [retention]"));
        assert_eq!(nearest(None, "limit").as_deref(), Some("[limits]"));
        assert_eq!(nearest(Some("limits"), "colour"), None);
    }
}
