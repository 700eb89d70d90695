//! Channels that have members on both machines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::{Home, home};
use serde_json::{Value, json};

use crate::machines::{Machines, wait};

fn posts(home: &Home, channel: &str) -> Vec<String> {
    let rows =
        home.peerctl(&["channels", "history", channel, "-n", "10000", "--json"]).success().json();
    let rows = rows.as_array().expect("a list").iter();
    let posts = rows.filter(|row| row["kind"] != "notice");
    posts.map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
}

fn channel(home: &Home, name: &str) -> Value {
    let rows = home.peerctl(&["channels", "--json"]).success().json();
    let mut rows = rows.as_array().expect("a list").iter();
    rows.find(|row| row["name"] == name).cloned().unwrap_or(Value::Null)
}

/// The stage of a message's delivery to this recipient.
fn stage_in(home: &Home, id: &str, name: &str) -> String {
    let shown = home.peerctl(&["show", id, "--json"]).success().json();
    let mut deliveries = shown["deliveries"].as_array().expect("a list").iter();
    let found = deliveries.find(|delivery| delivery["to"] == name || delivery["name"] == name);
    found.map_or("", |delivery| delivery["stage"].as_str().unwrap_or_default()).to_owned()
}

fn joined(home: &Home, name: &str) -> bool {
    channel(home, name)["joined"] == true
}

/// Posts until it is accepted: a broker that is killed gives no answer.
fn post(home: &Home, channel: &str, key: &str, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let sent = home.peerctl(&["send", channel, "--idempotency-key", key, "--", text]);
        if sent.code == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "a post is never accepted: {sent:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn two_machines_talk_in_a_channel_of_one_of_them() {
    let machines = Machines::linked(home!(), home!());
    let running = machines.run();
    machines.wait_up();
    let luna = machines.laptop.session("claude-code", "luna");
    let orion = machines.laptop.session("claude-code", "orion");
    let bob = machines.desk.session("claude-code", "bob");
    // Of two sessions under one process neither is that process: the test is the person there.
    let _eve = machines.desk.session("claude-code", "eve");
    let create = json!({"action": "create", "name": "#build", "topic": "what is red"});
    let _ = bob.call("channels", create).success();
    wait("luna knows the channel", || {
        luna.says("channels", json!({"action": "list"}))
            .contains("#build@desk: for \"what is red\"")
    });
    let early = luna.refused("send_message", json!({"to": "#build@desk", "message": "too early"}));
    assert!(early.contains("not a member"), "{early}");
    for session in [&luna, &orion] {
        let asked = session.says("channels", json!({"action": "join", "name": "#build@desk"}));
        assert!(asked.contains("on desk"), "{asked}");
    }
    wait("luna is a member", || {
        luna.says("channels", json!({"action": "list"})).contains("you are a member")
    });
    wait("both machines know all members", || {
        channel(&machines.desk, "#build")["members"].as_array().map(Vec::len) == Some(3)
            && channel(&machines.laptop, "#build@desk")["members"].as_array().map(Vec::len)
                == Some(3)
    });

    let sent = luna
        .call("send_message", json!({"to": "#build@desk", "message": "it is red"}))
        .success()
        .message_id();
    wait("bob has it", || bob.says("check_messages", json!({})).contains("| it is red"));
    wait("orion has it", || orion.says("check_messages", json!({})).contains("| it is red"));
    wait("its sender is told", || stage_in(&machines.laptop, &sent, "#build@desk") == "posted");
    let _ = bob
        .call("send_message", json!({"to": "#build", "reply_to": sent, "message": "I look"}))
        .success();
    wait("luna has the answer", || luna.says("check_messages", json!({})).contains("| I look"));
    let history = luna.says("channels", json!({"action": "history", "name": "#build@desk"}));
    assert!(history.contains("| it is red") && history.contains("| I look"), "{history}");
    assert!(history.contains("since this machine has a member"), "{history}");

    // The channel's machine is away: posts wait for it.
    drop(running);
    wait("the link is down", || channel(&machines.laptop, "#build@desk")["link_up"] == false);
    let waits =
        orion.says("send_message", json!({"to": "#build@desk", "message": "are you there?"}));
    assert!(waits.contains("waits until a link reaches"), "{waits}");
    let _ = bob.call("send_message", json!({"to": "#build", "message": "it is green"})).success();
    let _running = machines.run();
    wait("the history is the same on both machines", || {
        let (here, there) =
            (posts(&machines.laptop, "#build@desk"), posts(&machines.desk, "#build"));
        here == there && here.len() == 4
    });

    let _ = luna.call("channels", json!({"action": "leave", "name": "#build@desk"})).success();
    wait("the channel's machine knows", || {
        channel(&machines.desk, "#build")["members"].as_array().map(Vec::len) == Some(2)
    });
    let _ = bob.call("send_message", json!({"to": "#build", "message": "without luna"})).success();
    wait("orion has it", || orion.says("check_messages", json!({})).contains("| without luna"));
    assert!(!luna.says("check_messages", json!({})).contains("| without luna"));
}

#[test]
fn a_private_channel_of_another_machine_needs_an_invitation() {
    let machines = Machines::linked(home!(), home!());
    let _running = machines.run();
    machines.wait_up();
    let luna = machines.laptop.session("claude-code", "luna");
    // Of two sessions under one process neither is that process: the test is the person.
    let _orion = machines.laptop.session("claude-code", "orion");
    let bob = machines.desk.session("claude-code", "bob");
    let _eve = machines.desk.session("claude-code", "eve");
    let create = json!({"action": "create", "name": "#plan", "private": true});
    let _ = bob.call("channels", create).success();
    let alias = machines.alias_of_laptop();
    let to_luna = format!("luna@{alias}");
    wait("desk knows luna", || {
        machines.desk.peerctl(&["peers", "--remote"]).stdout.contains(&to_luna)
    });
    let unknown = luna.refused("channels", json!({"action": "join", "name": "#plan@desk"}));
    assert!(unknown.contains("there is no channel"), "{unknown}");
    assert_eq!(channel(&machines.laptop, "#plan@desk"), Value::Null);

    let _ = bob
        .call("channels", json!({"action": "invite", "name": "#plan", "peer": to_luna}))
        .success();
    wait("luna is told", || {
        luna.says("check_messages", json!({})).contains("you are a member of #plan@desk")
    });
    let _ =
        luna.call("send_message", json!({"to": "#plan@desk", "message": "thank you"})).success();
    wait("bob has it", || bob.says("check_messages", json!({})).contains("| thank you"));
    assert!(channel(&machines.laptop, "#plan@desk")["private"] == true);
}

#[test]
fn nothing_posted_is_lost_or_doubled_when_brokers_are_killed() {
    let _serial = peer_tests::serial();
    let (laptop, desk) = (home!(), home!());
    for home in [&laptop, &desk] {
        home.configure(
            "[limits]\nsender_per_minute = 100000\npair_per_minute = 100000\npending_per_peer = 100000\nthread_turns_max = 100000\n",
        );
    }
    let machines = Machines::linked(laptop, desk);
    let _running = machines.run();
    machines.wait_up();
    let _ = machines.desk.peerctl(&["channels", "create", "#build"]).success();
    wait("the channel is known", || channel(&machines.laptop, "#build@desk") != Value::Null);
    let _ = machines.laptop.peerctl(&["channels", "join", "#build@desk"]).success();
    wait("the person is a member", || joined(&machines.laptop, "#build@desk"));

    let stop = AtomicBool::new(false);
    let post_all = |home: &Home, channel: &str, who: &str| {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            post(home, channel, &format!("{who}{number}"), &format!("{who} {number}"));
            number += 1;
        }
        number
    };
    let (here, there) = thread::scope(|scope| {
        let here = scope.spawn(|| post_all(&machines.laptop, "#build@desk", "laptop"));
        let there = scope.spawn(|| post_all(&machines.desk, "#build", "desk"));
        for moment in 0..8 {
            thread::sleep(Duration::from_millis(500 + moment * 70));
            let home = if moment % 2 == 0 { &machines.desk } else { &machines.laptop };
            if let Some(pid) = home.broker_pid() {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            let _ = home.peerctl(&["daemon", "start"]);
        }
        stop.store(true, Ordering::Relaxed);
        (here.join().expect("the posts"), there.join().expect("the posts"))
    });
    assert!(here > 20 && there > 20, "{here} and {there} posts");
    let of = |posts: &[String], who: &str| -> Vec<usize> {
        let numbers = posts.iter().filter_map(|text| text.strip_prefix(who));
        numbers.map(|number| number.trim().parse().expect("a number")).collect()
    };
    wait("both machines have all", || {
        posts(&machines.desk, "#build").len() >= here + there
            && posts(&machines.laptop, "#build@desk").len() >= here + there
    });
    let (at_desk, at_laptop) =
        (posts(&machines.desk, "#build"), posts(&machines.laptop, "#build@desk"));
    assert_eq!(at_desk, at_laptop, "one order on both machines");
    assert_eq!(of(&at_desk, "laptop"), (0..here).collect::<Vec<_>>());
    assert_eq!(of(&at_desk, "desk"), (0..there).collect::<Vec<_>>());
    wait("nothing is on its way", || {
        [&machines.laptop, &machines.desk].iter().all(|home| {
            let link = home.peerctl(&["link", "ls", "--json"]).success().json()[0].clone();
            link["waiting"] == 0 && link["in_flight"] == 0
        })
    });
}
