//! `peerctl setup`: sets up clients, checks them, and undoes it.
//!
//! It drafts all changes, shows them and asks. Then it writes all of them or none, reads them back,
//! and lists the steps that are left for the person. The entries of each client are known to the
//! modules in `setup`.

use std::path::Path;

use clap::ValueEnum;
use peer_client::Endpoint;
use peer_proto::request::{Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use super::block_on;
use crate::error::Failure;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, Tone};
use crate::setup::draft::{Conflict, Draft, File, Remark};
use crate::setup::runs::{Answers, Runs};
use crate::setup::{
    Client, Place, alias, claude, codex, files, gemini, others, retire, terminal, undo,
};

const AFTER_HELP: &str = "\
Examples:
  peerctl setup                      all installed clients; asks first
  peerctl setup claude --dry-run     what would be written
  peerctl setup --check              exit code 1 if something differs
  peerctl setup codex --yes          ask nothing
  peerctl setup cursor --print       what to write by hand, for any client
  peerctl setup --undo               restore everything

--yes accepts the plan, with the permissions for the three message tools. It
does not accept retiring other programs, the alias or the inbox socket: each
has its own option. Copies of changed files stay in backups/setup in the state
directory until --undo or `peerctl uninstall`.";

/// Set up clients: Claude Code, Codex, Gemini CLI; a snippet for any other
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// claude, codex, gemini; with --print any other. By default, the installed ones
    clients: Vec<String>,

    /// Set up every client that setup knows, installed or not
    #[arg(long, conflicts_with = "clients")]
    all: bool,

    /// Show the plan and write nothing
    #[arg(long, group = "what")]
    dry_run: bool,

    /// Check the clients' files; exit code 1 if something differs
    #[arg(long, group = "what")]
    check: bool,

    /// Print the entries and their files, and read no file
    #[arg(long, group = "what")]
    print: bool,

    /// Restore everything as it was before setup
    #[arg(long, group = "what")]
    undo: bool,

    /// Answer yes to every question about the plan
    #[arg(short, long)]
    yes: bool,

    /// May send_message, check_messages and ack_messages run without a dialog?
    #[arg(long, value_name = "ANSWER")]
    tools: Option<Answer>,

    /// May mail go through Claude's inbox socket where a session bypasses permissions?
    #[arg(long, value_name = "ANSWER")]
    inbox_socket: Option<Answer>,

    /// Remove the entries of agent-peers and claude-peers
    #[arg(long)]
    retire: bool,

    /// Write an alias to your shell's startup file; it starts Claude Code with the channel
    #[arg(long)]
    alias: bool,
}

/// The changes of the clients' files, planned or made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Wiring {
    clients: Vec<WiredClient>,
    /// Whether anything was written.
    written: bool,
    /// Findings that you should check.
    warnings: Vec<String>,
    /// Steps that are left for you.
    next: Vec<String>,
    /// The directory with copies of the changed files; null if none was changed. Absent unless
    /// files were to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<Option<String>>,
    /// Whether the state directory was removed. Only `uninstall` has this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<bool>,
}

impl Wiring {
    /// Adds whether the state directory was removed.
    pub(crate) fn purged(self, purged: bool) -> Self {
        Self { purged: Some(purged), ..self }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct WiredClient {
    client: &'static str,
    state: WiredState,
    files: Vec<ChangedFile>,
    conflicts: Vec<ConflictRow>,
}

/// The state of a client's files.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WiredState {
    /// An obstacle prevents a change.
    Conflict,
    /// The files are as they should be.
    Unchanged,
    /// The files were changed.
    Changed,
    /// The files are to be changed.
    Differs,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ChangedFile {
    path: String,
    action: &'static str,
    what: Vec<String>,
    /// Secrets in it are masked.
    diff: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ConflictRow {
    path: String,
    what: String,
    /// The next step.
    hint: String,
}

/// The entries for clients that are set up by hand.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Snippets {
    snippets: Vec<Snippet>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Snippet {
    client: String,
    /// The file that the text belongs to.
    place: String,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Answer {
    Yes,
    No,
}

pub(crate) fn run(args: Args, output: &Output, endpoint: Endpoint) -> Result<(), Failure> {
    let place = Place::from_env(&endpoint)?;
    if args.print {
        return print(&args, output, &place);
    }
    let writes = !(args.check || args.dry_run);
    let mut runs = if writes { Runs::hold(&place.location)? } else { Runs::load(&place.location)? };
    if args.undo {
        let clients =
            if args.clients.is_empty() { Client::ALL.to_vec() } else { named(&args.clients)? };
        return take_back(&args, output, &place, &mut runs, &clients);
    }
    let clients = chosen(&args, &place)?;
    if args.check {
        return check(output, &place, &runs, &clients);
    }
    wire(&args, output, &endpoint, &place, &mut runs, &clients)
}

/// The clients that the command is about.
fn chosen(args: &Args, place: &Place) -> Result<Vec<Client>, Failure> {
    if args.all {
        return Ok(Client::ALL.to_vec());
    }
    if !args.clients.is_empty() {
        return named(&args.clients);
    }
    let installed: Vec<_> = Client::ALL.into_iter().filter(|client| place.has(*client)).collect();
    if installed.is_empty() {
        let failure = Failure::not_found("no_client", "no client was found in the home directory");
        return Err(failure.hint("name one: `peerctl setup claude`, or use `--all`"));
    }
    Ok(installed)
}

/// The clients with these names.
pub(crate) fn named(names: &[String]) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for name in names {
        let client = Client::named(name).ok_or_else(|| {
            let name = peer_proto::text::single_line(name);
            Failure::usage(format!("setup does not know the client {name:?}"))
                .hint(format!("`peerctl setup {name} --print` shows the entry to add by hand"))
        })?;
        if !clients.contains(&client) {
            clients.push(client);
        }
    }
    Ok(clients)
}

/// Drafts the changes of the clients' files that need no question.
pub(crate) fn draft(
    place: &Place,
    runs: &Runs,
    clients: &[Client],
    tools: bool,
) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    for client in clients {
        match client {
            Client::Claude => claude::draft(place, runs, tools, &mut draft)?,
            Client::Codex => codex::draft(place, tools, &mut draft)?,
            Client::Gemini => gemini::draft(place, &mut draft)?,
        }
    }
    draft.warnings.extend(place.doubt());
    Ok(draft)
}

fn print(args: &Args, output: &Output, place: &Place) -> Result<(), Failure> {
    let tools = args.tools != Some(Answer::No);
    let names = match (args.all, args.clients.is_empty()) {
        (true, _) => Client::ALL.iter().map(|client| client.as_str().to_owned()).collect(),
        (false, true) => vec!["any".to_owned()],
        (false, false) => args.clients.clone(),
    };
    let mut printed = Vec::new();
    for name in &names {
        let snippets: Vec<(String, String)> = match Client::named(name) {
            Some(Client::Claude) => {
                let [manifest, hooks] =
                    claude::plugin_files(place).map(|path| path.display().to_string());
                vec![(manifest, claude::manifest(place)), (hooks, claude::hook_file(place))]
            }
            Some(Client::Codex) => {
                vec![(place.codex_config().display().to_string(), codex::snippet(place, tools))]
            }
            Some(Client::Gemini) => {
                let snippet = others::snippet(place, "gemini");
                vec![(gemini::settings(place).display().to_string(), snippet.text)]
            }
            None => {
                let snippet = others::snippet(place, &name.to_ascii_lowercase());
                vec![(snippet.place, snippet.text)]
            }
        };
        for (path, text) in snippets {
            if !output.json {
                output.remark(&output.paint(Tone::Faint, &format!("{path}:")));
                output.line(text.trim_end())?;
            }
            printed.push(Snippet { client: name.clone(), place: path, text });
        }
    }
    if output.json { output.json(&Snippets { snippets: printed }) } else { Ok(()) }
}

fn check(output: &Output, place: &Place, runs: &Runs, clients: &[Client]) -> Result<(), Failure> {
    let draft = draft(place, runs, clients, runs.answers().tools.unwrap_or(false))?;
    let wrong = draft.changed().count() + draft.conflicts.len();
    let data = told(&draft, clients, false);
    if !output.json {
        show(output, &draft)?;
        for client in clients.iter().filter(|client| is_wired(&draft, **client)) {
            output.line(&format!(
                "{}: {}",
                client.title(),
                output.paint(Tone::Good, "set up as this peerctl does it")
            ))?;
        }
    }
    if wrong == 0 {
        return if output.json { output.json(&data) } else { Ok(()) };
    }
    let names: Vec<_> = clients
        .iter()
        .filter(|client| !is_wired(&draft, **client))
        .map(|client| client.title())
        .collect();
    let message = format!("not set up as this peerctl does it: {}", names.join(", "));
    Err(Failure::setup("differs", message).hint("`peerctl setup` fixes it").with(data))
}

fn is_wired(draft: &Draft, client: Client) -> bool {
    !draft.changed().any(|file| file.client == client)
        && !draft.conflicts.iter().any(|conflict| conflict.client == client)
}

fn wire(
    args: &Args,
    output: &Output,
    endpoint: &Endpoint,
    place: &Place,
    runs: &mut Runs,
    clients: &[Client],
) -> Result<(), Failure> {
    let asks = terminal::is_there() && !args.yes && !args.dry_run && !output.json;
    let known = runs.answers().inbox_socket;
    let answers = decide(args, asks, runs, clients);
    let draft = plan(args, asks, place, runs, clients, answers)?;
    if !output.json {
        show(output, &draft)?;
    }
    if let Some(first) = draft.conflicts.first() {
        let message = format!("{}: {}", first.path.display(), first.what);
        let failure = Failure::setup("conflict", message).hint(first.step.as_str());
        return Err(failure.with(told(&draft, clients, false)));
    }
    let changed: Vec<&File> = draft.changed().collect();
    for file in &changed {
        files::examine(&file.path)?;
    }
    if args.dry_run {
        return if output.json { output.json(&told(&draft, clients, false)) } else { Ok(()) };
    }
    let mut kept = None;
    if changed.is_empty() {
        if answers != runs.answers() {
            runs.begin(&[], answers)?;
        }
        if !output.json {
            output.line("nothing to change")?;
        }
    } else {
        confirm(args.yes, asks, "Write this?")?;
        kept = Some(runs.begin(&changed, answers)?);
        files::write_all(&changed)?;
        files::sweep(draft.all());
        verify(place, runs, clients, answers)?;
    }
    if let Some(yes) = answers
        .inbox_socket
        .filter(|_| args.inbox_socket.is_some() || answers.inbox_socket != known)
    {
        consent(yes, output, endpoint)?;
    }
    report(output, &draft, clients, kept.as_deref())
}

/// The person's answers: from the command line, else from an earlier run, else from a question now.
fn decide(args: &Args, asks: bool, runs: &Runs, clients: &[Client]) -> Answers {
    let mut answers = runs.answers();
    let has_tools = clients.iter().any(|client| *client != Client::Gemini);
    answers.tools = match (args.tools, answers.tools) {
        (Some(answer), _) => Some(answer == Answer::Yes),
        (None, Some(known)) => Some(known),
        (None, None) if asks && has_tools => {
            let question = "May send_message, check_messages and ack_messages run without a dialog? (A dialog blocks a session until somebody answers it.)";
            Some(terminal::asks(question, true))
        }
        (None, None) => args.yes.then_some(true),
    };
    let known = answers.inbox_socket;
    answers.inbox_socket = match args.inbox_socket {
        Some(answer) => Some(answer == Answer::Yes),
        None if known.is_none() && asks && clients.contains(&Client::Claude) => {
            let question = "May mail go through Claude Code's inbox socket in sessions that bypass permissions? \
                            (It passes the dialog for messages from other programs; without the socket, mail comes by hooks and tool results.)";
            Some(terminal::asks(question, false))
        }
        None => known,
    };
    answers
}

/// Drafts every change, with warnings and next steps. Writes nothing.
fn plan(
    args: &Args,
    asks: bool,
    place: &Place,
    runs: &Runs,
    clients: &[Client],
    answers: Answers,
) -> Result<Draft, Failure> {
    // A dry run shows the effect of `--yes`.
    let mut draft = draft(place, runs, clients, answers.tools.unwrap_or(args.dry_run))?;
    let mut theirs = Vec::new();
    for client in clients {
        theirs.extend(retire::find(place, *client, &mut draft)?);
    }
    let retires = args.retire
        || (asks
            && !theirs.is_empty()
            && terminal::asks(&format!("Remove {}?", listed(&theirs)), false));
    if retires {
        retire::take_out(&mut draft, &theirs)?;
    } else {
        let told = |found: &retire::Found| Remark {
            what: format!("{} is another message system beside peerd", found.what),
            step: "`peerctl setup --retire` removes it".to_owned(),
        };
        draft.warnings.extend(theirs.iter().map(told));
    }
    if clients.contains(&Client::Claude) {
        shell_line(args, asks, place, &mut draft)?;
    }
    if clients.contains(&Client::Codex) && draft.changed().any(|file| file.client == Client::Codex)
    {
        draft.next.push(
            "Codex skips new hooks until you trust them: it asks at the next start of `codex`; /hooks shows them as well"
                .to_owned(),
        );
    }
    if draft.changed().next().is_some() {
        draft.next.push(
            "restart running sessions: they read their configuration only at their start"
                .to_owned(),
        );
    }
    Ok(draft)
}

/// Reports a finished run. `kept`: the directory with copies of the changed files; `None` if no
/// file was changed.
fn report(
    output: &Output,
    draft: &Draft,
    clients: &[Client],
    kept: Option<&Path>,
) -> Result<(), Failure> {
    if output.json {
        let backup = Some(kept.map(|path| path.display().to_string()));
        return output.json(&Wiring { backup, ..told(draft, clients, kept.is_some()) });
    }
    if let Some(kept) = kept {
        output.line(&output.paint(Tone::Good, "done"))?;
        output.remark(&format!(
            "copies of the changed files are in {}; `peerctl setup --undo` restores them",
            kept.display()
        ));
    }
    for line in &draft.next {
        output.remark(&format!("next: {line}"));
    }
    Ok(())
}

fn listed(found: &[retire::Found]) -> String {
    found.iter().map(|found| found.what.as_str()).collect::<Vec<_>>().join(", ")
}

/// Adds the command that starts Claude Code with the channel as a next step, and as an alias if the
/// person wants one.
fn shell_line(args: &Args, asks: bool, place: &Place, draft: &mut Draft) -> Result<(), Failure> {
    draft.next.push(format!(
        "messages also arrive through a channel (a research preview) if you start Claude Code with\n        {}\n      as an alias: {}",
        claude::LAUNCH,
        alias::line()
    ));
    let shell = std::env::var("SHELL").ok();
    let Some(path) = alias::file(place, shell.as_deref()) else {
        if args.alias {
            let failure = Failure::usage("SHELL does not name a known shell (bash, zsh, fish)");
            return Err(failure.hint("add the alias by hand"));
        }
        return Ok(());
    };
    let mut with = Draft::default();
    alias::draft(&path, &mut with)?;
    if with.changed().next().is_none() {
        return Ok(());
    }
    let question =
        format!("Write the alias {} for this command to {}?", alias::NAME, path.display());
    if args.alias || (asks && terminal::asks(&question, false)) {
        alias::draft(&path, draft)?;
    }
    Ok(())
}

/// Tells the broker whether the inbox socket may be used in sessions that bypass permissions. The
/// broker stores the answer.
fn consent(yes: bool, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    block_on(async {
        let operator = Operator::connect(endpoint).await?;
        let Reply::Policies(policies) = operator.ask(Request::Policies).await? else {
            return Err(unexpected());
        };
        if yes != policies.inbox_socket_in_bypass {
            operator.ask(Request::SetConsent { inbox_socket_in_bypass: yes }).await?;
        }
        output.remark(if yes {
            "the inbox socket is used in sessions that bypass permissions"
        } else {
            "the inbox socket is not used in sessions that bypass permissions"
        });
        Ok(())
    })
}

/// Asks for consent, unless it was given. Fails without a terminal.
pub(crate) fn confirm(yes: bool, asks: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !asks {
        let failure = Failure::usage("no terminal to ask at");
        return Err(failure.hint("add --yes to accept the plan, or --dry-run to only see it"));
    }
    if terminal::asks(question, false) {
        return Ok(());
    }
    Err(Failure::setup("declined", "nothing was written, because you answered no"))
}

/// Drafts again: after a setup, no change may be left.
fn verify(
    place: &Place,
    runs: &mut Runs,
    clients: &[Client],
    answers: Answers,
) -> Result<(), Failure> {
    runs.reload()?;
    let again = draft(place, runs, clients, answers.tools.unwrap_or(false))?;
    let left: Vec<String> = again
        .changed()
        .map(|file| file.path.display().to_string())
        .chain(again.conflicts.iter().map(|conflict| conflict.path.display().to_string()))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    let message = format!("{} differs from what setup wrote", left.join(", "));
    Err(Failure::wrong(message).hint("`peerctl setup --undo` restores it"))
}

fn take_back(
    args: &Args,
    output: &Output,
    place: &Place,
    runs: &mut Runs,
    clients: &[Client],
) -> Result<(), Failure> {
    let mut draft = Draft::default();
    undo::undo(place, runs, clients, &mut draft)?;
    let asks = terminal::is_there() && !args.yes && !output.json;
    let written = write(args.yes, asks, output, &draft, "Restore this?")?;
    runs.forget(|record| clients.contains(&record.client))?;
    finish(output, &draft, clients, written)
}

/// Shows a draft, asks, and writes it. Asks nothing if nothing changes.
pub(crate) fn write(
    yes: bool,
    asks: bool,
    output: &Output,
    draft: &Draft,
    question: &str,
) -> Result<bool, Failure> {
    let changed: Vec<&File> = draft.changed().collect();
    if !changed.is_empty() {
        if !output.json {
            show(output, draft)?;
        }
        confirm(yes, asks, question)?;
        files::write_all(&changed)?;
    }
    files::sweep(draft.all());
    files::prune(draft.all());
    Ok(!changed.is_empty())
}

pub(crate) fn finish(
    output: &Output,
    draft: &Draft,
    clients: &[Client],
    written: bool,
) -> Result<(), Failure> {
    if output.json {
        return output.json(&told(draft, clients, written));
    }
    output.line(&if written {
        output.paint(Tone::Good, "done")
    } else {
        "nothing to change".to_owned()
    })
}

/// Prints the plan. A closed pipe is not a failure: the person may still answer.
pub(crate) fn show(output: &Output, draft: &Draft) -> Result<(), Failure> {
    match lines(output, draft) {
        Err(failure) if failure.is_broken_pipe() => Ok(()),
        shown => shown,
    }
}

/// Prints the changes of each file, and the conflicts.
fn lines(output: &Output, draft: &Draft) -> Result<(), Failure> {
    for file in draft.changed() {
        let what = file.what.join("; ");
        let heading =
            format!("{}: {} {} ({what})", file.client.title(), file.action(), file.path.display());
        output.line(&output.paint(Tone::Strong, &heading))?;
        for line in file.diff() {
            let clean = peer_proto::text::single_line(&line);
            let shown = match line.chars().next() {
                Some('+') => output.paint(Tone::Good, &clean),
                Some('-') => output.paint(Tone::Bad, &clean),
                _ => format!(
                    "{}{}",
                    &line[..line.len() - line.trim_start().len()],
                    clean.trim_start()
                ),
            };
            output.line(&shown)?;
        }
        output.line("")?;
    }
    for conflict in &draft.conflicts {
        let text = format!(
            "{}: {}: {}; {}",
            conflict.client.title(),
            conflict.path.display(),
            conflict.what,
            conflict.step
        );
        output.line(&output.paint(Tone::Bad, &text))?;
    }
    for warning in warnings(draft) {
        output.remark(&format!("note: {warning}"));
    }
    Ok(())
}

/// All warnings, with the settings that keep a client from running our entries.
fn warnings(draft: &Draft) -> Vec<String> {
    draft
        .switched_off
        .iter()
        .chain(&draft.warnings)
        .map(|remark| format!("{}; {}", remark.what, remark.step))
        .collect()
}

/// The plan as JSON.
pub(crate) fn told(draft: &Draft, clients: &[Client], written: bool) -> Wiring {
    let clients = clients.iter().map(|client| wired(draft, *client, written)).collect();
    Wiring {
        clients,
        written,
        warnings: warnings(draft),
        next: draft.next.clone(),
        backup: None,
        purged: None,
    }
}

fn wired(draft: &Draft, client: Client, written: bool) -> WiredClient {
    let conflict = |conflict: &Conflict| ConflictRow {
        path: conflict.path.display().to_string(),
        what: conflict.what.clone(),
        hint: conflict.step.clone(),
    };
    let file = |file: &File| ChangedFile {
        path: file.path.display().to_string(),
        action: file.action(),
        what: file.what.clone(),
        diff: file.diff().join("\n"),
    };
    let conflicts: Vec<_> =
        draft.conflicts.iter().filter(|conflict| conflict.client == client).map(conflict).collect();
    let files: Vec<_> = draft.changed().filter(|file| file.client == client).map(file).collect();
    let state = match (conflicts.is_empty(), files.is_empty(), written) {
        (false, _, _) => WiredState::Conflict,
        (true, true, _) => WiredState::Unchanged,
        (true, false, true) => WiredState::Changed,
        (true, false, false) => WiredState::Differs,
    };
    WiredClient { client: client.as_str(), state, files, conflicts }
}
