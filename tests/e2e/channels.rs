//! Channels and groups through the public contract: real adapters, and `peerctl`.

use nix::sys::signal::Signal;
use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

#[track_caller]
fn three(home: &Home) -> (Mcp, Mcp, Mcp) {
    let luna = home.session("claude-code", "luna");
    (luna, home.session("codex-mcp-client", "orion"), home.session("some-client", "vega"))
}

/// What a call of `channels` says.
#[track_caller]
fn channels(mcp: &Mcp, arguments: Value) -> String {
    mcp.says("channels", arguments)
}

/// The texts of a history, in its order.
fn texts(history: &Value) -> Vec<String> {
    let rows = history.as_array().expect("history is a list").iter();
    rows.map(|row| row["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_post_reaches_each_member_once_and_its_sender_never() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = three(&home);
    let made =
        channels(&luna, json!({"action": "create", "name": "#ops", "topic": "what runs where"}));
    assert!(
        made.contains("#ops: for \"what runs where\" · 1 member: luna · you are a member"),
        "{made}"
    );
    let _ = channels(&orion, json!({"action": "join", "name": "#ops"}));
    let _ = channels(&vega, json!({"action": "join", "name": "#ops"}));

    let sent = luna
        .call(
            "send_message",
            json!({"to": "#ops", "message": "the database is down", "intent": "request"}),
        )
        .success();
    assert!(
        sent.text.contains("- orion: ")
            && sent.text.contains("- vega: ")
            && !sent.text.contains("- luna: "),
        "{}",
        sent.text
    );
    let id = sent.message_id();
    for member in [&orion, &vega] {
        let seen = member.call("check_messages", json!({})).success().text;
        assert!(
            seen.contains(&format!("[{id} inform] from luna (claude")),
            "a post wakes nobody: {seen}"
        );
        assert!(
            seen.contains(" to #ops thread ") && seen.contains("| the database is down"),
            "{seen}"
        );
    }
    let own = luna.call("check_messages", json!({})).success().text;
    assert!(own.starts_with("No new messages."), "{own}");

    // One stored body, however many have it.
    let said = home.peerctl(&["history", "--channel", "#ops", "--json"]).success().json();
    assert_eq!(said.as_array().map(Vec::len), Some(1), "{said:#}");
    assert_eq!(
        (said[0]["channel"].as_str(), said[0]["to"].as_array().map(Vec::len)),
        (Some("#ops"), Some(2))
    );
}

#[test]
fn who_was_away_finds_what_it_missed_and_who_comes_sees_what_it_asks_for() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = three(&home);
    let _ = channels(&luna, json!({"action": "create", "name": "#ops"}));
    let _ = channels(&orion, json!({"action": "join", "name": "#ops"}));
    orion.close_stdin();
    let _ = orion.wait_exit(PATIENCE);
    for text in ["one", "two", "three"] {
        let _ = luna.call("send_message", json!({"to": "#ops", "message": text})).success();
    }
    let orion = home.session("codex-mcp-client", "orion");
    let missed = orion.call("check_messages", json!({})).success().text;
    let history = channels(&orion, json!({"action": "history", "name": "#ops"}));
    for text in ["| one", "| two", "| three"] {
        assert!(missed.contains(text) || history.contains(text), "{missed}\n{history}");
    }
    assert!(history.starts_with("3 messages in #ops, oldest first. Quoted text"), "{history}");

    let outside = vega.refused("channels", json!({"action": "history", "name": "#ops"}));
    assert!(
        outside.contains("you are not a member of #ops") && outside.contains("action=\"join\""),
        "{outside}"
    );
    let came = channels(&vega, json!({"action": "join", "name": "#ops", "limit": 2}));
    assert!(
        !came.contains("| one") && came.contains("| two") && came.contains("| three"),
        "{came}"
    );
}

#[test]
fn a_private_channel_is_not_there_for_outsiders() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = three(&home);
    let _ = channels(
        &luna,
        json!({"action": "create", "name": "#plan", "topic": "the launch", "private": true}),
    );
    let _ = channels(&luna, json!({"action": "invite", "name": "#plan", "peer": "orion"}));
    let invited = orion.call("check_messages", json!({})).success().text;
    assert!(
        invited.contains("luna made you a member of #plan, which is for \"the launch\""),
        "{invited}"
    );
    let id = luna
        .call("send_message", json!({"to": "#plan", "message": "on friday"}))
        .success()
        .message_id();

    // The same words as for a name that nobody ever used.
    let unknown = |error: &str, name: &str| error.replace(name, "#…");
    for act in ["join", "leave", "history"] {
        let there = vega.refused("channels", json!({"action": act, "name": "#plan"}));
        let nowhere = vega.refused("channels", json!({"action": act, "name": "#nothing"}));
        assert_eq!(unknown(&there, "#plan"), unknown(&nowhere, "#nothing"));
    }
    let post = |name: &str| {
        unknown(&vega.call("send_message", json!({"to": name, "message": "x"})).text, name)
    };
    assert_eq!(post("#plan"), post("#nothing"));
    let listed = channels(&vega, json!({"action": "list"}));
    assert!(!listed.contains("#plan"), "{listed}");
    let read = vega.call("check_messages", json!({"message_id": id}));
    assert!(read.is_error && read.text.contains("no message"), "{}", read.text);
    let peers = vega.call("list_peers", json!({})).success().text;
    assert!(!peers.contains("plan"), "{peers}");

    // The person sees it all.
    let seen = home.peerctl(&["channels", "--json"]).success().json();
    assert_eq!(seen[0]["name"], "#plan", "{seen:#}");
    assert_eq!(
        (&seen[0]["private"], &seen[0]["members"]),
        (&json!(true), &json!(["luna", "orion"]))
    );
    assert_eq!(
        texts(&home.peerctl(&["channels", "history", "#plan", "--json"]).success().json()),
        ["on friday"]
    );
}

#[test]
fn a_group_is_a_label_and_several_may_be_named_at_once() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = three(&home);
    let _ = channels(&orion, json!({"action": "join", "name": "@backend"}));
    let listed = luna.call("list_peers", json!({})).success().text;
    assert!(
        listed.lines().any(|line| line.starts_with("- orion") && line.contains("groups @backend")),
        "{listed}"
    );
    let sent = luna
        .call("send_message", json!({"to": "@backend,vega,human", "message": "who deploys?"}))
        .success();
    for name in ["orion", "vega", "human"] {
        assert!(sent.text.contains(&format!("- {name}: ")), "{}", sent.text);
    }
    let seen = orion.call("check_messages", json!({})).success().text;
    assert!(
        seen.contains(&format!("[{} request] from luna", sent.message_id()))
            && seen.contains(" to @backend "),
        "{seen}"
    );
    let nobody = orion.call("send_message", json!({"to": "@backend", "message": "anybody?"}));
    assert!(
        nobody.is_error && nobody.text.contains("no other peer is in @backend"),
        "{}",
        nobody.text
    );
    let all = vega.call("send_message", json!({"to": "all", "message": "hello"}));
    assert!(all.is_error && all.text.contains("switched off"), "{}", all.text);
}

#[test]
fn a_peer_may_be_called_with_an_at_sign_or_in_quotation_marks() {
    let home = peer_tests::home!();
    let (luna, orion, _vega) = three(&home);
    for (count, to) in ["@orion", "@Orion", " ORION ", "\"orion\"", "'@orion'", "`orion`, @orion"]
        .into_iter()
        .enumerate()
    {
        let sent = luna
            .call(
                "send_message",
                json!({"to": to, "message": format!("number {count}"), "intent": "inform"}),
            )
            .success();
        assert!(sent.text.contains("- orion: "), "{to}: {}", sent.text);
        let seen = orion.call("check_messages", json!({"from": "@luna"})).success().text;
        assert!(seen.contains(&format!("| number {count}")), "{to}: {seen}");
    }
    assert!(home.peerctl(&["peers", "@orion"]).success().stdout.contains("orion"));

    let unknown = luna.call("send_message", json!({"to": "@orio", "message": "x"}));
    assert!(unknown.is_error && unknown.text.contains("did you mean orion?"), "{}", unknown.text);
    let channel = luna.call("send_message", json!({"to": "#orion", "message": "x"}));
    assert!(channel.is_error && channel.text.contains("did you mean orion?"), "{}", channel.text);

    // A group of that name comes first.
    let _ = channels(&luna, json!({"action": "join", "name": "@orion"}));
    let empty = luna.call("send_message", json!({"to": "@orion", "message": "x"}));
    assert!(empty.is_error && empty.text.contains("no other peer is in @orion"), "{}", empty.text);
}

#[test]
fn a_message_to_all_is_bounded() {
    let home = peer_tests::home!();
    home.configure("[limits]\nbroadcast_max = 1\n");
    let luna = home.session("claude-code", "luna");
    let orion = home.session("codex-mcp-client", "orion");
    let sent = luna.call("send_message", json!({"to": "all", "message": "hello"})).success();
    assert!(sent.text.contains("- orion: ") && !sent.text.contains("human"), "{}", sent.text);
    let _vega = home.session("some-client", "vega");
    let wide = orion.call("send_message", json!({"to": "all", "message": "hello"}));
    assert!(
        wide.is_error && wide.text.contains("a message to all may go to at most 1"),
        "{}",
        wide.text
    );
}

#[test]
fn the_person_makes_changes_and_reads_channels_with_peerctl() {
    let home = peer_tests::home!();
    let (luna, _orion, _vega) = three(&home);
    let made = home
        .peerctl(&["channels", "create", "#ops", "--topic", "what\nruns", "--json"])
        .success()
        .json();
    assert_eq!(
        (&made["name"], &made["topic"], &made["members"]),
        (&json!("#ops"), &json!("what runs"), &json!(["human"]))
    );
    let _ = home.peerctl(&["channels", "invite", "#ops", "luna"]).success();
    let _ = home.peerctl(&["channels", "topic", "#ops", "elsewhere"]).success();
    let table = home.peerctl(&["channels"]).success().stdout;
    assert!(
        table.contains("#ops") && table.contains("human, luna") && table.contains("elsewhere"),
        "{table}"
    );
    let _ = home.peerctl(&["send", "#ops", "--", "frozen until noon"]).success();
    let _ = luna.call("send_message", json!({"to": "#ops", "message": "understood"})).success();
    let inbox = home.peerctl(&["inbox", "me"]).success().stdout;
    assert!(inbox.contains("luna"), "{inbox}");
    let printed = home.peerctl(&["history", "--channel", "#OPS"]).success().stdout;
    assert!(printed.contains("-> #ops") && printed.contains("| frozen until noon"), "{printed}");
    let _ = home.peerctl(&["channels", "leave", "#ops"]).success();
    assert_eq!(home.peerctl(&["channels", "join", "#nothing"]).code, 4);
    assert_eq!(home.peerctl(&["channels", "create", "ops"]).code, 1);
    assert_eq!(home.peerctl(&["channels", "frob"]).code, 2);
}

#[test]
fn a_reader_that_goes_on_from_the_last_message_neither_misses_nor_repeats() {
    let home = peer_tests::home!();
    let (luna, orion, _vega) = three(&home);
    let _ = channels(&luna, json!({"action": "create", "name": "#ops"}));
    let _ = channels(&orion, json!({"action": "join", "name": "#ops"}));
    let first =
        luna.call("send_message", json!({"to": "#ops", "message": "0"})).success().message_id();
    let (mut last, mut read) = (first, vec!["0".to_owned()]);
    for number in 1..=12 {
        let speaker = if number % 2 == 0 { &luna } else { &orion };
        let _ = speaker
            .call("send_message", json!({"to": "#ops", "message": number.to_string()}))
            .success();
        let _ = speaker
            .call("send_message", json!({"to": "human", "message": format!("aside {number}")}))
            .success();
        if number % 5 == 0 || number == 12 {
            loop {
                let page = home
                    .peerctl(&[
                        "history",
                        "--channel",
                        "#ops",
                        "--after",
                        &last,
                        "-n",
                        "2",
                        "--json",
                    ])
                    .success()
                    .json();
                let Some(newest) = page.as_array().and_then(|page| page.last()) else { break };
                last = newest["id"].as_str().expect("an id").to_owned();
                read.extend(texts(&page));
            }
        }
    }
    assert_eq!(read, (0..=12).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_member_that_stands_still_concerns_nobody_else() {
    let home = peer_tests::home!();
    let (luna, orion, vega) = three(&home);
    let _ = channels(&luna, json!({"action": "create", "name": "#ops"}));
    for member in [&orion, &vega] {
        let _ = channels(member, json!({"action": "join", "name": "#ops"}));
    }
    orion.signal(Signal::SIGSTOP);
    for number in 1..=5 {
        let _ = luna
            .call("send_message", json!({"to": "#ops", "message": format!("post {number}")}))
            .success();
    }
    let seen = vega.call("check_messages", json!({})).success().text;
    assert!(seen.contains("| post 1") && seen.contains("| post 5"), "{seen}");
    orion.signal(Signal::SIGCONT);
    let seen = orion.call("check_messages", json!({})).success().text;
    assert!(seen.contains("| post 1") && seen.contains("| post 5"), "{seen}");
}

#[test]
fn channels_outlive_the_broker() {
    let home = peer_tests::home!();
    let (luna, orion, _vega) = three(&home);
    let _ = channels(&luna, json!({"action": "create", "name": "#plan", "private": true}));
    let _ = channels(&luna, json!({"action": "invite", "name": "#plan", "peer": "orion"}));
    home.kill_broker();
    let sent =
        orion.call("send_message", json!({"to": "#plan", "message": "still here"})).success();
    assert!(sent.text.contains("- luna: "), "{}", sent.text);
}

#[test]
fn bad_arguments_are_named() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    for (arguments, expected) in [
        (json!({}), "needs the argument action"),
        (json!({"action": "destroy"}), "must be list, create, join"),
        (json!({"action": "join"}), "needs the argument name"),
        (json!({"action": "list", "name": "#x"}), "this action does not take name"),
        (json!({"action": "create", "name": "ops"}), "is not a valid name of a channel or group"),
        (json!({"action": "create", "name": format!("#{}", "x".repeat(33))}), "1 to 32 letters"),
        (json!({"action": "create", "name": "#x", "topic": "x".repeat(401)}), "the topic"),
        (json!({"action": "create", "name": "#x", "private": "yes"}), "must be true or false"),
        (json!({"action": "create", "name": "@x", "private": true}), "always public"),
        (json!({"action": "invite", "name": "#x"}), "needs the argument peer"),
        (json!({"action": "join", "name": "#x", "color": "red"}), "has no argument \"color\""),
    ] {
        let error = luna.refused("channels", arguments.clone());
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    // The core profile has no such tool.
    let core = home.claude("orion");
    let names = core.request("tools/list", json!({})).to_string();
    assert!(!names.contains("\"channels\"") && names.contains("\"send_message\""), "{names}");
}

/// Nothing said is one thing, and nothing there another: a script that mistypes a name hears of it.
#[test]
fn a_channel_that_is_not_there_is_not_an_empty_one() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["channels", "create", "#ops"]).success();
    let asked =
        [&["history", "--channel"][..], &["channels", "history"], &["search", "word", "--channel"]];
    for command in asked {
        for known in ["#ops", "ops", "#OPS"] {
            let outcome = home.peerctl(&[command, &[known, "--json"]].concat()).success();
            assert_eq!(outcome.json(), json!([]), "{command:?} {known}");
        }
        let outcome = home.peerctl(&[command, &["#nix", "--json"]].concat());
        assert_eq!(
            (outcome.code, outcome.json()["error"]["code"].clone()),
            (4, json!("unknown_channel")),
            "{command:?}"
        );
    }
}
