//! The hooks that setup installs in each client, and their form: one table per client.
//!
//! The `mcp_tool` form calls the running adapter and saves a process, but needs a connected server.
//! A session's start comes before the server, and its end after it, so those two are commands. This
//! module does not know what the adapter does with an event.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use toml_edit::TableLike;

use super::json::{self, Dialect, Node, Step, Syntax, Value};
use super::{Client, Place, SERVER, shell_word, toml};

/// The tool of the adapter that hooks call; the adapter does not list it.
pub(crate) const TOOL: &str = "hook";

/// Seconds that a client waits for a hook: a thousand times its usual time, and still short for a
/// person.
const TIMEOUT_S: u64 = 5;

/// Most seconds that Codex waits for a hook at a session's end; Codex warns about more.
const CODEX_END_TIMEOUT_S: u64 = 3;

/// One hook of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// The event, in the client's words.
    pub(crate) event: &'static str,
    /// The pattern of the tools for which the hook runs; `None`: all.
    matcher: Option<&'static str>,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `peerctl hook CLIENT EVENT`, with the client's JSON on standard input.
    Command,
    /// The adapter's own tool, with these fields of the client's JSON.
    Tool(&'static [&'static str]),
}

/// Claude Code passes an empty text for a field that an event does not have.
const CLAUDE_FIELDS: &[&str] = &[
    "hook_event_name",
    "session_id",
    "cwd",
    "transcript_path",
    "permission_mode",
    "prompt_id",
    "agent_id",
    "tool_use_id",
    "stop_hook_active",
];

/// `PreToolUse` tells a subagent's call of our tools from one of the main conversation, before the
/// call arrives.
const CLAUDE: &[Hook] = &[
    Hook { event: "SessionStart", matcher: None, form: Form::Command },
    Hook { event: "UserPromptSubmit", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook {
        event: "PreToolUse",
        matcher: Some("mcp__plugin_peers_peers__.*"),
        form: Form::Tool(CLAUDE_FIELDS),
    },
    Hook { event: "PostToolBatch", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "Stop", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "SessionEnd", matcher: None, form: Form::Command },
];

/// Codex skips a hook that names a field which its event does not have.
const CODEX: &[Hook] = &[
    Hook { event: "SessionStart", matcher: None, form: Form::Command },
    Hook {
        event: "UserPromptSubmit",
        matcher: None,
        form: Form::Tool(&[
            "hook_event_name",
            "session_id",
            "cwd",
            "transcript_path",
            "permission_mode",
            "turn_id",
        ]),
    },
    Hook {
        event: "PostToolUse",
        matcher: None,
        form: Form::Tool(&[
            "hook_event_name",
            "session_id",
            "cwd",
            "transcript_path",
            "permission_mode",
            "turn_id",
            "tool_use_id",
        ]),
    },
    Hook {
        event: "Stop",
        matcher: None,
        form: Form::Tool(&[
            "hook_event_name",
            "session_id",
            "cwd",
            "transcript_path",
            "permission_mode",
            "turn_id",
            "stop_hook_active",
        ]),
    },
    Hook { event: "SessionEnd", matcher: None, form: Form::Command },
];

pub(crate) fn of(client: Client) -> &'static [Hook] {
    match client {
        Client::Claude => CLAUDE,
        Client::Codex => CODEX,
        Client::Gemini => &[],
    }
}

/// The server's name in the client's hooks.
fn server(client: Client) -> &'static str {
    match client {
        Client::Claude => "plugin:peers:peers",
        Client::Codex | Client::Gemini => SERVER,
    }
}

impl Hook {
    /// The shell command of a hook that is a command.
    fn command(&self, place: &Place, client: Client) -> String {
        let dir = place
            .peerd_dir
            .as_ref()
            .map(|dir| format!("PEERD_DIR={} ", shell_word(&dir.display().to_string())));
        let program = shell_word(&place.command());
        format!("{}{program} hook {} {}", dir.unwrap_or_default(), client.as_str(), self.event)
    }

    fn handler(&self, place: &Place, client: Client) -> Vec<(&'static str, Value)> {
        let ends = client == Client::Codex && self.event == "SessionEnd";
        let timeout =
            ("timeout", Value::Number(if ends { CODEX_END_TIMEOUT_S } else { TIMEOUT_S }));
        let mut handler = match self.form {
            Form::Command => vec![
                ("type", Value::text("command")),
                ("command", Value::text(self.command(place, client))),
            ],
            Form::Tool(fields) => vec![
                ("type", Value::text("mcp_tool")),
                ("server", Value::text(server(client))),
                ("tool", Value::text(TOOL)),
                (
                    "input",
                    Value::Object(
                        fields
                            .iter()
                            .map(|field| {
                                ((*field).to_owned(), Value::text(format!("${{{field}}}")))
                            })
                            .collect(),
                    ),
                ),
            ],
        };
        handler.push(timeout);
        handler
    }

    /// The group of this one hook, as JSON.
    pub(crate) fn json(&self, place: &Place, client: Client) -> Value {
        let handler = self
            .handler(place, client)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut group: Vec<_> = self
            .matcher
            .iter()
            .map(|matcher| ("matcher".to_owned(), Value::text(*matcher)))
            .collect();
        group.push(("hooks".to_owned(), Value::Array(vec![Value::Object(handler)])));
        Value::Object(group)
    }

    /// The digest that Codex 0.169 records when its user trusts this hook: of the event and the
    /// group as JSON, with sorted names. It is compared and never written.
    pub(crate) fn codex_digest(&self, place: &Place) -> String {
        let handler = self
            .handler(place, Client::Codex)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut handler: serde_json::Value =
            serde_json::from_str(&Value::Object(handler).to_string()).unwrap_or_default();
        if self.form == Form::Command {
            handler["async"] = false.into();
        }
        let mut identity =
            serde_json::json!({ "event_name": self.snake_event(), "hooks": [handler] });
        if let Some(matcher) = self.matcher {
            identity["matcher"] = matcher.into();
        }
        let digest = Sha256::digest(identity.to_string());
        digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// The event in Codex's own records: `PostToolUse` becomes `post_tool_use`.
    pub(crate) fn snake_event(&self) -> String {
        let mut name = String::new();
        for (place, character) in self.event.char_indices() {
            if character.is_uppercase() && place > 0 {
                name.push('_');
            }
            name.push(character.to_ascii_lowercase());
        }
        name
    }

    /// The group of this one hook, as TOML tables.
    pub(crate) fn toml(&self, place: &Place, client: Client) -> String {
        let mut text = format!("[[hooks.{}]]\n", self.event);
        if let Some(matcher) = self.matcher {
            text.push_str(&format!("matcher = {}\n", toml::quoted(matcher)));
        }
        text.push_str(&format!("\n[[hooks.{}.hooks]]\n", self.event));
        for (key, value) in self.handler(place, client) {
            let value = match &value {
                Value::Object(members) => {
                    let members = members.iter().map(|(key, value)| match value {
                        Value::Text(text) => format!("{key} = {}", toml::quoted(text)),
                        other => format!("{key} = {other}"),
                    });
                    format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
                }
                Value::Text(text) => toml::quoted(text),
                other => other.to_string(),
            };
            text.push_str(&format!("{key} = {value}\n"));
        }
        text
    }
}

/// The position of a handler of ours in one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The event, in the client's words.
    pub(crate) event: String,
    /// The index of the group in the event, and of the handler in the group.
    pub(crate) place: (usize, usize),
    /// Whether the group has no other handler.
    pub(crate) alone: bool,
    /// Whether it is the handler that this version installs.
    pub(crate) current: bool,
}

/// Our handlers in one group.
pub(crate) fn in_group(
    place: &Place,
    client: Client,
    event: &str,
    group: usize,
    handlers: &[Handler],
) -> Vec<Found> {
    let ours = handlers.iter().enumerate().filter(|(_, handler)| is_ours(place, client, handler));
    let found = |(number, handler): (usize, &Handler)| Found {
        event: event.to_owned(),
        place: (group, number),
        alone: handlers.len() == 1,
        current: is_current(place, client, event, handler),
    };
    ours.map(found).collect()
}

/// Our handlers in a JSON file that has `hooks`.
pub(crate) fn in_json(place: &Place, client: Client, text: &str, root: &Node) -> Vec<Found> {
    let mut found = Vec::new();
    for event in root.get("hooks").map(Node::entries).unwrap_or_default() {
        for (number, group) in event.value.entries().iter().enumerate() {
            let handlers = group.value.get("hooks").map(Node::entries).unwrap_or_default();
            let handlers: Vec<_> =
                handlers.iter().map(|handler| from_json(text, &handler.value)).collect();
            found.extend(in_group(place, client, &event.key, number, &handlers));
        }
    }
    found
}

/// The text of such a file without these handlers.
pub(crate) fn without(text: &str, found: &[Found]) -> Result<String, Syntax> {
    let mut text = text.to_owned();
    // From the end, so that the earlier positions stay valid.
    for found in found.iter().rev() {
        let mut steps =
            vec!["hooks".into(), found.event.as_str().into(), Step::Item(found.place.0)];
        if !found.alone {
            steps.extend(["hooks".into(), Step::Item(found.place.1)]);
        }
        text = json::remove(&text, Dialect::Strict, &steps)?.unwrap_or(text);
    }
    Ok(text)
}

/// A handler in a file: its texts, numbers and booleans by path, such as `input.session_id`.
pub(crate) type Handler = BTreeMap<String, String>;

/// Whether a handler is one of ours, of any version.
pub(crate) fn is_ours(place: &Place, client: Client, handler: &Handler) -> bool {
    let part = |key: &str| handler.get(key).map(String::as_str);
    match part("type") {
        Some("command") => part("command").is_some_and(|line| place.runs_hook(line, client)),
        Some("mcp_tool") => {
            [Some(SERVER), Some("plugin:peers:peers")].contains(&part("server"))
                && part("tool") == Some(TOOL)
        }
        _ => false,
    }
}

/// Whether a handler of ours is the one that this version installs for an event. Further fields in
/// it are the person's.
pub(crate) fn is_current(place: &Place, client: Client, event: &str, handler: &Handler) -> bool {
    let Some(hook) = of(client).iter().find(|hook| hook.event == event) else { return false };
    let text = Value::Object(
        hook.handler(place, client)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
    .document();
    let Ok(wanted) = json::parse(&text, Dialect::Strict) else { return false };
    from_json(&text, &wanted).iter().all(|(key, value)| handler.get(key) == Some(value))
}

/// Reads a handler from JSON.
pub(crate) fn from_json(text: &str, node: &Node) -> Handler {
    fn walk(text: &str, node: &Node, path: &str, found: &mut Handler) {
        for entry in node.entries() {
            let path =
                if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            let value = entry.value.text().unwrap_or(&text[entry.value.span.clone()]);
            if entry.value.is_object() {
                walk(text, &entry.value, &path, found)
            } else {
                drop(found.insert(path, value.to_owned()))
            }
        }
    }
    let mut found = Handler::new();
    walk(text, node, "", &mut found);
    found
}

/// Reads a handler from TOML.
pub(crate) fn from_toml(table: &dyn TableLike) -> Handler {
    fn walk(table: &dyn TableLike, path: &str, found: &mut Handler) {
        for (key, item) in table.iter() {
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            if let Some(table) = item.as_table_like() {
                walk(table, &path, found);
                continue;
            }
            let number = item.as_integer().map(|number| number.to_string());
            let value = item
                .as_str()
                .map(str::to_owned)
                .or(number)
                .or_else(|| item.as_bool().map(|value| value.to_string()));
            if let Some(value) = value {
                found.insert(path, value);
            }
        }
    }
    let mut found = Handler::new();
    walk(table, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codex 0.171.0 reported these digests of these hooks in its `hooks/list`.
    #[test]
    fn the_digest_of_a_hook_is_the_one_that_codex_computes() {
        let place = Place {
            home: "/home/u".into(),
            claude_dir: "/home/u/.claude".into(),
            claude_json: "/home/u/.claude.json".into(),
            codex_dir: "/home/u/.codex".into(),
            gemini_dir: "/home/u/.gemini".into(),
            executable: "/opt/peerd/peerctl".into(),
            peerd_dir: None,
            location: peer_proto::location::Location::resolve(None, Some("/home/u".as_ref()))
                .unwrap(),
        };
        let digests: Vec<_> =
            of(Client::Codex).iter().map(|hook| hook.codex_digest(&place)).collect();
        assert_eq!(digests, DIGESTS);
    }

    const DIGESTS: [&str; 5] = [
        "sha256:72c25d773203147e6f0e11887ee8203f7c0e26c1a4ee42eee0b8d46991712cd7",
        "sha256:ff0da11ffa60e44785970b78ab194ef4122b08b5f221c4209150ed61cae89534",
        "sha256:5988517769937af3425ef32d9a91a0026bb7ab691194d1edf0564aab0d1daa96",
        "sha256:2e42d2dd78391412f0719e6f5f4c393f3621b22e74d85eafd3230ed30a3d7769",
        "sha256:ad57fdd2ec619063881a6b0ab6fb9ec2b46e50a470f10ff85685617fc0aea2a0",
    ];
}
