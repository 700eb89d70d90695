//! The engine without sockets: batches, commits, and the state after one that fails.

use peer_core::broker::Config;
use peer_core::wording::Addressee;
use peer_proto::message::{Carrier, Evidence, Stage};
use peer_proto::note::NoteDraft;
use peer_proto::request::{Hello, Register, RequestId, Role, Send, ServerFrame, Shown};
use tempfile::TempDir;

use super::*;
use crate::store::tests::{store_on_a_disk_that_fills, store_on_a_disk_that_lasts};
use crate::turns::{self, Entrance};

/// An engine, and the two sessions that are connected to it: `luna` on connection 1, `nova` on
/// connection 2.
struct Place {
    engine: Engine,
    entrance: Entrance,
    outboxes: [Outbox; 2],
    last_id: RequestId,
    _index: TempDir,
}

impl Place {
    fn new(store: Store) -> Self {
        let clock = Clock::start();
        let broker =
            Broker::new(Config::default(), store.snapshot().unwrap().image().unwrap(), clock.now());
        let (entrance, arrived) = turns::open();
        let path = PathBuf::from("/x");
        let identity = BrokerIdentity {
            executable: "/x".into(),
            dir: path.clone(),
            socket: path,
            sandbox: false,
            config: Vec::new(),
            config_fault: None,
        };
        let index = tempfile::tempdir().unwrap();
        let searching = Searching::new(store.snapshots(), index.path().join("search"), None);
        let engine = Engine::new(clock, broker, store, searching, arrived, identity);
        let outboxes = [Outbox::default(), Outbox::default()];
        let mut place = Self { engine, entrance, outboxes, last_id: 2, _index: index };
        for (connection, name) in [(ConnectionId(1), "luna"), (ConnectionId(2), "nova")] {
            place.connect(connection, name);
        }
        place
    }

    fn connect(&mut self, connection: ConnectionId, name: &str) {
        let hello =
            Hello { role: Role::Adapter, version: "0".into(), executable: "/x".into(), seat: None };
        let (ancestors, outbox) = (Vec::new(), self.outbox(connection).clone());
        let hello = Arrival::Hello { connection, id: 1, hello, protocol: 1, ancestors, outbox };
        self.entrance.push(hello).unwrap();
        self.work();
        let request = Request::Register(Register {
            name: Some(name.into()),
            seat: None,
            client: "claude".into(),
            client_version: "1".into(),
            client_pid: 7,
            cwd: "/w".into(),
            git_root: None,
            repo: None,
            host: "here".into(),
            resume: None,
        });
        let frame = Frame::of(&ClientFrame { id: 2, request });
        self.entrance.push(Arrival::Asked { connection, frame }).unwrap();
        self.work();
    }

    /// Runs one batch of the arrivals.
    fn work(&mut self) {
        let first = self.engine.arrivals.next();
        self.engine.work(first).unwrap();
    }

    fn outbox(&self, connection: ConnectionId) -> &Outbox {
        &self.outboxes[connection.0 as usize - 1]
    }

    /// Handles these as one batch. Returns its replies, in order; pushes are dropped.
    fn batch(
        &mut self,
        connection: ConnectionId,
        requests: Vec<Request>,
    ) -> Vec<Result<Reply, Refusal>> {
        self.outbox(connection).taken();
        let now = self.engine.clock.now();
        for request in requests {
            self.last_id += 1;
            let frame = Frame::of(&ClientFrame { id: self.last_id, request });
            self.engine.apply(now, Arrival::Asked { connection, frame }).unwrap();
        }
        self.engine.commit_batch().unwrap();
        self.engine.read().unwrap();
        let reply = |frame| match frame {
            ServerFrame::Reply { result, .. } => Some(result),
            ServerFrame::Push(_) => None,
        };
        self.outbox(connection).taken().into_iter().filter_map(reply).collect()
    }

    fn shown(&mut self, connection: ConnectionId, message: MessageId) -> Shown {
        match self.batch(connection, vec![Request::Show(message)]).remove(0) {
            Ok(Reply::Shown(shown)) => *shown,
            other => panic!("not shown: {other:?}"),
        }
    }
}

const LUNA: ConnectionId = ConnectionId(1);
const NOVA: ConnectionId = ConnectionId(2);

fn letter(text: &str, idempotency_key: &str) -> Request {
    Request::Send(Send {
        to: vec!["nova".into()],
        text: text.into(),
        intent: None,
        reply_to: None,
        thread: None,
        ttl_ms: None,
        sources: Vec::new(),
        idempotency_key: Some(idempotency_key.into()),
    })
}

/// Lookups come from a snapshot that is older than the batch: see `Step::outdates`.
#[test]
fn a_request_sees_what_an_earlier_one_of_its_batch_changed() {
    let mut place = Place::new(store_on_a_disk_that_lasts());

    // A key that the store does not have yet.
    let sent =
        place.batch(LUNA, vec![letter("the build is red", "k"), letter("the build is red", "k")]);
    let [Ok(Reply::Sent(first)), Ok(Reply::Sent(second))] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!((first.deduplicated, second.deduplicated), (false, true));
    assert_eq!(first.message, second.message);
    let message = first.message;

    // A delivery whose row is still among the pending ones.
    let presented = Request::Presented {
        messages: vec![message],
        carrier: Carrier::Channel,
        evidence: Evidence::NextTurn,
    };
    let offered =
        Request::Offered { messages: vec![message], carrier: Carrier::Channel, last: false };
    let replies =
        place.batch(NOVA, vec![offered, presented, Request::Ack { messages: vec![message] }]);
    let acked = Reply::Acked { acked: vec![message], unknown: Vec::new() };
    assert_eq!(replies, [Ok(Reply::Done), Ok(Reply::Done), Ok(acked)]);
    let shown = place.shown(LUNA, message);
    assert_eq!(
        (shown.deliveries[0].stage, shown.deliveries[0].acked_at.is_some()),
        (Stage::Presented, true),
        "{shown:?}"
    );

    // A note that the store does not have yet, and one that was deleted.
    let draft = NoteDraft {
        key: "build".into(),
        value: "red".into(),
        tags: Vec::new(),
        ttl_ms: None,
        if_version: None,
    };
    let append =
        |text: &str| Request::Note(NoteRequest::Append { key: "build".into(), text: text.into() });
    let get = || Request::Note(NoteRequest::Get("build".into()));
    let replies =
        place.batch(NOVA, vec![Request::Note(NoteRequest::Set(draft)), append("green"), get()]);
    let Some(Ok(Reply::Note(note))) = replies.last() else { panic!("{replies:?}") };
    assert_eq!((note.value.as_deref(), note.version), (Some("red\ngreen"), 2));
    let delete = Request::Note(NoteRequest::Delete { key: "build".into(), if_version: None });
    let replies = place.batch(NOVA, vec![delete, append("blue"), get()]);
    let Some(Ok(Reply::Note(note))) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(note.value.as_deref(), Some("blue"));
}

/// Without this, each connection would be closed with no reason given.
#[test]
fn a_disk_that_is_full_to_the_last_page_is_named_to_everyone_who_is_connected() {
    let (store, fill) = store_on_a_disk_that_fills();
    let place = Place::new(store);
    fill();
    let request = Request::Describe { summary: Some("testing".into()), state: None, task: None };
    let frame = Frame::of(&ClientFrame { id: 3, request });
    let Place { engine, entrance, outboxes, .. } = place;
    entrance.push(Arrival::Asked { connection: LUNA, frame }).unwrap();
    let error = engine.run().unwrap_err();
    assert!(matches!(&error, EngineError::Commit(error) if error.is_no_space()), "{error}");
    for outbox in &outboxes {
        let frames = outbox.taken();
        let welcomed = frames
            .iter()
            .filter(|frame| matches!(frame, ServerFrame::Reply { id: 1 | 2, result: Ok(_) }))
            .count();
        assert_eq!(welcomed, 2, "{frames:?}");
        let last = Err(Rejection::NothingStored.refusal(Addressee::Model));
        assert_eq!(frames.last(), Some(&ServerFrame::Reply { id: 0, result: last }), "{frames:?}");
        assert!(
            !frames.iter().any(|frame| matches!(frame, ServerFrame::Reply { id: 3, .. })),
            "{frames:?}"
        );
        assert!(outbox.is_ending());
    }
}
