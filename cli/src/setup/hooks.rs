//! Which hooks are installed in which client, and in which form: one table per client.
//!
//! The `mcp_tool` form calls the adapter that the client runs anyway and saves a process, but only where a server is
//! connected: a session's start comes before that, its end after it. What a hook hears and answers is not known here.

use super::json::Value;
use super::{Client, Place, SERVER, shell_word, toml};

/// The adapter's tool that hooks call; it is not listed.
pub(crate) const TOOL: &str = "hook";

/// How long a client waits for a hook, in seconds. It is a thousand times what one takes, and stops nobody for long.
const TIMEOUT_S: u64 = 5;

/// One hook of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// What happens in the client, in its words.
    pub(crate) event: &'static str,
    /// Only for tools whose name matches.
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

/// Claude Code puts an empty text in the place of what an event does not have.
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

/// `PreToolUse` tells a subagent's call of our tools from the main conversation's before the call arrives.
const CLAUDE: &[Hook] = &[
    Hook { event: "SessionStart", matcher: None, form: Form::Command },
    Hook { event: "UserPromptSubmit", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "PreToolUse", matcher: Some("mcp__plugin_peers_peers__.*"), form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "PostToolBatch", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "Stop", matcher: None, form: Form::Tool(CLAUDE_FIELDS) },
    Hook { event: "SessionEnd", matcher: None, form: Form::Command },
];

/// Codex passes over a hook that names a field which its event does not have.
const CODEX: &[Hook] = &[
    Hook { event: "SessionStart", matcher: None, form: Form::Command },
    Hook {
        event: "UserPromptSubmit",
        matcher: None,
        form: Form::Tool(&["hook_event_name", "session_id", "cwd", "transcript_path", "permission_mode", "turn_id"]),
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

/// The hooks of a client.
pub(crate) fn of(client: Client) -> &'static [Hook] {
    match client {
        Client::Claude => CLAUDE,
        Client::Codex => CODEX,
        Client::Gemini => &[],
    }
}

/// The server's name as the client's hooks write it.
fn server(client: Client) -> &'static str {
    match client {
        Client::Claude => "plugin:peers:peers",
        Client::Codex | Client::Gemini => SERVER,
    }
}

impl Hook {
    /// What the client's shell runs, where the hook is a command.
    fn command(&self, place: &Place, client: Client) -> String {
        let dir = place.peerd_dir.as_ref().map(|dir| format!("PEERD_DIR={} ", shell_word(&dir.display().to_string())));
        let program = shell_word(&place.command());
        format!("{}{program} hook {} {}", dir.unwrap_or_default(), client.as_str(), self.event)
    }

    fn handler(&self, place: &Place, client: Client) -> Vec<(&'static str, Value)> {
        match self.form {
            Form::Command => vec![
                ("type", Value::text("command")),
                ("command", Value::text(self.command(place, client))),
                ("timeout", Value::Number(TIMEOUT_S)),
            ],
            Form::Tool(fields) => vec![
                ("type", Value::text("mcp_tool")),
                ("server", Value::text(server(client))),
                ("tool", Value::text(TOOL)),
                (
                    "input",
                    Value::Object(
                        fields.iter().map(|field| ((*field).to_owned(), Value::text(format!("${{{field}}}")))).collect(),
                    ),
                ),
                ("timeout", Value::Number(TIMEOUT_S)),
            ],
        }
    }

    /// The group of this one hook, as JSON.
    pub(crate) fn json(&self, place: &Place, client: Client) -> Value {
        let handler = self.handler(place, client).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut group: Vec<_> = self.matcher.iter().map(|matcher| ("matcher".to_owned(), Value::text(*matcher))).collect();
        group.push(("hooks".to_owned(), Value::Array(vec![Value::Object(handler)])));
        Value::Object(group)
    }

    /// The group of this one hook, as tables of TOML.
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

/// Whether a handler, given by its type, command, server and tool, is one of ours.
pub(crate) fn is_ours(place: &Place, client: Client, part: impl Fn(&str) -> Option<String>) -> bool {
    match part("type").as_deref() {
        Some("command") => part("command").is_some_and(|line| place.runs_hook(&line, client)),
        Some("mcp_tool") => {
            let server = part("server");
            [SERVER, "plugin:peers:peers"].map(Some).contains(&server.as_deref()) && part("tool").as_deref() == Some(TOOL)
        }
        _ => false,
    }
}
