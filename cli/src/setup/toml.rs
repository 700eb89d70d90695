//! A TOML editor that appends tables, removes tables or sets a value, and changes no other byte.
//!
//! Knows TOML: `toml_edit` reads a text and reports the position of each table and value. Edits are
//! made on the bytes, because writing the whole document would change line ends. Does not know
//! files or the meaning of a table. Invariant: [`remove`] undoes [`append`] to the byte. A text
//! without a final newline still has none.

use std::ops::Range;

use thiserror::Error;
use toml_edit::{ArrayOfTables, Document, Item, Table, TableLike};

/// Why a text is not TOML, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {what}")]
pub(crate) struct Syntax {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: String,
}

/// Reads a text.
///
/// # Errors
/// The text is not TOML.
pub(crate) fn parse(text: &str) -> Result<Document<&str>, Syntax> {
    Document::parse(text).map_err(|error| {
        let place = error.span().map_or(text.len(), |span| span.start).min(text.len());
        let before = text.get(..place).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Syntax { line, column, what: error.message().lines().collect::<Vec<_>>().join(", ") }
    })
}

/// The item at the end of a path of tables.
pub(crate) fn at<'a>(document: &'a Document<&str>, path: &[&str]) -> Option<&'a Item> {
    path.iter().try_fold(document.as_item(), |item, key| item.as_table_like()?.get(key))
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Appends tables, written with `
/// `, after an empty line.
pub(crate) fn append(text: &str, tables: &str) -> String {
    let newline = newline(text);
    let tables = tables.trim_end().replace('\n', newline);
    match text.trim_start_matches('\u{feff}') {
        "" => format!("{text}{tables}{newline}"),
        other if other.ends_with('\n') => format!("{text}{newline}{tables}{newline}"),
        // A text without a final newline still has none.
        _ => format!("{text}{newline}{newline}{tables}"),
    }
}

/// The array of tables at the end of a path. The path leads through tables and, by number, through
/// elements of such arrays.
fn array_at<'a>(document: &'a Document<&str>, path: &[&str]) -> Option<&'a ArrayOfTables> {
    let mut table: &dyn TableLike = document.as_table();
    let mut keys = path.iter();
    while let Some(key) = keys.next() {
        match table.get(key)? {
            Item::ArrayOfTables(elements) => match keys.next() {
                Some(place) => table = elements.get(place.parse().ok()?)?,
                None => return Some(elements),
            },
            item => table = item.as_table_like()?,
        }
    }
    None
}

/// Tables to remove: a table with all tables below it, by path, or elements of an array of tables.
/// A path may lead through elements, named by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Table(Vec<String>),
    Elements(Vec<String>, Vec<usize>),
}

/// The lines of the tables, with the blank lines between adjacent ones.
fn lines_of(text: &str, targets: &[Target]) -> Result<Vec<Range<usize>>, Syntax> {
    let document = parse(text)?;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for target in targets {
        let (Target::Table(path) | Target::Elements(path, _)) = target;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match target {
            Target::Elements(_, places) => {
                let Some(elements) = array_at(&document, &path) else { continue };
                for table in places.iter().filter_map(|place| elements.get(*place)) {
                    headed(table, &mut ranges);
                }
            }
            Target::Table(_) => match at(&document, &path).map(|item| (item, item.as_table())) {
                None => {}
                Some((_, Some(table))) => headed(table, &mut ranges),
                Some((item, None)) => {
                    // `peers = { … }` inside of a table with its own lines.
                    let parent =
                        path.split_last().and_then(|(key, way)| Some((key, at(&document, way)?)));
                    let key = parent.and_then(|(key, parent)| parent.as_table()?.key(key)?.span());
                    match (key, item.span()) {
                        (Some(key), Some(value)) => ranges.push(key.start..value.end),
                        _ => return Err(inline(text, item, &path)),
                    }
                }
            },
        }
    }
    let mut lines: Vec<Range<usize>> =
        ranges.into_iter().map(|range| whole_lines(text, range)).collect();
    lines.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in lines {
        match merged.last_mut() {
            Some(last)
                if last.end >= range.start || text[last.end..range.start].trim().is_empty() =>
            {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    Ok(merged)
}

/// The text of the tables.
///
/// # Errors
/// The text is not TOML, or a target is part of an inline table.
pub(crate) fn excerpt(text: &str, targets: &[Target]) -> Result<String, Syntax> {
    Ok(lines_of(text, targets)?
        .into_iter()
        .map(|lines| &text[lines])
        .collect::<Vec<_>>()
        .join("\n"))
}

/// Removes tables. `None`: the text has none of them.
///
/// # Errors
/// The text is not TOML, or a target is part of an inline table, which the error names.
pub(crate) fn remove(text: &str, targets: &[Target]) -> Result<Option<String>, Syntax> {
    let merged = lines_of(text, targets)?;
    if merged.is_empty() {
        return Ok(None);
    }
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for range in merged {
        let before = &text[from..range.start];
        // The empty line that `append` added is removed as well.
        let bare =
            before.strip_suffix('\n').map(|before| before.strip_suffix('\r').unwrap_or(before));
        let bare = bare.filter(|bare| {
            bare.ends_with('\n') || bare.trim_start_matches('\u{feff}').is_empty() && from == 0
        });
        kept.push_str(bare.unwrap_or(before));
        from = range.end;
        if range.end == text.len() && !text.ends_with('\n') {
            let end = kept
                .strip_suffix('\n')
                .map(|kept| kept.strip_suffix('\r').unwrap_or(kept))
                .unwrap_or(&kept)
                .len();
            kept.truncate(end);
        }
    }
    kept.push_str(&text[from..]);
    Ok(Some(kept))
}

fn inline(text: &str, item: &Item, path: &[&str]) -> Syntax {
    let start = item.span().map_or(0, |span| span.start).min(text.len());
    let before = &text[..start];
    Syntax {
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
        what: format!("{} is part of an inline table", path.join(".")),
    }
}

/// The ranges of a table with a header, and of all tables with headers below it.
fn headed(table: &Table, ranges: &mut Vec<Range<usize>>) {
    if let Some(span) = table.span().filter(|_| !table.is_implicit()) {
        ranges.push(span.start..end_of(table, span.end));
    }
    for (_, item) in table.iter() {
        match item {
            Item::Table(below) if !below.is_dotted() => headed(below, ranges),
            Item::ArrayOfTables(elements) => {
                elements.iter().for_each(|below| headed(below, ranges))
            }
            _ => {}
        }
    }
}

/// The end of a table's own last value.
fn end_of(table: &Table, header: usize) -> usize {
    let ends = table.iter().map(|(_, item)| match item {
        Item::Value(value) => value.span().map_or(0, |span| span.end),
        Item::Table(below) if below.is_dotted() => end_of(below, 0),
        _ => 0,
    });
    ends.fold(header, usize::max)
}

fn whole_lines(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text[..range.start].rfind('\n').map_or(0, |end| end + 1);
    let start = if start == 0 && text.starts_with('\u{feff}') { 3 } else { start };
    let end = text[range.end..].find('\n').map_or(text.len(), |end| range.end + end + 1);
    start..end
}

/// Sets `key` in the table at the end of `path` to a value, given as TOML. An existing value is
/// replaced; a new key is added at the end of the table. `None`: the table does not exist or has no
/// header.
///
/// # Errors
/// The text is not TOML.
pub(crate) fn set(
    text: &str,
    path: &[&str],
    key: &str,
    value: &str,
) -> Result<Option<String>, Syntax> {
    let document = parse(text)?;
    let Some(item) = at(&document, path) else { return Ok(None) };
    let table: Option<&dyn TableLike> = item.as_table_like();
    if let Some(span) = table
        .and_then(|table| table.get(key))
        .and_then(Item::as_value)
        .and_then(|value| value.span())
    {
        return Ok(Some(format!("{}{value}{}", &text[..span.start], &text[span.end..])));
    }
    let Some(header) = item
        .as_table()
        .filter(|table| !table.is_implicit() && !table.is_dotted())
        .and_then(Table::span)
    else {
        return Ok(None);
    };
    let end = end_of(item.as_table().unwrap_or(document.as_table()), header.end);
    let line = whole_lines(text, end..end);
    let newline = newline(text);
    Ok(Some(match text[..line.end].ends_with('\n') {
        true => format!("{}{key} = {value}{newline}{}", &text[..line.end], &text[line.end..]),
        false => format!("{text}{newline}{key} = {value}"),
    }))
}

pub(crate) fn quoted(text: &str) -> String {
    // A JSON string is a TOML basic string, except for DEL, which JSON leaves unescaped.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

pub(crate) fn list(texts: &[&str]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLES: &str = "[mcp_servers.peers]\ncommand = \"/p\"\nargs = [\"mcp\"]\n\n[mcp_servers.peers.tools.send_message]\napproval_mode = \"approve\"\n\n[[hooks.Stop]]\n\n[[hooks.Stop.hooks]]\ntype = \"command\"\n";

    fn ours(stop: usize) -> [Target; 2] {
        [
            Target::Table(vec!["mcp_servers".to_owned(), "peers".to_owned()]),
            Target::Elements(vec!["hooks".to_owned(), "Stop".to_owned()], vec![stop]),
        ]
    }

    #[test]
    fn what_was_appended_comes_out_to_the_byte() {
        let before = [
            ("", 0),
            ("\n", 0),
            ("\u{feff}", 0),
            ("\u{feff}a = 1\r\n", 0),
            ("a = 1", 0),
            ("a = 1\n", 0),
            ("a = 1 # c\n\n\n", 0),
            ("a = 1\r\n[b]\r\nc = 2", 0),
            ("# only a remark", 0),
            ("[mcp_servers.other]\ncommand = \"x\"\n", 0),
            ("mcp_servers.other.command = \"x\"\n", 0),
            ("[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ntype = 'command' # theirs\n", 1),
            ("hooks.state.x = 1\n", 0),
        ];
        for (before, stop) in before {
            let after = append(before, TABLES);
            parse(&after).unwrap_or_else(|why| panic!("{why} in {after:?}"));
            assert_eq!(remove(&after, &ours(stop)).unwrap().as_deref(), Some(before), "{after:?}");
        }
    }

    #[test]
    fn what_others_wrote_behind_and_between_stays() {
        let text = "a = 1\n\n[mcp_servers.peers]\ncommand = \"/p\"\nenv.X = \"1\"\nargs = [\n  \"mcp\",\n] # t\n# a remark\n\n[other]\nb = 2\n\n[mcp_servers.peers.tools.x]\napproval_mode = \"approve\"\n";
        let kept = "a = 1\n# a remark\n\n[other]\nb = 2\n";
        assert_eq!(remove(text, &ours(0)).unwrap().as_deref(), Some(kept));
        assert_eq!(remove(kept, &ours(0)).unwrap(), None);
        let text = "[mcp_servers]\nother = { command = \"x\" }\npeers = { command = \"p\" }\nlast = { command = \"y\" }\n";
        let kept = "[mcp_servers]\nother = { command = \"x\" }\nlast = { command = \"y\" }\n";
        assert_eq!(remove(text, &ours(0)).unwrap().as_deref(), Some(kept));
        let error =
            remove("mcp_servers = { peers = { command = \"p\" } }\n", &ours(0)).unwrap_err();
        assert!(error.to_string().contains("inline table"), "{error}");
    }

    #[test]
    fn a_value_is_set_in_its_place_or_behind_its_neighbours() {
        let text = "[mcp_servers.peers]\ncommand = 'old' # why\n# more\n\n[z]\n";
        let new = set(text, &["mcp_servers", "peers"], "command", "\"new\"").unwrap();
        assert_eq!(
            new.as_deref(),
            Some("[mcp_servers.peers]\ncommand = \"new\" # why\n# more\n\n[z]\n")
        );
        let new = set(text, &["mcp_servers", "peers"], "args", "[\"mcp\"]").unwrap();
        assert_eq!(
            new.as_deref(),
            Some("[mcp_servers.peers]\ncommand = 'old' # why\nargs = [\"mcp\"]\n# more\n\n[z]\n")
        );
        assert_eq!(set(text, &["mcp_servers", "x"], "a", "1").unwrap(), None);
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_place() {
        let error = parse("a = 1\nb = = 2\n").unwrap_err();
        assert_eq!((error.line, error.column), (2, 5), "{error}");
        let error = parse("a = 1\na = 2\n").unwrap_err();
        assert_eq!(error.line, 2, "{error}");
    }

    #[test]
    fn strings_are_toml() {
        for text in ["", "a\"b\\c/d", "tab\tline\n\u{1b}\u{7f}é\u{1f600}"] {
            let line = format!("a = {}", quoted(text));
            let document = parse(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
            assert_eq!(at(&document, &["a"]).and_then(Item::as_str), Some(text));
        }
    }

    /// Tables as people write them, in any order.
    const PIECES: [&str; 9] = [
        "\n",
        "# a remark with [brackets] and = signs\n",
        "[x.y]\nb = 2 # t\n",
        "[[hooks.Stop]]\nmatcher = \"*\"\n[[hooks.Stop.hooks]]\ntype = \"command\"\n",
        "[[hooks.Start]]\nhooks = [\n  { type = \"command\" }, # why\n]\n",
        "  [mcp_servers.o]\n  command = 'x'\n  env = { A = \"1\" }\n",
        "[mcp_servers.peers-2]\ncommand = \"p\"\n",
        "[m]\ntext = \"\"\"\n[mcp_servers.peers]\n\n\"\"\"\n",
        "\t# indented\n\n\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_stands_there_what_was_appended_comes_out(
            head in prop::sample::select(vec!["", "\u{feff}", "model = \"x\"\n", "mcp_servers.z.command = \"z\"\n# c\n", "hooks.state.a = 1\n"]),
            pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..8),
            crlf in prop::bool::ANY,
            ends in prop::bool::ANY,
        ) {
            let mut text = format!("{head}{}", pieces.concat());
            if !ends {
                text.truncate(text.trim_end_matches('\n').len());
            }
            if crlf {
                text = text.replace('\n', "\r\n");
            }
            // Two pieces may be the same table; such a text is not TOML.
            if parse(&text).is_ok() {
                let after = append(&text, TABLES);
                prop_assert!(parse(&after).is_ok(), "{after:?}");
                let stops = pieces.iter().filter(|piece| piece.starts_with("[[hooks.Stop]]")).count();
                let without = remove(&after, &ours(stops)).unwrap();
                prop_assert_eq!(without.as_deref(), Some(text.as_str()));
            }
        }
    }
}
