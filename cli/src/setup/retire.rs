//! Entries of agent-peers and claude-peers. They do the same as peerd, and would deliver messages
//! of another system.
//!
//! Recognizes them by their names and by the path of what they run. Invariant: they are removed
//! only if the person agrees, and `setup --undo` restores them.

use std::path::Path;

use toml_edit::Item;

use super::draft::{Draft, Retired, unreadable};
use super::json::{self, Dialect, Node, Step};
use super::toml::{self, Target};
use super::{Client, Place, claude, gemini};
use crate::error::Failure;

/// The texts by which their names and paths are recognized.
const NAMES: [&str; 2] = ["agent-peers", "claude-peers"];

fn is_theirs(text: &str) -> bool {
    NAMES.iter().any(|name| text.contains(name))
}

/// An entry of one of these programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) client: Client,
    /// The place of the entry, in words.
    pub(crate) what: String,
    path: std::path::PathBuf,
    place: Where,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Json(Dialect, Vec<Step>),
    Toml(Target),
}

/// All such entries in a client's files. A file that cannot be read is a failure.
pub(crate) fn find(
    place: &Place,
    client: Client,
    draft: &mut Draft,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    match client {
        Client::Claude => {
            in_json(client, &place.claude_json, Dialect::Strict, draft, &mut found)?;
            in_json(client, &claude::settings(place), Dialect::Strict, draft, &mut found)?;
        }
        Client::Codex => {
            in_toml(&place.codex_config(), draft, &mut found)?;
            in_json(client, &place.codex_hooks(), Dialect::Strict, draft, &mut found)?;
        }
        Client::Gemini => {
            in_json(client, &gemini::settings(place), Dialect::Comments, draft, &mut found)?
        }
    }
    Ok(found)
}

fn in_json(
    client: Client,
    path: &Path,
    dialect: Dialect,
    draft: &mut Draft,
    found: &mut Vec<Found>,
) -> Result<(), Failure> {
    let Some(text) = draft.text(client, path)?.filter(|text| !text.trim().is_empty()) else {
        return Ok(());
    };
    let root = json::parse(&text, dialect).map_err(|why| unreadable(path, why))?;
    let mut add = |steps: Vec<Step>, what: String| {
        found.push(Found {
            client,
            what,
            path: path.to_path_buf(),
            place: Where::Json(dialect, steps),
        });
    };
    let projects = root.get("projects").map(Node::entries).unwrap_or_default();
    let ways = projects.iter().map(|project| vec!["projects", project.key.as_str(), "mcpServers"]);
    for way in std::iter::once(vec!["mcpServers"]).chain(ways) {
        for server in root.at(&way).map(Node::entries).unwrap_or_default() {
            if is_theirs(&server.key) || is_theirs(&text[server.value.span.clone()]) {
                let whose = way.get(1).map(|project| format!(" of {project}")).unwrap_or_default();
                let steps = way
                    .iter()
                    .map(|key| Step::from(*key))
                    .chain([Step::from(server.key.as_str())])
                    .collect();
                add(steps, format!("the server {}{whose} in {}", server.key, path.display()));
            }
        }
    }
    for event in root.get("hooks").map(Node::entries).unwrap_or_default() {
        // From the end, so that the earlier positions stay valid.
        for (number, group) in event.value.entries().iter().enumerate().rev() {
            let handlers = group.value.get("hooks").map(Node::entries).unwrap_or_default();
            let theirs = |handler: &json::Entry| {
                handler.value.get("command").and_then(Node::text).is_some_and(is_theirs)
            };
            if !handlers.is_empty() && handlers.iter().all(theirs) {
                let steps = vec!["hooks".into(), event.key.as_str().into(), Step::Item(number)];
                add(steps, format!("a hook of {} in {}", event.key, path.display()));
            }
        }
    }
    Ok(())
}

fn in_toml(path: &Path, draft: &mut Draft, found: &mut Vec<Found>) -> Result<(), Failure> {
    let Some(text) = draft.text(Client::Codex, path)? else { return Ok(()) };
    let document = toml::parse(&text).map_err(|why| unreadable(path, why))?;
    let Some(servers) = toml::at(&document, &["mcp_servers"]).and_then(Item::as_table_like) else {
        return Ok(());
    };
    for (name, server) in servers.iter() {
        let part = |key: &str| server.as_table_like()?.get(key);
        let command = part("command").and_then(Item::as_str).is_some_and(is_theirs);
        let args = part("args").and_then(Item::as_array);
        let args = args
            .is_some_and(|args| args.iter().filter_map(toml_edit::Value::as_str).any(is_theirs));
        if is_theirs(name) || command || args {
            let target = Target::Table(vec!["mcp_servers".to_owned(), name.to_owned()]);
            let what = format!("the server {name} in {}", path.display());
            found.push(Found {
                client: Client::Codex,
                what,
                path: path.to_path_buf(),
                place: Where::Toml(target),
            });
        }
    }
    Ok(())
}

/// Removes the entries, and records them.
pub(crate) fn take_out(draft: &mut Draft, all: &[Found]) -> Result<(), Failure> {
    for found in all {
        let Some(text) = draft.text(found.client, &found.path)? else { continue };
        let (without, retired) = match &found.place {
            Where::Json(dialect, steps) => {
                let root =
                    json::parse(&text, *dialect).map_err(|why| unreadable(&found.path, why))?;
                let without = json::remove(&text, *dialect, steps)
                    .map_err(|why| unreadable(&found.path, why))?;
                (without, remembered(&text, &root, steps))
            }
            Where::Toml(target) => {
                let without = toml::remove(&text, std::slice::from_ref(target))
                    .map_err(|why| unreadable(&found.path, why))?;
                let toml = toml::excerpt(&text, std::slice::from_ref(target))
                    .map_err(|why| unreadable(&found.path, why))?;
                (without, Some(Retired::Tables { toml }))
            }
        };
        if let Some(without) = without {
            draft.set(&found.path, Some(without), format!("removes {}", found.what));
            if let Some(retired) = retired {
                draft.retire(&found.path, retired);
            }
        }
    }
    Ok(())
}

fn remembered(text: &str, root: &Node, steps: &[Step]) -> Option<Retired> {
    let (last, way) = steps.split_last()?;
    let path: Vec<String> = way
        .iter()
        .map(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Item(_) => None,
        })
        .collect::<Option<_>>()?;
    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
    let container = root.at(&keys)?;
    Some(match last {
        Step::Key(key) => Retired::Member {
            key: key.clone(),
            json: text[container.get(key)?.span.clone()].to_owned(),
            path,
        },
        Step::Item(place) => Retired::Item {
            json: text[container.entries().get(*place)?.value.span.clone()].to_owned(),
            path,
        },
    })
}
