//! A model server of the tests' own: answers Claude Code and Codex from a script, and keeps what
//! each request showed.
//!
//! It knows HTTP and which conversation a request belongs to; `dialect` knows the two vendors'
//! forms. It does not know peerd. One invariant: a request that no script expects gets a harmless
//! answer and uses up no step of anybody's script.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use super::dialect::{Dialect, Request};

/// How long an answer is held for a test that never lets it go. The test has failed long before.
const HELD_MAX: Duration = Duration::from_secs(300);

/// What the model does in answer to one request.
pub struct Step {
    act: Act,
    gate: Option<Gate>,
    /// The first half of the answer does not wait.
    begins: bool,
}

enum Act {
    Say(String),
    Call(Vec<Call>),
    Fail(u16),
    Given(Box<dyn FnOnce(&Request) -> Step + Send>),
}

/// One tool call of the model.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) tool: Tool,
    pub(super) arguments: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Tool {
    Peers(String),
    Shell,
    Program,
    Named(String),
}

impl Call {
    /// A call of one of peerd's tools, whatever the client makes of its name.
    #[must_use]
    pub fn peers(tool: &str, arguments: Value) -> Self {
        Self { tool: Tool::Peers(tool.to_owned()), arguments }
    }

    /// A command in the client's own shell tool.
    #[must_use]
    pub fn shell(command: &str) -> Self {
        Self { tool: Tool::Shell, arguments: Value::from(command) }
    }

    /// A program that calls tools itself, for models of Codex that have only that.
    #[must_use]
    pub fn program(source: &str) -> Self {
        Self { tool: Tool::Program, arguments: Value::from(source) }
    }

    /// A call of a tool by the very name that the client gives it.
    #[must_use]
    pub fn named(tool: &str, arguments: Value) -> Self {
        Self { tool: Tool::Named(tool.to_owned()), arguments }
    }
}

/// The model says something, and its turn ends.
#[must_use]
pub fn say(text: &str) -> Step {
    Step::new(Act::Say(text.to_owned()))
}

/// The model's service refuses the request with this status.
#[must_use]
pub fn fail(status: u16) -> Step {
    Step::new(Act::Fail(status))
}

/// The model calls one tool.
#[must_use]
pub fn call(call: Call) -> Step {
    calls([call])
}

/// The model calls several tools in one message.
#[must_use]
pub fn calls(calls: impl IntoIterator<Item = Call>) -> Step {
    Step::new(Act::Call(calls.into_iter().collect()))
}

/// What the model does depends on what it was shown.
#[must_use]
pub fn given(decide: impl FnOnce(&Request) -> Step + Send + 'static) -> Step {
    Step::new(Act::Given(Box::new(decide)))
}

impl Step {
    fn new(act: Act) -> Self {
        Self { act, gate: None, begins: false }
    }

    /// The answer is held back until the test opens `gate`.
    #[must_use]
    pub fn held(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// The answer begins at once, and its end is held back until the test opens `gate`.
    #[must_use]
    pub fn held_at_its_end(mut self, gate: &Gate) -> Self {
        self.begins = true;
        self.held(gate)
    }
}

/// Something that an answer waits for.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets through what waits, and all that comes.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_timeout_while(closed, HELD_MAX, |open| !*open));
    }
}

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct Model {
    shared: Arc<Shared>,
    port: u16,
}

/// One conversation with the model: its script, and the requests that belong to it.
#[derive(Debug)]
pub struct Talk {
    shared: Arc<Shared>,
    place: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    conversations: Vec<Conversation>,
    requests: Vec<Request>,
    /// What else was asked: method and path.
    chatter: Vec<String>,
    answers: usize,
    closed: bool,
}

struct Conversation {
    marker: String,
    steps: VecDeque<Step>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("requests", &self.requests.len()).finish_non_exhaustive()
    }
}

impl Model {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen on 127.0.0.1");
        let port = listener.local_addr().expect("a listener has an address").port();
        let shared = Arc::<Shared>::default();
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.lock().closed {
                    break;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || {
                    // A client that goes away in the middle is no failure of the server's.
                    let _ = server.serve(stream);
                });
            }
        });
        Self { shared, port }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The script of the conversation in which `marker` stands before any other conversation's
    /// marker: in the prompt that the test types, or in a message that wakes an idle session. An
    /// empty marker takes what no other one does.
    #[must_use]
    pub fn talk(&self, marker: &str, steps: impl IntoIterator<Item = Step>) -> Talk {
        let mut state = self.shared.lock();
        let steps = steps.into_iter().collect();
        state.conversations.push(Conversation { marker: marker.to_owned(), steps });
        Talk { shared: Arc::clone(&self.shared), place: state.conversations.len() - 1 }
    }

    /// Waits for a request of any conversation that shows the model `text`.
    ///
    /// # Panics
    /// Where none does within [`PATIENCE`].
    #[track_caller]
    pub fn request_with(&self, text: &str) -> Request {
        match self.shared.wait(PATIENCE, |state| {
            state
                .requests
                .iter()
                .find(|request| request.is_conversation() && request.shows(text))
                .cloned()
        }) {
            Some(request) => request,
            None => panic!("no request shows {text:?}\n{}", self.story()),
        }
    }

    /// The requests of all conversations so far, and of none: side chatter that looks like one.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// What was asked and what it showed, for a failure's text.
    #[must_use]
    pub fn story(&self) -> String {
        self.shared.lock().story()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        // Wakes the thread that accepts, which then sees it.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Talk {
    /// More steps, after those that are there.
    pub fn then(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.lock().conversations[self.place].steps.extend(steps);
    }

    /// The request of this conversation at `place`, counted from 0; waits for it.
    ///
    /// # Panics
    /// Where it does not come within [`PATIENCE`].
    #[track_caller]
    pub fn request(&self, place: usize) -> Request {
        let find = |state: &State| state.of(self.place).nth(place).cloned();
        match self.shared.wait(PATIENCE, find) {
            Some(request) => request,
            None => {
                panic!("the conversation has no request {place}\n{}", self.shared.lock().story())
            }
        }
    }

    /// The first request of this conversation that shows the model `text`; waits for it.
    ///
    /// # Panics
    /// Where none does within [`PATIENCE`].
    #[track_caller]
    pub fn request_with(&self, text: &str) -> Request {
        let find =
            |state: &State| state.of(self.place).find(|request| request.shows(text)).cloned();
        match self.shared.wait(PATIENCE, find) {
            Some(request) => request,
            None => panic!(
                "no request of the conversation shows {text:?}\n{}",
                self.shared.lock().story()
            ),
        }
    }

    /// Its requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().of(self.place).cloned().collect()
    }
}

impl State {
    fn of(&self, place: usize) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| request.conversation == Some(place))
    }

    /// The conversation whose marker the request shows first.
    fn conversation(&self, request: &Request) -> Option<usize> {
        if !request.is_conversation() {
            return None;
        }
        let shown = request.conversation_entries();
        let first = |marker: &str| {
            let whole = shown.iter().enumerate();
            whole.filter_map(|(place, shown)| Some((place, shown.text.find(marker)?))).min()
        };
        let marked = self
            .conversations
            .iter()
            .enumerate()
            .filter(|(_, conversation)| !conversation.marker.is_empty());
        let found = marked
            .filter_map(|(place, conversation)| Some((first(&conversation.marker)?, place)))
            .min();
        let rest =
            || self.conversations.iter().position(|conversation| conversation.marker.is_empty());
        found.map(|(_, place)| place).or_else(rest)
    }

    fn story(&self) -> String {
        let mut story =
            format!("model server: {} requests, chatter {:?}\n", self.requests.len(), self.chatter);
        let mut last: Vec<(Option<usize>, usize)> = Vec::new();
        for (place, request) in self.requests.iter().enumerate() {
            let shown = request.shown();
            let known = last
                .iter()
                .rev()
                .find(|(of, _)| *of == request.conversation)
                .map_or(0, |(_, count)| *count);
            let _ = writeln!(
                story,
                "-- request {place}, conversation {:?}, {} entries",
                request.conversation,
                shown.len()
            );
            for shown in shown.iter().skip(known.min(shown.len())) {
                let text: String = shown.text.chars().take(1_500).collect();
                let _ = writeln!(story, "   {}: {text}", shown.role);
            }
            last.push((request.conversation, shown.len()));
        }
        for (place, conversation) in self.conversations.iter().enumerate() {
            let _ = writeln!(
                story,
                "-- conversation {place} {:?}: {} steps left",
                conversation.marker,
                conversation.steps.len()
            );
        }
        story
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, patience: Duration, find: impl Fn(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some((method, path, body)) = read_request(&mut reader)? else { return Ok(()) };
        let at = Instant::now();
        let dialect = match (method.as_str(), path.split('?').next().unwrap_or_default()) {
            ("POST", path) if path.ends_with("/v1/messages") => Dialect::Anthropic,
            ("POST", path) if path.ends_with("/v1/responses") => Dialect::OpenAi,
            (_, path) => {
                self.lock().chatter.push(format!("{method} {path}"));
                let answer = if path.ends_with("count_tokens") {
                    r#"{"input_tokens":1000}"#
                } else {
                    r#"{"data":[],"models":[]}"#
                };
                return reply(stream, "application/json", "req_chatter", answer.as_bytes());
            }
        };
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let mut request = Request { dialect, at, conversation: None, body };
        let (mut step, answer) = {
            let mut state = self.lock();
            state.answers += 1;
            let answer = state.answers;
            request.conversation = state.conversation(&request);
            let step = match request.conversation {
                Some(place) => state.conversations[place].steps.pop_front(),
                None => None,
            };
            state.requests.push(request.clone());
            (step.unwrap_or_else(|| say("Done.")), answer)
        };
        self.changed.notify_all();
        let id = format!("req_{answer:06}");
        let (events, gate) = loop {
            if let Some(gate) = step.gate.as_ref().filter(|_| !step.begins) {
                gate.pass();
            }
            match step.act {
                Act::Given(decide) => step = decide(&request),
                Act::Say(text) => {
                    break (request.saying(answer, &text), step.gate.filter(|_| step.begins));
                }
                Act::Call(calls) => {
                    break (request.calling(answer, &calls), step.gate.filter(|_| step.begins));
                }
                Act::Fail(status) => return refuse(stream, status, &id),
            }
        };
        let media_type = request.media_type();
        match gate {
            None => reply(stream, media_type, &id, events.as_bytes()),
            Some(gate) => reply_in_halves(stream, media_type, &id, request.halves(&events), &gate),
        }
    }
}

/// Reads one request: method, path and body. None where the client closed the connection.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<(String, String, Vec<u8>)>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
    }
    let mut body = Vec::new();
    if !chunked {
        reader.take(length).read_to_end(&mut body)?;
        return Ok(Some((method, path, body)));
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size =
            u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        reader.take(size).read_to_end(&mut body)?;
        let mut end = String::new();
        reader.read_line(&mut end)?;
        if size == 0 {
            return Ok(Some((method, path, body)));
        }
    }
}

/// The head of an answer.
fn head(status: &str, media_type: &str, request_id: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nrequest-id: {request_id}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
}

fn reply(
    mut stream: TcpStream,
    media_type: &str,
    request_id: &str,
    body: &[u8],
) -> std::io::Result<()> {
    stream.write_all(head("200 OK", media_type, request_id, body.len()).as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// The second half waits for `gate`.
fn reply_in_halves(
    mut stream: TcpStream,
    media_type: &str,
    request_id: &str,
    (first, second): (&str, &str),
    gate: &Gate,
) -> std::io::Result<()> {
    stream
        .write_all(head("200 OK", media_type, request_id, first.len() + second.len()).as_bytes())?;
    stream.write_all(first.as_bytes())?;
    stream.flush()?;
    gate.pass();
    stream.write_all(second.as_bytes())?;
    stream.flush()
}

/// An error in a form that both clients understand.
fn refuse(mut stream: TcpStream, status: u16, request_id: &str) -> std::io::Result<()> {
    let body = r#"{"type":"error","error":{"type":"api_error","code":"server_error","message":"the test refuses this"}}"#;
    stream.write_all(
        head(&format!("{status} Refused"), "application/json", request_id, body.len()).as_bytes(),
    )?;
    stream.write_all(body.as_bytes())?;
    stream.flush()
}
