//! Sets up clients: the shared part of `setup`, `uninstall` and `doctor`.
//!
//! Each client has a module with the form of its entries: [`claude`], [`codex`], [`gemini`]. The
//! other modules are shared: [`draft`] collects the planned changes, [`files`] writes all of them
//! or none. [`runs`] records the files of earlier runs, and [`undo`] restores them. Invariant:
//! nothing here talks to the broker or prints.

pub(crate) mod alias;
pub(crate) mod claude;
pub(crate) mod codex;
pub(crate) mod codex_hooks;
pub(crate) mod diff;
pub(crate) mod draft;
pub(crate) mod files;
pub(crate) mod gemini;
pub(crate) mod hooks;
pub(crate) mod json;
pub(crate) mod others;
pub(crate) mod retire;
pub(crate) mod runs;
pub(crate) mod terminal;
pub(crate) mod toml;
pub(crate) mod undo;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use peer_client::{Endpoint, whose};
use peer_proto::location::Location;
use serde::{Deserialize, Serialize};

use self::draft::Remark;
use crate::error::Failure;

/// The server's name in every client.
pub(crate) const SERVER: &str = "peers";

/// The tools that an unattended session needs without a dialog.
pub(crate) const MESSAGE_TOOLS: [&str; 3] = ["send_message", "check_messages", "ack_messages"];

/// A client whose files setup knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Client {
    Claude,
    Codex,
    Gemini,
}

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Claude, Self::Codex, Self::Gemini];

    /// The client's name on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The client's name in a sentence.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::Codex => "Codex",
            Self::Gemini => "Gemini CLI",
        }
    }

    /// The client with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let known = |client: &Self| {
            name == client.as_str() || name.split(['-', ' ']).next() == Some(client.as_str())
        };
        Self::ALL.into_iter().find(known)
    }
}

/// The paths that setup uses, read from the environment once.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) home: PathBuf,
    /// Claude Code's configuration directory.
    pub(crate) claude_dir: PathBuf,
    /// Claude Code's state file, to which `claude mcp add` writes.
    pub(crate) claude_json: PathBuf,
    /// Codex's configuration directory.
    pub(crate) codex_dir: PathBuf,
    /// Gemini CLI's configuration directory.
    pub(crate) gemini_dir: PathBuf,
    /// The program that clients will run: an absolute path, if possible one that survives an
    /// update.
    pub(crate) executable: PathBuf,
    /// The state directory, if it is not the default one.
    pub(crate) peerd_dir: Option<PathBuf>,
    /// The paths of our own files.
    pub(crate) location: Location,
}

impl Place {
    /// Reads the environment.
    pub(crate) fn from_env(endpoint: &Endpoint) -> Result<Self, Failure> {
        if let Some((home, owner)) = whose::foreign_home() {
            let (home, owner) = (home.display(), whose::user(owner));
            let message = format!(
                "the home directory {home} belongs to {owner}: peerctl reads and writes nothing there"
            );
            return Err(Failure::usage(message).hint("run peerctl as that user"));
        }
        let home = whose::home_dir().filter(|home| home.is_absolute()).ok_or_else(|| {
            Failure::usage("HOME is not an absolute path, and the clients' files are under it")
                .hint("set HOME to your home directory")
        })?;
        let set = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let claude = set("CLAUDE_CONFIG_DIR");
        let executable = lasting_path(&endpoint.executable, std::env::var_os("PATH"));
        let peerd_dir = set("PEERD_DIR");
        if let Some(path) = [Some(&executable), peerd_dir.as_ref()]
            .into_iter()
            .flatten()
            .find(|path| path.to_str().is_none())
        {
            let message = format!(
                "{} is not UTF-8, so it cannot stand in a configuration file",
                path.display()
            );
            return Err(Failure::usage(message).hint("use another path"));
        }
        let claude_dir = claude.clone().unwrap_or_else(|| home.join(".claude"));
        Ok(Self {
            claude_json: claude.unwrap_or_else(|| home.clone()).join(".claude.json"),
            claude_dir,
            codex_dir: set("CODEX_HOME").unwrap_or_else(|| home.join(".codex")),
            gemini_dir: home.join(".gemini"),
            executable,
            peerd_dir,
            location: endpoint.location.clone(),
            home,
        })
    }

    /// Codex' configuration.
    pub(crate) fn codex_config(&self) -> PathBuf {
        self.codex_dir.join("config.toml")
    }

    /// The second file in which Codex reads hooks.
    pub(crate) fn codex_hooks(&self) -> PathBuf {
        self.codex_dir.join("hooks.json")
    }

    /// Whether a client is installed, judged by its files in the home directory.
    pub(crate) fn has(&self, client: Client) -> bool {
        match client {
            Client::Claude => self.claude_dir.is_dir() || self.claude_json.is_file(),
            Client::Codex => self.codex_dir.is_dir(),
            Client::Gemini => self.gemini_dir.is_dir(),
        }
    }

    /// The executable as text, which is all that a configuration file can hold.
    pub(crate) fn command(&self) -> String {
        self.executable.display().to_string()
    }

    /// The state directory for an entry of ours: if the entry names one already, or if the
    /// directory is not the default.
    pub(crate) fn dir_beside(&self, said: Option<&str>) -> Option<String> {
        let usual = || said.map(|_| self.location.dir());
        self.peerd_dir.as_deref().or_else(usual).map(|dir| dir.display().to_string())
    }

    /// Whether `command` with `args` is an adapter of this or another installation.
    pub(crate) fn runs_adapter(&self, command: &str, args: &[&str]) -> bool {
        self.is_ours(command) && args == ["mcp"]
    }

    /// Whether a path leads to a `peerctl`.
    fn is_ours(&self, command: &str) -> bool {
        let name =
            Path::new(command).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "peerctl" || name.starts_with("peerctl-") || Path::new(command) == self.executable
    }

    /// Whether a shell's command line runs a hook of ours.
    pub(crate) fn runs_hook(&self, line: &str, client: Client) -> bool {
        let Some((before, _)) = line.split_once(&format!(" hook {} ", client.as_str())) else {
            return false;
        };
        // The path may be quoted and have spaces; variables may stand before it.
        let path = before.trim_end_matches(['\'', '"']);
        self.is_ours(path)
            || path.rsplit(['\'', '"', ' ']).next().is_some_and(|path| self.is_ours(path))
    }

    /// A doubt about the executable, to report before clients are set up to run it.
    pub(crate) fn doubt(&self) -> Option<Remark> {
        let built = self
            .executable
            .ancestors()
            .any(|dir| dir.join(".cargo-lock").exists() || dir.join("CACHEDIR.TAG").exists());
        built.then(|| Remark {
            what: format!(
                "{} is in a build directory, and cleaning that would break the clients",
                self.command()
            ),
            step: "install peerctl (`cargo install --locked --path cli`) and run its setup"
                .to_owned(),
        })
    }
}

/// The path on `PATH` that leads to this program's file, if any. Package managers keep that path
/// and replace the file behind it.
fn lasting_path(executable: &Path, path: Option<OsString>) -> PathBuf {
    let (Ok(file), Some(name)) = (executable.canonicalize(), executable.file_name()) else {
        return executable.to_path_buf();
    };
    let on_path = path.iter().flat_map(|path| std::env::split_paths(path).collect::<Vec<_>>());
    let mut candidates = on_path
        .filter(|dir| dir.is_absolute())
        .flat_map(|dir| [dir.join(name), dir.join("peerctl")]);
    candidates
        .find(|candidate| candidate.canonicalize().is_ok_and(|found| found == file))
        .unwrap_or_else(|| executable.to_path_buf())
}

/// Quotes a word for a shell's command line, if needed.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_the_path_that_outlives_an_update() {
        let dir = tempfile::tempdir().unwrap();
        let cellar = dir.path().join("cellar/1.0/peerctl");
        std::fs::create_dir_all(cellar.parent().unwrap()).unwrap();
        std::fs::write(&cellar, "").unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        assert_eq!(lasting_path(&cellar, Some(bin.clone().into_os_string())), cellar);
        std::os::unix::fs::symlink(&cellar, bin.join("peerctl")).unwrap();
        assert_eq!(lasting_path(&cellar, Some(bin.clone().into_os_string())), bin.join("peerctl"));
        assert_eq!(lasting_path(&cellar, Some("relative".into())), cellar);
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_must_be() {
        assert_eq!(shell_word("/usr/bin/peerctl"), "/usr/bin/peerctl");
        assert_eq!(shell_word("/my dir/it's"), r"'/my dir/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
