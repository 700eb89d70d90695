//! Finds the end and the id of a JSON text in one pass over its bytes, without storing them.
//!
//! A client's line may be invalid, nested too deeply or too long to store, and yet the client waits
//! for an answer with its id. A hook's input may be complete while its pipe stays open. Knows
//! brackets and strings. Does not check the grammar.

use rmcp::model::RequestId;

/// Longest id that is looked for, in bytes as it is written.
const ID_BYTES_MAX: usize = 256;

/// One pass over the bytes of a JSON text.
#[derive(Debug, Default)]
pub struct JsonScan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    complete: bool,
    /// The text so far of a key or value of the outermost object that may be the id.
    piece: Vec<u8>,
    /// Whether the current piece is the value of the key `id`.
    after_id: bool,
    id: Option<RequestId>,
}

impl JsonScan {
    /// Reads the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    /// Whether an object or a list has ended.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns the id of the outermost object, if one was found. An id that no answer can carry
    /// (null, a fraction) does not count.
    pub(crate) fn id(&self) -> Option<RequestId> {
        self.id.clone()
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => {
                self.keep(byte);
                self.in_string = true;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.piece_ends();
                self.depth = self.depth.saturating_sub(1);
                self.complete |= self.depth == 0;
            }
            b':' if self.depth == 1 => {
                self.after_id = self.piece == br#""id""#;
                self.piece.clear();
            }
            b',' => self.piece_ends(),
            byte if byte.is_ascii_whitespace() => {}
            byte => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        // One byte beyond the limit shows that the id is too long.
        if self.depth == 1 && self.piece.len() <= ID_BYTES_MAX {
            self.piece.push(byte);
        }
    }

    fn piece_ends(&mut self) {
        if self.depth != 1 {
            return;
        }
        if std::mem::take(&mut self.after_id)
            && self.id.is_none()
            && self.piece.len() <= ID_BYTES_MAX
        {
            self.id = serde_json::from_slice(&self.piece).ok();
        }
        self.piece.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id(text: &str) -> Option<RequestId> {
        let mut scan = JsonScan::default();
        scan.read(text.as_bytes());
        scan.id()
    }

    #[test]
    fn the_id_is_found_in_what_is_no_json() {
        let seven = Some(RequestId::Number(7));
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"params":[[[["#,
            r#"{"params":{"id":8,"x":[{"id":9}]},"id" : 7 }"#,
            r#"{"note":"\"id\":8,","id":7,"x":NaN}"#,
            r#"{"x":Infinity,"id":7}"#,
            r#"{"id":7,"id":8}"#,
            r#"{"method":"id","id":7.0}"#,
        ] {
            assert_eq!(id(text), seven, "{text}");
        }
        assert_eq!(id(r#"{"id":"a\"b","x":"#), Some(RequestId::String("a\"b".into())));
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(300));
        for text in [
            "",
            "garbage",
            r#"{"id":null,"#,
            r#"{"id":{"id":7}}"#,
            r#"[{"id":7}]"#,
            r#"{"id":7"#,
            r#""id":7,"#,
            &long,
        ] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|flag| json!(flag)),
            any::<i32>().prop_map(|number| json!(number)),
            r#"[a-z"\\{}\[\],:é ]{0,8}"#.prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-z]{1,3}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_is_complete_with_its_last_byte_and_its_id_is_its_own(inner in value(), number in any::<i32>(), pretty in any::<bool>()) {
            let object = json!({ "a": inner, "id": number, "z": inner });
            let text = if pretty { format!("{object:#}") } else { object.to_string() };
            let mut scan = JsonScan::default();
            let (last, rest) = text.as_bytes().split_last().unwrap();
            scan.read(rest);
            prop_assert!(!scan.is_complete());
            scan.read(&[*last]);
            prop_assert!(scan.is_complete());
            prop_assert_eq!(id(&text), Some(RequestId::Number(number.into())));
        }
    }
}
