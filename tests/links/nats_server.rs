//! A real nats-server with a directory of its own, and enough of its protocol to attack a team.
//!
//! `tests/links/run` says where the servers are. Invariant: nothing lives longer than the server.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use peer_tests::{Home, PATIENCE};

/// The versions that a team is tested with: the oldest that repairs its own consumers, and the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V2_14,
    V2_15,
}

impl Version {
    fn program(self) -> PathBuf {
        let name = match self {
            Self::V2_14 => "PEERD_NATS_2_14",
            Self::V2_15 => "PEERD_NATS_2_15",
        };
        PathBuf::from(std::env::var_os(name).expect("tests/links/run says where nats-server is"))
    }
}

pub(crate) struct Server {
    version: Version,
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts one without users: everybody may do everything.
    pub(crate) fn open(version: Version) -> Self {
        Self::with(version, "")
    }

    /// Starts one with more in its configuration.
    pub(crate) fn with(version: Version, more: &str) -> Self {
        // Another program may take the port first.
        for _ in 0..5 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let dir = tempfile::tempdir().expect("a directory");
            let mut server = Self { version, dir, port, child: None };
            server.configure(more);
            if server.start() {
                return server;
            }
        }
        panic!("nats-server does not start");
    }

    pub(crate) fn configure(&self, more: &str) {
        let text = format!(
            "host: 127.0.0.1\nport: {}\njetstream {{ store_dir: {:?} }}\n{more}\n",
            self.port,
            self.store().display()
        );
        fs::write(self.dir.path().join("nats.conf"), text).expect("write nats.conf");
    }

    pub(crate) fn start(&mut self) -> bool {
        let log = fs::File::create(self.dir.path().join("log")).expect("make a log");
        let child = Command::new(self.version.program())
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start nats-server");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if log.contains("Server is ready") {
                return true;
            }
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends it as a power cut does. What it had on its disk stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn copy_store_to(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy(&self.store(), &to);
        to
    }

    pub(crate) fn put_store_back(&self, from: &Path) {
        fs::remove_dir_all(self.store()).expect("remove the store");
        copy(from, &self.store());
    }

    /// Empties the blocks of the team's stream. The consumers' state stays.
    pub(crate) fn empty_stream(&self) {
        let mut emptied = 0;
        let stream = self.store().join("jetstream/$G/streams/PEERD_blue/msgs");
        for entry in fs::read_dir(stream).expect("the stream has a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|kind| kind == "blk") {
                fs::write(&path, b"").expect("empty a block");
                emptied += 1;
            } else if path.is_file() {
                fs::remove_file(&path).expect("remove its index");
            }
        }
        assert!(emptied > 0, "the stream has no block");
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    pub(crate) fn raw(&self, user: Option<&str>) -> Raw {
        Raw::connect(self.port, user)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("copy a file");
        }
    }
}

/// A connection that speaks the server's protocol by hand: what somebody does who keeps to no rule.
pub(crate) struct Raw {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

/// What the server sends to it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    fn connect(port: u16, user: Option<&str>) -> Self {
        let writer = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        writer.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let reader = BufReader::new(writer.try_clone().expect("clone"));
        let mut raw = Self { reader, writer };
        let user =
            user.map_or(String::new(), |user| format!(",\"user\":{user:?},\"pass\":{user:?}"));
        raw.say(&format!("CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true{user}}}\r\nPING\r\n"));
        raw.until_pong();
        raw
    }

    fn say(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).expect("write");
    }

    /// Everything that the server says until it answers a ping: its refusals.
    fn until_pong(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return said,
                Ok(_) if line.starts_with("PONG") => return said,
                Ok(_) => said.push_str(&line),
                Err(_) => assert!(Instant::now() < deadline, "no pong: {said}"),
            }
        }
    }

    /// Publishes, and returns what the server says against it.
    pub(crate) fn publish(&mut self, subject: &str, payload: &[u8]) -> String {
        self.say(&format!("PUB {subject} {}\r\n", payload.len()));
        self.writer.write_all(payload).expect("write");
        self.say("\r\nPING\r\n");
        self.until_pong()
    }

    /// Subscribes, and returns what the server says against it.
    pub(crate) fn subscribe(&mut self, subject: &str) -> String {
        self.say(&format!("SUB {subject} 1\r\nPING\r\n"));
        self.until_pong()
    }

    /// What came, until nothing comes for a while.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) | Err(_) => return all,
                Ok(_) => {}
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first().copied() {
                Some("PING") => self.say("PONG\r\n"),
                Some(kind @ ("MSG" | "HMSG")) => {
                    let total: usize = words.last().expect("a size").parse().expect("a number");
                    let headers: usize = if kind == "HMSG" {
                        words[words.len() - 2].parse().expect("a number")
                    } else {
                        0
                    };
                    let mut bytes = vec![0; total + 2];
                    self.reader.read_exact(&mut bytes).expect("a payload");
                    let payload = bytes[headers..total].to_vec();
                    all.push(Seen { subject: words[1].to_owned(), payload });
                }
                _ => {}
            }
        }
    }
}

/// A server that says that it is of an old version, and does nothing else. It serves one connection.
pub(crate) fn old_server() -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let info = "INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.9.10\",\"go\":\"go\",\"host\":\"127.0.0.1\",\"port\":1,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"jetstream\":true}\r\n";
        let _ = stream.write_all(info.as_bytes());
        let mut lines = BufReader::new(stream.try_clone().expect("clone"));
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.starts_with("PING") {
                let _ = stream.write_all(b"PONG\r\n");
            }
            line.clear();
        }
    });
    (port, served)
}

/// The process that serves a member's links, until it is dropped: it is killed then.
pub(crate) struct Member(Child);

impl Member {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn serve(home: &Home) -> Member {
    let start = || {
        home.command(&["link", "run", "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start peerctl link run")
    };
    let mut child = start();
    // The one before may hold the lock for a moment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = home.peerctl(&["link", "team", "ls", "--json"]);
        if shown.code == 0 && shown.json()[0]["state"] != "off" {
            return Member(child);
        }
        assert!(Instant::now() < deadline, "the links are not served: {shown:?}");
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            child = start();
        }
        thread::sleep(Duration::from_millis(50));
    }
}
