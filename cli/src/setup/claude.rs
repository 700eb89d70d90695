//! Claude Code: a plugin in its directory of skills, and on request three permissions in the
//! person's settings.
//!
//! Claude Code loads the plugin in every session, so no file of the person's must change. Knows
//! Claude Code's files and the form of its entries. Does not know how files are written. Invariant:
//! no second adapter remains. An entry from `claude mcp add` would start one, so it is removed.

use std::path::{Path, PathBuf};

use super::draft::{Draft, Remark, Retired, unreadable};
use super::files::is_occupied;
use super::json::{self, Dialect, EditError, Node, Step, Value};
use super::runs::Runs;
use super::{Client, MESSAGE_TOOLS, Place, SERVER, hooks};
use crate::error::Failure;

/// The plugin's name in `enabledPlugins` and on the command line.
pub(crate) const PLUGIN: &str = "peers@skills-dir";

/// The command that starts a session with the channel. The channel is a research preview, so the
/// person must confirm it at every start.
pub(crate) const LAUNCH: &str =
    "claude --dangerously-load-development-channels plugin:peers@skills-dir";

const THIS: Client = Client::Claude;

/// The directory of the plugin.
pub(crate) fn plugin_dir(place: &Place) -> PathBuf {
    place.claude_dir.join("skills").join(SERVER)
}

pub(crate) fn plugin_files(place: &Place) -> [PathBuf; 2] {
    let dir = plugin_dir(place);
    [dir.join(".claude-plugin/plugin.json"), dir.join("hooks/hooks.json")]
}

/// The file of the person's settings.
pub(crate) fn settings(place: &Place) -> PathBuf {
    place.claude_dir.join("settings.json")
}

/// The name of a tool of the plugin's server, as permissions have it.
pub(crate) fn tool(name: &str) -> String {
    format!("mcp__plugin_{SERVER}_{SERVER}__{name}")
}

/// The plugin's manifest. The client finds the hooks at their usual place.
pub(crate) fn manifest(place: &Place) -> String {
    let mut server = vec![
        ("command".to_owned(), Value::text(place.command())),
        ("args".to_owned(), Value::Array(vec![Value::text("mcp")])),
    ];
    if let Some(dir) = &place.peerd_dir {
        server.push((
            "env".to_owned(),
            Value::object([("PEERD_DIR", Value::text(dir.display().to_string()))]),
        ));
    }
    let description =
        "Messages between the coding agents of this machine. Made by `peerctl setup claude`.";
    Value::object([
        ("name", Value::text(SERVER)),
        ("version", Value::text(env!("CARGO_PKG_VERSION"))),
        ("description", Value::text(description)),
        ("author", Value::object([("name", Value::text("peerd"))])),
        ("mcpServers", Value::object([(SERVER, Value::Object(server))])),
        ("channels", Value::Array(vec![Value::object([("server", Value::text(SERVER))])])),
    ])
    .document()
}

pub(crate) fn hook_file(place: &Place) -> String {
    let events = hooks::of(THIS)
        .iter()
        .map(|hook| (hook.event.to_owned(), Value::Array(vec![hook.json(place, THIS)])));
    Value::object([
        ("description", Value::text("Presence of this session, and its mail between two steps. Made by `peerctl setup claude`.")),
        ("hooks", Value::Object(events.collect())),
    ])
    .document()
}

/// Drafts the changes for Claude Code.
pub(crate) fn draft(
    place: &Place,
    runs: &Runs,
    tools: bool,
    draft: &mut Draft,
) -> Result<(), Failure> {
    own_entries(place, draft)?;
    plugin(place, runs, draft)?;
    settings_file(place, tools, draft)
}

fn plugin(place: &Place, runs: &Runs, draft: &mut Draft) -> Result<(), Failure> {
    let [manifest_path, hooks_path] = plugin_files(place);
    let dir = plugin_dir(place);
    let old = draft.text(THIS, &manifest_path)?;
    let old_hooks = draft.text(THIS, &hooks_path)?;
    let ours = old.as_deref().is_some_and(|text| is_ours(place, text));
    if !ours && is_occupied(&dir) {
        let step = format!("move it away, then run `peerctl setup {}` again", THIS.as_str());
        draft.conflict(THIS, &dir, "another skill or plugin called peers is there", step);
        return Ok(());
    }
    for (path, old, new, what) in [
        (
            &manifest_path,
            old,
            manifest(place),
            "the plugin `peers`, with the adapter and the channel",
        ),
        (
            &hooks_path,
            old_hooks,
            hook_file(place),
            "the hooks of the plugin, for presence and for mail between two steps",
        ),
    ] {
        let edited = old
            .as_deref()
            .is_some_and(|old| old != new && runs.is_as_left(path, old) == Some(false));
        if edited {
            let step = "keep the file, or run `peerctl uninstall claude` and `peerctl setup claude` to write a new one";
            draft.conflict(THIS, path, "the file was changed after setup wrote it", step);
        }
        draft.set(path, Some(new), what);
    }
    Ok(())
}

/// Whether a plugin's manifest is one of ours, of any version.
fn is_ours(place: &Place, text: &str) -> bool {
    let Ok(root) = json::parse(text, Dialect::Strict) else { return false };
    root.get("name").and_then(Node::text) == Some(SERVER)
        && root.at(&["mcpServers", SERVER]).is_some_and(|server| runs_adapter(place, server))
}

/// Whether a server's entry runs an adapter of ours.
pub(crate) fn runs_adapter(place: &Place, server: &Node) -> bool {
    let args: Vec<&str> = server
        .get("args")
        .map(|args| args.entries().iter().filter_map(|arg| arg.value.text()).collect())
        .unwrap_or_default();
    server
        .get("command")
        .and_then(Node::text)
        .is_some_and(|command| place.runs_adapter(command, &args))
}

/// Removes the entries that `claude mcp add` made for peerctl, for all projects or for single ones.
fn own_entries(place: &Place, draft: &mut Draft) -> Result<(), Failure> {
    let path = &place.claude_json;
    let Some(text) = draft.text(THIS, path)? else { return Ok(()) };
    let root = json::parse(&text, Dialect::Strict).map_err(|why| unreadable(path, why))?;
    let projects = root.get("projects").map(Node::entries).unwrap_or_default();
    let ways = projects.iter().map(|project| vec!["projects", project.key.as_str(), "mcpServers"]);
    let ways: Vec<Vec<&str>> = std::iter::once(vec!["mcpServers"]).chain(ways).collect();
    for way in ways {
        let Some(server) = root.at(&way).and_then(|servers| servers.get(SERVER)) else { continue };
        if !runs_adapter(place, server) {
            // In a single project, it is the project's own server, and not the plugin's.
            if way.len() == 1 {
                let what = "another server called peers is there, which does not run `peerctl mcp`";
                draft.conflict(
                    THIS,
                    path,
                    what,
                    "remove it with `claude mcp remove -s user peers`, or rename it; then run setup again",
                );
            }
            continue;
        }
        let entry = text[server.span.clone()].to_owned();
        let whose =
            if way.len() == 1 { "of all projects".to_owned() } else { format!("of {}", way[1]) };
        take_out(
            draft,
            path,
            &way,
            SERVER,
            entry,
            &format!("removes the server `peers` {whose}, because the plugin has it"),
        )?;
    }
    Ok(())
}

/// Removes a member of an object, and records it.
pub(crate) fn take_out(
    draft: &mut Draft,
    path: &Path,
    way: &[&str],
    key: &str,
    entry: String,
    what: &str,
) -> Result<(), Failure> {
    let Some(text) = draft.text(THIS, path)? else { return Ok(()) };
    let steps: Vec<Step> = way.iter().chain(&[key]).map(|key| Step::from(*key)).collect();
    if let Some(without) =
        json::remove(&text, Dialect::Strict, &steps).map_err(|why| unreadable(path, why))?
    {
        draft.set(path, Some(without), what);
        let way = way.iter().map(|key| (*key).to_owned()).collect();
        draft.retire(path, Retired::Member { path: way, key: key.to_owned(), json: entry });
    }
    Ok(())
}

fn settings_file(place: &Place, tools: bool, draft: &mut Draft) -> Result<(), Failure> {
    let path = settings(place);
    let text = draft.text(THIS, &path)?;
    let mut text = text.unwrap_or_default();
    let empty = text.trim().is_empty();
    let root = if empty {
        None
    } else {
        Some(json::parse(&text, Dialect::Strict).map_err(|why| unreadable(&path, why))?)
    };
    let switched_off = |way: &[&str], word: &str| {
        let value = root.as_ref().and_then(|root| root.at(way));
        value.is_some_and(|value| &text[value.span.clone()] == word)
    };
    if switched_off(&["enabledPlugins", PLUGIN], "false") {
        draft.switched_off.push(Remark {
            what: format!("{PLUGIN} is disabled in {}", path.display()),
            step: format!("`claude plugin enable {PLUGIN}` enables it"),
        });
    }
    if switched_off(&["disableAllHooks"], "true") {
        draft.warnings.push(Remark {
            what: format!("all hooks are disabled in {} (disableAllHooks)", path.display()),
            step: "mail then arrives with the next tool call only".to_owned(),
        });
    }
    let by_hand =
        root.as_ref().map(|root| hooks::in_json(place, THIS, &text, root)).unwrap_or_default();
    if !by_hand.is_empty() {
        let without = hooks::without(&text, &by_hand).map_err(|why| unreadable(&path, why))?;
        draft.set(
            &path,
            Some(without.clone()),
            "removes the hooks of peerctl that were added by hand, because the plugin has them",
        );
        text = without;
    }
    if !tools {
        return Ok(());
    }
    for name in MESSAGE_TOOLS {
        let name = tool(name);
        let has = |list: &str| {
            let items = root
                .as_ref()
                .and_then(|root| root.at(&["permissions", list]))
                .map(Node::entries)
                .unwrap_or_default();
            items.iter().any(|item| item.value.text() == Some(name.as_str()))
        };
        // A different decision of the person stays.
        if !has("allow") && !has("deny") && !has("ask") {
            let added = json::insert(
                &text,
                Dialect::Strict,
                &["permissions", "allow"],
                None,
                Value::text(name),
            );
            text = added.map_err(|why| wrong_kind(&path, why))?;
        }
    }
    if !text.is_empty() {
        draft.set(
            &path,
            Some(text),
            "allows send_message, check_messages and ack_messages to run without a dialog",
        );
    }
    Ok(())
}

pub(crate) fn wrong_kind(path: &Path, why: EditError) -> Failure {
    unreadable(path, why)
}

/// The text of a file without our entries; `None` if nothing of others is left.
pub(crate) fn strip(place: &Place, path: &Path, text: &str) -> Result<Option<String>, Failure> {
    if plugin_files(place).iter().any(|file| file == path) {
        let manifest = super::draft::read(&plugin_files(place)[0])?;
        let ours = manifest.as_deref().is_some_and(|manifest| is_ours(place, manifest))
            || is_hook_file(place, text);
        return Ok((!ours).then(|| text.to_owned()));
    }
    let mut text = text.to_owned();
    if text.trim().is_empty() {
        return Ok(Some(text));
    }
    let root = json::parse(&text, Dialect::Strict).map_err(|why| unreadable(path, why))?;
    if path == settings(place) {
        text = hooks::without(&text, &hooks::in_json(place, THIS, &text, &root))
            .map_err(|why| unreadable(path, why))?;
        // The entry that `claude plugin disable` wrote.
        let switch =
            json::remove(&text, Dialect::Strict, &["enabledPlugins".into(), PLUGIN.into()]);
        text = switch.map_err(|why| unreadable(path, why))?.unwrap_or(text);
        let root = json::parse(&text, Dialect::Strict).map_err(|why| unreadable(path, why))?;
        let allowed = root.at(&["permissions", "allow"]).map(Node::entries).unwrap_or_default();
        let ours = MESSAGE_TOOLS.map(tool);
        let places: Vec<usize> = (0..allowed.len())
            .filter(|at| {
                allowed[*at].value.text().is_some_and(|name| ours.iter().any(|tool| tool == name))
            })
            .collect();
        for place in places.into_iter().rev() {
            let steps = ["permissions".into(), "allow".into(), Step::Item(place)];
            text = json::remove(&text, Dialect::Strict, &steps)
                .map_err(|why| unreadable(path, why))?
                .unwrap_or(text);
        }
    }
    if path == place.claude_json
        && root.at(&["mcpServers", SERVER]).is_some_and(|server| runs_adapter(place, server))
    {
        let steps = ["mcpServers".into(), SERVER.into()];
        text = json::remove(&text, Dialect::Strict, &steps)
            .map_err(|why| unreadable(path, why))?
            .unwrap_or(text);
    }
    Ok(Some(text))
}

fn is_hook_file(place: &Place, text: &str) -> bool {
    let Ok(root) = json::parse(text, Dialect::Strict) else { return false };
    let events = root.get("hooks").map(Node::entries).unwrap_or_default();
    let handlers = events
        .iter()
        .flat_map(|event| event.value.entries())
        .flat_map(|group| group.value.get("hooks").map(Node::entries).unwrap_or_default());
    let mut all = handlers
        .map(|handler| hooks::is_ours(place, THIS, &hooks::from_json(text, &handler.value)))
        .peekable();
    all.peek().is_some() && all.all(|ours| ours)
}

/// All files that may have entries of ours, each with the directories that are removed with it if
/// they are empty.
pub(crate) fn files(place: &Place) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let [manifest, hooks] = plugin_files(place);
    let dirs = |file: &Path| file.ancestors().skip(1).take(3).map(Path::to_path_buf).collect();
    vec![
        (hooks.clone(), dirs(&hooks)),
        (manifest.clone(), dirs(&manifest)),
        (settings(place), Vec::new()),
        (place.claude_json.clone(), Vec::new()),
    ]
}
