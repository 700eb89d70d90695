//! Who makes room for a new peer where all places are taken: nobody with whom anything is lost.

use peer_core::broker::{Broker, Config};
use peer_core::input::{ConnectionId, Facts, Input, Now};
use peer_core::record::{Image, PausesRecord, PeerRecord, TokenDigest};
use peer_core::step::{Effect, Step};
use peer_proto::ids::{PeerId, Timestamp, Token};
use peer_proto::limits::{KEPT_FROM_ROOM_MS, PEERS_MAX};
use peer_proto::policy::Policy;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Register, Registered, Reply, Request, Role};

const NOW: Now = Now { wall: Timestamp(10 * KEPT_FROM_ROOM_MS), mono_ms: 1_000, slept_ms: 0 };

/// A broker that knows as many peers as it may, the person among them: those whose number is in
/// `long_ago` were last seen more than a day ago, the first one first.
fn full(
    long_ago: std::ops::Range<u64>,
    change: impl Fn(&mut PeerRecord),
    pauses: PausesRecord,
) -> Broker {
    let peers = (2..=PEERS_MAX as u64).map(|number| {
        let seen = if long_ago.contains(&number) { number } else { NOW.wall.0 - number };
        let mut record = PeerRecord::new(PeerId(number), format!("peer{number}"), Timestamp(seen));
        record.last_seen = Timestamp(seen);
        change(&mut record);
        record
    });
    Broker::new(
        Config::default(),
        Image { peers: peers.collect(), pauses, ..Image::default() },
        NOW,
    )
}

fn newcomer(broker: &mut Broker) -> Result<Registered, Refusal> {
    let (connection, mut step) = (ConnectionId(1), Step::default());
    let connected = Input::Connected {
        connection,
        id: 1,
        role: Role::Adapter,
        ancestors: Vec::new(),
        seat: None,
    };
    broker.handle(NOW, connected, &mut step);
    let register = Register {
        name: Some("newcomer".into()),
        seat: None,
        client: "claude".into(),
        client_version: "1".into(),
        client_pid: 7,
        cwd: "/w".into(),
        git_root: None,
        repo: None,
        host: "here".into(),
        resume: None,
    };
    let facts = Facts { token: Some((Token([1; 32]), TokenDigest([1; 32]))), ..Facts::default() };
    broker.handle(
        NOW,
        Input::Asked { connection, id: 2, request: Request::Register(register), facts },
        &mut step,
    );
    let answer = step.effects.into_iter().find_map(|effect| match effect {
        Effect::Reply { id: 2, result, .. } => Some(result),
        _ => None,
    });
    answer.expect("an answer").map(|reply| match reply {
        Reply::Registered(registered) => registered,
        other => panic!("not registered: {other:?}"),
    })
}

#[test]
fn the_peer_that_was_away_longest_makes_room_and_none_of_today() {
    let mut broker = full(5..8, |_| {}, PausesRecord::default());
    assert!(newcomer(&mut broker).is_ok());
    let gone: Vec<u64> = (2..=PEERS_MAX as u64)
        .filter(|number| broker.peer_name(PeerId(*number)).is_none())
        .collect();
    assert_eq!(gone, [5]);

    let mut broker = full(0..0, |_| {}, PausesRecord::default());
    assert_eq!(newcomer(&mut broker).unwrap_err().code, ErrorCode::Overloaded);
}

#[test]
fn a_peer_for_which_the_person_set_something_stays_and_the_newcomer_is_refused() {
    let mut broker =
        full(5..8, |record| record.policy = Some(Policy::Hold), PausesRecord::default());
    let refusal = newcomer(&mut broker).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    assert!(refusal.hint.contains("your user"), "{refusal}");

    let paused = PausesRecord { peers: (5..7).map(PeerId).collect(), ..PausesRecord::default() };
    let mut broker = full(5..8, |_| {}, paused);
    assert!(newcomer(&mut broker).is_ok());
    assert!(broker.peer_name(PeerId(5)).is_some() && broker.peer_name(PeerId(7)).is_none());
}
