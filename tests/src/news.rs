//! What the broker tells whoever watches, so that a test can wait for a stage instead of asking
//! again and again.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;

use crate::Home;
use crate::clients::PATIENCE;

/// A running `peerctl tail`. Dropping it ends it.
#[derive(Debug)]
pub struct News {
    child: Child,
    events: Receiver<Value>,
}

impl News {
    /// Watches the broker of `home`, which is started where none runs; returns once it watches.
    ///
    /// # Panics
    /// Where it cannot.
    #[must_use]
    #[track_caller]
    pub fn start(home: &Home) -> Self {
        let mut command = home.command(&["tail", "--json"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run peerctl tail");
        let mut ready = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("standard error is piped"));
        stderr.read_line(&mut ready).expect("read that it watches");
        assert!(ready.ends_with("Ctrl-C ends it\n"), "{ready}");
        let stdout = child.stdout.take().expect("standard output is piped");
        let (told, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if told.send(serde_json::from_str(&line).expect("a line is an object")).is_err() {
                    break;
                }
            }
        });
        Self { child, events }
    }

    /// Waits until this happened to the message, from where the last wait ended.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    #[track_caller]
    pub fn wait(&self, event: &str, id: &str) -> Value {
        self.wait_until(
            |told| told["event"] == event && told["id"] == id,
            &format!("{id} is not {event}"),
        )
    }

    /// Waits until something of this kind happened, to whatever it did, from where the last wait
    /// ended.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_any(&self, event: &str) -> Value {
        self.wait_until(|told| told["event"] == event, &format!("nothing is {event}"))
    }

    /// Waits until the peer of this name is online, from where the last wait ended.
    ///
    /// # Panics
    /// Where it is not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_online(&self, name: &str) {
        let _ = self.wait_until(
            |told| told["event"] == "peer_online" && told["from"] == name,
            &format!("{name} is not online"),
        );
    }

    /// Waits until any peer is online, from where the last wait ended.
    ///
    /// # Panics
    /// Where none is within [`PATIENCE`].
    #[track_caller]
    pub fn wait_online_any(&self) {
        let _ = self.wait_any("peer_online");
    }

    /// Waits until the peer of this name is offline, from where the last wait ended.
    ///
    /// # Panics
    /// Where it is not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_offline(&self, name: &str) {
        let _ = self.wait_until(
            |told| told["event"] == "peer_offline" && told["from"] == name,
            &format!("{name} is not offline"),
        );
    }

    /// All that happened up to the first event of this kind, from where the last wait ended.
    ///
    /// # Panics
    /// Where there is none within [`PATIENCE`].
    #[must_use]
    #[track_caller]
    pub fn until(&self, event: &str) -> Vec<Value> {
        let heard = std::cell::RefCell::new(Vec::new());
        let is_it = |told: &Value| {
            heard.borrow_mut().push(told.clone());
            told["event"] == event
        };
        let _ = self.wait_until(is_it, &format!("nothing is {event}"));
        heard.into_inner()
    }

    #[track_caller]
    fn wait_until(&self, is_it: impl Fn(&Value) -> bool, otherwise: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(told) if is_it(&told) => return told,
                Ok(told) => heard.push(told),
                Err(_) => panic!("{otherwise}; what happened: {heard:#?}"),
            }
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
