//! A tool's arguments. An unknown, missing or wrong argument leads to an error with its name; no
//! value is guessed.
//!
//! Whatever the schema says, some clients write every number and every flag as a text. They write a
//! list as a list, or as JSON in a text. The model cannot fix that, and the meaning is certain, so
//! such a text is parsed.

use rmcp::model::JsonObject;
use serde_json::{Value, json};
use thiserror::Error;

/// An argument's name and schema, as a client gets them.
pub(crate) type Argument = (&'static str, Value);

/// Returns an argument that is a text.
pub(crate) fn text(name: &'static str, description: &str) -> Argument {
    (name, json!({"type": "string", "description": description}))
}

/// Returns an argument that is a whole number, `least` or more.
pub(crate) fn number(name: &'static str, least: u64, description: &str) -> Argument {
    (name, json!({"type": "integer", "minimum": least, "description": description}))
}

/// Returns an argument that is `true` or `false`.
pub(crate) fn flag(name: &'static str, description: &str) -> Argument {
    (name, json!({"type": "boolean", "description": description}))
}

/// Returns an argument that is one of several words.
pub(crate) fn one_of<T>(name: &'static str, choices: &[(&'static str, T)]) -> Argument {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    (name, json!({"type": "string", "enum": words}))
}

/// Adds a description to an argument.
pub(crate) fn described((name, mut schema): Argument, description: &str) -> Argument {
    schema["description"] = json!(description);
    (name, schema)
}

/// Lists words as in a sentence: `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The arguments of one call, each taken once.
#[derive(Debug)]
pub(crate) struct Arguments {
    tool: &'static str,
    values: JsonObject,
}

/// Why arguments cannot be used. The texts are for the model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ArgumentError {
    #[error("{tool} has no argument {}; it takes {known}", crate::render::sentence(name))]
    Unknown { tool: &'static str, name: String, known: String },
    #[error("{tool}: this action does not take {name}; it takes {}", if takes.is_empty() { "no other argument" } else { takes })]
    Idle { tool: &'static str, name: String, takes: String },
    #[error("{tool} needs the argument {name}; call it again with {name} set")]
    Missing { tool: &'static str, name: &'static str },
    #[error("{tool}: {name} is empty; call it again with a text")]
    Empty { tool: &'static str, name: &'static str },
    #[error("{tool}: {name} is {found}, but must be {expected}; call it again with that")]
    WrongType { tool: &'static str, name: &'static str, expected: &'static str, found: String },
    #[error(
        "{tool}: {name} is {}, but must be {expected}; call it again with that",
        crate::render::sentence(found)
    )]
    Unfit { tool: &'static str, name: &'static str, expected: String, found: String },
}

impl Arguments {
    /// Returns the arguments of a call of `tool`, which takes `known` and no others.
    pub(crate) fn new(
        tool: &'static str,
        known: &[&str],
        values: JsonObject,
    ) -> Result<Self, ArgumentError> {
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                Err(ArgumentError::Unknown { tool, name: name.clone(), known: known.join(", ") })
            }
            None => Ok(Self { tool, values }),
        }
    }

    /// Takes a text; one of spaces alone counts as missing.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, ArgumentError> {
        match self.values.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
            Some(other) => Err(self.wrong_type(name, "a text", &other)),
        }
    }

    /// Takes a text unchanged, also if it is empty.
    pub(crate) fn text_or_empty(
        &mut self,
        name: &'static str,
    ) -> Result<Option<String>, ArgumentError> {
        match self.values.get(name) {
            Some(Value::String(text)) if text.trim().is_empty() => Ok(Some(String::new())),
            _ => self.text(name),
        }
    }

    /// Takes a required text.
    pub(crate) fn needed(&mut self, name: &'static str) -> Result<String, ArgumentError> {
        let error = match self.values.get(name) {
            None | Some(Value::Null) => self.missing(name),
            Some(_) => ArgumentError::Empty { tool: self.tool, name },
        };
        self.text(name)?.ok_or(error)
    }

    /// Takes a whole number, also from a text; a text of spaces alone counts as missing.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        let Some(value) = self.taken(name) else { return Ok(None) };
        match whole_number(&value) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong_type(name, "a whole number from 0", &value)),
        }
    }

    /// Takes `true` or `false`, also from a text; absent: `false`.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, ArgumentError> {
        let Some(value) = self.taken(name) else { return Ok(false) };
        let said = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
            _ => None,
        };
        said.ok_or_else(|| self.wrong_type(name, "true or false", &value))
    }

    /// Takes the value of `name`; null and a text of spaces alone count as missing.
    fn taken(&mut self, name: &'static str) -> Option<Value> {
        self.values.remove(name).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.trim().is_empty(),
            _ => true,
        })
    }

    /// Takes one of several words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ArgumentError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match choices.iter().find(|(word, _)| *word == text.trim()) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(self.unfit(name, &listed(&words), text))
            }
        }
    }

    /// Takes one of several words, which is required.
    pub(crate) fn chosen<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<T, ArgumentError> {
        self.choice(name, choices)?.ok_or_else(|| self.missing(name))
    }

    /// Takes a text with a syntax, such as an id.
    pub(crate) fn parsed<T: std::str::FromStr>(
        &mut self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| self.unfit(name, expected, text))
    }

    /// Takes texts: the parts between commas, or the elements of a list, which may also be JSON in
    /// a text. All are trimmed, and empty ones are left out.
    pub(crate) fn list(&mut self, name: &'static str) -> Result<Vec<String>, ArgumentError> {
        let parts = match self.taken(name) {
            None => Vec::new(),
            Some(Value::String(text)) => match serde_json::from_str::<Vec<String>>(&text) {
                Ok(parts) => parts,
                Err(_) => text.split(',').map(str::to_owned).collect(),
            },
            Some(value) => match serde_json::from_value::<Vec<String>>(value.clone()) {
                Ok(parts) => parts,
                Err(_) => {
                    return Err(self.wrong_type(
                        name,
                        "a text with commas, or a list of texts",
                        &value,
                    ));
                }
            },
        };
        Ok(parts
            .iter()
            .map(|part| part.trim())
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Checks that only these arguments were given; the error names another one.
    pub(crate) fn only(&self, takes: &[&str]) -> Result<(), ArgumentError> {
        let idle = |name: &&String| !takes.contains(&name.as_str());
        match self.values.keys().find(idle) {
            Some(name) => Err(ArgumentError::Idle {
                tool: self.tool,
                name: name.clone(),
                takes: takes.join(", "),
            }),
            None => Ok(()),
        }
    }

    /// Returns the error for a missing `name`.
    pub(crate) fn missing(&self, name: &'static str) -> ArgumentError {
        ArgumentError::Missing { tool: self.tool, name }
    }

    /// Returns the error for a wrong value of `name`.
    pub(crate) fn unfit(&self, name: &'static str, expected: &str, found: String) -> ArgumentError {
        ArgumentError::Unfit { tool: self.tool, name, expected: expected.to_owned(), found }
    }

    fn wrong_type(
        &self,
        name: &'static str,
        expected: &'static str,
        found: &Value,
    ) -> ArgumentError {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => format!("the number {number}"),
            Value::String(text) => format!("the text {}", crate::render::sentence(text)),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        ArgumentError::WrongType { tool: self.tool, name, expected, found }
    }
}

/// Returns the whole number of a value, or of the text in it. JSON has one kind of number: 5.0 is
/// the same as 5.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => {
            let whole = |number: &f64| number.fract() == 0.0 && (0.0..=9e15).contains(number);
            number.as_u64().or_else(|| number.as_f64().filter(whole).map(|number| number as u64))
        }
        Value::String(text) => match serde_json::from_str(text.trim()) {
            Ok(said @ Value::Number(_)) => whole_number(&said),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> Result<Arguments, ArgumentError> {
        let Value::Object(values) = value else { panic!("arguments are an object") };
        Arguments::new("send_message", &["to", "wait_s", "peek"], values)
    }

    #[test]
    fn an_unknown_argument_is_named_with_the_known_ones() {
        let error = arguments(json!({"to": "x", "two": "y"})).unwrap_err().to_string();
        assert_eq!(error, "send_message has no argument \"two\"; it takes to, wait_s, peek");
    }

    #[test]
    fn a_wrong_type_is_named_with_what_is_expected() {
        let mut given = arguments(json!({"to": ["x"], "wait_s": "soon", "peek": 1})).unwrap();
        assert_eq!(
            given.text("to").unwrap_err().to_string(),
            "send_message: to is a list, but must be a text; call it again with that"
        );
        let error = given.number("wait_s").unwrap_err().to_string();
        assert!(
            error.contains("wait_s is the text \"soon\", but must be a whole number"),
            "{error}"
        );
        assert!(given.flag("peek").is_err());
        for bad in [json!(-1), json!(1.5), json!(1e300), json!(true), json!([5]), json!({"s": 5})] {
            assert!(
                arguments(json!({ "wait_s": bad })).unwrap().number("wait_s").is_err(),
                "{bad}"
            );
        }
        for bad in ["-1", "1.5", "1e300", "5 s", "0x5", "[5]", "\"5\"", "NaN", "five"] {
            assert!(
                arguments(json!({ "wait_s": bad })).unwrap().number("wait_s").is_err(),
                "{bad}"
            );
        }
        for bad in [json!("yes"), json!("1"), json!([true])] {
            assert!(arguments(json!({ "peek": bad })).unwrap().flag("peek").is_err(), "{bad}");
        }
        for bad in [json!([1]), json!(["a", null]), json!({"0": "a"}), json!(7)] {
            assert!(arguments(json!({ "to": bad })).unwrap().list("to").is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_flags_and_lists_are_read_from_texts_that_say_them() {
        for (given, read) in [
            (json!(5.0), Some(5)),
            (json!("5"), Some(5)),
            (json!(" 5.0 "), Some(5)),
            (json!(null), None),
            (json!(" "), None),
        ] {
            assert_eq!(
                arguments(json!({ "wait_s": given })).unwrap().number("wait_s"),
                Ok(read),
                "{given}"
            );
        }
        for (given, read) in [
            (json!("true"), true),
            (json!(" True"), true),
            (json!("FALSE"), false),
            (json!(""), false),
        ] {
            assert_eq!(
                arguments(json!({ "peek": given })).unwrap().flag("peek"),
                Ok(read),
                "{given}"
            );
        }
        for given in [
            json!("a, b"),
            json!(["a", " b ", ""]),
            json!("[\"a\",\"b\"]"),
            json!(" [ \"a\" , \"b\" ] "),
        ] {
            assert_eq!(
                arguments(json!({ "to": given })).unwrap().list("to"),
                Ok(vec!["a".into(), "b".into()]),
                "{given}"
            );
        }
        assert_eq!(
            arguments(json!({"to": ["a,b"]})).unwrap().list("to"),
            Ok(vec!["a,b".into()]),
            "an element is one"
        );
        for given in [json!([]), json!("[]"), json!(null), json!("")] {
            assert_eq!(
                arguments(json!({ "to": given })).unwrap().list("to"),
                Ok(vec![]),
                "{given}"
            );
        }
        assert_eq!(
            arguments(json!({"to": "[a"})).unwrap().list("to"),
            Ok(vec!["[a".into()]),
            "no list, a strange name"
        );
    }

    #[test]
    fn a_missing_or_empty_argument_is_named() {
        let error = |value: Value| arguments(value).unwrap().needed("to").unwrap_err().to_string();
        assert_eq!(
            error(json!({})),
            "send_message needs the argument to; call it again with to set"
        );
        assert_eq!(
            error(json!({"to": "  "})),
            "send_message: to is empty; call it again with a text"
        );
        assert_eq!(
            arguments(json!({"to": " a, ,b,"})).unwrap().list("to"),
            Ok(vec!["a".into(), "b".into()])
        );
    }
}
