//! Claude Code's files about its sessions, and the environment of its children. Reads, never
//! writes.
//!
//! Observed with 2.1.332: a registry of running sessions, `<config>/sessions/<pid>.json`. The
//! client rewrites it in place at each begin and end of a turn, and when the conversation is
//! emptied. Each conversation has a record, `<config>/projects/<directory>/<session>.jsonl`.
//!
//! Knows the formats of these files. Does not know what the adapter derives from them. Invariant:
//! where a bypass of permissions cannot be excluded, it counts as possible.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use peer_client::process;
use peer_proto::hook::Activity;
use peer_proto::limits::SEAT_KEY_BYTES_MAX;
use serde_json::Value;

/// The longest directory name that Claude Code makes of a path; it cuts longer ones and adds a
/// hash.
const DIRECTORY_NAME_MAX: usize = 200;

/// How far from the end of a record a current tool call is searched for, in bytes.
const RECENT_BYTES: u64 = 256 * 1024;

/// The client's environment, read once at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    /// `CLAUDE_CONFIG_DIR`, else `.claude` under the home directory.
    pub(crate) config: PathBuf,
    /// `CLAUDE_CODE_MESSAGING_SOCKET` and `CLAUDE_CODE_MESSAGING_TOKEN`.
    pub(crate) inbox: Option<OwnSocket>,
}

/// The session's own socket for messages from other sessions.
#[derive(Clone)]
pub(crate) struct OwnSocket {
    pub(crate) path: PathBuf,
    pub(crate) token: String,
}

impl std::fmt::Debug for OwnSocket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OwnSocket").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Inherited {
    /// Reads the environment. `variable` looks up a variable that is set and not blank.
    pub(crate) fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let home = || variable("HOME").map(|home| Path::new(&home).join(".claude"));
        let inbox =
            variable("CLAUDE_CODE_MESSAGING_SOCKET").zip(variable("CLAUDE_CODE_MESSAGING_TOKEN"));
        Self {
            config: variable("CLAUDE_CONFIG_DIR")
                .map(PathBuf::from)
                .or_else(home)
                .unwrap_or_default(),
            inbox: inbox.map(|(path, token)| OwnSocket { path: path.into(), token }),
        }
    }

    /// Returns the path of the registry's file for this process id.
    pub(crate) fn registry(&self, pid: u32) -> PathBuf {
        self.config.join("sessions").join(format!("{pid}.json"))
    }

    /// Returns the client's entry; `None`: there is none, it is being written, or it is that of
    /// another process with the same id.
    pub(crate) fn registered(&self, pid: u32) -> Option<RegistryEntry> {
        let text = std::fs::read_to_string(self.registry(pid)).ok()?;
        let registered = RegistryEntry::parse(&text, pid)?;
        let began = began(pid);
        (registered.began.is_none() || began.is_none() || registered.began == began)
            .then_some(registered)
    }

    /// Returns the path of the record of a session that began in `cwd`. The file may not exist yet.
    pub(crate) fn transcript(&self, session: &str, cwd: Option<&Path>) -> Option<PathBuf> {
        let file = is_session_id(session).then(|| format!("{session}.jsonl"))?;
        let projects = self.config.join("projects");
        let expected = projects
            .join(directory_name(&cwd.unwrap_or(Path::new("")).to_string_lossy()))
            .join(&file);
        if expected.exists() {
            return Some(expected);
        }
        // The client may have been in another directory when it chose the path.
        let found = || {
            let directories = std::fs::read_dir(&projects).ok()?;
            directories
                .flatten()
                .map(|directory| directory.path().join(&file))
                .find(|path| path.exists())
        };
        Some(found().unwrap_or(expected))
    }
}

/// Whether a subagent made the tool call of this name. Each subagent has a record of its own beside
/// the session's. `None`: no record has the call yet.
pub(crate) fn is_subagents_call(record: &Path, tool_use: &str) -> Option<bool> {
    let call = is_session_id(tool_use).then(|| format!("\"id\":\"{tool_use}\""))?;
    if ends_with_call(record, &call) {
        return Some(false);
    }
    subagents(record).iter().any(|record| ends_with_call(record, &call)).then_some(true)
}

/// Returns the records of a session's subagents.
pub(crate) fn subagents(record: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(record.with_extension("").join("subagents"));
    let paths = files.into_iter().flatten().flatten().map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
}

/// Whether the call is near the end of the record.
fn ends_with_call(record: &Path, call: &str) -> bool {
    let read = || {
        let mut file = File::open(record)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(end.saturating_sub(RECENT_BYTES)))?;
        let mut text = Vec::new();
        file.take(RECENT_BYTES).read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().is_ok_and(|text| text.windows(call.len()).any(|window| window == call.as_bytes()))
}

/// Texts on the client's command line and in its settings that let a session act without asking.
/// Some name an agent, whose own file may allow it.
const BYPASS: [&str; 5] = [
    "dangerously-skip-permissions",
    "bypassPermissions",
    "SKIP_PERMISSIONS",
    "--agent",
    "\"agent\"",
];

/// Variables that name other settings files end like this.
const ELSEWHERE: &str = "_SETTINGS_PATH=";

/// The directory of the machine administrator's settings.
const MANAGED: &str = "/etc/claude-code";

/// Whether the client of this process id, in this directory, may come to act without asking. It may
/// have been started so, or change at a key press, which is recorded nowhere. True if that cannot
/// be ruled out.
///
/// A mode that no option and no settings name cannot be reached: the key then leads through the
/// other modes only.
pub(crate) fn may_bypass(config: &Path, pid: u32, cwd: Option<&Path>) -> bool {
    let of_process = |what: &str| {
        std::fs::read(format!("/proc/{pid}/{what}"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let (Ok(command), Ok(environment)) = (of_process("cmdline"), of_process("environ")) else {
        return true;
    };
    // The settings of an unknown directory cannot be read.
    let Some(cwd) = cwd else { return true };
    let directories =
        cwd.ancestors().map(|directory| directory.join(".claude")).chain([config.to_owned()]);
    let usual = directories.flat_map(|directory| settings_in(&directory)).chain(managed());
    let mut settings =
        usual.filter(|path| path.symlink_metadata().is_ok()).chain(settings_named(&command, cwd));
    says_bypass(&command)
        || says_bypass(&environment)
        || environment.contains(ELSEWHERE)
        || settings.any(|path| says_bypass_in(&path))
}

fn settings_in(directory: &Path) -> [PathBuf; 3] {
    ["settings.json", "settings.local.json", "remote-settings.json"]
        .map(|name| directory.join(name))
}

fn managed() -> Vec<PathBuf> {
    let managed = Path::new(MANAGED);
    let parts =
        std::fs::read_dir(managed.join("managed-settings.d")).into_iter().flatten().flatten();
    parts.map(|part| part.path()).chain([managed.join("managed-settings.json")]).collect()
}

/// Returns the files that the command line names as settings. It may also have settings in place of
/// a name.
fn settings_named(command: &str, cwd: &Path) -> Vec<PathBuf> {
    let mut words = command.split('\0');
    let mut files = Vec::new();
    while let Some(word) = words.next() {
        let value =
            if word == "--settings" { words.next() } else { word.strip_prefix("--settings=") };
        files.extend(
            value.filter(|value| !value.trim_start().starts_with('{')).map(|value| cwd.join(value)),
        );
    }
    files
}

fn says_bypass(text: &str) -> bool {
    BYPASS.iter().any(|words| text.contains(words))
}

/// Whether a settings file may allow a bypass: also if it cannot be read, or is a pipe, which would
/// block.
fn says_bypass_in(settings: &Path) -> bool {
    let is_file = settings.metadata().is_ok_and(|found| found.is_file());
    !is_file || std::fs::read_to_string(settings).map_or(true, |text| says_bypass(&text))
}

/// The client's registry entry of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryEntry {
    /// The session's current id.
    pub(crate) session: String,
    /// Whether the model is at work; `None`: the client does not report it.
    pub(crate) activity: Option<Activity>,
    /// The session's socket for messages.
    pub(crate) inbox: Option<PathBuf>,
    /// When the process began, in the kernel's ticks.
    began: Option<u64>,
}

impl RegistryEntry {
    fn parse(text: &str, pid: u32) -> Option<Self> {
        let entry: Value = serde_json::from_str(text).ok()?;
        if entry["pid"] != pid {
            return None;
        }
        let activity = match entry["status"].as_str() {
            // A turn that waits for an answer to its own question is still a turn.
            Some("busy" | "waiting") => Some(Activity::Working),
            Some("idle") => Some(Activity::Idle),
            _ => None,
        };
        Some(Self {
            session: entry["sessionId"]
                .as_str()
                .filter(|session| is_session_id(session))?
                .to_owned(),
            activity,
            inbox: entry["messagingSocketPath"].as_str().map(PathBuf::from),
            began: entry["procStart"].as_str().and_then(|ticks| ticks.parse().ok()),
        })
    }
}

/// Whether a text is a session id: it contains nothing that could lead a path elsewhere.
fn is_session_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= SEAT_KEY_BYTES_MAX.min(128) && text.bytes().all(plain)
}

/// Returns the directory name for a path.
fn directory_name(path: &str) -> String {
    // The client counts in UTF-16 units.
    let name: String = path
        .chars()
        .flat_map(|character| {
            let (shown, count) = if character.is_ascii_alphanumeric() {
                (character, 1)
            } else {
                ('-', character.len_utf16())
            };
            std::iter::repeat_n(shown, count)
        })
        .collect();
    name.chars().take(DIRECTORY_NAME_MAX).collect()
}

/// Returns when the process began, in ticks since the system did.
fn began(pid: u32) -> Option<u64> {
    process::stat(pid).map(|stat| stat.started)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // Shortened from 2.1.332.
    const ENTRY: &str = r#"{"pid":14779,"sessionId":"7c36de4a-8e13-43cc-8244-8d9dd33415c7","cwd":"/w","procStart":"1136964","version":"2.1.332","peerProtocol":1,"kind":"interactive","entrypoint":"cli","messagingSocketPath":"/tmp/cc-socks/14779.sock","name":"w-c3","status":"idle","updatedAt":1795218364187}"#;

    #[test]
    fn an_entry_tells_the_session_and_what_it_does() {
        let registered = RegistryEntry::parse(ENTRY, 14_779).unwrap();
        assert_eq!(registered.session, "7c36de4a-8e13-43cc-8244-8d9dd33415c7");
        assert_eq!(registered.activity, Some(Activity::Idle));
        assert_eq!(registered.inbox.as_deref(), Some(Path::new("/tmp/cc-socks/14779.sock")));
        assert_eq!(registered.began, Some(1_136_964));
        let doing = |status: &str| {
            RegistryEntry::parse(&ENTRY.replace("\"idle\"", status), 14_779).unwrap().activity
        };
        assert_eq!(
            (doing("\"busy\""), doing("\"waiting\"")),
            (Some(Activity::Working), Some(Activity::Working))
        );
        assert_eq!((doing("\"dreaming\""), doing("null")), (None, None));
    }

    #[test]
    fn an_entry_of_another_process_half_an_entry_and_a_strange_id_are_none() {
        assert_eq!(RegistryEntry::parse(ENTRY, 1), None);
        assert_eq!(RegistryEntry::parse(&ENTRY[..ENTRY.len() / 2], 14_779), None);
        assert_eq!(RegistryEntry::parse(&ENTRY.replace("7c36de4a", "../../x"), 14_779), None);
        assert_eq!(RegistryEntry::parse("[]", 14_779), None);
    }

    #[test]
    fn an_entry_that_a_process_of_the_same_id_left_behind_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let inherited = Inherited { config: dir.path().into(), ..Inherited::default() };
        let pid = std::process::id();
        let write = |ticks: u64| {
            let entry =
                ENTRY.replace("14779,", &format!("{pid},")).replace("1136964", &ticks.to_string());
            fs::create_dir_all(dir.path().join("sessions")).unwrap();
            fs::write(inherited.registry(pid), entry).unwrap();
        };
        let ticks = began(pid).unwrap();
        write(ticks);
        assert!(inherited.registered(pid).is_some());
        write(ticks - 1);
        assert_eq!(inherited.registered(pid), None);
    }

    #[test]
    fn a_record_is_found_where_the_client_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let inherited = Inherited { config: dir.path().into(), ..Inherited::default() };
        assert_eq!(directory_name("/home/u/my.app_é🦀"), "-home-u-my-app----");
        let expected = dir.path().join("projects/-home-u-api/s-1.jsonl");
        assert_eq!(inherited.transcript("s-1", Some("/home/u/api".as_ref())), Some(expected));
        let elsewhere = dir.path().join("projects/-home-u");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("s-1.jsonl"), "").unwrap();
        assert_eq!(
            inherited.transcript("s-1", Some("/home/u/api".as_ref())),
            Some(elsewhere.join("s-1.jsonl"))
        );
        assert_eq!(inherited.transcript("../s-1", Some("/home/u/api".as_ref())), None);
    }

    #[test]
    fn the_records_tell_who_made_a_call() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("s-1.jsonl");
        let agent = dir.path().join("s-1/subagents/agent-a1.jsonl");
        let line = |id: &str| {
            format!(
                "{{\"type\":\"assistant\",\"message\":{{\"content\":[{{\"type\":\"tool_use\",\"id\":\"{id}\"}}]}}}}\n"
            )
        };
        assert_eq!(is_subagents_call(&record, "toolu_1"), None);
        fs::write(&record, line("toolu_1") + "{\"tool_use_id\":\"toolu_2\"}").unwrap();
        fs::create_dir_all(agent.parent().unwrap()).unwrap();
        fs::write(&agent, line("toolu_2")).unwrap();
        fs::write(agent.with_extension("meta.json"), line("toolu_3")).unwrap();
        let told = |id: &str| is_subagents_call(&record, id);
        assert_eq!(
            (told("toolu_1"), told("toolu_2"), told("toolu_3")),
            (Some(false), Some(true), None)
        );
        assert_eq!(told("toolu"), None);
        assert_eq!(told("\""), None);
    }

    #[test]
    fn a_session_may_bypass_where_an_option_or_a_setting_says_so_or_hides_it() {
        let dir = tempfile::tempdir().unwrap();
        let (config, work) = (dir.path().join("config"), dir.path().join("work"));
        fs::create_dir_all(work.join(".claude")).unwrap();
        let may_bypass = |pid| super::may_bypass(&config, pid, Some(&work));
        // The test's own command line contains none of these.
        assert!(!may_bypass(std::process::id()));
        assert!(may_bypass(u32::MAX), "no such process");
        for (text, expected) in [
            ("{\"permissions\": {\"defaultMode\": \"bypassPermissions\"}}", true),
            (
                "{\"permissions\": {\"defaultMode\": \"plan\", \"disableBypassPermissionsMode\": \"disable\"}}",
                false,
            ),
            ("{\"agent\": \"reckless\"}", true),
        ] {
            fs::write(work.join(".claude/settings.local.json"), text).unwrap();
            assert_eq!(may_bypass(std::process::id()), expected, "{text}");
        }
        for (command, expected) in [
            ("claude\0-p\0go", false),
            ("claude\0--permission-mode\0plan", false),
            ("claude\0--permission-mode=bypassPermissions", true),
            ("claude\0--allow-dangerously-skip-permissions", true),
            (
                "claude\0--settings\0{\"permissions\": {\"defaultMode\": \"bypassPermissions\"}}",
                true,
            ),
        ] {
            assert_eq!(says_bypass(command), expected, "{command}");
        }
        let named = |command: &str| settings_named(command, Path::new("/w"));
        assert_eq!(
            named("claude\0--settings\0a.json\0--settings=/b.json\0"),
            [Path::new("/w/a.json"), Path::new("/b.json")]
        );
        assert!(named("claude\0--settings\0 {\"hooks\": {}}\0--settings").is_empty());
    }

    #[test]
    fn the_environment_tells_where_to_look_and_its_token_is_never_printed() {
        let variables = |name: &str| match name {
            "HOME" => Some("/home/u".to_owned()),
            "CLAUDE_CODE_MESSAGING_SOCKET" => Some("/tmp/cc-socks/1.sock".to_owned()),
            "CLAUDE_CODE_MESSAGING_TOKEN" => Some("secret".to_owned()),
            _ => None,
        };
        let inherited = Inherited::from(variables);
        assert_eq!(inherited.config, Path::new("/home/u/.claude"));
        assert!(!format!("{inherited:?}").contains("secret"));
        let without_token = Inherited::from(|name| {
            variables(name).filter(|_| name != "CLAUDE_CODE_MESSAGING_TOKEN")
        });
        assert!(without_token.inbox.is_none());
        let moved = Inherited::from(|name| {
            if name == "CLAUDE_CONFIG_DIR" { Some("/c".into()) } else { variables(name) }
        });
        assert_eq!(moved.config, Path::new("/c"));
    }
}
