//! `peerctl schema`: prints the JSON schemas of the output of `--json`.
//!
//! One table names every type, with the commands that print it. `docs/schema` has the same schemas,
//! and a test compares the two. A change of a type therefore shows as a change of that directory.

use peer_proto::text::single_line;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::{
    ask, bench, channels, config, daemon, demo, doctor, history, inbox, kick, link, memory,
    orphans, pause, peers, policy, purge, questions, release, rename, search, send, setup, show,
    status, tail, tasks, version,
};
use crate::error::Failure;
use crate::json::Failed;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  peerctl schema                     all types, by name
  peerctl schema status              what `peerctl status --json` prints
  peerctl schema | jq keys           only the names

Later versions may add fields to a type. No field is removed or changes its
meaning.";

/// Print the JSON schemas of the output of --json
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The name of one type; by default all types
    #[arg(value_name = "TYPE")]
    name: Option<String>,
}

/// A type of the output.
struct Type {
    name: &'static str,
    /// The commands that print it, in words.
    printed_by: &'static str,
    schema: fn() -> Schema,
}

impl Type {
    const fn of<T: JsonSchema>(name: &'static str, printed_by: &'static str) -> Self {
        Self { name, printed_by, schema: schema_of::<T> }
    }

    /// The schema, with the commands as its title.
    fn schema(&self) -> Value {
        let mut schema = (self.schema)();
        schema.insert("title".to_owned(), self.printed_by.into());
        schema.into()
    }
}

/// A schema that stands alone.
fn schema_of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// All types, in the order of the commands.
const TYPES: &[Type] = &[
    Type::of::<Failed>("error", "any command that fails"),
    Type::of::<daemon::StartedBroker>("daemon-start", "daemon start, daemon restart"),
    Type::of::<daemon::StoppedBroker>("daemon-stop", "daemon stop"),
    Type::of::<daemon::Verified>("daemon-verify", "daemon verify"),
    Type::of::<daemon::Reindexed>("daemon-reindex", "daemon reindex"),
    Type::of::<demo::Story>("demo", "demo"),
    Type::of::<status::BrokerStatus>("status", "status, daemon status"),
    Type::of::<Vec<peers::PeerRow>>("peers", "peers"),
    Type::of::<peers::PeersNow>("peers-watch", "peers --watch, one per line"),
    Type::of::<send::SentMessage>("send", "send, questions ask, questions answer"),
    Type::of::<ask::Asked>("ask", "ask"),
    Type::of::<Vec<link::LinkRow>>(
        "links",
        "link ls, link add, link set, link rename, link rm, link hide",
    ),
    Type::of::<link::LinkShown>("link-show", "link show"),
    Type::of::<link::trial::Trial>("link-test", "link test"),
    Type::of::<link::process::LinkProcess>("link-process", "link start, link stop"),
    Type::of::<link::service::LinkService>("link-service", "link service"),
    Type::of::<link::process::LinkNews>("link-run", "link run, one per line"),
    Type::of::<link::Identity>("link-identity", "link identity"),
    #[cfg(feature = "nats")]
    Type::of::<Vec<link::team::TeamRow>>(
        "teams",
        "link team ls, new, join, rm, rekey --drop-former",
    ),
    #[cfg(feature = "nats")]
    Type::of::<link::team::Invitation>("team-token", "link team invite, link team rekey"),
    #[cfg(feature = "nats")]
    Type::of::<link::team::Allowed>("team-permissions", "link team permissions"),
    #[cfg(feature = "nats")]
    Type::of::<Vec<link::team::FoundMachine>>("link-find", "link find"),
    Type::of::<Vec<inbox::InboxRow>>("inbox", "inbox, inbox PEER"),
    Type::of::<Vec<inbox::InboxMessage>>("inbox-me", "inbox me"),
    Type::of::<show::WholeMessage>("show", "show"),
    Type::of::<Vec<history::MessageRow>>("history", "history, channels history"),
    Type::of::<Vec<history::RefusedRow>>("history-refused", "history --refused"),
    Type::of::<Vec<search::FoundRow>>("search", "search"),
    Type::of::<Vec<channels::ChannelRow>>("channels", "channels, channels list"),
    Type::of::<channels::ChannelRow>("channel", "channels create, join, leave, invite, topic"),
    Type::of::<Vec<questions::QuestionRow>>("questions", "questions"),
    Type::of::<Vec<tasks::TaskRow>>("tasks", "tasks, tasks list"),
    Type::of::<tasks::TaskRow>(
        "task",
        "tasks show, create, assign, claim, unclaim, start, block, complete, fail, cancel, reopen",
    ),
    Type::of::<Vec<memory::NoteRow>>("memory", "memory, memory list"),
    Type::of::<memory::NoteRow>(
        "note",
        "memory get, set, append, delete; memory export, one per line",
    ),
    Type::of::<Vec<memory::NoteHit>>("memory-search", "memory search"),
    Type::of::<memory::Imported>("memory-import", "memory import"),
    Type::of::<tail::EventRow>("tail", "tail, one per line; wait"),
    Type::of::<rename::Renamed>("rename", "rename"),
    Type::of::<kick::Kicked>("kick", "kick"),
    Type::of::<policy::PoliciesInForce>("policy", "policy"),
    Type::of::<policy::PolicyOfPeer>("policy-peer", "policy PEER"),
    Type::of::<policy::PolicyOfAll>("policy-all", "policy all"),
    Type::of::<policy::InboxSocketConsent>("policy-inbox-socket", "policy inbox-socket"),
    Type::of::<release::Released>("release", "release"),
    Type::of::<pause::Paused>("pause", "pause, resume"),
    Type::of::<purge::Purged>("purge", "purge"),
    Type::of::<Vec<orphans::OrphanRow>>("orphans", "orphans, orphans ls"),
    Type::of::<orphans::Settled>("settled", "cancel; orphans requeue, reassign, drop"),
    Type::of::<setup::Wiring>("setup", "setup, uninstall"),
    Type::of::<setup::Snippets>("setup-print", "setup --print"),
    Type::of::<config::Configuration>("config", "config"),
    Type::of::<doctor::Report>("doctor", "doctor"),
    Type::of::<version::Versions>("version", "version"),
    Type::of::<bench::report::Measured>("bench-latency", "bench, bench latency, bench search"),
    Type::of::<bench::fanout::Fanout>("bench-fanout", "bench fanout"),
    Type::of::<bench::throughput::Throughput>("bench-throughput", "bench throughput"),
];

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let Some(wanted) = args.name.as_deref() else {
        let all: Map<String, Value> =
            TYPES.iter().map(|of| (of.name.to_owned(), of.schema())).collect();
        return output.json(&all);
    };
    let Some(found) = TYPES.iter().find(|of| of.name == wanted) else {
        let names: Vec<_> = TYPES.iter().map(|of| of.name).collect();
        let failure = Failure::not_found(
            "unknown_type",
            format!("there is no type {:?}", single_line(wanted)),
        );
        return Err(failure.hint(format!("the types are: {}", names.join(", "))));
    };
    output.json(&found.schema())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The beginning of the page that lists the files.
    const PAGE: &str = "\
# What `--json` prints

Each command has a type. These are the JSON schemas of all types, as `peerctl schema` prints them. Later versions may add fields
to a type. No field is removed or changes its meaning.

A command that prints a list prints an array. A stream prints one object per line. Times are RFC 3339 in UTC with milliseconds.
A command that fails prints `error` on standard output. If it failed half-way, the fields of its own type stand beside it.

A test compares this directory with the program. `PEERD_WRITE_SCHEMA=1 cargo test -p peerctl --lib the_schemas` writes it.

| type | printed by |
|---|---|
";

    /// `docs/schema` has a file for each type, and a page that lists them. `PEERD_WRITE_SCHEMA=1`
    /// writes both.
    #[test]
    fn the_schemas_are_those_that_are_published() {
        let mut wanted = BTreeMap::new();
        let mut page = String::from(PAGE);
        for of in TYPES {
            page.push_str(&format!("| [{}]({}.json) | {} |\n", of.name, of.name, of.printed_by));
            wanted.insert(format!("{}.json", of.name), format!("{:#}\n", of.schema()));
        }
        wanted.insert("README.md".to_owned(), page);
        assert_eq!(wanted.len(), TYPES.len() + 1, "two types have one name");

        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema"));
        if std::env::var_os("PEERD_WRITE_SCHEMA").is_some() {
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).expect("make the directory");
            wanted
                .iter()
                .for_each(|(name, text)| fs::write(dir.join(name), text).expect("write a schema"));
        }
        let files = fs::read_dir(dir).expect("docs/schema is there");
        let published: BTreeMap<String, String> = files
            .map(|entry| entry.expect("read an entry"))
            .map(|entry| {
                (
                    entry.file_name().into_string().expect("UTF-8"),
                    fs::read_to_string(entry.path()).expect("read it"),
                )
            })
            .collect();
        let differs = |name: &&String| published.get(*name) != wanted.get(*name);
        let names: Vec<_> = wanted.keys().chain(published.keys()).filter(differs).collect();
        assert!(
            names.is_empty(),
            "docs/schema differs in {names:?}; PEERD_WRITE_SCHEMA=1 writes it"
        );
    }
}
