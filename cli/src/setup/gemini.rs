//! Gemini CLI: a server in its settings.
//!
//! Knows the form of its entries. Gemini CLI has no hook that we use, so mail arrives with tool
//! results.

use std::path::{Path, PathBuf};

use super::draft::{Draft, unreadable};
use super::json::{self, Dialect, Node, Value};
use super::{Client, Place, SERVER, claude};
use crate::error::Failure;

const THIS: Client = Client::Gemini;

/// Gemini CLI removes comments before it reads its settings.
const DIALECT: Dialect = Dialect::Comments;

/// The file of the person's settings.
pub(crate) fn settings(place: &Place) -> PathBuf {
    place.gemini_dir.join("settings.json")
}

pub(crate) fn server(place: &Place) -> Value {
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
    Value::Object(server)
}

/// Drafts the changes for Gemini CLI.
pub(crate) fn draft(place: &Place, draft: &mut Draft) -> Result<(), Failure> {
    let path = settings(place);
    let text = draft.text(THIS, &path)?.unwrap_or_default();
    let root = match text.trim().is_empty() {
        true => None,
        false => Some(json::parse(&text, DIALECT).map_err(|why| unreadable(&path, why))?),
    };
    let Some(there) = root.as_ref().and_then(|root| root.at(&["mcpServers", SERVER])) else {
        let new = json::insert(&text, DIALECT, &["mcpServers"], Some(SERVER), server(place))
            .map_err(|why| unreadable(&path, why))?;
        draft.set(&path, Some(new), "the server `peers`");
        return Ok(());
    };
    if !claude::runs_adapter(place, there) {
        let what = "another server called peers is there, which does not run `peerctl mcp`";
        draft.conflict(THIS, &path, what, "rename or remove it, then run setup again");
        return Ok(());
    }
    let mut new = text.clone();
    let mut wanted = vec![("command", place.command())];
    let said = there.at(&["env", "PEERD_DIR"]).and_then(Node::text);
    wanted.extend(place.dir_beside(said).map(|dir| ("PEERD_DIR", dir)));
    for (key, value) in wanted {
        let way = if key == "command" {
            vec!["mcpServers", SERVER, key]
        } else {
            vec!["mcpServers", SERVER, "env", key]
        };
        let there = json::parse(&new, DIALECT).map_err(|why| unreadable(&path, why))?;
        if there.at(&way).and_then(Node::text) == Some(value.as_str()) {
            continue;
        }
        new = match json::replace(&new, DIALECT, &way, &Value::text(&value))
            .map_err(|why| unreadable(&path, why))?
        {
            Some(new) => new,
            None => {
                let (key, way) =
                    way.split_last().map_or((SERVER, &[][..]), |(key, way)| (*key, way));
                json::insert(&new, DIALECT, way, Some(key), Value::text(&value))
                    .map_err(|why| unreadable(&path, why))?
            }
        };
    }
    draft.set(&path, Some(new), "the server `peers`: its command and its directory");
    Ok(())
}

/// The settings without our entries.
pub(crate) fn strip(place: &Place, path: &Path, text: &str) -> Result<Option<String>, Failure> {
    if text.trim().is_empty() {
        return Ok(Some(text.to_owned()));
    }
    let root = json::parse(text, DIALECT).map_err(|why| unreadable(path, why))?;
    if !root.at(&["mcpServers", SERVER]).is_some_and(|server| claude::runs_adapter(place, server)) {
        return Ok(Some(text.to_owned()));
    }
    let without = json::remove(text, DIALECT, &["mcpServers".into(), SERVER.into()])
        .map_err(|why| unreadable(path, why))?;
    Ok(Some(without.unwrap_or_else(|| text.to_owned())))
}

/// The file that may have entries of ours.
pub(crate) fn files(place: &Place) -> Vec<(PathBuf, Vec<PathBuf>)> {
    vec![(settings(place), Vec::new())]
}
