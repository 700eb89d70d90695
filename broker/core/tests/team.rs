//! Channels, groups and questions together: random runs of the real core against a naive model of
//! who is a member of what, who may know of it, and who may still answer.
//!
//! A run that fails is made small and printed as a list of operations; `PROPTEST_CASES` asks for
//! more runs than a plain `cargo test` affords.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use peer_core::broker::Config;
use peer_core::step::Effect;
use peer_proto::channel::ChannelRequest;
use peer_proto::ids::MessageId;
use peer_proto::question::{Answer, Ask};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{Reply, Request, Send};
use proptest::prelude::*;

use world::World;

const NAMES: [&str; 4] = ["luna", "orion", "vega", "nova"];
const CHANNELS: [&str; 3] = ["#a", "#b", "@g"];

#[derive(Clone, Debug)]
enum Op {
    Create { who: usize, channel: usize, private: bool },
    Join { who: usize, channel: usize },
    Leave { who: usize, channel: usize },
    Invite { who: usize, channel: usize, whom: usize },
    Post { who: usize, channel: usize },
    Ask { who: usize, to: Result<usize, usize> },
    Answer { who: usize, question: usize },
    Cancel { who: usize, question: usize },
    Leaves { who: usize },
    Comes { who: usize },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..NAMES.len();
    let channel = || 0..CHANNELS.len();
    prop_oneof![
        3 => (who(), channel(), any::<bool>()).prop_map(|(who, channel, private)| Op::Create { who, channel, private }),
        4 => (who(), channel()).prop_map(|(who, channel)| Op::Join { who, channel }),
        2 => (who(), channel()).prop_map(|(who, channel)| Op::Leave { who, channel }),
        3 => (who(), channel(), who()).prop_map(|(who, channel, whom)| Op::Invite { who, channel, whom }),
        6 => (who(), channel()).prop_map(|(who, channel)| Op::Post { who, channel }),
        3 => (who(), channel()).prop_map(|(who, to)| Op::Ask { who, to: Ok(to) }),
        3 => (who(), who()).prop_map(|(who, to)| Op::Ask { who, to: Err(to) }),
        6 => (who(), 0..8usize).prop_map(|(who, question)| Op::Answer { who, question }),
        1 => (who(), 0..8usize).prop_map(|(who, question)| Op::Cancel { who, question }),
        1 => who().prop_map(|who| Op::Leaves { who }),
        2 => who().prop_map(|who| Op::Comes { who }),
        1 => Just(Op::Restart),
    ]
}

/// A channel, as the model has it.
#[derive(Clone, Debug)]
struct Place {
    private: bool,
    members: BTreeSet<usize>,
    /// Counts how many of them were made: another one of the same name is another one.
    made: u32,
}

#[derive(Clone, Debug)]
struct Question {
    id: MessageId,
    asker: usize,
    asked: BTreeSet<usize>,
    place: Option<(usize, u32)>,
    open: bool,
}

struct Run {
    world: World,
    online: BTreeSet<usize>,
    places: BTreeMap<usize, Place>,
    made: u32,
    questions: Vec<Question>,
    said: u32,
}

impl Run {
    fn new() -> Self {
        let mut config = Config::default();
        for (key, value) in [
            ("sender_per_minute", 1_000_000),
            ("pair_per_minute", 1_000_000),
            ("thread_turns_max", 1_000_000),
        ] {
            assert!(config.limits.set(key, value), "{key}");
        }
        let mut world = World::new(config);
        world.quiet = true;
        NAMES.iter().for_each(|name| world.run(&format!("{name} online name={name}")));
        let online = (0..NAMES.len()).collect();
        Self { world, online, places: BTreeMap::new(), made: 0, questions: Vec::new(), said: 0 }
    }

    fn ask(&mut self, who: usize, request: Request) -> Result<Reply, Refusal> {
        self.world.effects.clear();
        self.world.ask(NAMES[who], request);
        let asked = self.world.requests;
        let answer = self.world.effects.iter().find_map(|effect| match effect {
            Effect::Reply { id, result, .. } if *id == asked => Some(result.clone()),
            _ => None,
        });
        answer.expect("each request here is answered at once")
    }

    fn knows(&self, who: usize, channel: usize) -> bool {
        self.places
            .get(&channel)
            .is_some_and(|place| !place.private || place.members.contains(&who))
    }

    fn is_member(&self, who: usize, channel: usize) -> bool {
        self.places.get(&channel).is_some_and(|place| place.members.contains(&who))
    }

    fn make(&mut self, who: usize, channel: usize, private: bool) {
        self.made += 1;
        self.places
            .insert(channel, Place { private, members: BTreeSet::from([who]), made: self.made });
    }

    /// What a message to this channel must come to: its readers, or the code of the refusal.
    fn readers(&self, who: usize, channel: usize) -> Result<BTreeSet<usize>, ErrorCode> {
        let is_group = CHANNELS[channel].starts_with('@');
        if !self.knows(who, channel) {
            return Err(ErrorCode::UnknownChannel);
        }
        if !is_group && !self.is_member(who, channel) {
            return Err(ErrorCode::NotPermitted);
        }
        let mut readers = self.places[&channel].members.clone();
        readers.remove(&who);
        if is_group && readers.is_empty() { Err(ErrorCode::UnknownChannel) } else { Ok(readers) }
    }

    fn text(&mut self) -> String {
        self.said += 1;
        format!("text {}", self.said)
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Leaves { who } => {
                if self.online.remove(&who) {
                    self.world.disconnect(NAMES[who]);
                }
            }
            Op::Comes { who } => {
                if self.online.insert(who) {
                    self.world.run(&format!("{0} online name={0}", NAMES[who]));
                }
            }
            Op::Restart => {
                self.world.restart();
                self.online
                    .clone()
                    .into_iter()
                    .for_each(|who| self.world.run(&format!("{} resumes", NAMES[who])));
            }
            Op::Create { who, .. }
            | Op::Join { who, .. }
            | Op::Leave { who, .. }
            | Op::Invite { who, .. }
            | Op::Post { who, .. }
            | Op::Ask { who, .. }
            | Op::Answer { who, .. }
            | Op::Cancel { who, .. } => {
                if self.online.contains(&who) {
                    self.act(op);
                    self.look(who);
                }
            }
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Create { who, channel, private } => {
                let private = private && channel != 2;
                let request = ChannelRequest::Create {
                    name: CHANNELS[channel].to_owned(),
                    topic: String::new(),
                    private,
                };
                let expected = if self.places.contains_key(&channel) {
                    Err(ErrorCode::NameTaken)
                } else {
                    Ok(())
                };
                self.change(who, request, expected);
                if expected.is_ok() {
                    self.make(who, channel, private);
                }
            }
            Op::Join { who, channel } => {
                let new_group = channel == 2 && !self.places.contains_key(&channel);
                let expected = if new_group || self.knows(who, channel) {
                    Ok(())
                } else {
                    Err(ErrorCode::UnknownChannel)
                };
                self.change(who, ChannelRequest::Join(CHANNELS[channel].to_owned()), expected);
                match (expected, self.places.get_mut(&channel)) {
                    (Ok(()), Some(place)) => drop(place.members.insert(who)),
                    (Ok(()), None) => self.make(who, channel, false),
                    (Err(_), _) => {}
                }
            }
            Op::Leave { who, channel } => {
                let expected =
                    if self.knows(who, channel) { Ok(()) } else { Err(ErrorCode::UnknownChannel) };
                self.change(who, ChannelRequest::Leave(CHANNELS[channel].to_owned()), expected);
                if expected.is_ok()
                    && let Some(place) = self.places.get_mut(&channel)
                {
                    place.members.remove(&who);
                }
                self.places.retain(|_, place| !place.members.is_empty());
            }
            Op::Invite { who, channel, whom } => {
                let expected = match (self.knows(who, channel), self.is_member(who, channel)) {
                    (false, _) => Err(ErrorCode::UnknownChannel),
                    (true, false) => Err(ErrorCode::NotPermitted),
                    (true, true) => Ok(()),
                };
                let request = ChannelRequest::Invite {
                    name: CHANNELS[channel].to_owned(),
                    peer: NAMES[whom].to_owned(),
                };
                self.change(who, request, expected);
                if expected.is_ok()
                    && let Some(place) = self.places.get_mut(&channel)
                {
                    place.members.insert(whom);
                }
            }
            Op::Post { who, channel } => {
                let send = Send {
                    to: vec![CHANNELS[channel].to_owned()],
                    text: self.text(),
                    intent: None,
                    reply_to: None,
                    thread: None,
                    ttl_ms: None,
                    sources: Vec::new(),
                    idempotency_key: None,
                };
                let expected = self.readers(who, channel);
                let _ = self.sends(who, Request::Send(send), &expected);
            }
            Op::Ask { who, to } => {
                let name = to.map_or_else(|peer| NAMES[peer], |channel| CHANNELS[channel]);
                let ask = Ask {
                    to: vec![name.to_owned()],
                    question: self.text(),
                    context_hint: None,
                    ttl_ms: None,
                    idempotency_key: None,
                };
                let expected = match to {
                    Ok(channel) => self.readers(who, channel),
                    // Nobody could answer it.
                    Err(peer) if peer == who => Err(ErrorCode::UnknownPeer),
                    Err(peer) => Ok(BTreeSet::from([peer])),
                };
                if let Some(id) = self.sends(who, Request::Ask(ask), &expected) {
                    let place = to.ok().map(|channel| (channel, self.places[&channel].made));
                    let asked = expected.expect("it was accepted");
                    self.questions.push(Question { id, asker: who, asked, place, open: true });
                }
            }
            Op::Answer { who, question } => {
                let Some(asked) = self.questions.get(question).cloned() else { return };
                let member = asked.place.is_some_and(|(channel, _)| self.is_member(who, channel));
                let same = asked.place.is_some_and(|(channel, made)| {
                    self.places.get(&channel).is_some_and(|now| now.made == made)
                });
                let reads = who == asked.asker || asked.asked.contains(&who) || (member && same);
                let was_asked = asked.asked.contains(&who) || member;
                let expected = if !reads {
                    Err(ErrorCode::UnknownMessage)
                } else if who == asked.asker {
                    Err(ErrorCode::NotPermitted)
                } else if !was_asked {
                    Err(ErrorCode::UnknownMessage)
                } else if !asked.open {
                    Err(ErrorCode::QuestionClosed)
                } else {
                    Ok(BTreeSet::from([asked.asker]))
                };
                let text = self.text();
                let answer = Answer {
                    question: asked.id,
                    answer: text,
                    sources: Vec::new(),
                    idempotency_key: None,
                };
                if self.sends(who, Request::Answer(answer), &expected).is_some() {
                    self.questions[question].open = false;
                }
            }
            Op::Cancel { who, question } => {
                let Some(asked) = self.questions.get(question).cloned() else { return };
                let done = self.ask(who, Request::Cancel(asked.id));
                if who == asked.asker && asked.open {
                    assert!(done.is_ok(), "an open question can be withdrawn: {done:?}");
                    self.questions[question].open = false;
                } else if who != asked.asker {
                    assert!(done.is_err(), "another's question was withdrawn");
                }
            }
            Op::Leaves { .. } | Op::Comes { .. } | Op::Restart => {}
        }
    }

    fn change(&mut self, who: usize, request: ChannelRequest, expected: Result<(), ErrorCode>) {
        let got =
            self.ask(who, Request::Channel(request)).map(drop).map_err(|refusal| refusal.code);
        assert_eq!(got, expected);
    }

    /// Sends, and says under which id, where it was accepted.
    fn sends(
        &mut self,
        who: usize,
        request: Request,
        expected: &Result<BTreeSet<usize>, ErrorCode>,
    ) -> Option<MessageId> {
        match self.ask(who, request) {
            Ok(Reply::Sent(sent)) => {
                let names = sent.deliveries.iter().map(|delivery| delivery.name.as_str());
                let readers: BTreeSet<usize> = names
                    .map(|name| NAMES.iter().position(|known| *known == name).unwrap())
                    .collect();
                assert_eq!(Ok(&readers), expected.as_ref());
                assert_eq!(readers.len(), sent.deliveries.len(), "nobody gets it twice");
                Some(sent.message)
            }
            Ok(other) => panic!("a send was answered with {other:?}"),
            Err(refusal) => {
                assert_eq!(Err(&refusal.code), expected.as_ref(), "{refusal}");
                None
            }
        }
    }

    /// What this session can see is what the model says, and no more.
    fn look(&mut self, who: usize) {
        let Ok(Reply::Channels(channels)) = self.ask(who, Request::Channel(ChannelRequest::List))
        else {
            panic!("no list")
        };
        let seen: BTreeMap<String, BTreeSet<String>> = channels
            .into_iter()
            .map(|channel| (channel.name, channel.members.into_iter().collect()))
            .collect();
        let visible = self.places.iter().filter(|(channel, _)| self.knows(who, **channel));
        let names = |members: &BTreeSet<usize>| {
            members.iter().map(|member| NAMES[*member].to_owned()).collect()
        };
        let expected: BTreeMap<String, BTreeSet<String>> = visible
            .map(|(channel, place)| (CHANNELS[*channel].to_owned(), names(&place.members)))
            .collect();
        assert_eq!(seen, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn channels_and_questions_are_what_a_naive_model_says(ops in prop::collection::vec(op(), 1..80)) {
        let mut run = Run::new();
        for op in &ops {
            run.play(op);
        }
    }
}
