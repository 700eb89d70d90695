//! `peerctl uninstall`: removes the entries of peerctl from the clients' files, and on request the
//! state directory.
//!
//! It recognizes an entry by what the entry runs, not by the record of an earlier run. So it also
//! works if the state directory is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use peer_broker::config;
use peer_client::{Endpoint, Start};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Authority;

use super::setup::{confirm, named, show, told, write};
use super::{block_on, daemon};
use crate::error::Failure;
use crate::operator::Operator;
use crate::output::{Output, Tone};
use crate::setup::draft::Draft;
use crate::setup::runs::Runs;
use crate::setup::{Client, Place, terminal, undo};

const AFTER_HELP: &str = "\
Examples:
  peerctl uninstall --dry-run        what would be removed
  peerctl uninstall codex            only from one client
  peerctl uninstall --yes --purge    also stop the broker, remove all mail

This removes only entries of peerctl: the server called peers that runs it, its
hooks, the permissions for its tools, the plugin and the alias. `peerctl setup
--undo` also restores the entries that setup retired.";

/// The names of our files in the state directory, or the beginnings of their names.
const OURS: [&str; 8] =
    ["broker.", "peers.redb", "config.toml", "backups", "ballast", "search", "link.", "links.toml"];

/// Remove all entries of peerctl from the clients' files
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// claude, codex, gemini. By default, all of them
    clients: Vec<String>,

    /// Show the plan and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Also stop the broker, and remove the state directory with all messages
    #[arg(long)]
    purge: bool,

    /// Answer yes to every question
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(args: Args, output: &Output, endpoint: Endpoint) -> Result<(), Failure> {
    if args.purge && !args.clients.is_empty() {
        return Err(Failure::usage("--purge removes data that all clients share")
            .hint("name no client with --purge"));
    }
    if args.purge && !args.dry_run {
        may_purge(&endpoint)?;
    }
    let place = Place::from_env(&endpoint)?;
    let clients =
        if args.clients.is_empty() { Client::ALL.to_vec() } else { named(&args.clients)? };
    let mut runs =
        if args.dry_run { Runs::load(&place.location)? } else { Runs::hold(&place.location)? };
    let mut draft = Draft::default();
    undo::uninstall(&place, &runs, &clients, &mut draft)?;
    if args.dry_run {
        if output.json {
            return output.json(&told(&draft, &clients, false));
        }
        show(output, &draft)?;
        if args.purge {
            output.line(&format!("remove {} with all messages", place.location.dir().display()))?;
        }
        return Ok(());
    }
    let asks = terminal::is_there() && !args.yes && !output.json;
    let written = write(args.yes, asks, output, &draft, "Remove this?")?;
    // Retired entries can still be restored.
    runs.forget(|record| clients.contains(&record.client) && record.retired.is_empty())?;
    let purged = args.purge && purge(args.yes, asks, &endpoint)?;
    if output.json {
        return output.json(&told(&draft, &clients, written).purged(purged));
    }
    let done = if written || purged {
        output.paint(Tone::Good, "done")
    } else {
        "nothing to remove".to_owned()
    };
    output.line(&done)?;
    if !args.purge && place.location.dir().exists() {
        output.remark(&format!(
            "messages stay in {}; `peerctl uninstall --purge` removes them",
            place.location.dir().display()
        ));
    }
    Ok(())
}

/// Refuses the removal of all mail to an agent's shell. If no broker is running, nothing can tell
/// whose shell this is.
fn may_purge(endpoint: &Endpoint) -> Result<(), Failure> {
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let mut is_shell = false;
    block_on(async {
        let authority = Operator::connect(&quiet).await.map(|operator| operator.welcome.authority);
        is_shell = matches!(authority, Ok(Authority::Shell(_)));
        Ok(())
    })?;
    let is_allowed = || {
        config::load(&endpoint.location.config())
            .is_ok_and(|settings| settings.operator.allow_from_agents)
    };
    if !is_shell || is_allowed() {
        return Ok(());
    }
    let message = "only the person may remove all messages, not an agent or its shell";
    let step = "ask the person to run it in a terminal of their own, or leave --purge out";
    Err(Failure::refused(ErrorCode::NotPermitted, message).hint(step))
}

/// Stops the broker and removes the state directory. Foreign files in it stay, and so does the
/// directory then.
fn purge(yes: bool, asks: bool, endpoint: &Endpoint) -> Result<bool, Failure> {
    let dir = endpoint.location.dir().to_path_buf();
    if !dir.exists() {
        return Ok(false);
    }
    confirm(yes, asks, &format!("Remove {} with all messages?", dir.display()))?;
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    block_on(async {
        crate::commands::link::service::remove(endpoint).await?;
        crate::commands::link::process::end(&endpoint.location).await?;
        daemon::stop(&quiet).await.map(drop)
    })?;
    let failed = |path: &Path, source| Failure::file("removing", path, source);
    let entries = fs::read_dir(&dir).map_err(|source| failed(&dir, source))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if OURS.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            remove(&entry.path()).map_err(|source| failed(&entry.path(), source))?;
        }
    }
    match fs::remove_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let left: Vec<PathBuf> = fs::read_dir(&dir)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
            let message = format!(
                "{} has files that peerctl did not create, and left: {}",
                dir.display(),
                left.join(", ")
            );
            Err(Failure::wrong(message).hint("remove it by hand"))
        }
        Err(source) => Err(failed(&dir, source)),
        Ok(()) => Ok(true),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
