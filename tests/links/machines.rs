//! Two machines: two homes, with an sshd that leads from the first to the second.
//!
//! Knows ssh's files. The person's own configuration of ssh is not read. Invariant: nothing lives
//! longer than the machines.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use peer_tests::{Home, Outcome, PATIENCE};
use serde_json::Value;

/// Both machines. The calling one knows the other as `desk`, which knows it as `laptop`.
pub(crate) struct Machines {
    pub laptop: Home,
    pub desk: Home,
    sshd: Child,
    port: u16,
}

impl Machines {
    pub(crate) fn new(laptop: Home, desk: Home) -> Self {
        // Another program may take the port before sshd does; then sshd is started on another one.
        let (sshd, port) = (0..5)
            .find_map(|_| start_sshd(&desk))
            .unwrap_or_else(|| panic!("sshd does not start: {}", log(&desk)));
        let machines = Self { laptop, desk, sshd, port };
        machines.write_client();
        let _ = machines.desk.peerctl(&["daemon", "start"]).success();
        machines
    }

    /// Lets the laptop's key do nothing on the desk but serve a link, under this name.
    pub(crate) fn restrict_key(&self, name: &str) {
        let key = fs::read_to_string(self.desk.root().join("me.pub")).expect("the key");
        let program = self.desk.executable().display().to_string();
        let line = format!("restrict,command=\"{program} link --stdio --as {name}\" {key}");
        fs::write(self.desk.root().join("authorized_keys"), line).expect("restrict the key");
    }

    /// Adds the link and accepts its mail.
    pub(crate) fn linked(laptop: Home, desk: Home) -> Self {
        let machines = Self::new(laptop, desk);
        let _ = machines.add(&["--accept"]).success();
        machines
    }

    fn write_client(&self) {
        let dir = self.laptop.root();
        let config = format!(
            "Host desk\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             StrictHostKeyChecking no\n  UserKnownHostsFile {}\n  LogLevel ERROR\n",
            self.port,
            self.desk.root().join("me").display(),
            dir.join("known").display()
        );
        fs::write(dir.join("ssh_config"), config).expect("write ssh_config");
        fs::create_dir_all(dir.join("bin")).expect("make a directory");
        // ssh finds its configuration by the user's id, and not by HOME.
        let ssh = format!("#!/bin/sh\nexec ssh -F {} \"$@\"\n", dir.join("ssh_config").display());
        let path = dir.join("bin/ssh");
        fs::write(&path, ssh.replace("exec ssh", &format!("exec {}", real_ssh().display())))
            .expect("write a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    }

    /// A command on the laptop, whose ssh knows the desk.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.laptop.command(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.laptop.root().join("bin").display()));
        command
    }

    pub(crate) fn on_laptop(&self, arguments: &[&str]) -> Outcome {
        self.laptop.run(self.command(arguments), "")
    }

    pub(crate) fn add(&self, options: &[&str]) -> Outcome {
        let program = self.desk.executable().display().to_string();
        let mut arguments = vec!["link", "add", "desk", "--ssh", "desk"];
        if !options.contains(&"--command") {
            arguments.extend(["--command", &program]);
        }
        arguments.extend(options);
        self.on_laptop(&arguments)
    }

    /// Serves the laptop's links, until it is dropped.
    pub(crate) fn run(&self) -> Running {
        let child = self
            .command(&["link", "run", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start peerctl link run");
        Running(child)
    }

    /// What the desk calls the laptop.
    pub(crate) fn alias_of_laptop(&self) -> String {
        let links = self.desk.peerctl(&["link", "ls", "--json"]).success().json();
        links[0]["name"].as_str().expect("a link").to_owned()
    }

    /// What the laptop's process of links says of itself.
    pub(crate) fn served(&self) -> Value {
        let bytes = fs::read(self.laptop.state().join("link.state")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Waits until the link is up at both ends.
    pub(crate) fn wait_up(&self) {
        wait("the link is up", || {
            [&self.laptop, &self.desk].iter().all(|home| {
                let links = home.peerctl(&["link", "ls", "--json"]);
                links.code == 0 && links.json()[0]["state"] == "up"
            })
        });
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

/// A running `peerctl link run`.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE * 3;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(30));
    }
}

/// The field of the first delivery of a message.
pub(crate) fn stage(home: &Home, id: &str) -> String {
    let shown: Value = home.peerctl(&["show", id, "--json"]).success().json();
    shown["deliveries"][0]["stage"].as_str().unwrap_or_default().to_owned()
}

fn sshd() -> PathBuf {
    PathBuf::from(std::env::var_os("PEERD_SSHD").expect("tests/links/run says where sshd is"))
}

fn real_ssh() -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .map(|dir| dir.join("ssh"))
        .find(|path| path.exists())
        .expect("ssh is installed")
}

fn start_sshd(desk: &Home) -> Option<(Child, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let dir = desk.root();
    for key in ["host", "me"] {
        let path = dir.join(key);
        if !path.exists() {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&path)
                .status()
                .expect("run ssh-keygen");
            assert!(made.success(), "ssh-keygen: {made}");
        }
    }
    let at = |name: &str| dir.join(name).display().to_string();
    fs::copy(dir.join("me.pub"), dir.join("authorized_keys")).expect("allow the key");
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
         SetEnv PEERD_DIR={} HOME={}\n",
        at("host"),
        at("authorized_keys"),
        desk.state().display(),
        desk.home().display()
    );
    fs::write(dir.join("sshd_config"), config).expect("write sshd_config");
    let log = fs::File::create(dir.join("sshd.log")).expect("make a log");
    let mut child = Command::new(sshd())
        .args(["-D", "-e", "-f", &at("sshd_config")])
        .env("PEERD_DIR", desk.state())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start sshd");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && child.try_wait().is_ok_and(|ended| ended.is_none()) {
        if self::log(desk).contains("Server listening") {
            return Some((child, port));
        }
        thread::sleep(Duration::from_millis(20));
    }
    // It ended, because another process took the port, or it never listened.
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn log(desk: &Home) -> String {
    fs::read_to_string(desk.root().join("sshd.log")).unwrap_or_default()
}
