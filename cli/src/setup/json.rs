//! A JSON editor that adds or removes one member or item, and changes no other byte.
//!
//! Knows JSON, the comments and trailing commas that some clients allow, and the layout of a text.
//! Does not know files or the meaning of a member. Invariant: [`remove`] undoes [`insert`] to the
//! byte, in any layout. To tell an existing empty object from a new one, the entry in the former
//! begins with exactly one space.

use std::fmt::{self, Write};
use std::ops::Range;

use thiserror::Error;

/// Deepest nesting that is read, because the reader is recursive.
const DEPTH_MAX: usize = 256;

/// What a client accepts besides plain JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Nothing.
    Strict,
    /// Comments and trailing commas.
    Comments,
}

/// A value with its position.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value's bytes.
    pub(crate) span: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Object(Vec<Entry>),
    Array(Vec<Entry>),
    Text(String),
    Other,
}

/// A member of an object or an item of an array.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The member's name; empty for items.
    pub(crate) key: String,
    /// The member's or item's value.
    pub(crate) value: Node,
    /// The start of the key, or of the item.
    start: usize,
    /// The position of the comma after it.
    comma: Option<usize>,
}

impl Node {
    /// The entries of an object or array; none for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Object(entries) | Kind::Array(entries) => entries,
            Kind::Text(_) | Kind::Other => &[],
        }
    }

    /// The value of the member `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            // If two members have the same name, the last one counts, as it does for the clients.
            Kind::Object(entries) => {
                entries.iter().rfind(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// The value at the end of a path through objects.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.kind, Kind::Object(_))
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self.kind, Kind::Array(_))
    }

    fn step(&self, step: &Step) -> Option<usize> {
        match (step, &self.kind) {
            (Step::Key(key), Kind::Object(entries)) => {
                entries.iter().rposition(|entry| entry.key == *key)
            }
            (Step::Item(place), Kind::Array(entries)) => (*place < entries.len()).then_some(*place),
            _ => None,
        }
    }
}

/// Why a text is not JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {what}")]
pub(crate) struct Syntax {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: String,
}

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EditError {
    /// The text is not JSON.
    #[error(transparent)]
    Syntax(#[from] Syntax),
    /// The path has a value of another kind than an object or array.
    #[error("{path} is not an {expected}")]
    WrongKind { path: String, expected: &'static str },
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the member of this name.
    Key(String),
    /// To the item at this place.
    Item(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

/// A value to be written; members keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Object(Vec<(String, Value)>),
    Array(Vec<Value>),
    Text(String),
    Number(u64),
    /// JSON text that is written unchanged.
    Raw(String),
}

impl Value {
    pub(crate) fn object<const N: usize>(members: [(&str, Value); N]) -> Self {
        Self::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The value as a whole document: two spaces per level, and a final newline.
    pub(crate) fn document(&self) -> String {
        format!("{}\n", Layout::usual().render(self, Some("")))
    }
}

/// The value in one line, as an error or a snippet shows it.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Layout::usual().render(self, None))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The layout of a text.
struct Layout {
    newline: &'static str,
    /// One level of indentation.
    unit: String,
    /// The text after a key.
    colon: &'static str,
}

impl Layout {
    fn usual() -> Self {
        Self { newline: "\n", unit: "  ".to_owned(), colon: ": " }
    }

    fn of(text: &str, root: &Node) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let first = root.entries().first();
        let unit =
            first.map(|first| lead(text, root.span.start + 1, first.start)).unwrap_or_default();
        let unit =
            unit.rfind('\n').map_or_else(|| "  ".to_owned(), |end| unit[end + 1..].to_owned());
        // Some people do not indent the members of the root at all.
        let unit = if unit.is_empty() { "  ".to_owned() } else { unit };
        let tight = first.is_some_and(|first| text[..first.value.span.start].ends_with(':'));
        Self { newline, unit, colon: if tight { ":" } else { ": " } }
    }

    /// The value as text. It has several lines if `indent` is given, which is the indentation of
    /// its own line.
    fn render(&self, value: &Value, indent: Option<&str>) -> String {
        let (open, close, entries): (_, _, Vec<String>) = match value {
            Value::Text(text) => return quoted(text),
            Value::Number(number) => return number.to_string(),
            Value::Raw(text) => return text.clone(),
            // Short lists read best in one line.
            Value::Array(items)
                if items.iter().all(|item| matches!(item, Value::Text(_) | Value::Number(_))) =>
            {
                let items: Vec<_> = items.iter().map(|item| self.render(item, None)).collect();
                return format!("[{}]", items.join(self.separator()));
            }
            Value::Array(items) => {
                let inner = indent.map(|indent| format!("{indent}{}", self.unit));
                ('[', ']', items.iter().map(|item| self.render(item, inner.as_deref())).collect())
            }
            Value::Object(members) => {
                let inner = indent.map(|indent| format!("{indent}{}", self.unit));
                let member = |(key, value): &(String, Value)| {
                    format!("{}{}{}", quoted(key), self.colon, self.render(value, inner.as_deref()))
                };
                ('{', '}', members.iter().map(member).collect())
            }
        };
        let mut text = String::from(open);
        match indent {
            Some(indent) if !entries.is_empty() => {
                for (number, entry) in entries.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    let _ = write!(text, "{comma}{}{indent}{}{entry}", self.newline, self.unit);
                }
                text.push_str(self.newline);
                text.push_str(indent);
            }
            _ => text.push_str(&entries.join(self.separator())),
        }
        text.push(close);
        text
    }

    fn separator(&self) -> &'static str {
        if self.colon == ":" { "," } else { ", " }
    }
}

/// Whether a text is a JSON number, of any size.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent)
}

/// The white space directly before `start`, back to `from` at most.
fn lead(text: &str, from: usize, start: usize) -> &str {
    let before = &text[from..start];
    &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..]
}

/// Reads a text.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn parse(text: &str, dialect: Dialect) -> Result<Node, Syntax> {
    let mut reader =
        Reader { text, place: if text.starts_with('\u{feff}') { 3 } else { 0 }, dialect };
    let node = reader.value(0)?;
    reader.space()?;
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("something follows the value")),
    }
}

/// Adds a value as the last member `key` of the object at the end of `path`. Without a key, adds it
/// as the last item of the array there. Missing containers on the path are created.
///
/// # Errors
/// The text is not JSON, or a value on the path is not a container.
pub(crate) fn insert(
    text: &str,
    dialect: Dialect,
    path: &[&str],
    key: Option<&str>,
    value: Value,
) -> Result<String, EditError> {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let value = wrap(value, key, path);
        let end = text.len() - text.trim_start_matches('\u{feff}').len();
        return Ok(format!("{}{}", &text[..end], value.document()));
    }
    let root = parse(text, dialect)?;
    let layout = Layout::of(text, &root);
    let mut container = &root;
    let mut depth = 0;
    while let Some(next) = path.get(depth).and_then(|key| container.get(key)) {
        container = next;
        depth += 1;
    }
    let missing = &path[depth..];
    let expected = if missing.is_empty() && key.is_none() { "array" } else { "object" };
    if !(if expected == "array" { container.is_array() } else { container.is_object() }) {
        let path = if depth == 0 { "the whole".to_owned() } else { path[..depth].join(".") };
        return Err(EditError::WrongKind { path, expected });
    }
    let (key, value) = match missing {
        [] => (key, value),
        [first, rest @ ..] => (Some(*first), wrap(value, key, rest)),
    };
    Ok(put(text, &layout, container, key, &value))
}

/// The value inside of the containers that lead to it.
fn wrap(value: Value, key: Option<&str>, path: &[&str]) -> Value {
    let innermost = match key {
        Some(key) => Value::object([(key, value)]),
        None => Value::Array(vec![value]),
    };
    path.iter().rev().fold(innermost, |value, key| Value::object([(key, value)]))
}

fn put(text: &str, layout: &Layout, container: &Node, key: Option<&str>, value: &Value) -> String {
    let name = key.map(|key| format!("{}{}", quoted(key), layout.colon)).unwrap_or_default();
    let entries = container.entries();
    let Some(last) = entries.last() else {
        // The one space records that the braces existed before.
        let place = container.span.start + 1;
        return splice(text, place..place, &format!(" {name}{}", layout.render(value, None)));
    };
    let space = lead(text, container.span.start, last.start);
    let (entry, spread) = match space.rfind('\n') {
        Some(end) => {
            let indent = &space[end + 1..];
            (
                format!("{}{indent}{name}{}", layout.newline, layout.render(value, Some(indent))),
                true,
            )
        }
        None => {
            let space =
                if entries.len() > 1 { space } else { layout.separator().trim_start_matches(',') };
            (format!("{space}{name}{}", layout.render(value, None)), false)
        }
    };
    let (end, before, after) = match last.comma {
        Some(comma) => (comma + 1, "", ","),
        None => (last.value.span.end, ",", ""),
    };
    // A comment at the end of the last entry's line stays with that entry.
    let place = if spread { after_remarks(text, end) } else { end };
    let with_entry = splice(text, place..place, &format!("{entry}{after}"));
    splice(&with_entry, end..end, before)
}

/// The end of the comments that follow in the same line.
fn after_remarks(text: &str, from: usize) -> usize {
    let mut place = from;
    loop {
        let rest = &text[place..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let comment = &rest[blank..];
        let length = if comment.starts_with("//") {
            comment.find(['\r', '\n']).unwrap_or(comment.len())
        } else if comment.starts_with("/*") {
            match comment.find("*/") {
                Some(end) if !comment[..end].contains('\n') => end + 2,
                _ => return place,
            }
        } else {
            return place;
        };
        place += blank + length;
    }
}

fn splice(text: &str, range: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..range.start], &text[range.end..])
}

/// Replaces the value at the end of `path`. `None`: there is none.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn replace(
    text: &str,
    dialect: Dialect,
    path: &[&str],
    value: &Value,
) -> Result<Option<String>, Syntax> {
    let root = parse(text, dialect)?;
    let Some(node) = root.at(path) else { return Ok(None) };
    let layout = Layout::of(text, &root);
    let line = text[..node.span.start].rfind('\n').map_or(0, |end| end + 1);
    let indent: String = text[line..].chars().take_while(|c| [' ', '\t'].contains(c)).collect();
    let spread = text[node.span.clone()].contains('\n');
    Ok(Some(splice(text, node.span.clone(), &layout.render(value, spread.then_some(&indent)))))
}

/// Removes the entry at the end of `path`, and the containers that were created for it and are then
/// empty. `None`: there is no such entry.
///
/// # Errors
/// The text is not JSON.
pub(crate) fn remove(
    text: &str,
    dialect: Dialect,
    path: &[Step],
) -> Result<Option<String>, Syntax> {
    let root = parse(text, dialect)?;
    let Some((last, way)) = path.split_last() else { return Ok(None) };
    let mut container = &root;
    for step in way {
        let Some(place) = container.step(step) else { return Ok(None) };
        container = &container.entries()[place].value;
    }
    let Some(place) = container.step(last) else { return Ok(None) };
    let entries = container.entries();
    let entry = &entries[place];
    let space = lead(text, container.span.start + 1, entry.start);
    // Comments around the entry keep the container, and so does the space that `put` adds.
    let bare = text[container.span.start + 1..entry.start].trim().is_empty()
        && text
            [entry.comma.map_or(entry.value.span.end, |comma| comma + 1)..container.span.end - 1]
            .trim()
            .is_empty();
    if entries.len() == 1 && bare && space != " " && !way.is_empty() {
        return remove(text, dialect, way);
    }
    let start = entry.start - space.len();
    let end = entry.value.span.end;
    let pieces = match (entry.comma, entries.get(place + 1)) {
        // The next entry takes its place.
        (Some(comma), Some(next)) if text[comma + 1..next.start].trim().is_empty() => {
            [&text[..entry.start], "", &text[next.start..]]
        }
        (Some(comma), _) => [&text[..start], &text[end..comma], &text[comma + 1..]],
        // It was the last entry, so the comma before it was added with it.
        (None, _) => match place.checked_sub(1).and_then(|before| entries[before].comma) {
            Some(comma) => [&text[..comma], &text[comma + 1..start], &text[end..]],
            None => [&text[..start], "", &text[end..]],
        },
    };
    Ok(Some(pieces.concat()))
}

struct Reader<'text> {
    text: &'text str,
    place: usize,
    dialect: Dialect,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.place).copied()
    }

    fn error(&self, what: &str) -> Syntax {
        let before = &self.text[..self.place];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .trim_start_matches('\u{feff}')
            .chars()
            .count()
            + 1;
        Syntax { line, column, what: what.to_owned() }
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), Syntax> {
        loop {
            let rest = &self.text[self.place..];
            self.place += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            let rest = &self.text[self.place..];
            if !rest.starts_with("//") && !rest.starts_with("/*") {
                return Ok(());
            }
            if self.dialect == Dialect::Strict {
                return Err(self.error("a comment, which this file may not have"));
            }
            self.place += if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else {
                rest.find("*/").ok_or_else(|| self.error("a comment that does not end"))? + 2
            };
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Syntax> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.space()?;
        let start = self.place;
        let kind = match self.peek() {
            None => return Err(self.error("the text ends before a value")),
            Some(b'{') => Kind::Object(self.list(b'}', true, depth)?),
            Some(b'[') => Kind::Array(self.list(b']', false, depth)?),
            Some(b'"') => Kind::Text(self.string()?),
            Some(_) => {
                let rest = &self.text[self.place..];
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c)))
                    .unwrap_or(rest.len());
                if !["true", "false", "null"].contains(&&rest[..end]) && !is_number(&rest[..end]) {
                    return Err(self.error("not a value"));
                }
                self.place += end;
                Kind::Other
            }
        };
        Ok(Node { span: start..self.place, kind })
    }

    fn string(&mut self) -> Result<String, Syntax> {
        let bytes = self.text.as_bytes();
        let mut end = self.place + 1;
        loop {
            match bytes.get(end) {
                None => return Err(self.error("a string that does not end")),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        let string =
            self.text.get(self.place..=end).and_then(|text| serde_json::from_str(text).ok());
        // Some readers accept a lone surrogate; no text that setup looks for has one.
        let string = string.or_else(|| {
            self.text.get(self.place..=end).filter(|text| text.contains("\\u")).map(str::to_owned)
        });
        let string =
            string.ok_or_else(|| self.error("a string with a character that must be escaped"))?;
        self.place = end + 1;
        Ok(string)
    }

    fn list(&mut self, close: u8, named: bool, depth: usize) -> Result<Vec<Entry>, Syntax> {
        self.place += 1;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            self.space()?;
            let may_end = match entries.last() {
                None => true,
                Some(last) => last.comma.is_none() || self.dialect == Dialect::Comments,
            };
            match self.peek() {
                Some(byte) if byte == close && may_end => {
                    self.place += 1;
                    return Ok(entries);
                }
                None => return Err(self.error("the text ends within an object or array")),
                Some(b',') if entries.last().is_some_and(|last| last.comma.is_none()) => {
                    if let Some(last) = entries.last_mut() {
                        last.comma = Some(self.place);
                    }
                    self.place += 1;
                    continue;
                }
                Some(_) if entries.last().is_some_and(|last| last.comma.is_none()) => {
                    return Err(self.error("a comma is missing"));
                }
                Some(_) => {}
            }
            let start = self.place;
            let mut key = String::new();
            if named {
                if self.peek() != Some(b'"') {
                    return Err(self.error("the name of a member is missing"));
                }
                key = self.string()?;
                self.space()?;
                if self.peek() != Some(b':') {
                    return Err(self.error("a colon is missing"));
                }
                self.place += 1;
            }
            let value = self.value(depth + 1)?;
            entries.push(Entry { key, value, start, comma: None });
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
