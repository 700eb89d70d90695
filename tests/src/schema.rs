//! Whether a value fits a JSON schema, for the part of the language that `peerctl schema` uses.
//!
//! It is stricter than the language where a test gains by it: an object may have no field that its
//! schema does not name, and a keyword that is not known here is a failure of the test, not of the
//! value.

use serde_json::Value;

/// Keywords that say nothing about a value's form.
const SAYS_NOTHING: [&str; 7] =
    ["$schema", "$defs", "title", "description", "format", "minimum", "maximum"];

/// What of `value` does not fit `schema`, which may refer to itself; empty where all of it fits.
///
/// # Panics
/// Where the schema has a keyword that is not known here.
#[must_use]
pub fn misfits(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(schema, schema, value, "$", &mut found);
    found
}

fn look(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object() else {
        assert_eq!(schema, &Value::Bool(true), "{schema} is no schema");
        return;
    };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$ref" => {
                let place = rule
                    .as_str()
                    .and_then(|place| place.strip_prefix('#'))
                    .expect("a reference within the schema");
                look(root, root.pointer(place).expect("it leads somewhere"), value, at, found);
            }
            "type" => {
                let wanted: Vec<&str> = rule.as_str().into_iter().chain(texts(rule)).collect();
                if !wanted.iter().any(|kind| is(kind, value)) {
                    found.push(format!("{at} is {value}, no {}", wanted.join(" or ")));
                }
            }
            "const" => {
                if value != rule {
                    found.push(format!("{at} is {value}, not {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().expect("enum is a list").contains(value) {
                    found.push(format!("{at} is {value}, none of {rule}"));
                }
            }
            "pattern" => {
                let start = rule
                    .as_str()
                    .and_then(|pattern| pattern.strip_prefix('^'))
                    .expect("a beginning");
                if value.as_str().is_some_and(|text| !text.starts_with(start)) {
                    found.push(format!("{at} is {value} and does not begin with {start}"));
                }
            }
            "anyOf" | "oneOf" => one_of(root, rule.as_array().expect("a list"), value, at, found),
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    look(root, rule, item, &format!("{at}[{place}]"), found);
                }
            }
            "prefixItems" => {
                let rules = rule.as_array().expect("a list").iter();
                for (place, (rule, item)) in
                    rules.zip(value.as_array().into_iter().flatten()).enumerate()
                {
                    look(root, rule, item, &format!("{at}[{place}]"), found);
                }
            }
            "minItems" | "maxItems" => {
                let (count, bound) =
                    (value.as_array().map_or(0, Vec::len) as u64, rule.as_u64().expect("a number"));
                if value.is_array()
                    && (if keyword == "minItems" { count < bound } else { count > bound })
                {
                    found.push(format!("{at} has {count} items, {keyword} is {bound}"));
                }
            }
            "required" => {
                for name in
                    texts(rule).filter(|name| value.is_object() && value.get(name).is_none())
                {
                    found.push(format!("{at} has no {name}"));
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match (rule.get(name), rules.get("additionalProperties")) {
                        (Some(rule), _) | (None, Some(rule)) => {
                            look(root, rule, field, &format!("{at}.{name}"), found)
                        }
                        (None, None) => found.push(format!("{at}.{name} stands in no schema")),
                    }
                }
            }
            "additionalProperties" => {
                for (name, field) in value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|_| !rules.contains_key("properties"))
                {
                    look(root, rule, field, &format!("{at}.{name}"), found);
                }
            }
            other => assert!(SAYS_NOTHING.contains(&other), "{other} is not known to this test"),
        }
    }
}

/// The value fits one of several schemas; where it fits none, what it lacks for the nearest.
fn one_of(root: &Value, schemas: &[Value], value: &Value, at: &str, found: &mut Vec<String>) {
    let lacks = schemas.iter().map(|schema| {
        let mut found = Vec::new();
        look(root, schema, value, at, &mut found);
        found
    });
    found.extend(lacks.min_by_key(Vec::len).expect("a schema to fit"));
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let schema = json!({
            "$defs": {"Row": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^m-"}}, "required": ["id"]}},
            "type": "array", "items": {"$ref": "#/$defs/Row"},
        });
        assert_eq!(misfits(&schema, &json!([{"id": "m-1"}])), [""; 0]);
        assert_eq!(misfits(&schema, &json!({})), ["$ is {}, no array"]);
        assert_eq!(misfits(&schema, &json!([{}])), ["$[0] has no id"]);
        assert_eq!(
            misfits(&schema, &json!([{"id": "x"}])),
            ["$[0].id is \"x\" and does not begin with m-"]
        );
        assert_eq!(
            misfits(&schema, &json!([{"id": "m-1", "more": 1}])),
            ["$[0].more stands in no schema"]
        );
        let either = json!({"anyOf": [{"type": "null"}, {"type": "integer"}]});
        assert_eq!(misfits(&either, &Value::Null), [""; 0]);
        assert_eq!(misfits(&either, &json!(1.5)).len(), 1);
    }
}
