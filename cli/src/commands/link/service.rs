//! `peerctl link service`: lets the system start the process of links when the person logs in.
//!
//! Knows the two kinds of service: a user unit of systemd, and an agent of launchd. The file is shown
//! before it is written. Does not know what a link carries. Invariant: the file and the system's own
//! programs are all that is changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;

use super::process;
use crate::commands::setup::confirm;
use crate::error::Failure;
use crate::output::Output;
use crate::setup::{Place, terminal};

/// The variables of the shell that ssh needs, and that a service does not have by itself.
const VARIABLES: [&str; 2] = ["PATH", "SSH_AUTH_SOCK"];

const UNIT: &str = "peerd-link.service";
const AGENT: &str = "peerd.link";

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Let the system start it when you log in, and now; shows the file and asks first
    Install {
        /// Answer yes
        #[arg(short, long)]
        yes: bool,
    },
    /// End it, and let the system start it no more
    Remove,
}

/// The service that serves the links.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkService {
    /// `systemd` or `launchd`.
    kind: &'static str,
    /// The file that describes it to the system.
    path: String,
    /// Whether the file is there.
    installed: bool,
    /// Whether this command changed anything.
    changed: bool,
    /// What the file says, or would say.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Systemd,
    Launchd,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
        }
    }

    /// The commands that tell the system of a file that was written or will be removed.
    fn commands(self, path: &Path, installs: bool) -> Vec<Vec<String>> {
        let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect();
        let domain = format!("gui/{}", nix::unistd::getuid());
        let path = path.display().to_string();
        match (self, installs) {
            (Self::Systemd, true) => vec![
                words(&["systemctl", "--user", "daemon-reload"]),
                words(&["systemctl", "--user", "enable", UNIT]),
                words(&["systemctl", "--user", "restart", UNIT]),
            ],
            (Self::Systemd, false) => {
                vec![words(&["systemctl", "--user", "disable", "--now", UNIT])]
            }
            (Self::Launchd, true) => vec![words(&["launchctl", "bootstrap", &domain, &path])],
            (Self::Launchd, false) => vec![words(&["launchctl", "bootout", &domain, &path])],
        }
    }
}

/// What the system is to run.
struct Service {
    kind: Kind,
    path: PathBuf,
    text: String,
}

impl Service {
    fn here(endpoint: &Endpoint) -> Result<Self, Failure> {
        let place = Place::from_env(endpoint)?;
        let kind = if cfg!(target_os = "macos") { Kind::Launchd } else { Kind::Systemd };
        let path = file(kind, &place.home);
        let mut variables: Vec<(&str, String)> = VARIABLES
            .iter()
            .filter_map(|name| Some((*name, std::env::var(name).ok()?)))
            .filter(|(_, value)| !value.chars().any(char::is_control))
            .collect();
        if let Some(dir) = &place.peerd_dir {
            variables.push(("PEERD_DIR", dir.display().to_string()));
        }
        let program = place.executable.display().to_string();
        let text = match kind {
            Kind::Systemd => unit(&program, &variables),
            Kind::Launchd => agent(&program, &variables),
        };
        Ok(Self { kind, path, text })
    }

    fn told(self, changed: bool) -> LinkService {
        LinkService {
            kind: self.kind.as_str(),
            installed: self.path.exists(),
            path: self.path.display().to_string(),
            changed,
            text: self.text,
        }
    }
}

fn file(kind: Kind, home: &Path) -> PathBuf {
    match kind {
        Kind::Systemd => {
            let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let config =
                own.filter(|dir| dir.is_absolute()).unwrap_or_else(|| home.join(".config"));
            config.join("systemd/user").join(UNIT)
        }
        Kind::Launchd => home.join("Library/LaunchAgents").join(format!("{AGENT}.plist")),
    }
}

/// A unit of systemd. It ends well by SIGTERM, so `peerctl link stop` ends it until the next login.
fn unit(program: &str, variables: &[(&str, String)]) -> String {
    // A percent sign begins a specifier, and in a command a dollar sign begins a variable.
    let quoted = |text: &str| {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
    };
    let mut environment = String::new();
    for (name, value) in variables {
        let _ = writeln!(environment, "Environment={}", quoted(&format!("{name}={value}")));
    }
    format!(
        "[Unit]\nDescription=Links of peerd to other machines\n\n[Service]\n\
         ExecStart={} link run\n{environment}Restart=on-failure\nRestartSec=10\n\n\
         [Install]\nWantedBy=default.target\n",
        quoted(program).replace('$', "$$")
    )
}

/// An agent of launchd.
fn agent(program: &str, variables: &[(&str, String)]) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut environment = String::new();
    for (name, value) in variables {
        let _ = write!(environment, "\n    <key>{name}</key><string>{}</string>", escaped(value));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">\n<dict>\n  \
         <key>Label</key><string>{AGENT}</string>\n  \
         <key>ProgramArguments</key>\n  <array><string>{}</string><string>link</string><string>run</string></array>\n  \
         <key>EnvironmentVariables</key>\n  <dict>{environment}\n  </dict>\n  \
         <key>RunAtLoad</key><true/>\n  \
         <key>KeepAlive</key>\n  <dict><key>SuccessfulExit</key><false/></dict>\n\
         </dict>\n</plist>\n",
        escaped(program)
    )
}

pub(super) async fn run(
    command: Option<ServiceCommand>,
    output: &Output,
    endpoint: &Endpoint,
) -> Result<(), Failure> {
    let service = Service::here(endpoint)?;
    match command {
        None => {
            let state = if service.path.exists() { "installed" } else { "not installed" };
            let heading = format!("{} ({state})", service.path.display());
            tell(output, service, false, &heading, true)
        }
        Some(ServiceCommand::Install { yes }) => install(output, endpoint, service, yes).await,
        Some(ServiceCommand::Remove) => {
            let was = remove(endpoint).await?;
            let text = if was { "removed; mail waits" } else { "it was not installed" };
            tell(output, service, was, text, false)
        }
    }
}

fn tell(
    output: &Output,
    service: Service,
    changed: bool,
    heading: &str,
    whole: bool,
) -> Result<(), Failure> {
    if output.json {
        return output.json(&service.told(changed));
    }
    output.line(heading)?;
    if whole {
        output.line("")?;
        service.text.lines().try_for_each(|line| output.line(line))?;
    }
    Ok(())
}

async fn install(
    output: &Output,
    endpoint: &Endpoint,
    service: Service,
    yes: bool,
) -> Result<(), Failure> {
    if peer_link::file::read(endpoint.location.dir())?.is_empty() {
        return Err(peer_link::run::RunError::None.into());
    }
    let asks = terminal::is_there() && !yes && !output.json;
    if asks {
        output.line(&format!("create {}", service.path.display()))?;
        service.text.lines().try_for_each(|line| output.line(&format!("+{line}")))?;
    }
    confirm(yes, asks, "Write this, and start it?")?;
    let failed = |source| Failure::file("writing", service.path.clone(), source);
    fs::create_dir_all(service.path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    // A system that reads the directory meanwhile sees the whole file or none.
    let new = service.path.with_extension("new");
    fs::write(&new, &service.text)
        .and_then(|()| fs::rename(&new, &service.path))
        .map_err(failed)?;
    // One process serves the links.
    process::end(&endpoint.location).await?;
    tell_system(service.kind, &service.path, true)?;
    let heading =
        format!("installed {}; `peerctl link ls` shows the links", service.path.display());
    tell(output, service, true, &heading, false)
}

/// Removes the service, if it is there. Returns whether it was.
pub(crate) async fn remove(endpoint: &Endpoint) -> Result<bool, Failure> {
    let Service { kind, path, .. } = Service::here(endpoint)?;
    if !path.exists() {
        return Ok(false);
    }
    let told = tell_system(kind, &path, false);
    // It may have been ended by other means, and then only the file is left.
    process::end(&endpoint.location).await?;
    fs::remove_file(&path).map_err(|source| Failure::file("removing", path, source))?;
    told.map(|()| true)
}

fn tell_system(kind: Kind, path: &Path, installs: bool) -> Result<(), Failure> {
    for words in kind.commands(path, installs) {
        let line = words.join(" ");
        let ran = Command::new(&words[0]).args(&words[1..]).output();
        let why = match ran {
            Ok(ran) if ran.status.success() => continue,
            Ok(ran) => single_line(&String::from_utf8_lossy(&ran.stderr)).clone(),
            Err(error) => error.to_string(),
        };
        let hint = if installs {
            "`peerctl link start` serves the links without a service"
        } else {
            "the file is removed all the same"
        };
        return Err(Failure::wrong(format!("`{line}` failed: {why}")).hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_and_its_variables_reach_the_file_as_they_are() {
        let variables = [("PATH", "/a b:/50%".to_owned()), ("SSH_AUTH_SOCK", "/x\"y\\".to_owned())];
        let unit = unit("/opt/my $tools/peerctl", &variables);
        assert!(unit.contains("ExecStart=\"/opt/my $$tools/peerctl\" link run\n"), "{unit}");
        assert!(unit.contains("Environment=\"PATH=/a b:/50%%\"\n"), "{unit}");
        assert!(unit.contains("Environment=\"SSH_AUTH_SOCK=/x\\\"y\\\\\"\n"), "{unit}");
        let agent = agent("/a&b/peerctl", &variables);
        assert!(
            agent.contains("<string>/a&amp;b/peerctl</string><string>link</string>"),
            "{agent}"
        );
        assert!(agent.contains("<key>PATH</key><string>/a b:/50%</string>"), "{agent}");
    }
}
