//! The parts that the types of the `--json` output share.
//!
//! Each command's type is in the command's file. Its doc comments are the descriptions in the
//! schema that `peerctl schema` prints. Invariant: a type only gains fields. `docs/schema` has the
//! published schemas.

use std::borrow::Cow;

use peer_proto::ids::{MessageId, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::output::rfc3339;

/// A moment, in RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) MessageId);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^m-" })
    }
}

/// The failure of a command: with `--json` on standard output, and as text on standard error.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The part of the result that the command reached, if any: the fields of its own type.
    #[serde(flatten)]
    #[schemars(skip)]
    pub(crate) data: Option<Value>,
}

/// A failure.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Error {
    /// A name that stays the same in all versions. `docs/errors.md` lists the codes of the broker.
    pub(crate) code: &'static str,
    /// The attempt, its object, and the reason of the failure.
    pub(crate) message: String,
    /// The next step; empty if none is known.
    pub(crate) hint: String,
}
