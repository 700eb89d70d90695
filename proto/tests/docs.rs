//! Compares `docs/protocol.md`, `docs/errors.md` and `docs/configuration.md` with the code: every
//! type, number, limit, error code, key and byte.
//!
//! The types are read from the source text, because serde derives an enum's numbers and a
//! structure's field order from it. The reader below knows only this crate's style, as rustfmt
//! leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use peer_proto::codec::HEADER_BYTES;
use peer_proto::handshake::{MAGIC, Preface, SOFTWARE_BYTES_MAX};
use peer_proto::refusal::ErrorCode;
use peer_proto::settings::{KEYS, Settings, TABLES};

/// The parts of a type: a structure's fields, or an enum's variants with their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Definition {
    /// Name and type of each field, as the document writes them.
    Struct(Vec<String>),
    /// Name and fields of each variant, as the document writes them.
    Enum(Vec<(String, String)>),
}

fn repository_file(path: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("read {}: {why}", path.display()))
}

/// Splits at commas that stand outside all brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0, Vec::new());
    for (place, character) in list.char_indices() {
        match character {
            '<' | '(' | '{' => depth += 1,
            '>' | ')' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// A Rust type as the document writes it.
fn type_name(rust: &str) -> String {
    let inside = |outside: &str| rust.strip_prefix(outside)?.strip_suffix('>');
    if let Some(inner) = inside("Option<") {
        format!("option {}", type_name(inner))
    } else if let Some(inner) = inside("Vec<") {
        format!("list of {}", type_name(inner))
    } else if let Some(inner) = inside("Box<") {
        type_name(inner)
    } else if let Some(inner) = inside("Result<") {
        format!(
            "result of {}",
            split(inner).into_iter().map(type_name).collect::<Vec<_>>().join(" or ")
        )
    } else if let Some(inner) = rust.strip_prefix('(').and_then(|rust| rust.strip_suffix(')')) {
        format!(
            "pair of {}",
            split(inner).into_iter().map(type_name).collect::<Vec<_>>().join(" and ")
        )
    } else {
        match rust {
            "String" => "string".to_owned(),
            "RequestId" => "u64".to_owned(),
            other => other.to_owned(),
        }
    }
}

fn field(rust: &str) -> String {
    let (name, of) = rust
        .trim_start_matches("pub ")
        .split_once(": ")
        .unwrap_or_else(|| panic!("no field: {rust:?}"));
    format!("`{name}` {}", type_name(of))
}

/// The public structures and enums with named parts in a source file.
fn definitions(source: &str) -> BTreeMap<String, Definition> {
    let mut found = BTreeMap::new();
    let mut lines = source.lines().filter(|line| {
        !line.trim_start().starts_with("//") && !line.trim_start().starts_with("#[")
    });
    while let Some(line) = lines.next() {
        let Some((kind, name)) = line
            .strip_suffix(" {")
            .and_then(|line| line.strip_prefix("pub "))
            .and_then(|line| line.split_once(' '))
            .filter(|(kind, _)| ["struct", "enum"].contains(kind))
        else {
            continue;
        };
        let body: Vec<&str> =
            lines.by_ref().take_while(|line| *line != "}").map(str::trim).collect();
        let body = body.join(" ");
        let definition = if kind == "struct" {
            Definition::Struct(split(&body).into_iter().map(field).collect())
        } else {
            Definition::Enum(split(&body).into_iter().map(variant).collect())
        };
        found.insert(name.to_owned(), definition);
    }
    found
}

fn variant(rust: &str) -> (String, String) {
    let end = rust.find([' ', '(']).unwrap_or(rust.len());
    let (name, rest) = (rust[..end].to_owned(), rust[end..].trim());
    let fields = if let Some(inner) = rest.strip_prefix('(') {
        type_name(inner.trim_end_matches(')'))
    } else if let Some(inner) = rest.strip_prefix('{') {
        split(inner.trim_end_matches('}')).into_iter().map(field).collect::<Vec<_>>().join(", ")
    } else {
        "–".to_owned()
    };
    (name, fields)
}

/// The rows of the first table after `heading`, without its head; cells trimmed, an escaped bar
/// unescaped.
fn table(document: &str, heading: &str) -> Vec<Vec<String>> {
    let mut rest = document.lines().skip_while(|line| *line != heading);
    assert!(rest.next().is_some(), "the document has no heading {heading:?}");
    let rows =
        rest.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| {
        let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
        row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    rows.skip(2).map(cells).collect()
}

fn code(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

fn number(cell: &str) -> u64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("no number: {cell:?}"))
}

#[test]
fn every_type_on_the_wire_is_described_as_it_is() {
    let document = repository_file("docs/protocol.md");
    let mut known = BTreeMap::new();
    for file in [
        "request", "brake", "message", "refusal", "hook", "policy", "channel", "question", "task",
        "note", "search", "link",
    ] {
        known.extend(definitions(&repository_file(&format!("proto/src/{file}.rs"))));
    }
    let basic: BTreeSet<String> = table(&document, "## Identifiers and times")
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(
        basic,
        ["MessageId", "PeerId", "BrokerId", "TaskId", "Timestamp", "Token"]
            .map(str::to_owned)
            .into()
    );

    let mut reached = BTreeSet::new();
    let mut to_see = vec!["ClientFrame".to_owned(), "ServerFrame".to_owned()];
    while let Some(name) = to_see.pop() {
        if basic.contains(&name) || !reached.insert(name.clone()) {
            continue;
        }
        let definition = known
            .get(&name)
            .unwrap_or_else(|| panic!("{name} is on the wire and no structure or enum of proto"));
        let rows = table(&document, &format!("### `{name}`"));
        let described = match definition {
            Definition::Struct(_) => Definition::Struct(
                rows.iter().map(|row| format!("{} {}", row[0], row[1])).collect(),
            ),
            Definition::Enum(_) => {
                for (place, row) in rows.iter().enumerate() {
                    assert_eq!(number(&row[0]), place as u64, "{name} {}", row[1]);
                }
                // The table of error codes has their names in text where others have fields.
                let fields = |row: &[String]| {
                    if name == "ErrorCode" { "–".to_owned() } else { row[2].clone() }
                };
                Definition::Enum(rows.iter().map(|row| (code(&row[1]), fields(row))).collect())
            }
        };
        assert_eq!(
            &described, definition,
            "docs/protocol.md (left) and the code (right) differ on {name}"
        );
        let fields = match definition {
            Definition::Struct(fields) => fields.clone(),
            Definition::Enum(variants) => {
                variants.iter().map(|(_, fields)| fields.clone()).collect()
            }
        };
        let words = fields.iter().flat_map(|fields| fields.split([' ', ',']));
        to_see.extend(words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned));
    }
    for heading in document.lines().filter_map(|line| line.strip_prefix("### `")) {
        let name = heading.trim_end_matches('`');
        assert!(
            reached.contains(name),
            "docs/protocol.md describes {name}, which is not on the wire"
        );
    }
}

#[test]
fn every_limit_is_listed_with_its_value() {
    let source = repository_file("proto/src/limits.rs");
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    for line in source.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, rest) = line.split_once(": ").unwrap();
        if let Some((_, value)) =
            rest.split_once(" = ").filter(|(of, _)| ["usize", "u32", "u64"].contains(of))
        {
            let factors = value
                .trim_end_matches(';')
                .split(" * ")
                .map(|factor| factor.replace('_', "").parse::<u64>().unwrap());
            known.insert(name.to_owned(), factors.product());
        }
    }
    let document = repository_file("docs/protocol.md");
    let listed: BTreeMap<String, u64> =
        table(&document, "## Limits").iter().map(|row| (code(&row[0]), number(&row[1]))).collect();
    assert_eq!(listed, known, "docs/protocol.md (left) and proto/src/limits.rs (right) differ");
}

/// `docs/configuration.md` has a table for each table of `config.toml`.
#[test]
fn every_key_of_the_configuration_is_listed_with_its_default_and_bounds() {
    let document = repository_file("docs/configuration.md");
    for name in TABLES {
        let listed: Vec<[String; 4]> = table(&document, &format!("## `[{name}]`"))
            .into_iter()
            .map(|row| [code(&row[0]), code(&row[1]), code(&row[2]), row[3].clone()])
            .collect();
        let keys = KEYS.iter().filter(|key| key.table == *name);
        let known: Vec<[String; 4]> = keys
            .map(|key| {
                let usual = key.get(&Settings::default());
                [
                    key.name.to_owned(),
                    usual.to_string(),
                    key.bounds.to_string(),
                    key.meaning.to_owned(),
                ]
            })
            .collect();
        assert_eq!(
            listed, known,
            "docs/configuration.md (left) and proto/src/settings.rs (right) differ"
        );
    }
    let tables = document.lines().filter(|line| line.starts_with("## `["));
    assert_eq!(tables.count(), TABLES.len());
}

/// Sentences of the documents that repeat a limit have the same number.
#[test]
fn the_prose_repeats_the_limits_as_they_are() {
    use peer_proto::limits::*;

    says(
        "docs/protocol.md",
        &[
            format!(
                "A payload has at most {} bytes; what a client sends before it was welcomed, at most {}.",
                grouped(FRAME_BYTES_MAX as u64),
                grouped(HELLO_BYTES_MAX as u64)
            ),
            format!("At most {REQUESTS_IN_FLIGHT_MAX} requests may be unanswered"),
            format!("you get {} seconds", VISIBILITY_TIMEOUT_MS / 1_000),
            format!(
                "at most {LEASE_WINDOW_MESSAGES} messages, or {} bytes of text",
                grouped(LEASE_WINDOW_BYTES as u64)
            ),
            format!("No preface and `Hello` within {} seconds", HELLO_TIMEOUT_MS / 1_000),
            format!("more than {} bytes of events unread", grouped(WATCH_BACKLOG_BYTES_MAX as u64)),
            format!("`idempotency_key` of your own, at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
            format!("length n of what follows, at most {}", grouped(SOFTWARE_BYTES_MAX as u64)),
        ],
    );
    let days = |ms: u64| ms / 86_400_000;
    says(
        "docs/links.md",
        &[
            format!(
                "its id lies at most {} s in the future and {} days in the past",
                LINK_CLOCK_MS / 1_000,
                days(LINK_DAYS_MS)
            ),
            format!(
                "A link brings at most {LINK_PER_MINUTE} messages a minute, and at most {} pending \
             deliveries or {} MiB",
                grouped(LINK_PENDING_MAX as u64),
                LINK_PENDING_BYTES_MAX / (1024 * 1024)
            ),
            format!("remembers for {} days that the message was withdrawn", days(LINK_MEMORY_MS)),
            format!("if no link reached that broker within {} days", days(LINK_DAYS_MS)),
        ],
    );
}

#[track_caller]
fn says(path: &str, sentences: &[String]) {
    let unbroken = repository_file(path).replace('\n', " ");
    for sentence in sentences {
        assert!(unbroken.contains(sentence), "{path} does not say: {sentence}");
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn every_error_code_is_listed_in_both_documents() {
    let protocol = table(&repository_file("docs/protocol.md"), "### `ErrorCode`");
    let names: Vec<String> = protocol.iter().map(|row| code(&row[2])).collect();
    assert_eq!(names, ErrorCode::ALL.iter().map(|known| known.as_str()).collect::<Vec<_>>());

    let errors = table(&repository_file("docs/errors.md"), "# Error codes");
    let listed: Vec<String> = errors.iter().map(|row| code(&row[0])).collect();
    assert_eq!(listed, names, "docs/errors.md (left) and the code (right) differ");
    for row in &errors {
        assert!(
            row.len() == 4 && row[2].ends_with('.') && row[3].ends_with('.'),
            "{row:?}: a code needs a meaning and a next step"
        );
    }
}

#[test]
fn the_worked_examples_are_the_golden_bytes() {
    let golden = repository_file("proto/golden/v1.txt");
    let golden: BTreeMap<&str, &str> =
        golden.lines().filter_map(|line| line.split_once(' ')).collect();
    let document = repository_file("docs/protocol.md");
    let mut examples = 0;
    for block in document.split("```bytes ").skip(1) {
        let (title, rest) = block.split_once('\n').unwrap();
        let body = rest.split("```").next().unwrap();
        let bytes: Vec<&str> = body
            .lines()
            .flat_map(|line| line.split('|').next().unwrap_or("").split_whitespace())
            .collect();
        let (kind, name) = title.split_once('=').unwrap_or((title, ""));
        let expected = match kind {
            "golden" => golden
                .get(name)
                .unwrap_or_else(|| panic!("no golden bytes are called {name}"))
                .to_string(),
            "frame" => {
                let payload =
                    golden.get(name).unwrap_or_else(|| panic!("no golden bytes are called {name}"));
                let length = u32::try_from(payload.split(' ').count()).unwrap().to_le_bytes();
                assert_eq!(length.len(), HEADER_BYTES);
                format!("{} {payload}", hex(&length))
            }
            _ => {
                let software = title
                    .strip_prefix("preface software=")
                    .expect("an example of a known kind")
                    .trim_matches('"');
                hex(&Preface { min: 1, max: 1, features: 0, software: software.to_owned() }
                    .encode())
            }
        };
        assert_eq!(bytes.join(" "), expected, "the example {title}");
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples were found");
    assert_eq!(MAGIC, b"PEERD\0");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
