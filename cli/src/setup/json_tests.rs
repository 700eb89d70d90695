//! Tests the JSON editor: examples of layouts, and the property that [`remove`] undoes [`insert`]
//! to the byte.

use proptest::prelude::*;

use super::*;

fn entry() -> Value {
    Value::object([
        ("command", Value::text("/bin/p")),
        ("args", Value::Array(vec![Value::text("mcp")])),
    ])
}

fn added(text: &str) -> String {
    insert(text, Dialect::Comments, &["mcpServers"], Some("peers"), entry()).unwrap()
}

fn removed(text: &str) -> String {
    remove(text, Dialect::Comments, &["mcpServers".into(), "peers".into()]).unwrap().unwrap()
}

#[test]
fn a_member_takes_the_layout_of_its_neighbours() {
    let cases = [
        (
            "{\n\t\"a\": 1, // one\n\t\"mcpServers\": {\n\t\t\"x\": {} // x\n\t}\n}",
            "{\n\t\"a\": 1, // one\n\t\"mcpServers\": {\n\t\t\"x\": {}, // x\n\t\t\"peers\": {\n\t\t\t\"command\": \"/bin/p\",\n\t\t\t\"args\": [\"mcp\"]\n\t\t}\n\t}\n}",
        ),
        (
            "{\"a\":1}",
            "{\"a\":1,\"mcpServers\":{\"peers\":{\"command\":\"/bin/p\",\"args\":[\"mcp\"]}}}",
        ),
        (
            "{\"a\": 1}\n",
            "{\"a\": 1, \"mcpServers\": {\"peers\": {\"command\": \"/bin/p\", \"args\": [\"mcp\"]}}}\n",
        ),
        (
            "{\r\n  \"mcpServers\": {},\r\n}",
            "{\r\n  \"mcpServers\": { \"peers\": {\"command\": \"/bin/p\", \"args\": [\"mcp\"]}},\r\n}",
        ),
    ];
    for (before, after) in cases {
        assert_eq!(added(before), after);
        assert_eq!(removed(after), before);
    }
}

#[test]
fn an_empty_file_becomes_a_document() {
    let text = added("\n");
    assert!(text.starts_with("{\n  \"mcpServers\": {\n    \"peers\": {\n"), "{text}");
    assert!(text.ends_with("}\n"), "{text}");
}

#[test]
fn an_entry_between_others_goes_without_a_trace() {
    let text = "{\n  \"mcpServers\": {\n    \"a\": 1,\n    \"peers\": {},\n    \"b\": 2\n  }\n}\n";
    assert_eq!(removed(text), "{\n  \"mcpServers\": {\n    \"a\": 1,\n    \"b\": 2\n  }\n}\n");
    let text = "{\"mcpServers\": {\"peers\": {}, \"b\": 2}}";
    assert_eq!(removed(text), "{\"mcpServers\": {\"b\": 2}}");
}

#[test]
fn containers_that_were_made_go_and_those_that_were_there_stay() {
    for before in [
        "{}",
        "{ }",
        "{\n}",
        "{\"mcpServers\":{}}",
        "{\"mcpServers\": {\n}}",
        "{\n  \"x\": {}\n}",
        "\u{feff}{\"a\":1}\r\n",
    ] {
        assert_eq!(removed(&added(before)), before);
    }
    let two = "{\n  \"a\": 1\n}\n";
    let once =
        insert(two, Dialect::Strict, &["permissions", "allow"], None, Value::text("x")).unwrap();
    let twice =
        insert(&once, Dialect::Strict, &["permissions", "allow"], None, Value::text("y")).unwrap();
    let path = |place| ["permissions".into(), "allow".into(), Step::Item(place)];
    let one = remove(&twice, Dialect::Strict, &path(0)).unwrap().unwrap();
    assert_eq!(remove(&one, Dialect::Strict, &path(0)).unwrap().unwrap(), two);
}

#[test]
fn a_value_is_replaced_where_it_stands() {
    let text = "{\n  \"a\": {\"b\": \"old\"}, // why\n  \"c\": [1]\n}";
    let new = replace(text, Dialect::Comments, &["a", "b"], &Value::text("new")).unwrap();
    assert_eq!(new.as_deref(), Some("{\n  \"a\": {\"b\": \"new\"}, // why\n  \"c\": [1]\n}"));
    assert_eq!(replace(text, Dialect::Comments, &["a", "x"], &Value::Number(1)).unwrap(), None);
}

#[test]
fn what_is_no_json_is_named_with_its_place() {
    let place = |text, dialect| {
        parse(text, dialect).map(|_| ()).map_err(|why| (why.line, why.column, why.what))
    };
    assert_eq!(
        place("{\n  \"a\": 1\n  \"b\": 2\n}", Dialect::Strict),
        Err((3, 3, "a comma is missing".to_owned()))
    );
    assert_eq!(
        place("{\"a\": 1,}", Dialect::Strict),
        Err((1, 9, "the name of a member is missing".to_owned()))
    );
    assert_eq!(place("{\"a\": 1,}", Dialect::Comments), Ok(()));
    assert_eq!(
        place("// c\n{}", Dialect::Strict),
        Err((1, 1, "a comment, which this file may not have".to_owned()))
    );
    for broken in [
        "",
        "{",
        "{\"a\"}",
        "[1 2]",
        "nul",
        "{\"a\": \"\\",
        "\"a",
        "{} x",
        "[,]",
        "{,}",
        "[1,,2]",
        "/*",
        "{\"a\": tru}",
        "\"\u{1}\"",
    ] {
        assert!(parse(broken, Dialect::Comments).is_err(), "{broken:?}");
    }
    assert!(parse(&"[".repeat(100_000), Dialect::Strict).is_err());
}

#[test]
fn a_text_where_an_object_belongs_is_no_place_to_put_anything() {
    let error = insert(
        "{\"mcpServers\": \"none\"}",
        Dialect::Strict,
        &["mcpServers"],
        Some("peers"),
        entry(),
    )
    .unwrap_err();
    assert_eq!(error, EditError::WrongKind { path: "mcpServers".to_owned(), expected: "object" });
}

fn space(comments: bool) -> impl Strategy<Value = String> {
    let blanks = ["", " ", "\n", "\n  ", "\r\n\t", "  "];
    let remarks = ["/* r */", " // r\n", "/* r\n*/", " // \"mcpServers\": {\n"];
    let all: Vec<_> =
        blanks.into_iter().chain(remarks.into_iter().filter(move |_| comments)).collect();
    prop::sample::select(all).prop_map(str::to_owned)
}

/// A JSON text in some layout, with members of wanted names among others.
fn document(comments: bool) -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "1",
        "-2.5e3",
        "true",
        "null",
        "\"\"",
        "\"a\\\"{b\"",
        "\"é\"",
        "{}",
        "[]",
        "{ }",
        "[\n]",
    ]);
    let value = scalar.prop_map(str::to_owned).prop_recursive(4, 24, 4, move |inner| {
        let entry = (
            space(comments),
            prop::sample::select(vec!["mcpServers", "a", "b c", "hooks"]),
            space(comments),
            inner,
            space(comments),
        );
        (prop::bool::ANY, prop::collection::vec(entry, 0..4), prop::bool::ANY, space(comments))
            .prop_map(move |(named, entries, trailing, tail)| {
                let mut seen = Vec::new();
                let mut text = String::from(if named { "{" } else { "[" });
                let mut first = true;
                for (before, key, colon, value, after) in entries {
                    if named && seen.contains(&key) {
                        continue;
                    }
                    seen.push(key);
                    let name = if named { format!("\"{key}\":{colon}") } else { String::new() };
                    text.push_str(if first { "" } else { "," });
                    text.push_str(&format!("{before}{name}{value}{after}"));
                    first = false;
                }
                text.push_str(if trailing && comments && !first { "," } else { "" });
                text.push_str(&tail);
                text.push(if named { '}' } else { ']' });
                text
            })
    });
    (prop::bool::ANY, space(comments), value, space(comments)).prop_map(
        |(bom, before, value, after)| {
            let root = if value.starts_with('{') { value } else { format!("{{\"a\":{value}}}") };
            format!("{}{before}{root}{after}", if bom { "\u{feff}" } else { "" })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_put_in_comes_out_to_the_byte(comments in prop::bool::ANY, text in prop::bool::ANY.prop_flat_map(document), item in prop::bool::ANY) {
        let dialect = if comments || text.contains("r\n") || parse(&text, Dialect::Strict).is_err() { Dialect::Comments } else { Dialect::Strict };
        let key = (!item).then_some("peers");
        if let Ok(with) = insert(&text, dialect, &["mcpServers"], key, entry()) {
            let root = parse(&with, dialect).expect("what was made is JSON");
            let servers = root.get("mcpServers").expect("the way was made");
            let place = servers.entries().len() - 1;
            prop_assert!(servers.entries()[place].value.get("command").and_then(Node::text) == Some("/bin/p"));
            let last = if item { Step::Item(place) } else { "peers".into() };
            let without = remove(&with, dialect, &["mcpServers".into(), last]).expect("still JSON");
            prop_assert_eq!(without.as_deref(), Some(text.as_str()));
            if dialect == Dialect::Strict {
                let with: serde_json::Value = serde_json::from_str(with.trim_start_matches('\u{feff}')).expect("JSON for others too");
                let mut before: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON");
                if before.get("mcpServers").is_none() {
                    before["mcpServers"] = if item { serde_json::json!([]) } else { serde_json::json!({}) };
                }
                let entry: serde_json::Value = serde_json::from_str(&entry().to_string()).expect("JSON");
                match before["mcpServers"].as_array_mut() {
                    Some(items) => items.push(entry),
                    None => before["mcpServers"]["peers"] = entry,
                }
                prop_assert_eq!(with, before);
            }
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "[\\[\\]{}:,\"\\\\/*a1 \n\u{e9}]{0,40}") {
        let _ = parse(&text, Dialect::Comments);
        let _ = insert(&text, Dialect::Comments, &["a"], None, Value::Number(1));
    }
}
