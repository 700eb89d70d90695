//! Codex's hooks: finds ours, and adds them to the file that has the person's hooks.
//!
//! Knows both files in which Codex reads hooks; Codex warns if both have some. Invariant: our hooks
//! come after all others, because Codex recognizes a trusted hook by its position.

use toml_edit::{Document, Item, TableLike};

use super::draft::{Draft, unreadable};
use super::hooks::{self, Found, Handler};
use super::json::{self, Dialect, Node};
use super::toml::{self, Target};
use super::{Client, Place};
use crate::error::Failure;

const THIS: Client = Client::Codex;

/// Adds the hooks after the person's hooks, in the one file that has them.
pub(crate) fn draft(place: &Place, draft: &mut Draft) -> Result<(), Failure> {
    let (config, file) = (place.codex_config(), place.codex_hooks());
    let toml_text = draft.text(THIS, &config)?.unwrap_or_default();
    let json_text = draft.text(THIS, &file)?.unwrap_or_default();
    let document = toml::parse(&toml_text).map_err(|why| unreadable(&config, why))?;
    let root = match json_text.trim().is_empty() {
        true => None,
        false => {
            Some(json::parse(&json_text, Dialect::Strict).map_err(|why| unreadable(&file, why))?)
        }
    };
    let found_toml = in_toml(place, &document);
    let found_json =
        root.as_ref().map(|root| hooks::in_json(place, THIS, &json_text, root)).unwrap_or_default();
    if found_toml.is_empty()
        && (!found_json.is_empty() || root.as_ref().is_some_and(has_hooks) || is_inline(&document))
    {
        if is_complete(&found_json) {
            return Ok(());
        }
        let mut text =
            hooks::without(&json_text, &found_json).map_err(|why| unreadable(&file, why))?;
        for hook in hooks::of(THIS) {
            let added = json::insert(
                &text,
                Dialect::Strict,
                &["hooks", hook.event],
                None,
                hook.json(place, THIS),
            );
            text = added.map_err(|why| unreadable(&file, why))?;
        }
        draft.set(&file, Some(text), "the hooks, for presence and for mail between two steps");
        return Ok(());
    }
    if !found_json.is_empty() {
        let without =
            hooks::without(&json_text, &found_json).map_err(|why| unreadable(&file, why))?;
        draft.set(&file, Some(without), "removes the hooks that are also in config.toml");
    }
    if is_complete(&found_toml) {
        return Ok(());
    }
    let without =
        toml::remove(&toml_text, &targets(&found_toml)).map_err(|why| unreadable(&config, why))?;
    let tables: Vec<String> = hooks::of(THIS).iter().map(|hook| hook.toml(place, THIS)).collect();
    let text = toml::append(without.as_deref().unwrap_or(&toml_text), &tables.join("\n"));
    draft.set(&config, Some(text), "the hooks, for presence and for mail between two steps");
    Ok(())
}

/// Whether the person has hooks in `hooks.json`.
fn has_hooks(root: &Node) -> bool {
    root.get("hooks")
        .is_some_and(|hooks| hooks.entries().iter().any(|event| !event.value.entries().is_empty()))
}

/// Whether the hooks in `config.toml` have a form to which no table can be added.
fn is_inline(document: &Document<&str>) -> bool {
    let Some(events) = toml::at(document, &["hooks"]) else { return false };
    let is_list = |hook: &hooks::Hook| {
        let event = events.as_table_like().and_then(|events| events.get(hook.event));
        event.is_some_and(|event| !event.is_array_of_tables())
    };
    events.is_inline_table() || hooks::of(THIS).iter().any(is_list)
}

fn is_complete(found: &[Found]) -> bool {
    let all = hooks::of(THIS);
    found.len() == all.len()
        && all
            .iter()
            .all(|hook| found.iter().any(|found| found.event == hook.event && found.current))
}

/// Our handlers in `config.toml`.
pub(crate) fn in_toml(place: &Place, document: &Document<&str>) -> Vec<Found> {
    let mut found = Vec::new();
    let Some(events) = toml::at(document, &["hooks"]).and_then(Item::as_table_like) else {
        return found;
    };
    for (event, groups) in events.iter() {
        for (number, group) in groups.as_array_of_tables().into_iter().flatten().enumerate() {
            let handlers: Vec<Handler> = match group.get("hooks") {
                Some(Item::ArrayOfTables(handlers)) => {
                    handlers.iter().map(|table| hooks::from_toml(table)).collect()
                }
                Some(Item::Value(toml_edit::Value::Array(handlers))) => {
                    let tables = handlers.iter().filter_map(|value| value.as_inline_table());
                    tables.map(|table| hooks::from_toml(table as &dyn TableLike)).collect()
                }
                _ => Vec::new(),
            };
            found.extend(hooks::in_group(place, THIS, event, number, &handlers));
        }
    }
    found
}

/// The tables of our handlers in `config.toml`.
pub(crate) fn targets(found: &[Found]) -> Vec<Target> {
    let target = |found: &Found| {
        let mut path = vec!["hooks".to_owned(), found.event.clone()];
        if found.alone {
            return Target::Elements(path, vec![found.place.0]);
        }
        path.extend([found.place.0.to_string(), "hooks".to_owned()]);
        Target::Elements(path, vec![found.place.1])
    };
    found.iter().map(target).collect()
}
