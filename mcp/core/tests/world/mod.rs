//! The hands of the scenarios: a client, a broker and a clock that do what a script says, and what
//! nobody wrote at once.
//!
//! What a line may say stands in [`World::run`]. What the core asks for is answered at the end of
//! the line: the ways are told, a push leaves, the broker confirms. A line that ends in `&` leaves
//! the ways for later, because more is at hand. Before the first event, `client` and `set` say what
//! the adapter is.

mod told;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use peer_mcp_core::ClientKind;
use peer_mcp_core::adapter::{Adapter, AdapterSettings};
use peer_mcp_core::call::CallId;
use peer_mcp_core::event::{Action, BindOutcome, Due, Event, HookOutcome, PushResult};
use peer_mcp_core::inbox::Seen;
use peer_mcp_core::render::BLOCK_CHARS_MAX;
use peer_mcp_core::ways::Ways;
use peer_proto::hook::{Activity, HookEvent, Mode};
use peer_proto::ids::{MessageId, PeerId, Timestamp, Token};
use peer_proto::message::{Carrier, Delivery, Intent, Kind, Message, Sender, Stage, Via};
use peer_proto::request::{Push, Registered, Seat, SeatKind};

use told::told;

/// How a carrier takes what it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    Takes,
    /// It takes nothing now, and says so before anything left.
    Busy,
    /// It cannot be used.
    Fails,
    /// It breaks after the first byte.
    Breaks,
    /// It is not ready to write yet.
    Waits,
    /// It has let the first byte go, and does not end.
    Stalls,
}

pub(crate) struct World {
    settings: AdapterSettings,
    client: ClientKind,
    adapter: Option<Adapter>,
    now: u64,
    ways: Ways,
    taking: BTreeMap<Carrier, Taking>,
    /// Whether Codex's host says that a turn runs.
    runs: bool,
    is_searching: bool,
    stalled: Option<Carrier>,
    bodies: BTreeMap<MessageId, String>,
    /// Bytes that have left for the client, and that were queued.
    written: u64,
    queued: u64,
    record_speaks: bool,
    broker_confirms: bool,
    broker_answers: bool,
    tickets: Vec<u64>,
    binding: Option<Seat>,
    /// Who the broker says we are.
    identity: (u64, String, bool),
    bind: Option<BindOutcome>,
    printed: (Vec<MessageId>, bool),
    title: String,
    said: String,
}

impl Default for World {
    fn default() -> Self {
        Self {
            settings: AdapterSettings {
                home: "/home/u".into(),
                wakeups_per_hour: 30,
                ..AdapterSettings::default()
            },
            client: ClientKind::Claude,
            adapter: None,
            now: 0,
            ways: Ways { asks_first: true, ..Ways::default() },
            taking: BTreeMap::new(),
            runs: false,
            is_searching: false,
            stalled: None,
            bodies: BTreeMap::new(),
            written: 0,
            queued: 0,
            record_speaks: false,
            broker_confirms: true,
            broker_answers: true,
            tickets: Vec::new(),
            binding: None,
            identity: (3, "luna".into(), true),
            bind: None,
            printed: (Vec::new(), false),
            title: String::new(),
            said: String::new(),
        }
    }
}

impl World {
    pub(crate) fn take_said(&mut self) -> String {
        std::mem::take(&mut self.said)
    }

    /// Runs one line of a script.
    pub(crate) fn run(&mut self, line: &str) {
        let (line, is_more_at_hand) =
            line.strip_suffix(" &").map_or((line, false), |line| (line, true));
        let (line, text) =
            line.split_once(": ").map_or((line, None), |(line, text)| (line, Some(text)));
        let words: Vec<&str> = line.split_whitespace().collect();
        let options: BTreeMap<&str, &str> =
            words.iter().filter_map(|word| word.split_once('=')).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.contains('=')).collect();
        match words.as_slice() {
            ["set" | "client" | "ways" | "carrier" | "host-runs" | "broker-will", ..] => {
                self.set(&words, &options)
            }
            ["pass", duration] => self.pass(duration_ms(duration)),
            ["timeout"] => {
                let now = self.now;
                let timeout = self.adapter().next_timeout(now).map(|at| at.saturating_sub(now));
                let timeout = timeout.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms"));
                writeln!(self.said, "    > timeout: {timeout}").unwrap();
            }
            ["waiting", "goes"] => {
                let carrier = self.stalled.take().expect("a push is under way");
                self.taking.remove(&carrier);
                self.hand_over(carrier);
            }
            ["stalled", "ends", how] => {
                let carrier = self.stalled.take().expect("a push is under way");
                let result = if *how == "well" { PushResult::Left } else { PushResult::Failed };
                self.tell(Event::PushedOut { carrier, result });
            }
            // So many messages come one by one, and the record shows each: a carrier that works.
            ["rounds", rounds, carrier] => {
                for number in 0..rounds.parse().expect("a number") {
                    let message = format!("m{}", 1_000 + number);
                    self.run(&format!("broker pushes {message} from=p{number}: x"));
                    self.run(&format!("record shows {message} by={carrier}"));
                }
                let said = self.take_said();
                let counts = ["push", "presented"].map(|word| said.matches(word).count());
                writeln!(self.said, "    > pushed {}, presented {}", counts[0], counts[1]).unwrap();
            }
            ["broker", "confirms"] => self.confirm(true),
            ["broker", "is", "full"] => self.confirm(false),
            _ => {
                let event = self.event(&words, &options, text);
                self.tell(event);
            }
        }
        self.answer(is_more_at_hand);
    }

    /// What the outside is like from now on.
    fn set(&mut self, words: &[&str], options: &BTreeMap<&str, &str>) {
        match words {
            ["client", kind] => {
                self.client = match *kind {
                    "claude" => ClientKind::Claude,
                    "codex" => ClientKind::Codex,
                    "other" => ClientKind::Other,
                    other => panic!("no client {other}"),
                }
            }
            ["set", "unattended"] => self.settings.wake_unattended = true,
            ["set", "off", carrier] => self.settings.carriers_off.push(carrier_of(carrier)),
            ["set"] => {
                for (key, value) in options {
                    match *key {
                        "wakeups" => {
                            self.settings.wakeups_per_hour = value.parse().expect("a number")
                        }
                        "claude-session" => {
                            self.settings.claude_session = Some((*value).to_owned())
                        }
                        other => panic!("no setting {other}"),
                    }
                }
            }
            ["ways", ways @ ..] => {
                let has = |way: &str| ways.contains(&way);
                self.ways = Ways {
                    channel: has("channel"),
                    channel_loaded: has("loaded"),
                    inbox_socket: has("inbox_socket"),
                    asks_first: !has("may-bypass"),
                    app_server: has("app_server"),
                    attended: has("attended"),
                };
                if self.adapter.is_some() {
                    self.tell(Event::WaysChanged);
                }
            }
            ["carrier", carrier, how] => {
                let taking = match *how {
                    "takes" => Taking::Takes,
                    "busy" => Taking::Busy,
                    "fails" => Taking::Fails,
                    "breaks" => Taking::Breaks,
                    "waits" => Taking::Waits,
                    "stalls" => Taking::Stalls,
                    other => panic!("no way to take: {other}"),
                };
                self.taking.insert(carrier_of(carrier), taking);
            }
            ["host-runs", runs] => self.runs = *runs == "yes",
            ["broker-will", "hesitate"] => self.broker_confirms = false,
            ["broker-will", "answer"] => self.broker_answers = true,
            ["broker-will", "be", "silent"] => self.broker_answers = false,
            ["broker-will", "refuse", "seats"] => {
                self.bind = Some(BindOutcome::Refused("bad_seat: too long".into()))
            }
            ["broker-will", "lose", "seats"] => self.bind = Some(BindOutcome::Failed),
            ["broker-will", "call", "us", name] => {
                self.bind = None;
                let peer = if *name == "luna" { 3 } else { name.bytes().map(u64::from).sum() };
                self.identity = (peer, (*name).to_owned(), !options.contains_key("second"));
            }
            other => panic!("{other:?} says nothing"),
        }
    }

    /// The event that a line tells of.
    fn event(
        &mut self,
        words: &[&str],
        options: &BTreeMap<&str, &str>,
        text: Option<&str>,
    ) -> Event {
        let option = |key: &str| options.get(key).map(|value| (*value).to_owned());
        let number = |key: &str, or: usize| {
            options.get(key).map_or(or, |value| value.parse().expect("a number"))
        };
        let has = |word: &str| words.contains(&word);
        match words {
            ["registered"] => Event::Registered(self.registered()),
            ["lost"] => Event::Lost,
            ["forgotten"] => Event::Forgotten,
            ["settled-on", rest @ ..] => Event::SettledOn {
                seat: rest.first().map(|seat| seat_of(seat)),
                conversation: option("conversation"),
            },
            ["broker", "pushes", message, ..] => {
                let message = self.message(message, options, has("inform"), text);
                Event::Pushed(Push::Deliver(Box::new(Delivery {
                    message,
                    attempts: 0,
                    shown_before: has("repeat"),
                })))
            }
            ["broker", "overdue", message, carrier] => Event::Pushed(Push::Overdue {
                message: id_of(message),
                carrier: carrier_of(carrier),
            }),
            ["broker", "withdraws", message, stage] => {
                let stage = match *stage {
                    "presented" => Stage::Presented,
                    "held" => Stage::Held,
                    "cancelled" => Stage::Cancelled,
                    "stored" => Stage::Stored,
                    other => panic!("no stage {other}"),
                };
                Event::Pushed(Push::Withdrawn { message: id_of(message), stage })
            }
            ["broker", "renames", name] => {
                Event::Pushed(Push::Renamed { name: (*name).to_owned() })
            }
            ["broker", "says"] => Event::Pushed(Push::Notice(text.unwrap_or("").to_owned())),
            ["broker", "consents", how] => {
                Event::Pushed(Push::Consent { inbox_socket_in_bypass: *how == "yes" })
            }
            ["call", call, ..] => Event::ToolCalled {
                call: call_of(call),
                written_before: self.written,
                conversation: option("in"),
                is_subagent: has("subagent"),
                tool_use: option("tool"),
            },
            ["speaks", conversation] => Event::Speaks { conversation: (*conversation).to_owned() },
            ["result", call, ..] => {
                let among = options.get("among").map(|ids| ids.split(',').map(id_of).collect());
                let due = Due {
                    among,
                    also: options.get("also").map(|id| id_of(id)),
                    limit: number("limit", usize::MAX),
                    peek: has("peek"),
                    budget: number("budget", BLOCK_CHARS_MAX),
                    waiting: number("waiting", 0) as u64,
                };
                Event::ResultDue { call: call_of(call), due }
            }
            ["reads", call, message, ..] => Event::ReadOn {
                call: call_of(call),
                message: id_of(message),
                offset: number("offset", 0),
                peek: has("peek"),
            },
            ["sent", call] => {
                self.queued += 100;
                self.written = self.queued;
                Event::ResultQueued { call: call_of(call), end: self.queued }
            }
            ["queued", call] => {
                self.queued += 100;
                Event::ResultQueued { call: call_of(call), end: self.queued }
            }
            ["cancelled", call] => Event::CallDropped(call_of(call)),
            ["program-calls"] => Event::RecordAlone,
            ["caller", tool, who] => Event::CallerTold {
                tool_use: Some((*tool).to_owned()),
                is_subagent: *who == "subagent",
            },
            ["hook", event, ..] => {
                let mode = options.get("mode").map(|mode| match *mode {
                    "bypass" => Mode::Bypass,
                    "prompting" => Mode::Prompting,
                    other => panic!("no mode {other}"),
                });
                Event::HookCame {
                    event: hook_of(event),
                    turn: option("turn"),
                    mode,
                    prolonged: has("prolonged"),
                }
            }
            ["printed", how] => {
                let outcome = match *how {
                    "handed" => HookOutcome::Handed,
                    "relayed" => HookOutcome::Relayed,
                    "unknown" => HookOutcome::Unknown,
                    "gone" => HookOutcome::Gone,
                    other => panic!("no outcome {other}"),
                };
                let (messages, asks) = std::mem::take(&mut self.printed);
                Event::HookAnswered { messages, asks, outcome }
            }
            ["record", "at", path] => Event::RecordAt((*path).into()),
            ["record", "speaks"] => {
                self.record_speaks = true;
                Event::Recorded { seen: Vec::new(), withdrawn: Vec::new(), speaks: true }
            }
            ["record", "shows", message, ..] => {
                self.record_speaks = true;
                let id = id_of(message);
                let (from, to) = (number("from", 0), number("to", usize::MAX));
                let piece =
                    self.bodies[&id].chars().skip(from).take(to.saturating_sub(from)).collect();
                let by = options.get("by").map(|carrier| carrier_of(carrier));
                let in_result = by == Some(Carrier::ToolResult);
                Event::Recorded {
                    seen: vec![Seen { message: id, by, in_result, piece }],
                    withdrawn: Vec::new(),
                    speaks: true,
                }
            }
            ["record", "withdraws", message, ..] => {
                let by = options.get("by").map(|carrier| carrier_of(carrier));
                Event::Recorded {
                    seen: Vec::new(),
                    withdrawn: vec![(id_of(message), by)],
                    speaks: self.record_speaks,
                }
            }
            ["registry", still @ .., activity] => Event::RegistrySays {
                activity: activity_of(activity).expect("working or idle"),
                changed: *still != ["still"],
            },
            ["host", activity] => Event::HostSays(activity_of(activity)),
            ["goes-by", seat] => Event::GoesBy(seat_of(seat)),
            ["dropped", message, carrier] => {
                Event::Dropped { carrier: carrier_of(carrier), messages: vec![id_of(message)] }
            }
            ["settled", messages @ ..] => {
                Event::Settled(messages.iter().map(|message| id_of(message)).collect())
            }
            ["wait", "begins"] => Event::WaitBegins,
            ["wait", "ends"] => Event::WaitEnds,
            ["look"] => Event::WaysChanged,
            ["closing"] => Event::Closing,
            other => panic!("{other:?} says nothing"),
        }
    }

    fn registered(&self) -> Registered {
        let (peer, name, takes_mail) = self.identity.clone();
        Registered {
            peer: PeerId(peer),
            name,
            token: Token([0; 32]),
            takes_mail,
            notice: None,
            waiting: 0,
            inbox_socket_in_bypass: false,
        }
    }

    fn message(
        &mut self,
        name: &str,
        options: &BTreeMap<&str, &str>,
        inform: bool,
        text: Option<&str>,
    ) -> Message {
        let long = options.get("long").map(|chars| "x".repeat(chars.parse().expect("a number")));
        let text = long.unwrap_or_else(|| text.unwrap_or(name).to_owned());
        let from = options.get("from").copied().unwrap_or("sol");
        let id = id_of(name);
        self.bodies.insert(id, text.clone());
        Message {
            id,
            from: Sender {
                peer: PeerId(from.bytes().map(u64::from).sum()),
                name: from.to_owned(),
                client: "claude".to_owned(),
                cwd: String::new(),
                via: Via::Session,
            },
            to: vec!["luna".to_owned()],
            intent: if inform { Intent::Inform } else { Intent::Request },
            kind: Kind::Message,
            thread: "t".to_owned(),
            channel: options.get("channel").map(|channel| (*channel).to_owned()),
            reply_to: options.get("re").map(|message| id_of(message)),
            sent_at: Timestamp(0),
            expires_at: None,
            sources: Vec::new(),
            text,
        }
    }

    fn adapter(&mut self) -> &mut Adapter {
        let (settings, client) = (self.settings.clone(), self.client);
        self.adapter.get_or_insert_with(|| {
            let mut adapter = Adapter::new(settings);
            adapter.handle(0, Event::Introduced(client));
            adapter
        })
    }

    fn tell(&mut self, event: Event) {
        let now = self.now;
        for action in self.adapter().handle(now, event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match &action {
            Action::Title(name) if *name == self.title => return,
            Action::Title(name) => self.title = name.clone(),
            _ => {}
        }
        if let Some(told) = told(&action) {
            writeln!(self.said, "    > {told}").unwrap();
        }
        match action {
            Action::Look => self.is_searching = true,
            Action::Ask { ticket, .. } => self.tickets.push(ticket),
            Action::Bind(seat) => self.binding = Some(seat),
            Action::Push { carrier, .. } => self.hand_over(carrier),
            Action::Receive { event } => {
                let received = self.broker_answers;
                self.tell(Event::HookReady { event, received });
            }
            Action::Print { block, asks } => self.printed = (block.offered, asks),
            _ => {}
        }
    }

    /// Hands over as the carrier takes it, and tells the core.
    fn hand_over(&mut self, carrier: Carrier) {
        let taking = self.taking.get(&carrier).copied().unwrap_or(Taking::Takes);
        let result = match taking {
            Taking::Waits => {
                self.stalled = Some(carrier);
                return;
            }
            Taking::Busy => PushResult::NotNow,
            Taking::Fails => PushResult::Failed,
            Taking::Takes | Taking::Breaks | Taking::Stalls => {
                let runs = (carrier == Carrier::AppServer).then_some(self.runs);
                let now = self.now;
                let actions = self.adapter().handle(now, Event::Leaving { carrier, runs });
                let may_go = actions.iter().any(|action| matches!(action, Action::Go));
                actions.into_iter().for_each(|action| self.act(action));
                match taking {
                    _ if !may_go => PushResult::NotNow,
                    Taking::Breaks => PushResult::Failed,
                    Taking::Stalls => {
                        self.stalled = Some(carrier);
                        return;
                    }
                    _ => PushResult::Left,
                }
            }
        };
        self.tell(Event::PushedOut { carrier, result });
    }

    /// What the outside does by itself at the end of a line.
    fn answer(&mut self, is_more_at_hand: bool) {
        loop {
            if self.broker_confirms && !self.tickets.is_empty() {
                self.confirm(true);
            } else if let Some(seat) = self.binding.take() {
                let outcome =
                    self.bind.clone().unwrap_or_else(|| BindOutcome::Done(self.registered()));
                self.tell(Event::Bound { seat, outcome });
            } else if self.is_searching && !is_more_at_hand {
                self.is_searching = false;
                self.tell(Event::Ways(self.ways));
            } else {
                return;
            }
        }
    }

    fn confirm(&mut self, done: bool) {
        for ticket in std::mem::take(&mut self.tickets) {
            self.tell(Event::Answered { ticket, done });
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        loop {
            let now = self.now;
            let Some(at) = self.adapter().next_timeout(now).filter(|at| *at <= end && *at > now)
            else {
                break;
            };
            self.now = at;
            self.tell(Event::Tick);
            self.answer(false);
        }
        self.now = end;
    }
}

fn duration_ms(text: &str) -> u64 {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u64 = digits.parse().expect("a duration");
    match &text[digits.len()..] {
        "ms" => number,
        "s" => number * 1_000,
        "min" => number * 60_000,
        "h" => number * 3_600_000,
        unit => panic!("no unit {unit}"),
    }
}

fn id_of(name: &str) -> MessageId {
    let number: u32 = name
        .strip_prefix('m')
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{name}: no message"));
    MessageId::try_from(u128::from(number)).expect("a small number")
}

fn call_of(name: &str) -> CallId {
    CallId(
        name.strip_prefix('c')
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{name}: no call")),
    )
}

fn carrier_of(name: &str) -> Carrier {
    let all = [
        Carrier::Channel,
        Carrier::InboxSocket,
        Carrier::AppServer,
        Carrier::Hook,
        Carrier::ToolResult,
        Carrier::Peerctl,
    ];
    all.into_iter()
        .find(|carrier| carrier.as_str() == name)
        .unwrap_or_else(|| panic!("no carrier {name}"))
}

fn hook_of(name: &str) -> HookEvent {
    let all = [
        HookEvent::SessionStart,
        HookEvent::UserPromptSubmit,
        HookEvent::PreToolUse,
        HookEvent::PostToolUse,
        HookEvent::PostToolBatch,
        HookEvent::Stop,
        HookEvent::SessionEnd,
    ];
    all.into_iter().find(|event| event.as_str() == name).unwrap_or_else(|| panic!("no hook {name}"))
}

fn activity_of(name: &str) -> Option<Activity> {
    match name {
        "working" => Some(Activity::Working),
        "idle" => Some(Activity::Idle),
        "silent" => None,
        other => panic!("no activity {other}"),
    }
}

fn seat_of(text: &str) -> Seat {
    let (kind, key) = text.split_once(':').expect("a seat has a kind and a key");
    let kind = match kind {
        "claude" => SeatKind::Claude,
        "codex" => SeatKind::Codex,
        "other" => SeatKind::Other,
        other => panic!("no kind of seat {other}"),
    };
    Seat { kind, key: key.to_owned() }
}
