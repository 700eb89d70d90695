//! Standard input and output. A client that stops reading neither blocks the adapter nor loses
//! mail.
//!
//! All output for the client is queued in memory, and one async task writes the queue to the real
//! output. No other code waits for the client. [`ClientPipe`] is rmcp's transport over it. It also
//! records the position of each tool call in the byte stream. A call is evidence for an earlier
//! result only if it came after that result had left.
//!
//! Knows bytes and call ids. Does not know messages, nor the broker. Invariants: the queue holds at
//! most [`QUEUE_BYTES_MAX`]. A client that exceeds this gets no more output: the process ends, and
//! its leases return to the broker. Every input with an id is answered under that id, whatever its
//! errors.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::{
    ClientNotification, ClientRequest, ErrorData, GetExtensions, JsonRpcMessage, RequestId,
};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

use crate::call::CallId;
use crate::event::Event;
use crate::json_scan::JsonScan;
use crate::lenient::{self, Read};

/// Bytes that may wait for a client that does not read. The longest result is far below it.
pub(crate) const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest line from the client. The longest text of a message needs less, even if each of its
/// characters is escaped.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes written at once; the number of bytes that have left is known to this grain.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The output queue to the client. A handle: clones share the queue.
#[derive(Clone, Default)]
pub(crate) struct Outgoing(Arc<OutputState>);

#[derive(Default)]
struct OutputState {
    queue: Mutex<OutputQueue>,
    filled: Notify,
    drained: Notify,
    overflown: Notify,
}

#[derive(Default)]
struct OutputQueue {
    waiting: Vec<u8>,
    /// Bytes ever queued.
    queued: u64,
    /// Bytes that the output has taken.
    written: u64,
}

impl Outgoing {
    /// Queues bytes. Whole lines only, so that lines of different origin never mix.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut queue = self.lock();
        queue.waiting.extend_from_slice(bytes);
        queue.queued += bytes.len() as u64;
        if queue.queued - queue.written > QUEUE_BYTES_MAX as u64 {
            self.0.overflown.notify_one();
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Whether the output has taken all bytes.
    pub(crate) fn is_drained(&self) -> bool {
        let queue = self.lock();
        queue.queued == queue.written
    }

    /// Waits until the output has taken all bytes that were queued since the last time.
    pub(crate) async fn drained(&self) {
        self.0.drained.notified().await;
    }

    /// Waits until the queue exceeds its limit.
    pub(crate) async fn overflown(&self) {
        self.0.overflown.notified().await;
    }

    /// Writes queued bytes while `output` takes them; returns why it no longer does.
    pub(crate) async fn write_to(self, mut output: impl AsyncWrite + Unpin) -> io::Error {
        loop {
            let waiting = std::mem::take(&mut self.lock().waiting);
            if waiting.is_empty() {
                self.0.filled.notified().await;
                continue;
            }
            for piece in waiting.chunks(WRITE_BYTES_MAX) {
                // Only a flushed byte has left: an output that is not a pipe buffers.
                if let Err(error) = output.write_all(piece).await {
                    return error;
                }
                if let Err(error) = output.flush().await {
                    return error;
                }
                self.lock().written += piece.len() as u64;
            }
            if self.is_drained() {
                self.0.drained.notify_one();
            }
        }
    }

    fn queued(&self) -> u64 {
        self.lock().queued
    }

    fn written(&self) -> u64 {
        self.lock().written
    }

    fn lock(&self) -> MutexGuard<'_, OutputQueue> {
        // The counters are changed together with the bytes; a panic in between is impossible.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The position of one tool call in the byte stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallPosition {
    pub(crate) id: CallId,
    /// Bytes that the output had taken when the call was read.
    pub(crate) written_before: u64,
}

/// rmcp's transport: lines of JSON in, lines into the queue out. `tell` gets the outcome of each
/// call.
pub(crate) struct ClientPipe<R, T> {
    input: BufReader<R>,
    /// The line so far. Not in the reading future, which may be dropped at any time.
    line: Vec<u8>,
    /// The state of a line that exceeds the limit: its id is searched for, and the rest of it is
    /// skipped.
    overlong: Option<JsonScan>,
    /// The unread rest of a batch.
    batch: VecDeque<Value>,
    /// Whether the client has begun with `initialize`.
    introduced: bool,
    /// Whether a line could be read, or the person was told that none could.
    understood: bool,
    outgoing: Outgoing,
    unanswered: HashMap<RequestId, CallId>,
    calls: u64,
    closed: Arc<Notify>,
    tell: T,
}

impl<R: AsyncRead + Send + Unpin, T: Fn(Event)> ClientPipe<R, T> {
    /// Reads from `input`; `closed` is notified of its end.
    pub(crate) fn new(input: R, outgoing: Outgoing, closed: Arc<Notify>, tell: T) -> Self {
        Self {
            input: BufReader::new(input),
            line: Vec::new(),
            overlong: None,
            batch: VecDeque::new(),
            introduced: false,
            understood: false,
            outgoing,
            unanswered: HashMap::new(),
            calls: 0,
            closed,
            tell,
        }
    }

    /// Returns the next line; `None` at the end of the input. A last line counts without its line
    /// end.
    async fn next_line(&mut self) -> Option<InputLine> {
        loop {
            let available = self.input.fill_buf().await.unwrap_or_default();
            let end = available.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            let over = taken == 0 || end.is_some();
            if self.overlong.is_none() && self.line.len() + taken > LINE_BYTES_MAX {
                self.overlong.insert(JsonScan::default()).read(&std::mem::take(&mut self.line));
            }
            match &mut self.overlong {
                Some(scan) => scan.read(&available[..taken]),
                None => self.line.extend_from_slice(&available[..taken]),
            }
            self.input.consume(taken);
            if over {
                let line = std::mem::take(&mut self.line);
                return match self.overlong.take() {
                    Some(scan) => Some(InputLine::Overlong(scan.id())),
                    None if taken == 0 && line.is_empty() => None,
                    None => Some(InputLine::Whole(line)),
                };
            }
        }
    }

    /// Parses the line. A list is a batch: its parts are read one by one, and each is answered by
    /// itself.
    fn read(&mut self, line: InputLine) -> Read {
        let mut line = match line {
            InputLine::Whole(line) => line,
            InputLine::Overlong(id) => {
                let why = format!(
                    "a line of more than {LINE_BYTES_MAX} bytes was skipped; write long texts to a file and send its path"
                );
                return Read::Refused(id, ErrorData::invalid_request(why, None));
            }
        };
        // Most lines are exact; a custom request of rmcp may be a malformed one of another kind.
        if let Ok(message) = serde_json::from_slice(&line)
            && !lenient::is_custom(&message)
        {
            return Read::Message(Box::new(message));
        }
        fix_surrogates(&mut line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_start_matches('\u{feff}').trim();
        match serde_json::from_str(text) {
            Ok(Value::Array(parts)) if !parts.is_empty() => {
                self.batch.extend(parts);
                Read::Nothing
            }
            Ok(value) => lenient::read(value),
            // A line that does not even begin like a message may be an echo of our output: no
            // client waits for an answer.
            Err(_) if !text.starts_with(['{', '[']) => {
                if !text.is_empty() {
                    self.complain_of(text.as_bytes());
                }
                Read::Nothing
            }
            Err(reason) => {
                self.complain_of(text.as_bytes());
                let mut scan = JsonScan::default();
                scan.read(text.as_bytes());
                Read::Refused(scan.id(), lenient::no_json(&reason.to_string()))
            }
        }
    }

    /// Writes to standard error, once, that the client does not speak our version of MCP.
    fn complain_of(&mut self, line: &[u8]) {
        if std::mem::replace(&mut self.understood, true) {
            return;
        }
        let framed = line.len() >= HEADER.len()
            && line[..HEADER.len()].eq_ignore_ascii_case(HEADER.as_bytes());
        let what =
            if framed { "a Content-Length header, as in LSP" } else { "text that is not JSON" };
        let why = format!(
            "the client began with {what}; MCP is one JSON-RPC 2.0 object per line, without headers"
        );
        crate::complain(&why);
    }

    /// Queues a message; returns where it ends in the output's stream.
    fn queue(&self, item: &TxJsonRpcMessage<RoleServer>) -> io::Result<u64> {
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        self.outgoing.push(&line);
        Ok(self.outgoing.queued())
    }

    /// Whether rmcp gets this message; records the position of a tool call.
    fn admit(&mut self, message: &mut RxJsonRpcMessage<RoleServer>) -> bool {
        match message {
            JsonRpcMessage::Request(request) => match &mut request.request {
                ClientRequest::InitializeRequest(_) => self.introduced = true,
                ClientRequest::CallToolRequest(_) => {
                    self.calls += 1;
                    let call = CallPosition {
                        id: CallId(self.calls),
                        written_before: self.outgoing.written(),
                    };
                    self.unanswered.insert(request.id.clone(), call.id);
                    request.request.extensions_mut().insert(call);
                }
                _ => {}
            },
            // rmcp ends at any message but a request before `initialize`.
            _ if !self.introduced => return false,
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) =
                    &notification.notification
                    && let Some(call) = cancelled
                        .params
                        .request_id
                        .as_ref()
                        .and_then(|id| self.unanswered.remove(id))
                {
                    (self.tell)(Event::CallDropped(call));
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        true
    }
}

impl<R, T> Transport<RoleServer> for ClientPipe<R, T>
where
    R: AsyncRead + Send + Unpin + 'static,
    T: Fn(Event) + Send + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let answered = match &item {
            JsonRpcMessage::Response(response) => self.unanswered.remove(&response.id),
            JsonRpcMessage::Error(error) => {
                error.id.as_ref().and_then(|id| self.unanswered.remove(id))
            }
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let queued = self.queue(&item);
        if let (Ok(end), Some(call)) = (&queued, answered) {
            (self.tell)(Event::ResultQueued { call, end: *end });
        }
        std::future::ready(queued.map(drop))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let read = match self.batch.pop_front() {
                Some(value) => lenient::read(value),
                None => {
                    // The only await: rmcp drops this future at any other event, and no input may
                    // be lost then.
                    let Some(line) = self.next_line().await else {
                        self.closed.notify_one();
                        return None;
                    };
                    self.read(line)
                }
            };
            match read {
                Read::Message(mut message) => {
                    self.understood = true;
                    if self.admit(&mut message) {
                        return Some(*message);
                    }
                }
                Read::Nothing => {}
                Read::Refused(id, why) => {
                    // rmcp omits a missing id; JSON-RPC requires null.
                    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": why });
                    self.outgoing.push(format!("{answer}\n").as_bytes());
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// One line from the client.
enum InputLine {
    /// A line as it came, mostly with its end.
    Whole(Vec<u8>),
    /// A line longer than [`LINE_BYTES_MAX`], and skipped; with its id, if it has one.
    Overlong(Option<RequestId>),
}

/// The beginning of a client that frames its messages as LSP does.
const HEADER: &str = "content-length:";

/// Replaces half surrogate pairs by the replacement character, in place. A client in JavaScript
/// writes `\ud83d` where a text was cut within a character. JSON allows it, but our strings cannot
/// contain it, and the call must get an answer.
pub(crate) fn fix_surrogates(line: &mut [u8]) {
    let escaped = |line: &[u8], at: usize| {
        let digits = line.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < line.len() {
        if line[at] != b'\\' {
            at += 1;
            continue;
        }
        at += match (escaped(line, at), escaped(line, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                line[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            // Another escape: its second character does not begin one.
            _ => 2,
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_blocks_nobody_and_gets_everything_later() {
        let outgoing = Outgoing::default();
        let (client, ours) = tokio::io::duplex(1_000);
        let writing = tokio::spawn(outgoing.clone().write_to(ours));
        let lines: Vec<String> = (0..2_000).map(|number| format!("{number:0100}\n")).collect();
        for line in &lines {
            // Pushing is not even asynchronous.
            outgoing.push(line.as_bytes());
        }
        assert!(!outgoing.is_drained());
        let mut read = vec![0; 101 * 2_000];
        let (mut reading, _) = tokio::io::split(client);
        reading.read_exact(&mut read).await.unwrap();
        assert_eq!(read, lines.concat().into_bytes());
        outgoing.drained().await;
        assert!(outgoing.is_drained());
        writing.abort();
    }

    #[tokio::test]
    async fn more_than_the_queue_may_hold_is_told() {
        let outgoing = Outgoing::default();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..5 {
            outgoing.push(&line);
        }
        outgoing.overflown().await;
    }

    #[tokio::test]
    async fn a_client_that_closes_its_end_is_noticed() {
        let outgoing = Outgoing::default();
        let (client, ours) = tokio::io::duplex(10);
        drop(client);
        outgoing.push(b"hello\n");
        let error = outgoing.write_to(ours).await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    type TestPipe = ClientPipe<io::Cursor<Vec<u8>>, fn(Event)>;

    fn pipe(input: &[u8]) -> (TestPipe, Outgoing) {
        let outgoing = Outgoing::default();
        (
            ClientPipe::new(
                io::Cursor::new(input.to_vec()),
                outgoing.clone(),
                Arc::default(),
                |_| {},
            ),
            outgoing,
        )
    }

    fn answers(outgoing: &Outgoing) -> String {
        String::from_utf8(outgoing.lock().waiting.clone()).unwrap()
    }

    #[tokio::test]
    async fn half_a_surrogate_pair_and_bytes_that_are_no_text_leave_no_call_unanswered() {
        let mut lines = Vec::new();
        for text in [&b"a \\ud83d b"[..], b"a \\udc00 b", b"a \\uD83Dx b", b"a \xff b"] {
            lines.extend_from_slice(
                br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":""#,
            );
            lines.extend_from_slice(text);
            lines.extend_from_slice(b"\"}}\n");
        }
        let (mut pipe, _) = pipe(&lines);
        for expected in ["a \u{fffd} b", "a \u{fffd} b", "a \u{fffd}x b", "a \u{fffd} b"] {
            let message = pipe.receive().await.unwrap();
            assert!(serde_json::to_string(&message).unwrap().contains(expected), "{message:?}");
        }
        assert!(pipe.receive().await.is_none());
    }

    #[test]
    fn whole_pairs_and_escaped_backslashes_are_left_alone() {
        let mut line = *br"\ud83d\ude00 \\ud83d \u00e9 \n \ud83d\n";
        fix_surrogates(&mut line);
        assert_eq!(&line, br"\ud83d\ude00 \\ud83d \u00e9 \n \ufffd\n");
        for mut cut in [&b"\\"[..], b"\\u", b"\\ud83", b"\\ud83d\\u"].map(<[u8]>::to_vec) {
            fix_surrogates(&mut cut);
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_answered_where_somebody_may_wait_and_the_next_is_read() {
        let ping = br#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
        let call =
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x","arguments":{"a":"#;
        let deep = format!("{call}{}{}}}}},\"id\":5}}", "[".repeat(300), "]".repeat(300));
        let long = format!("{call}\"{}\"}}}},\"id\":\"five\"}}", "x".repeat(2 * LINE_BYTES_MAX));
        let (not_json, invalid) = (r#""code":-32700"#, r#""code":-32600"#);
        for (line, told) in [
            (&br#"{"jsonrpc":"2.0","id":5}"#[..], &[r#""id":5"#, invalid][..]),
            (b"[]", &[r#""id":null"#, invalid]),
            (b"[7]", &[r#""id":null"#, invalid]),
            (deep.as_bytes(), &[r#""id":5"#, not_json]),
            (
                br#"{"jsonrpc":"2.0","id":5,"method":"ping","params":{"x":NaN}}"#,
                &[r#""id":5"#, not_json],
            ),
            (
                br#"{"jsonrpc":"2.0","id":5,"method":"ping"}Content-Length: 40"#,
                &[r#""id":5"#, not_json],
            ),
            (b"{", &[r#""id":null"#, not_json]),
            (long.as_bytes(), &[r#""id":"five""#, "was skipped"]),
            (b"garbage", &[]),
            (b"\r", &[]),
            (b"Content-Length: 40\r", &[]),
            (br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, &[]),
        ] {
            let (mut pipe, outgoing) = pipe(&[line, b"\n", ping, b"\n"].concat());
            assert!(
                matches!(pipe.receive().await, Some(JsonRpcMessage::Request(request)) if request.id == RequestId::Number(7))
            );
            let answers = answers(&outgoing);
            assert_eq!(answers.lines().count(), usize::from(!told.is_empty()), "{answers}");
            assert!(told.iter().all(|part| answers.contains(part)), "{answers}");
        }
    }

    #[tokio::test]
    async fn the_parts_of_a_batch_are_read_one_by_one_and_a_last_line_needs_no_end() {
        let part = |id: u8| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        let (mut pipe, outgoing) =
            pipe(format!("[{}, 7, {}]\n{}", part(1), part(2), part(3)).as_bytes());
        for id in 1..=3 {
            let Some(JsonRpcMessage::Request(request)) = pipe.receive().await else {
                panic!("{id}")
            };
            assert_eq!(request.id, RequestId::Number(id));
        }
        assert!(pipe.receive().await.is_none());
        assert_eq!(answers(&outgoing).lines().count(), 1, "7 is no message");
    }
}
