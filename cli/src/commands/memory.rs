//! `peerctl memory`: reads and writes the notes that all sessions share.
//!
//! Knows the format of exported lines. Does not know which notes exist: the broker does. Invariant:
//! an import with a malformed line writes nothing.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::ids::Timestamp;
use peer_proto::limits::{NOTE_BYTES_MAX, NOTE_TAGS_MAX, PAGE_ENTRIES_MAX, TTL_MS_MAX, TTL_MS_MIN};
use peer_proto::note::{NoteDraft, NoteInfo, NoteRequest, is_key, is_tag};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{Reply, Request};
use peer_proto::search::{HitKind, SearchQuery};
use peer_proto::text::is_blank;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::error::Failure;
use crate::json::Time;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, age, cell, now, rfc3339};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl memory                                   all keys
  peerctl memory list --prefix db/ --tag ops
  peerctl memory get db/url
  peerctl memory set db/url --tag db -- \"postgres on 5433\"
  peerctl memory set db/url --if-version 3 -- \"postgres on 5434\"
  peerctl memory append log/today -- \"the build is green\"
  peerctl memory export > notes.jsonl
  peerctl memory import notes.jsonl --dry-run";

/// Most malformed lines that an import reports.
const LINES_NAMED_MAX: usize = 10;

/// Read and write the notes that sessions share
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<MemoryCommand>,
}

#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,

    /// Only notes with this tag
    #[arg(long)]
    tag: Option<String>,
}

#[derive(Debug, Subcommand)]
enum MemoryCommand {
    /// List the keys
    List(Filter),
    /// Show a note
    Get { key: String },
    /// Write a note; an existing one is replaced, with its tags and its expiry
    Set {
        key: String,
        /// A tag of the note; may be repeated
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
        /// Delete the note after this long
        #[arg(long, value_parser = parse::duration, value_name = "SPAN")]
        ttl: Option<Duration>,
        /// Write only if the note still has this version; 0: only if no such note exists
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
        /// Read the value from a file
        #[arg(long, conflicts_with = "value")]
        file: Option<PathBuf>,
        /// The value; - reads standard input
        #[arg(required_unless_present = "file")]
        value: Vec<String>,
    },
    /// Add a line to a note; a missing note is created
    Append {
        key: String,
        /// The line; - reads standard input
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Delete a note
    Delete {
        key: String,
        /// Delete only if the note still has this version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Find notes by words in them
    Search {
        /// Words; "several words" is a phrase, word* the beginning of a word
        #[arg(required = true)]
        query: Vec<String>,
    },
    /// Print notes as JSON, one per line
    Export(Filter),
    /// Write the notes of an exported file; existing ones are replaced, and a malformed line stops
    /// all
    Import {
        /// The file; - reads standard input
        file: PathBuf,
        /// Only check the lines
        #[arg(long)]
        dry_run: bool,
        /// Leave existing notes unchanged
        #[arg(long)]
        keep: bool,
    },
}

/// A note.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NoteRow {
    key: String,
    tags: Vec<String>,
    version: u64,
    /// The name of the peer that wrote it last.
    author: String,
    changed_at: Time,
    expires_at: Option<Time>,
    /// The size of its value.
    bytes: u32,
    /// Absent in a list, and after a deletion or an append.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl From<&NoteInfo> for NoteRow {
    fn from(note: &NoteInfo) -> Self {
        Self {
            key: note.key.clone(),
            tags: note.tags.clone(),
            version: note.version,
            author: note.author.clone(),
            changed_at: Time(note.changed_at),
            expires_at: note.expires_at.map(Time),
            bytes: note.bytes,
            value: note.value.clone(),
        }
    }
}

/// A note that was found by words in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NoteHit {
    key: String,
    author: String,
    changed_at: Time,
    /// The part of its value that fits best.
    snippet: String,
}

/// The outcome of an import.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Imported {
    written: usize,
    /// Existing notes that were left unchanged.
    kept: usize,
    /// With `--dry-run`: the notes that would be written.
    would_write: usize,
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let request = match args.command.unwrap_or_else(|| MemoryCommand::List(Filter::default())) {
        MemoryCommand::List(filter) => {
            return list(output, &heads(&Operator::connect(endpoint).await?, filter).await?);
        }
        MemoryCommand::Get { key } => {
            return show(output, &ask(endpoint, NoteRequest::Get(key)).await?);
        }
        MemoryCommand::Search { query } => return search(output, endpoint, query.join(" ")).await,
        MemoryCommand::Export(filter) => return export(output, endpoint, filter).await,
        MemoryCommand::Import { file, dry_run, keep } => {
            return import(output, endpoint, &file, dry_run, keep).await;
        }
        MemoryCommand::Set { key, tag, ttl, if_version, file, value } => {
            let ttl_ms = ttl.map(parse::millis);
            NoteRequest::Set(NoteDraft {
                key,
                value: parse::text(&value, file)?,
                tags: tag,
                ttl_ms,
                if_version,
            })
        }
        MemoryCommand::Append { key, text } => {
            NoteRequest::Append { key, text: parse::text(&text, None)? }
        }
        MemoryCommand::Delete { key, if_version } => NoteRequest::Delete { key, if_version },
    };
    let deletes = matches!(request, NoteRequest::Delete { .. });
    let note = ask(endpoint, request).await?;
    if output.json {
        return output.json(&NoteRow::from(&note));
    }
    let what = if deletes { "was deleted; it had version" } else { "has version" };
    output.line(&format!("{} {what} {}", cell(&note.key), note.version))
}

async fn ask(endpoint: &Endpoint, request: NoteRequest) -> Result<NoteInfo, Failure> {
    match Operator::connect(endpoint).await?.ask(Request::Note(request)).await? {
        Reply::Note(note) => Ok(note),
        _ => Err(unexpected()),
    }
}

/// All notes that match the filter, without their values.
async fn heads(operator: &Operator, filter: Filter) -> Result<Vec<NoteInfo>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let request =
            NoteRequest::List { prefix: filter.prefix.clone(), tag: filter.tag.clone(), after };
        let Reply::Notes { notes, next } = operator.ask(Request::Note(request)).await? else {
            return Err(unexpected());
        };
        all.extend(notes);
        after = next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

fn list(output: &Output, notes: &[NoteInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(notes.iter().map(NoteRow::from));
    }
    let rows: Vec<_> = notes
        .iter()
        .map(|note| {
            vec![
                cell(&note.key),
                note.version.to_string(),
                note.bytes.to_string(),
                cell(&note.author),
                age(note.changed_at),
                if note.tags.is_empty() { "-".to_owned() } else { cell(&note.tags.join(",")) },
            ]
        })
        .collect();
    output.table(
        &["KEY", "VERSION", "BYTES", "BY", "AGE", "TAGS"],
        &rows,
        "no notes; `peerctl memory set KEY -- VALUE` writes one",
    )
}

fn show(output: &Output, note: &NoteInfo) -> Result<(), Failure> {
    if output.json {
        return output.json(&NoteRow::from(note));
    }
    let mut facts = vec![
        ("key", cell(&note.key)),
        ("version", note.version.to_string()),
        ("by", format!("{}, {} ago", cell(&note.author), age(note.changed_at))),
    ];
    if !note.tags.is_empty() {
        facts.push(("tags", cell(&note.tags.join(", "))));
    }
    if let Some(at) = note.expires_at {
        facts.push(("until", rfc3339(at)));
    }
    output.facts(&facts)?;
    output.quoted(note.value.as_deref().unwrap_or(""))
}

async fn search(output: &Output, endpoint: &Endpoint, text: String) -> Result<(), Failure> {
    let query = SearchQuery {
        text,
        kinds: vec![HitKind::Note],
        limit: PAGE_ENTRIES_MAX as u32,
        ..SearchQuery::default()
    };
    let (hits, _, behind) = Operator::connect(endpoint).await?.search(&query).await?;
    if behind > 0 {
        output.remark(&format!(
            "changes that are not indexed yet: {behind}; search again in a moment"
        ));
    }
    if output.json {
        return output.json_rows(hits.into_iter().map(|hit| NoteHit {
            key: hit.id,
            author: hit.from,
            changed_at: Time(hit.at),
            snippet: hit.snippet,
        }));
    }
    if hits.is_empty() {
        output.remark("no note has these words");
    }
    for hit in &hits {
        output.line(&format!("{}  by {}, {} ago", cell(&hit.id), cell(&hit.from), age(hit.at)))?;
        output.quoted(&hit.snippet)?;
    }
    Ok(())
}

async fn export(output: &Output, endpoint: &Endpoint, filter: Filter) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    for head in heads(&operator, filter).await? {
        match operator.ask(Request::Note(NoteRequest::Get(head.key))).await {
            Ok(Reply::Note(note)) => output.json_line(&NoteRow::from(&note))?,
            Ok(_) => return Err(unexpected()),
            // The note was deleted meanwhile.
            Err(failure) if failure.is_refused(ErrorCode::UnknownNote) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

async fn import(
    output: &Output,
    endpoint: &Endpoint,
    file: &Path,
    dry_run: bool,
    keep: bool,
) -> Result<(), Failure> {
    let lines = read_lines(file)?;
    let (mut drafts, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match draft(line, now()) {
            Ok(Some(draft)) => drafts.push(draft),
            Ok(None) => {}
            Err(why) => wrong.push(format!("line {}: {why}", number + 1)),
        }
    }
    if !wrong.is_empty() {
        let more = wrong.len().saturating_sub(LINES_NAMED_MAX);
        wrong.truncate(LINES_NAMED_MAX);
        let more = if more > 0 { format!(", and {more} more lines") } else { String::new() };
        let message = format!("importing {} failed: {}{more}", file.display(), wrong.join(", "));
        return Err(Failure::wrong(message)
            .hint("nothing was written: fix these lines and import the file again"));
    }
    let (mut written, mut kept) = (0, 0);
    if !dry_run {
        let operator = Operator::connect(endpoint).await?;
        for mut draft in drafts.drain(..) {
            draft.if_version = keep.then_some(0);
            match operator.ask(Request::Note(NoteRequest::Set(draft))).await {
                Ok(_) => written += 1,
                Err(failure) if failure.is_refused(ErrorCode::VersionConflict) => kept += 1,
                Err(failure) => {
                    return Err(failure.with(Imported { written, kept, would_write: 0 }));
                }
            }
        }
    }
    if output.json {
        return output.json(&Imported { written, kept, would_write: drafts.len() });
    }
    output.line(&match dry_run {
        true => format!("{} notes would be written", drafts.len()),
        false => format!("{written} notes were written, {kept} left unchanged"),
    })
}

fn read_lines(file: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::file("reading", file, source);
    if file != Path::new("-") {
        return std::fs::read_to_string(file).map_err(failed);
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The note of one line; `None` if its time is over. The other fields of an exported line are
/// ignored.
fn draft(line: &str, now: Timestamp) -> Result<Option<NoteDraft>, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let key = text("key").filter(|key| is_key(key)).ok_or("its key is missing or invalid")?;
    let said = text("value").filter(|said| !is_blank(said)).ok_or("it has no value")?;
    if said.len() > NOTE_BYTES_MAX {
        return Err(format!("its value is longer than {NOTE_BYTES_MAX} bytes"));
    }
    let tags: Vec<String> = match value.get("tags") {
        None | Some(Value::Null) => Vec::new(),
        Some(tags) => {
            serde_json::from_value(tags.clone()).map_err(|_| "its tags are not a list of texts")?
        }
    };
    if tags.len() > NOTE_TAGS_MAX || !tags.iter().all(|tag| is_tag(tag)) {
        return Err("it has too many tags or an invalid one".to_owned());
    }
    let ttl_ms = match value.get("expires_at") {
        None | Some(Value::Null) => None,
        Some(at) => {
            let at = at
                .as_str()
                .and_then(|at| humantime::parse_rfc3339(at).ok())
                .ok_or("its expires_at is not a time")?;
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some(Timestamp(u64::try_from(at.as_millis()).unwrap_or(u64::MAX)).ms_since(now))
        }
    };
    if ttl_ms.is_some_and(|ttl_ms| ttl_ms < TTL_MS_MIN) {
        return Ok(None);
    }
    let ttl_ms = ttl_ms.map(|ttl_ms| ttl_ms.min(TTL_MS_MAX));
    Ok(Some(NoteDraft {
        key: key.to_owned(),
        value: said.to_owned(),
        tags,
        ttl_ms,
        if_version: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_note_or_says_why_not() {
        let now = Timestamp(1_795_000_000_000);
        let line = r#"{"key":"db/url","value":"x","tags":["db"],"expires_at":"2026-11-18T11:07:40Z","version":7,"author":"luna"}"#;
        let note = draft(line, now).unwrap().unwrap();
        assert_eq!(
            (note.key.as_str(), note.value.as_str(), note.ttl_ms),
            ("db/url", "x", Some(60_000))
        );
        let over = r#"{"key":"k","value":"x","expires_at":"2026-11-18T11:06:40Z"}"#;
        assert_eq!(draft(over, now), Ok(None));
        for (wrong, why) in [
            ("no", "not JSON"),
            ("{}", "key is missing"),
            (r#"{"key":"a b","value":"x"}"#, "missing or invalid"),
            (r#"{"key":"a"}"#, "no value"),
            (r#"{"key":"a","value":" "}"#, "no value"),
            (r#"{"key":"a","value":"x","tags":"t"}"#, "not a list of texts"),
            (r#"{"key":"a","value":"x","tags":["a b"]}"#, "too many tags or an invalid one"),
            (r#"{"key":"a","value":"x","expires_at":5}"#, "not a time"),
        ] {
            assert!(draft(wrong, now).unwrap_err().contains(why), "{wrong}");
        }
    }
}
