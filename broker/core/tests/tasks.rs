//! Tasks, against their table and at random: each act from each state by each hand, and long walks
//! of many hands, with sessions that come, go and turn out to be others, and brokers that die.
//!
//! The world's store is a model of the real one; it checks the core's invariants after each step.

mod world;

use peer_core::broker::Config;
use peer_core::step::Effect;
use peer_proto::ids::{PeerId, TaskId};
use peer_proto::request::{Reply, Request};
use peer_proto::task::{TaskAct, TaskDraft, TaskInfo, TaskRequest, TaskState, TasksQuery};
use proptest::prelude::*;
use world::World;

fn world() -> World {
    let mut config = Config::default();
    config.limits.sender_per_minute = 100_000;
    let mut world = World::new(config);
    world.quiet = true;
    world
}

/// What the core answered last; none: it refused.
fn answer(world: &mut World, name: &str, request: TaskRequest) -> Option<Vec<TaskInfo>> {
    world.effects.clear();
    world.ask(name, Request::Task(request));
    world.effects.iter().find_map(|effect| match effect {
        Effect::Reply { result: Ok(Reply::Tasks { tasks, .. }), .. } => Some(tasks.clone()),
        _ => None,
    })
}

fn draft(title: &str, needs: Vec<TaskId>, assignee: Option<&str>) -> TaskRequest {
    let assignee = assignee.map(str::to_owned);
    TaskRequest::Create(TaskDraft {
        title: title.into(),
        description: String::new(),
        assignee,
        needs,
        idempotency_key: None,
    })
}

fn acts() -> [(&'static str, TaskAct); 9] {
    [
        ("assign", TaskAct::Assign("other".into())),
        ("claim", TaskAct::Claim),
        ("unclaim", TaskAct::Unclaim),
        ("start", TaskAct::Start),
        ("block", TaskAct::Block("why".into())),
        ("complete", TaskAct::Complete("done".into())),
        ("fail", TaskAct::Fail("why".into())),
        ("cancel", TaskAct::Cancel("why".into())),
        ("reopen", TaskAct::Reopen),
    ]
}

/// Brings a task of the creator's into this state, in the holder's hands where somebody has it.
fn prepare(state: TaskState) -> World {
    let mut world = world();
    for name in ["creator", "holder", "other"] {
        world.run(&format!("{name} online name={name}"));
    }
    world.run("person operator");
    assert!(answer(&mut world, "creator", draft("it", Vec::new(), None)).is_some());
    let change = |act| TaskRequest::Change { task: TaskId(1), act };
    let steps: &[(&str, TaskAct)] = match state {
        TaskState::Open => &[],
        TaskState::Claimed => &[("holder", TaskAct::Claim)],
        TaskState::Started => &[("holder", TaskAct::Start)],
        TaskState::Blocked => {
            &[("holder", TaskAct::Claim), ("holder", TaskAct::Block("before".into()))]
        }
        TaskState::Completed => {
            &[("holder", TaskAct::Claim), ("holder", TaskAct::Complete("before".into()))]
        }
        TaskState::Failed => {
            &[("holder", TaskAct::Claim), ("holder", TaskAct::Fail("before".into()))]
        }
        TaskState::Cancelled => &[("creator", TaskAct::Cancel("before".into()))],
    };
    for (hand, act) in steps {
        assert!(answer(&mut world, hand, change(act.clone())).is_some(), "{state:?}");
    }
    world
}

/// The table of `docs/team.md`: what an act makes of a task, or nothing where it is refused.
fn expected(state: TaskState, hand: &str, act: &str) -> Option<TaskState> {
    use TaskState::{Blocked, Cancelled, Claimed, Completed, Failed, Open, Started};
    let held = matches!(state, Claimed | Started | Blocked);
    let may = matches!(hand, "creator" | "person");
    let holds = hand == "holder" && held;
    match (act, state) {
        ("assign", _) if !state.is_final() && (may || holds) => Some(Open),
        ("claim", Open) => Some(Claimed),
        ("claim", _) if holds => Some(state),
        ("unclaim", _) if held && (may || holds) => Some(Open),
        ("start", Open) => Some(Started),
        ("start", _) if holds => Some(Started),
        ("block", _) if holds => Some(Blocked),
        ("complete", _) if holds => Some(Completed),
        ("fail", _) if holds => Some(Failed),
        ("cancel", _) if !state.is_final() && may => Some(Cancelled),
        ("reopen", _) if state.is_final() && may => Some(Open),
        _ => None,
    }
}

#[test]
fn each_act_from_each_state_by_each_hand_goes_by_the_table() {
    for state in TaskState::ALL.iter().copied() {
        for hand in ["creator", "holder", "other", "person"] {
            for (name, act) in acts() {
                let mut world = prepare(state);
                let changed =
                    answer(&mut world, hand, TaskRequest::Change { task: TaskId(1), act });
                let now = changed.map(|tasks| tasks[0].state);
                assert_eq!(
                    now,
                    expected(state, hand, name),
                    "{hand} does {name} to what is {}",
                    state.as_str()
                );
            }
        }
    }
}

/// All tasks, as the person sees them.
fn all(world: &mut World) -> Vec<TaskInfo> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let query = TasksQuery { all: true, before, ..TasksQuery::default() };
        let page = answer(world, "person", TaskRequest::List(query)).expect("a list");
        before = page.last().map(|task| task.id);
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

#[derive(Clone, Debug)]
enum Move {
    Create { hand: usize, needs: Vec<u64>, assignee: Option<usize> },
    Change { hand: usize, task: u64, act: usize, to: usize },
    Leave(usize),
    Come(usize),
    Bind(usize),
    Kill,
    Pass(u64),
}

const HANDS: usize = 4;

fn any_move() -> impl Strategy<Value = Move> {
    let hand = 0..HANDS;
    prop_oneof![
        3 => (hand.clone(), prop::collection::vec(1..8u64, 0..3), prop::option::of(hand.clone()))
            .prop_map(|(hand, needs, assignee)| Move::Create { hand, needs, assignee }),
        12 => (0..=HANDS, 1..10u64, 0..9usize, hand.clone()).prop_map(|(hand, task, act, to)| Move::Change { hand, task, act, to }),
        1 => hand.clone().prop_map(Move::Leave),
        2 => hand.clone().prop_map(Move::Come),
        1 => hand.prop_map(Move::Bind),
        1 => Just(Move::Kill),
        1 => prop_oneof![Just(1_000), Just(40_000), Just(90_000_000)].prop_map(Move::Pass),
    ]
}

fn name(hand: usize) -> String {
    if hand == HANDS { "person".to_owned() } else { format!("h{hand}") }
}

proptest! {
    #[test]
    fn however_they_go_nobody_holds_what_they_cannot_hold(moves in prop::collection::vec(any_move(), 1..80)) {
        let mut world = world();
        world.run("person operator");
        for hand in 0..HANDS {
            world.run(&format!("h{hand} online seat=claude:s{hand} pid={}", 5_000 + hand));
        }
        for step in moves {
            match step {
                Move::Create { hand, needs, assignee } => {
                    let assignee = assignee.and_then(|hand| world.programs[&name(hand)].peer).map(|peer: PeerId| peer.to_string());
                    answer(&mut world, &name(hand), draft("t", needs.into_iter().map(TaskId).collect(), assignee.as_deref()));
                }
                Move::Change { hand, task, act, to } => {
                    let mut act = acts()[act].1.clone();
                    if let TaskAct::Assign(peer) = &mut act {
                        *peer = world.programs[&name(to)].peer.map_or_else(String::new, |peer| peer.to_string());
                    }
                    answer(&mut world, &name(hand), TaskRequest::Change { task: TaskId(task), act });
                }
                Move::Leave(hand) => world.disconnect(&name(hand)),
                Move::Come(hand) => {
                    // Without its seat: it is somebody new until it binds.
                    world.disconnect(&name(hand));
                    world.run(&format!("h{hand} online pid={}", 5_000 + hand));
                }
                Move::Bind(hand) => world.run(&format!("h{hand} binds claude:s{hand}")),
                Move::Kill => {
                    world.restart();
                    world.run("person operator");
                }
                Move::Pass(millis) => {
                    world.pass(millis);
                    while world.tick() {}
                }
            }
        }
        // What the core knows is what the disk would give it.
        let before = all(&mut world);
        world.restart();
        world.run("person operator");
        prop_assert_eq!(all(&mut world), before);
    }
}
