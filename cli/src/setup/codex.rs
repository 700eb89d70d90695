//! Codex: a server in `config.toml`, hooks there or in `hooks.json`, and on request three
//! permissions.
//!
//! Knows the form of Codex's entries. Codex clears the environment of its servers, so the entry
//! names each variable to pass on. Invariant: setup never records that a hook is trusted. Codex
//! asks its user about each hook at a start and in `/hooks`.

use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use super::draft::{Draft, Remark, unreadable};
use super::json::{self, Dialect};
use super::toml::{self, Target};
use super::{Client, MESSAGE_TOOLS, Place, SERVER, codex_hooks, hooks};
use crate::error::Failure;

const THIS: Client = Client::Codex;

/// Variables that the adapter reads, and that Codex passes on only if they are named.
const PASSED_ON: &[&str] = &[
    "PEER_NAME",
    "PEERD_DIR",
    "PEERD_ENABLED",
    "AGENT_PEERS_ENABLED",
    "PEERD_PROFILE",
    "PEERD_CLIENT",
    "PEERD_LOG",
    "PEERD_SUMMARIZER",
    "PEERD_DISABLE_TAB_TITLE",
    "CODEX_HOME",
    "TMUX",
    "TMUX_PANE",
];

/// The first line of a configuration that setup created, so that it can be removed again.
const MADE: &str = "# Made by `peerctl setup codex`.\n";

/// Modes in which Codex would hide our tools from the model: behind a search, or for programs
/// alone, both without the server's instructions. The entry omits the tools there, so that Codex
/// offers them directly.
const HIDDEN_IN: &[&str] = &["code_mode", "deferred"];

fn server_table(place: &Place) -> String {
    let mut text = format!(
        "[mcp_servers.{SERVER}]\ncommand = {}\nargs = [\"mcp\"]\nenv_vars = {}\nomit_tools_from = {}\n",
        toml::quoted(&place.command()),
        toml::list(&passed_on(place)),
        toml::list(HIDDEN_IN)
    );
    if let Some(dir) = &place.peerd_dir {
        text.push_str(&format!(
            "env = {{ PEERD_DIR = {} }}\n",
            toml::quoted(&dir.display().to_string())
        ));
    }
    text
}

/// The variables to pass on. A variable with a fixed value in the entry is not passed on as well.
fn passed_on(place: &Place) -> Vec<&'static str> {
    PASSED_ON
        .iter()
        .copied()
        .filter(|name| place.peerd_dir.is_none() || *name != "PEERD_DIR")
        .collect()
}

fn tool_table(tool: &str) -> String {
    format!("[mcp_servers.{SERVER}.tools.{tool}]\napproval_mode = \"approve\"\n")
}

/// All entries as one text, for a person who adds them by hand.
pub(crate) fn snippet(place: &Place, tools: bool) -> String {
    let mut tables = vec![server_table(place)];
    tables.extend(MESSAGE_TOOLS.iter().filter(|_| tools).map(|tool| tool_table(tool)));
    tables.extend(hooks::of(THIS).iter().map(|hook| hook.toml(place, THIS)));
    tables.join("\n")
}

/// Drafts the changes for Codex.
pub(crate) fn draft(place: &Place, tools: bool, draft: &mut Draft) -> Result<(), Failure> {
    let path = place.codex_config();
    let text = draft.text(THIS, &path)?.unwrap_or_default();
    let document = toml::parse(&text).map_err(|why| unreadable(&path, why))?;
    let mut new = Vec::new();
    match toml::at(&document, &["mcp_servers", SERVER]) {
        None if toml::at(&document, &["mcp_servers"]).is_some_and(Item::is_inline_table) => {
            let step = format!(
                "write it as tables ([mcp_servers.NAME]), or add by hand the entry that `peerctl setup {} --print` shows",
                THIS.as_str()
            );
            draft.conflict(
                THIS,
                &path,
                "mcp_servers is an inline table, to which setup cannot add a table",
                step,
            );
            return Ok(());
        }
        None => new.push(server_table(place)),
        Some(server) => {
            if !server.as_table_like().is_some_and(|server| runs_adapter(place, server)) {
                let what = "another server called peers is there, which does not run `peerctl mcp`";
                draft.conflict(
                    THIS,
                    &path,
                    what,
                    "rename it, or remove it with `codex mcp remove peers`; then run setup again",
                );
                return Ok(());
            }
            server_in_place(place, &path, &text, draft)?;
        }
    }
    let text = draft.text(THIS, &path)?.unwrap_or_default();
    let document = toml::parse(&text).map_err(|why| unreadable(&path, why))?;
    if toml::at(&document, &["mcp_servers", SERVER, "enabled"]).and_then(Item::as_bool)
        == Some(false)
    {
        draft.switched_off.push(Remark {
            what: format!("the server peers is disabled in {} (enabled = false)", path.display()),
            step: "remove that line, or set enabled = true".to_owned(),
        });
    }
    if toml::at(&document, &["features", "hooks"]).and_then(Item::as_bool) == Some(false) {
        draft.warnings.push(Remark {
            what: format!("all hooks are disabled in {} (features.hooks)", path.display()),
            step: "mail then arrives with the next tool call only".to_owned(),
        });
    }
    let inline_tools =
        toml::at(&document, &["mcp_servers", SERVER, "tools"]).is_some_and(Item::is_inline_table);
    for tool in MESSAGE_TOOLS.iter().filter(|_| tools && !inline_tools) {
        // A different decision of the person stays.
        if toml::at(&document, &["mcp_servers", SERVER, "tools", tool]).is_none() {
            new.push(tool_table(tool));
        }
    }
    append(draft, &path, &new, "the server `peers`, and the variables that it gets");
    codex_hooks::draft(place, draft)
}

fn append(draft: &mut Draft, path: &Path, tables: &[String], what: &str) {
    if tables.is_empty() {
        return;
    }
    // The file was read before, so this cannot fail.
    let text = draft.text(THIS, path).ok().flatten().unwrap_or_else(|| MADE.to_owned());
    draft.set(path, Some(toml::append(&text, &tables.join("\n"))), what);
}

/// Whether a server's table runs an adapter of ours.
fn runs_adapter(place: &Place, server: &dyn TableLike) -> bool {
    let args: Vec<&str> = server
        .get("args")
        .and_then(Item::as_array)
        .map(|args| args.iter().filter_map(toml_edit::Value::as_str).collect())
        .unwrap_or_default();
    server
        .get("command")
        .and_then(Item::as_str)
        .is_some_and(|command| place.runs_adapter(command, &args))
}

/// Updates our server's entry, and keeps its other keys.
fn server_in_place(
    place: &Place,
    path: &Path,
    text: &str,
    draft: &mut Draft,
) -> Result<(), Failure> {
    let document = toml::parse(text).map_err(|why| unreadable(path, why))?;
    let wanted = [
        wanted_command(place, &document),
        wanted_omission(&document),
        wanted_variables(place, &document),
        wanted_directory(place, text, &document),
    ];
    let mut text = text.to_owned();
    for Setting { way, key, value } in wanted.into_iter().flatten() {
        match toml::set(&text, way, key, &value).map_err(|why| unreadable(path, why))? {
            Some(new) => text = new,
            None => {
                let step = format!(
                    "change it by hand, as `peerctl setup {} --print` shows it",
                    THIS.as_str()
                );
                draft.conflict(
                    THIS,
                    path,
                    format!(
                        "{}.{key} is written in a form that setup cannot change",
                        way.join(".")
                    ),
                    step,
                );
                return Ok(());
            }
        }
    }
    draft.set(path, Some(text), "the server `peers`: its command and its variables");
    Ok(())
}

/// A key of our server that needs another value.
struct Setting {
    /// The table of the key.
    way: &'static [&'static str],
    key: &'static str,
    value: String,
}

impl Setting {
    /// A setting of the server's own table.
    fn of_server(key: &'static str, value: String) -> Self {
        Self { way: &["mcp_servers", SERVER], key, value }
    }
}

fn wanted_command(place: &Place, document: &Document<&str>) -> Option<Setting> {
    let command = toml::at(document, &["mcp_servers", SERVER, "command"]).and_then(Item::as_str);
    (command != Some(&place.command()))
        .then(|| Setting::of_server("command", toml::quoted(&place.command())))
}

fn wanted_omission(document: &Document<&str>) -> Option<Setting> {
    // A different value is the person's choice.
    let is_missing = toml::at(document, &["mcp_servers", SERVER, "omit_tools_from"]).is_none();
    is_missing.then(|| Setting::of_server("omit_tools_from", toml::list(HIDDEN_IN)))
}

/// The names of the variables to pass on: the existing names, and ours.
fn wanted_variables(place: &Place, document: &Document<&str>) -> Option<Setting> {
    let named: Vec<String> = match toml::at(document, &["mcp_servers", SERVER, "env_vars"]) {
        None => Vec::new(),
        // This fails for a richer form, which a person wrote on purpose.
        Some(vars) => vars
            .as_array()?
            .iter()
            .map(|name| Some(name.as_str()?.to_owned()))
            .collect::<Option<_>>()?,
    };
    let missing: Vec<&str> = passed_on(place)
        .into_iter()
        .filter(|name| !named.iter().any(|named| named == name))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let all: Vec<&str> = named.iter().map(String::as_str).chain(missing).collect();
    Some(Setting::of_server("env_vars", toml::list(&all)))
}

/// The state directory, in the form that the existing environment has.
fn wanted_directory(place: &Place, text: &str, document: &Document<&str>) -> Option<Setting> {
    let env = toml::at(document, &["mcp_servers", SERVER, "env"]);
    let said = env.and_then(|env| env.as_table_like()?.get("PEERD_DIR")?.as_str());
    let dir = place.dir_beside(said)?;
    let quoted = toml::quoted(&dir);
    match env {
        _ if said == Some(dir.as_str()) => None,
        None => Some(Setting::of_server("env", format!("{{ PEERD_DIR = {quoted} }}"))),
        Some(env) if said.is_none() && env.is_inline_table() => {
            let members = env.span().and_then(|span| text.get(span)).unwrap_or_default();
            let members = members.trim().trim_start_matches('{').trim_end_matches('}').trim();
            let comma = if members.is_empty() { "" } else { ", " };
            Some(Setting::of_server("env", format!("{{ {members}{comma}PEERD_DIR = {quoted} }}")))
        }
        Some(_) => {
            Some(Setting { way: &["mcp_servers", SERVER, "env"], key: "PEERD_DIR", value: quoted })
        }
    }
}

/// The text of a file without our entries.
pub(crate) fn strip(place: &Place, path: &Path, text: &str) -> Result<Option<String>, Failure> {
    if text.trim().is_empty() {
        return Ok(Some(text.to_owned()));
    }
    if path == place.codex_hooks() {
        let root = json::parse(text, Dialect::Strict).map_err(|why| unreadable(path, why))?;
        return hooks::without(text, &hooks::in_json(place, THIS, text, &root))
            .map(Some)
            .map_err(|why| unreadable(path, why));
    }
    let document = toml::parse(text).map_err(|why| unreadable(path, why))?;
    let mut targets = Vec::new();
    let server = toml::at(&document, &["mcp_servers", SERVER]).and_then(Item::as_table_like);
    if server.is_some_and(|server| runs_adapter(place, server)) {
        targets.push(Target::Table(vec!["mcp_servers".to_owned(), SERVER.to_owned()]));
    }
    targets.extend(codex_hooks::targets(&codex_hooks::in_toml(place, &document)));
    let without = toml::remove(text, &targets).map_err(|why| unreadable(path, why))?;
    let without = without.unwrap_or_else(|| text.to_owned());
    Ok(match without.strip_prefix(MADE) {
        Some("") => None,
        Some(rest) => Some(rest.trim_start_matches('\n').to_owned()),
        None => Some(without),
    })
}

/// All files that may have entries of ours.
pub(crate) fn files(place: &Place) -> Vec<(PathBuf, Vec<PathBuf>)> {
    vec![(place.codex_config(), Vec::new()), (place.codex_hooks(), Vec::new())]
}
