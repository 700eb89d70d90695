//! Checks the clients' files: whether each client is set up, with which executable, and beside
//! which other entries.
//!
//! Knows what setup would write. Does not know the broker, and writes nothing.

use std::path::Path;

use peer_proto::text::single_line;

use super::Findings;
use crate::commands::setup;
use crate::error::Failure;
use crate::setup::draft::{Draft, read};
use crate::setup::runs::Runs;
use crate::setup::{Client, Place, claude, codex_hooks, hooks, json, retire, toml, undo};

/// Checks each installed client.
pub(super) fn look(place: &Place, findings: &mut Findings) {
    let runs = match Runs::load(&place.location) {
        Ok(runs) => runs,
        Err(failure) => {
            return findings.failed(
                "clients",
                failure,
                "readable records of earlier runs of setup",
            );
        }
    };
    let mut found = false;
    for client in Client::ALL.into_iter().filter(|client| place.has(*client)) {
        found = true;
        if let Err(failure) = one(place, &runs, client, findings) {
            findings.failed(client.as_str(), failure, "a file that can be read");
        }
    }
    if !found {
        findings.note(
            "clients",
            "no client was found in the home directory",
            "peerctl setup --print any",
        );
    }
}

fn one(place: &Place, runs: &Runs, client: Client, findings: &mut Findings) -> Result<(), Failure> {
    let check = client.as_str();
    // The entries that uninstall would remove are those that are there.
    let mut there = Draft::default();
    undo::uninstall(place, runs, &[client], &mut there)?;
    let wanted = setup::draft(place, runs, &[client], runs.answers().tools.unwrap_or(false))?;
    let differs: Vec<String> =
        wanted.changed().map(|file| file.path.display().to_string()).collect();
    if there.changed().next().is_none() && wanted.conflicts.is_empty() {
        findings.note(
            check,
            format!("{} is installed but not set up", client.title()),
            format!("peerctl setup {check}"),
        );
        return others(place, client, findings);
    }
    for conflict in &wanted.conflicts {
        let observed = format!("{}: {}", conflict.path.display(), conflict.what);
        findings.problem(check, observed, "what `peerctl setup` writes", conflict.step.clone());
    }
    let gone = missing(place, client)?;
    for command in &gone {
        let observed = format!(
            "{} is configured to run {}, which does not exist",
            client.title(),
            single_line(command)
        );
        findings.problem(
            check,
            observed,
            "an executable that exists",
            format!("peerctl setup {check}"),
        );
    }
    if gone.is_empty() && wanted.conflicts.is_empty() {
        if differs.is_empty() {
            findings.good(check, format!("{} is set up", client.title()));
        } else {
            let observed =
                format!("these files differ from what this peerctl writes: {}", differs.join(", "));
            findings.problem(
                check,
                observed,
                "what `peerctl setup` writes",
                format!("peerctl setup {check}"),
            );
        }
    }
    for off in &wanted.switched_off {
        let what =
            format!("{}: this client runs neither the server nor the hooks of peerctl", off.what);
        findings.problem(
            check,
            what,
            "a client that runs the server and the hooks of peerctl",
            off.step.clone(),
        );
    }
    // Doubts about the executable have a finding of their own.
    let doubt = place.doubt();
    for warning in wanted.warnings.iter().filter(|warning| doubt.as_ref() != Some(warning)) {
        findings.note(check, warning.what.as_str(), warning.step.as_str());
    }
    match client {
        Client::Codex => trust(place, findings)?,
        Client::Claude => project(place, findings)?,
        Client::Gemini => {}
    }
    others(place, client, findings)
}

/// Checks the project's own servers. An entry of peerctl there starts a second adapter in each of
/// its sessions.
fn project(place: &Place, findings: &mut Findings) -> Result<(), Failure> {
    let Ok(here) = std::env::current_dir() else { return Ok(()) };
    for path in here.ancestors().map(|dir| dir.join(".mcp.json")) {
        let Some(text) = read(&path)? else { continue };
        let Ok(root) = json::parse(&text, json::Dialect::Strict) else { continue };
        let servers = root.get("mcpServers").map(json::Node::entries).unwrap_or_default();
        for server in servers.iter().filter(|server| claude::runs_adapter(place, &server.value)) {
            let observed = format!(
                "{} also starts peerctl, under the name {}",
                path.display(),
                single_line(&server.key)
            );
            findings.problem(
                "claude",
                observed,
                "one adapter per session, started by the plugin",
                "remove it from that file",
            );
        }
    }
    Ok(())
}

/// Our entries' commands that lead to no file.
fn missing(place: &Place, client: Client) -> Result<Vec<String>, Failure> {
    let mut commands = Vec::new();
    let server = |text: &str, path: &[&str]| -> Option<String> {
        let root = json::parse(text, json::Dialect::Comments).ok()?;
        root.at(path)?.get("command")?.text().map(str::to_owned)
    };
    match client {
        Client::Claude => {
            let [manifest, _] = claude::plugin_files(place);
            commands
                .extend(read(&manifest)?.and_then(|text| server(&text, &["mcpServers", "peers"])));
        }
        Client::Codex => {
            if let Some(text) = read(&place.codex_config())?
                && let Ok(document) = toml::parse(&text)
            {
                let command = toml::at(&document, &["mcp_servers", "peers", "command"]);
                commands.extend(command.and_then(toml_edit::Item::as_str).map(str::to_owned));
            }
        }
        Client::Gemini => {
            let text = read(&crate::setup::gemini::settings(place))?;
            commands.extend(text.and_then(|text| server(&text, &["mcpServers", "peers"])));
        }
    }
    // The client looks up a bare name itself.
    commands.retain(|command| command.contains('/') && !Path::new(command).is_file());
    Ok(commands)
}

/// Checks which hooks Codex trusts. Codex skips the others. It asks its user about them when a
/// terminal starts, but not under `exec`.
fn trust(place: &Place, findings: &mut Findings) -> Result<(), Failure> {
    let config = place.codex_config();
    let Some(text) = read(&config)? else { return Ok(()) };
    let Ok(document) = toml::parse(&text) else { return Ok(()) };
    let hooks_text = read(&place.codex_hooks())?.unwrap_or_default();
    let in_json = json::parse(&hooks_text, json::Dialect::Strict);
    let in_json = in_json
        .map(|root| hooks::in_json(place, Client::Codex, &hooks_text, &root))
        .unwrap_or_default();
    let in_toml = codex_hooks::in_toml(place, &document);
    let known = toml::at(&document, &["hooks", "state"]).and_then(toml_edit::Item::as_table_like);
    let (mut untrusted, mut stale) = (Vec::new(), Vec::new());
    let in_files = in_toml
        .iter()
        .map(|found| ("config.toml", found))
        .chain(in_json.iter().map(|found| ("hooks.json", found)));
    for (file, found) in in_files {
        let Some(hook) = hooks::of(Client::Codex).iter().find(|hook| hook.event == found.event)
        else {
            continue;
        };
        let end = format!("/{file}:{}:{}:{}", hook.snake_event(), found.place.0, found.place.1);
        let states = known.into_iter().flat_map(|known| known.iter());
        let digest = states
            .filter(|(key, _)| key.ends_with(&end))
            .find_map(|(_, state)| state.as_table_like()?.get("trusted_hash")?.as_str());
        match digest {
            None => untrusted.push(found.event.as_str()),
            Some(digest) if digest != hook.codex_digest(place) => stale.push(found.event.as_str()),
            Some(_) => {}
        }
    }
    let fix =
        "start `codex`: it asks you to trust them; if it does not ask, type /hooks and review each";
    for (events, what) in
        [(&untrusted, "does not trust yet"), (&stale, "trusts in an older form only")]
    {
        if !events.is_empty() {
            let observed = format!(
                "Codex skips {} hooks of peerctl, which it {what}: {}",
                events.len(),
                events.join(", ")
            );
            findings.problem("codex", observed, "hooks that you trusted in Codex", fix);
        }
    }
    if untrusted.is_empty() && stale.is_empty() && !(in_toml.is_empty() && in_json.is_empty()) {
        findings.good("codex", format!("{} hooks, all trusted", hooks::of(Client::Codex).len()));
    }
    Ok(())
}

/// Checks for other message systems beside peerd.
fn others(place: &Place, client: Client, findings: &mut Findings) -> Result<(), Failure> {
    for found in retire::find(place, client, &mut Draft::default())? {
        findings.note(
            client.as_str(),
            format!("another message system beside peerd: {}", found.what),
            "peerctl setup --retire",
        );
    }
    Ok(())
}
