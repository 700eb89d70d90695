//! Restores files: to their state before setup, or to their state without our entries.
//!
//! Knows the records of earlier runs. A file that is as setup left it gets its copy back. A file
//! that was edited since keeps the other edits, and loses our entries. A step that an earlier
//! attempt did is skipped.

use std::path::{Path, PathBuf};

use super::draft::{Draft, Retired, unreadable};
use super::json::{self, Dialect, Value};
use super::runs::{Record, Runs};
use super::{Client, Place, alias, claude, codex, gemini, toml};
use crate::error::Failure;

/// Drafts the state before the first run, for some clients. Retired entries are restored as well.
pub(crate) fn undo(
    place: &Place,
    runs: &Runs,
    clients: &[Client],
    draft: &mut Draft,
) -> Result<(), Failure> {
    let mut paths: Vec<(Client, PathBuf)> = Vec::new();
    for record in runs
        .all
        .iter()
        .rev()
        .flat_map(|run| &run.records)
        .filter(|record| clients.contains(&record.client))
    {
        if !paths.iter().any(|(_, path)| *path == record.path) {
            paths.push((record.client, record.path.clone()));
        }
    }
    for (client, path) in paths {
        let records: Vec<&Record> = runs.of(&path).collect();
        let now = draft.text(client, &path)?;
        let mut text = now.clone();
        for record in &records {
            if text == record.after {
                text.clone_from(&record.before);
            } else if text != record.before {
                text = match text {
                    Some(text) => Some(bring_back(
                        place,
                        &path,
                        &strip(place, client, &path, &text)?.unwrap_or_default(),
                        &record.retired,
                    )?),
                    None => None,
                };
            }
        }
        settle(draft, &path, &records, text, "as it was before setup");
    }
    Ok(())
}

/// Drafts the removal of all our entries, for some clients. Also works without any record.
pub(crate) fn uninstall(
    place: &Place,
    runs: &Runs,
    clients: &[Client],
    draft: &mut Draft,
) -> Result<(), Failure> {
    for client in clients {
        for (path, prune) in files(place, *client) {
            let Some(now) = draft.text(*client, &path)? else { continue };
            let records: Vec<&Record> = runs.of(&path).collect();
            let mut text = Some(now);
            for record in &records {
                if text != record.after || !record.retired.is_empty() {
                    break;
                }
                text.clone_from(&record.before);
            }
            if let Some(left) = &text {
                text = strip(place, *client, &path, left)?;
            }
            draft.prune(&path, prune);
            settle(draft, &path, &records, text, "without the entries of peerctl");
        }
    }
    Ok(())
}

/// Sets the remaining text of a file. A file that setup created is removed if nothing is left in
/// it, with the directories that were created for it.
fn settle(draft: &mut Draft, path: &Path, records: &[&Record], text: Option<String>, what: &str) {
    let now = draft.current(path);
    // Without a record, the text decides: setup creates and empties a file with exactly this
    // layout.
    let is_husk =
        text.as_deref() == Some("{\n}\n") && now.is_some_and(|now| now.starts_with("{\n"));
    let made = records.last().map_or(is_husk, |record| record.before.is_none());
    let changes = now != text.as_deref();
    let text = text.filter(|text| !(changes && made && is_bare(text)));
    let dirs: Vec<PathBuf> =
        records.iter().flat_map(|record| record.dirs.iter().rev().cloned()).collect();
    if !dirs.is_empty() {
        draft.prune(path, dirs);
    }
    draft.set(path, text, what);
}

fn is_bare(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim();
    text.is_empty()
        || text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .is_some_and(|text| text.trim().is_empty())
}

/// All files of a client that may have entries of ours, each with our directories that are removed
/// with it.
pub(crate) fn files(place: &Place, client: Client) -> Vec<(PathBuf, Vec<PathBuf>)> {
    match client {
        Client::Claude => claude::files(place).into_iter().chain(alias::files(place)).collect(),
        Client::Codex => codex::files(place),
        Client::Gemini => gemini::files(place),
    }
}

/// The text of a file without our entries; `None` if nothing is left.
fn strip(
    place: &Place,
    client: Client,
    path: &Path,
    text: &str,
) -> Result<Option<String>, Failure> {
    match client {
        Client::Claude if alias::files(place).iter().any(|(file, _)| file == path) => {
            Ok(Some(alias::strip(text)))
        }
        Client::Claude => claude::strip(place, path, text),
        Client::Codex => codex::strip(place, path, text),
        Client::Gemini => gemini::strip(place, path, text),
    }
}

/// Restores retired entries, unless they are there again.
fn bring_back(
    place: &Place,
    path: &Path,
    text: &str,
    retired: &[Retired],
) -> Result<String, Failure> {
    let dialect = if path == gemini::settings(place) { Dialect::Comments } else { Dialect::Strict };
    let mut text = text.to_owned();
    for entry in retired {
        let added = match entry {
            Retired::Member { path: way, key, json } => {
                let keys: Vec<&str> = way.iter().map(String::as_str).collect();
                let there = json::parse(&text, dialect)
                    .ok()
                    .is_some_and(|root| root.at(&keys).is_some_and(|node| node.get(key).is_some()));
                if there {
                    continue;
                } else {
                    json::insert(&text, dialect, &keys, Some(key), Value::Raw(json.clone()))
                }
            }
            Retired::Item { path: way, json } => {
                let keys: Vec<&str> = way.iter().map(String::as_str).collect();
                if text.contains(json.as_str()) {
                    continue;
                } else {
                    json::insert(&text, dialect, &keys, None, Value::Raw(json.clone()))
                }
            }
            Retired::Tables { toml } => {
                let with = toml::append(&text, toml);
                // If the table is there again, this is not TOML.
                if toml::parse(&with).is_ok() {
                    text = with;
                }
                continue;
            }
        };
        text = added.map_err(|why| unreadable(path, why))?;
    }
    Ok(text)
}
