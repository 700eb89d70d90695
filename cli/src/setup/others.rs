//! Clients that are set up by hand: the entry to add, and its file.
//!
//! Knows only the form of each client's entry. Any MCP client works with the command, the argument
//! and stdio.

use super::json::Value;
use super::{Place, SERVER};

/// An entry that a person adds to a client's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snippet {
    /// The file it belongs to.
    pub(crate) place: String,
    pub(crate) text: String,
}

/// The entry for a client, by its name. An unknown client gets the most common form.
pub(crate) fn snippet(place: &Place, client: &str) -> Snippet {
    let command = Value::text(place.command());
    let args = Value::Array(vec![Value::text("mcp")]);
    let env = place
        .peerd_dir
        .as_ref()
        .map(|dir| Value::object([("PEERD_DIR", Value::text(dir.display().to_string()))]));
    let with_env = |mut members: Vec<(String, Value)>, key: &str| {
        members.extend(env.clone().map(|env| (key.to_owned(), env)));
        Value::Object(members)
    };
    let usual = with_env(
        vec![("command".to_owned(), command.clone()), ("args".to_owned(), args.clone())],
        "env",
    );
    let (path, way, server) = match client {
        "opencode" => {
            let line = Value::Array(vec![command, Value::text("mcp")]);
            let members =
                vec![("type".to_owned(), Value::text("local")), ("command".to_owned(), line)];
            ("opencode.json", "mcp", with_env(members, "environment"))
        }
        "copilot" => {
            let tools = ("tools".to_owned(), Value::Array(vec![Value::text("*")]));
            let members = vec![
                ("type".to_owned(), Value::text("local")),
                ("command".to_owned(), command),
                ("args".to_owned(), args),
                tools,
            ];
            ("~/.copilot/mcp-config.json", "mcpServers", with_env(members, "env"))
        }
        "vscode" => {
            let members = vec![
                ("type".to_owned(), Value::text("stdio")),
                ("command".to_owned(), command),
                ("args".to_owned(), args),
            ];
            (".vscode/mcp.json", "servers", with_env(members, "env"))
        }
        "amp" => ("Amp's settings.json", "amp.mcpServers", usual),
        "cursor" => ("~/.cursor/mcp.json", "mcpServers", usual),
        "antigravity" | "agy" => ("~/.gemini/antigravity-cli/mcp_config.json", "mcpServers", usual),
        "cline" => ("Cline's MCP settings", "mcpServers", usual),
        _ => ("the client's MCP settings", "mcpServers", usual),
    };
    Snippet {
        place: path.to_owned(),
        text: Value::object([(way, Value::object([(SERVER, server)]))]).document(),
    }
}
