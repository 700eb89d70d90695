//! A team on a real nats-server: what people do with it, what breaks, and who attacks it.

use std::time::{Duration, Instant};

use peer_tests::{Home, Outcome, home};
use serde_json::json;

use crate::machines::{Machines, stage, wait};
use crate::nats_server::{Server, Version, old_server, serve};

/// A member's broker identity.
fn identity(home: &Home) -> String {
    let shown = home.peerctl(&["link", "identity", "--json"]).success().json();
    shown["broker"].as_str().expect("an identity").to_owned()
}

fn begin(url: &str, options: &[&str]) -> Home {
    let home = home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let mut arguments = vec!["link", "team", "new", "blue", "--nats", url];
    arguments.extend(options);
    let _ = home.peerctl(&arguments).success();
    home
}

fn token(home: &Home) -> String {
    let invited = home.peerctl(&["link", "team", "invite", "blue", "--json"]).success().json();
    invited["token"].as_str().expect("a token").to_owned()
}

fn join(token: &str, options: &[&str]) -> Home {
    let home = home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let mut arguments = vec!["link", "team", "join", token];
    arguments.extend(options);
    let _ = home.peerctl(&arguments).success();
    home
}

/// Two members that accept each other's mail.
pub(crate) fn pair(server: &Server) -> (Home, Home) {
    let one = begin(&server.url(), &["--accept"]);
    let two = join(&token(&one), &["--accept"]);
    (one, two)
}

fn is_up(home: &Home) -> bool {
    let links = home.peerctl(&["link", "ls", "--json"]);
    links.code == 0 && links.json()[0]["state"] == "up"
}

pub(crate) fn wait_up(one: &Home, two: &Home) {
    wait("the link is up at both ends", || is_up(one) && is_up(two));
    wait("both know each other", || {
        [one, two].iter().all(|home| home.peerctl(&["peers", "--remote"]).stdout.contains("human@"))
    });
}

/// What the only other machine is called here.
pub(crate) fn alias(home: &Home) -> String {
    let links = home.peerctl(&["link", "ls", "--json"]).success().json();
    links[0]["name"].as_str().expect("a link").to_owned()
}

/// Sends to the other machine's person, and returns the message's id.
fn send(home: &Home, text: &str) -> String {
    let to = format!("human@{}", alias(home));
    let sent = home.peerctl(&["send", &to, "--json", "--", text]).success().json();
    sent["id"].as_str().expect("an id").to_owned()
}

/// How often a text came here.
fn came(home: &Home, text: &str) -> usize {
    let all = home.peerctl(&["history", "-n", "200", "--json"]).success().json();
    let rows = all.as_array().expect("a list");
    rows.iter()
        .filter(|row| {
            row["text"] == text && row["from"].as_str().is_some_and(|from| from.contains('@'))
        })
        .count()
}

fn wait_came(home: &Home, text: &str) {
    wait(text, || came(home, text) > 0);
    assert_eq!(came(home, text), 1, "{text}");
}

fn error_of_team(home: &Home) -> String {
    let teams = home.peerctl(&["link", "team", "ls", "--json"]).success().json();
    teams[0]["error"].as_str().unwrap_or_default().to_owned()
}

fn conversation(version: Version) {
    let server = Server::open(version);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    let (luna, bob) = (one.claude("luna"), two.claude("bob"));
    let (to_bob, to_luna) = (format!("bob@{}", alias(&one)), format!("luna@{}", alias(&two)));
    wait("luna knows bob", || luna.says("list_peers", json!({"scope": "all"})).contains(&to_bob));
    let asked = luna
        .call("send_message", json!({"to": to_bob, "message": "which bcrypt?"}))
        .success()
        .message_id();
    wait("the sender is told that it is there", || stage(&one, &asked) == "relayed");
    wait("bob has it", || bob.says("check_messages", json!({})).contains("| which bcrypt?"));
    let header = bob.says("check_messages", json!({"message_id": asked}));
    assert!(header.contains(&format!("from {to_luna} (claude, another machine)")), "{header}");
    let _ = bob
        .call("send_message", json!({"to": to_luna, "reply_to": asked, "message": "5.1"}))
        .success();
    wait("luna has the answer", || luna.says("check_messages", json!({})).contains("| 5.1"));
    wait("the sender is told", || stage(&one, &asked) == "presented");
    // A frame that needs several messages of the server.
    let long = "x".repeat(60_000);
    let sent =
        luna.call("send_message", json!({"to": to_bob, "message": long})).success().message_id();
    wait("bob's broker has the long one", || two.peerctl(&["show", &sent, "--json"]).code == 0);
    assert_eq!(two.peerctl(&["show", &sent, "--json"]).success().json()["text"], long.as_str());
    let shown = one.peerctl(&["link", "show", &alias(&one), "--json"]).success().json();
    assert_eq!((&shown["kind"], &shown["team"]), (&json!("nats"), &json!("blue")), "{shown}");
    let tried = one.peerctl(&["link", "test", &alias(&one), "--json"]).success().json();
    assert_eq!(tried["broker"], identity(&two));
    let found = one.peerctl(&["link", "find", &identity(&two), "--json"]).success().json();
    assert_eq!((&found[0]["team"], &found[0]["own"]), (&json!("blue"), &json!(false)), "{found}");
}

#[test]
fn two_members_hold_a_conversation_on_the_oldest_server() {
    conversation(Version::V2_14);
}

#[test]
fn two_members_hold_a_conversation_on_the_newest_server() {
    conversation(Version::V2_15);
}

#[test]
fn mail_of_a_member_waits_for_the_person() {
    let server = Server::open(Version::V2_15);
    let one = begin(&server.url(), &[]);
    let two = join(&token(&one), &[]);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    let (luna, _orion) = one.two_sessions();
    let to = format!("luna@{}", alias(&two));
    wait("luna is known", || two.peerctl(&["send", &to, "--", "do this"]).code == 0);
    wait("it is held", || one.peerctl(&["inbox", "luna"]).stdout.contains("held"));
    let sent = two.peerctl(&["history", "--json"]).success().json()[0].clone();
    let id = sent["id"].as_str().expect("an id").to_owned();
    wait("the sender is told", || {
        two.peerctl(&["inbox", "me"]).stdout.contains("is held on the other machine")
    });
    let _ = one.peerctl(&["release", &id]).success();
    wait("luna has it", || luna.says("check_messages", json!({})).contains("| do this"));
    let _ = luna.call("ack_messages", json!({"message_ids": id})).success();
    wait("it is presented", || stage(&two, &id) == "presented");
}

#[test]
fn two_machines_that_are_never_on_together_exchange_mail() {
    let server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    drop(running);
    let only_one = serve(&one);
    wait("the other is away", || {
        let row = one.peerctl(&["link", "ls", "--json"]).success().json()[0].clone();
        row["state"] == "down" && row["error"].as_str().is_some_and(|why| why.contains("not there"))
    });
    let id = send(&one, "left for you");
    wait("the letter is on its way", || {
        let link = one.peerctl(&["link", "ls", "--json"]).success().json()[0].clone();
        link["in_flight"] == 1
    });
    // Nobody but the other broker says that it arrived.
    assert_ne!(stage(&one, &id), "relayed");
    std::thread::sleep(Duration::from_secs(1));
    drop(only_one);
    let _ = one.peerctl(&["daemon", "stop"]).success();

    let only_two = serve(&two);
    wait_came(&two, "left for you");
    let _ = one.peerctl(&["daemon", "start"]).success();
    let _only_one = serve(&one);
    wait("the sender is told", || stage(&one, &id) == "relayed");
    drop(only_two);
    assert_eq!(came(&two, "left for you"), 1);
}

#[test]
fn a_server_that_is_killed_costs_time_only() {
    let mut server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    for round in 0..3 {
        let before = send(&one, &format!("before {round}"));
        server.kill();
        let _ = send(&two, &format!("while it is dead {round}"));
        wait("the person is told", || error_of_team(&one).contains("NATS server"));
        assert!(server.start());
        wait_came(&two, &format!("before {round}"));
        wait_came(&one, &format!("while it is dead {round}"));
        wait("the sender is told", || stage(&one, &before) == "relayed");
    }
}

#[test]
fn a_server_that_loses_its_disk_costs_time_only() {
    let mut server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    let _ = send(&one, "first");
    wait_came(&two, "first");
    let image = server.copy_store_to("image");
    let _ = send(&one, "second");
    wait_came(&two, "second");
    server.kill();
    server.put_store_back(&image);
    let _ = send(&one, "third");
    assert!(server.start());
    wait_came(&two, "third");
    server.kill();
    std::fs::remove_dir_all(server.store()).expect("remove the store");
    let _ = send(&two, "fourth");
    assert!(server.start());
    wait_came(&one, "fourth");
    for text in ["first", "second", "third"] {
        assert_eq!(came(&two, text), 1, "{text}");
    }
}

fn emptied(version: Version) {
    let mut server = Server::open(version);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    for number in 0..5 {
        let _ = send(&one, &format!("early {number}"));
    }
    wait_came(&two, "early 4");
    server.kill();
    server.empty_stream();
    assert!(server.start());
    let began = Instant::now();
    for number in 0..5 {
        let _ = send(&one, &format!("late {number}"));
    }
    for number in 0..5 {
        wait_came(&two, &format!("late {number}"));
    }
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
}

#[test]
fn an_emptied_stream_with_a_living_consumer_costs_time_only() {
    emptied(Version::V2_14);
    emptied(Version::V2_15);
}

/// A server with an admin, and a user for each member with the block that `peerctl` prints.
fn guarded() -> (Server, Home, Home) {
    let users = |blocks: &[(&str, String)]| {
        let users: Vec<String> = blocks
            .iter()
            .map(|(user, block)| format!("{{ user: {user}, password: {user}\n{block} }}"))
            .collect();
        format!("accounts {{ BLUE {{ jetstream: enabled\nusers: [ {} ] }} }}", users.join("\n"))
    };
    let admin = ("admin", String::new());
    let mut server = Server::with(Version::V2_15, &users(std::slice::from_ref(&admin)));
    let one = begin(&server.url_of("admin"), &["--accept"]);
    let two = join(&token(&one), &["--accept", "--nats", &server.url_of("admin")]);
    let block = |home: &Home| {
        let printed = home.peerctl(&["link", "team", "permissions", "blue", "--json"]);
        printed.success().json()["permissions"].as_str().expect("a block").to_owned()
    };
    server.kill();
    server.configure(&users(&[admin, ("one", block(&one)), ("two", block(&two))]));
    assert!(server.start());
    let _ = one
        .peerctl(&["link", "team", "new", "blue", "--accept", "--nats", &server.url_of("one")])
        .success();
    let joined = token(&one);
    let _ =
        two.peerctl(&["link", "team", "join", &joined, "--nats", &server.url_of("two")]).success();
    (server, one, two)
}

#[test]
fn the_server_keeps_members_apart_with_the_printed_permissions() {
    let (server, one, two) = guarded();
    let (a, b) = (identity(&one), identity(&two));
    {
        let _running = (serve(&one), serve(&two));
        wait_up(&one, &two);
        let _ = send(&one, "with permissions");
        wait_came(&two, "with permissions");
        let _ = send(&two, "and back");
        wait_came(&one, "and back");
        assert_eq!((error_of_team(&one), error_of_team(&two)), (String::new(), String::new()));
    }
    let mut raw = server.raw(Some("one"));
    let may = raw.publish(&format!("peerd.blue.mail.{b}.{a}"), b"x");
    assert_eq!(may, "", "its own mail");
    for (what, subject) in [
        ("a forged sender", format!("peerd.blue.mail.{a}.{b}")),
        ("another's card", format!("$KV.PEERD_blue_dir.{b}")),
        ("another's consumer", format!("$JS.API.CONSUMER.MSG.NEXT.PEERD_blue.H_{b}")),
        ("another's acknowledgement", format!("$JS.ACK.PEERD_blue.H_{b}.1.1.1.1.1")),
        (
            "a consumer of another's mail",
            format!("$JS.API.CONSUMER.CREATE.PEERD_blue.H_{a}.peerd.blue.mail.{b}.*"),
        ),
        ("a message of the stream", "$JS.API.STREAM.MSG.GET.PEERD_blue".to_owned()),
        ("the stream's end", "$JS.API.STREAM.DELETE.PEERD_blue".to_owned()),
    ] {
        let said = raw.publish(&subject, b"{}");
        assert!(said.contains("Permissions Violation for Publish"), "{what}: {said:?}");
    }
    for (what, subject) in [
        ("another's inbox", format!("_INBOX_{b}.>")),
        ("another's requests", format!("peerd.blue.live.{b}")),
        ("all mail", "peerd.blue.mail.>".to_owned()),
        ("everything", ">".to_owned()),
    ] {
        let said = raw.subscribe(&subject);
        assert!(said.contains("Permissions Violation for Subscription"), "{what}: {said:?}");
    }
}

#[test]
fn what_the_server_refuses_is_told_with_its_own_words() {
    let (server, one, _two) = guarded();
    // Its user is another member's.
    let refused: Outcome =
        one.peerctl(&["link", "team", "new", "blue", "--nats", &server.url_of("two")]);
    assert!(refused.code == 1 && refused.stderr.contains("Permissions Violation"), "{refused:?}");
    let _running = serve(&one);
    wait("the person is told", || error_of_team(&one).contains("Permissions Violation"));
    let unwell = one.peerctl(&["doctor"]);
    assert!(unwell.code == 7 && unwell.stdout.contains("team blue is not connected"), "{unwell:?}");
}

#[test]
fn repeated_and_reflected_frames_do_nothing() {
    let server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    let mut raw = server.raw(None);
    assert_eq!(raw.subscribe("peerd.blue.>"), "");
    wait_up(&one, &two);
    let _ = send(&one, "once");
    wait_came(&two, "once");
    let _ = send(&two, "back");
    wait_came(&one, "back");
    let seen = raw.seen();
    assert!(seen.len() > 6, "frames in both directions: {}", seen.len());
    assert!(seen.iter().all(|seen| !seen.payload.windows(4).any(|part| part == b"once")));
    let (a, b) = (identity(&one), identity(&two));
    let mut raw = server.raw(None);
    for seen in seen {
        let _ = raw.publish(&seen.subject, &seen.payload);
        // As if its recipient had sent it.
        let reflected = seen.subject.replace(&a, "\0").replace(&b, &a).replace('\0', &b);
        let _ = raw.publish(&reflected, &seen.payload);
    }
    let _ = send(&one, "after the attack");
    wait_came(&two, "after the attack");
    let _ = send(&two, "and again");
    wait_came(&one, "and again");
    assert_eq!((came(&two, "once"), came(&one, "back")), (1, 1));
    wait("the refusal is told", || error_of_team(&one).contains("is not accepted"));
}

#[test]
fn a_machine_with_another_team_key_is_shut_out_and_told() {
    let server = Server::open(Version::V2_15);
    let one = begin(&server.url(), &["--accept"]);
    // It may use the server, and has drawn a key of its own.
    let stranger = begin(&server.url(), &["--accept"]);
    let running = serve(&one);
    wait_again(&one);
    let _stranger = serve(&stranger);
    wait("the stranger is told", || error_of_team(&stranger).contains("another team key"));
    // Who has read the directory reads it again after a minute, or now.
    drop(running);
    let _running = serve(&one);
    wait("the member is told", || error_of_team(&one).contains("another team key"));
    assert_eq!(one.peerctl(&["link", "ls", "--json"]).success().json(), json!([]));
    // With the token it is a member.
    let joined = token(&one);
    let _ = stranger.peerctl(&["link", "team", "join", &joined]).success();
    wait_again(&stranger);
    wait_up(&one, &stranger);
}

/// The process of links reads its file when it is told to.
fn wait_again(home: &Home) {
    wait("the team is connected", || {
        let teams = home.peerctl(&["link", "team", "ls", "--json"]).success().json();
        teams[0]["state"] == "up"
    });
}

#[test]
fn a_new_key_replaces_the_old_one_without_a_gap() {
    let server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    let _ = one.peerctl(&["link", "team", "rekey", "blue"]).success();
    let _ = send(&one, "with the new key");
    wait_came(&two, "with the new key");
    let _ = one.peerctl(&["link", "team", "rekey", "blue", "--drop-former"]).success();
    wait("it is shut out", || !is_up(&one) && error_of_team(&one).contains("another team key"));
    let joined = token(&one);
    let _ = two.peerctl(&["link", "team", "join", &joined]).success();
    wait_up(&one, &two);
    let _ = send(&two, "with the token");
    wait_came(&one, "with the token");
}

#[test]
fn a_copy_of_a_machine_is_an_identity_conflict() {
    let server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    let _running = (serve(&one), serve(&two));
    wait_up(&one, &two);
    let copy = home!();
    let _ = copy.peerctl(&["daemon", "start"]).success();
    for entry in std::fs::read_dir(one.state()).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name == "links.toml" || name.ends_with(".key") {
            std::fs::copy(&path, copy.state().join(name)).expect("copy a file");
        }
    }
    let _copied = serve(&copy);
    wait("the copy is told", || error_of_team(&copy).contains("link identity --new"));
    let _ = send(&two, "to the first");
    wait_came(&one, "to the first");
}

#[test]
fn a_machine_that_ssh_reaches_is_left_to_ssh() {
    let server = Server::open(Version::V2_15);
    let machines = Machines::linked(home!(), home!());
    let (laptop, desk) = (&machines.laptop, &machines.desk);
    let new = ["link", "team", "new", "blue", "--accept", "--nats", &server.url()];
    let _ = laptop.peerctl(&new).success();
    let _ = desk.peerctl(&["link", "team", "join", &token(laptop), "--accept"]).success();
    let _running = (machines.run(), serve(desk));
    machines.wait_up();
    wait_again(laptop);
    wait_up(laptop, desk);
    let since =
        |home: &Home| home.peerctl(&["link", "ls", "--json"]).success().json()[0]["since"].clone();
    let before = (since(laptop), since(desk));
    for round in 0..5 {
        let (there, back) = (format!("there {round}"), format!("back {round}"));
        let _ = (send(laptop, &there), send(desk, &back));
        wait_came(desk, &there);
        wait_came(laptop, &back);
        std::thread::sleep(Duration::from_secs(2));
    }
    assert_eq!((since(laptop), since(desk)), before, "the link did not change its way");
}

#[test]
fn what_cannot_serve_a_team_is_named() {
    let home = home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let new = |url: &str| home.peerctl(&["link", "team", "new", "blue", "--nats", url]);
    let (port, served) = old_server();
    let old = new(&format!("nats://127.0.0.1:{port}"));
    assert!(
        old.code == 1 && old.stderr.contains("2.9.10") && old.stderr.contains("2.10"),
        "{old:?}"
    );
    served.join().expect("the old server ends");
    let none = new("nats://127.0.0.1:1");
    assert!(none.code == 1 && none.stderr.contains("cannot reach"), "{none:?}");
    assert_eq!(new("http://127.0.0.1").code, 2);
    let token = home.peerctl(&["link", "team", "join", "peerd-team-1-00"]);
    assert!(token.code == 2 && token.stderr.contains("no token"), "{token:?}");
    let name = home.peerctl(&["link", "team", "new", "Blue.*", "--nats", "nats://127.0.0.1:1"]);
    assert_eq!(name.code, 2, "{name:?}");
}
