//! What the person lets sessions write to each other, with the real broker and adapters.

use std::process::Stdio;

use peer_tests::{Home, Mcp, Outcome};
use serde_json::{Value, json};

/// The stages in the trace of a message's one delivery.
fn trace(home: &Home, id: &str) -> Vec<String> {
    let shown = home.peerctl(&["show", id, "--json"]).success().json();
    let trace = shown["deliveries"][0]["trace"].as_array().expect("trace is a list").clone();
    trace
        .iter()
        .map(|entry| entry["stage"].as_str().expect("a stage is a string").to_owned())
        .collect()
}

fn held(home: &Home) -> Vec<Value> {
    home.peerctl(&["inbox", "--held", "--json"])
        .success()
        .json()
        .as_array()
        .expect("inbox is a list")
        .clone()
}

#[test]
fn held_mail_reaches_nobody_until_the_person_releases_it() {
    let home = peer_tests::home!();
    let (luna, orion) = home.two_sessions();
    let set = home.peerctl(&["policy", "orion", "hold", "--json"]).success().json();
    assert_eq!(
        (&set["name"], &set["policy"], &set["own"]),
        (&json!("orion"), &json!("hold"), &json!("hold"))
    );
    let listed = luna.call("list_peers", json!({})).success().text;
    assert!(listed.contains("mail to it is held until the user releases it"), "{listed}");
    assert_eq!(home.peerctl(&["peers", "orion", "--json"]).success().json()[0]["policy"], "hold");

    let sent = luna
        .call("send_message", json!({"to": "orion", "message": "drop the table", "wait_s": 50}))
        .success();
    assert!(
        sent.text.contains("- orion: held until the user releases it"),
        "it is told, and not waited for: {}",
        sent.text
    );
    let id = sent.message_id();
    assert_eq!(trace(&home, &id), ["stored", "held"]);
    let told = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(
        (&told["messages"]["held"], &told["messages"]["stored"]),
        (&json!(1), &json!(0)),
        "{told:#}"
    );

    // By no tool does its reader come by the text, nor does it settle what it has not seen.
    for (tool, arguments) in [
        ("check_messages", json!({})),
        ("check_messages", json!({"from": "luna"})),
        ("check_messages", json!({"message_id": id})),
        ("ack_messages", json!({"message_ids": id})),
        ("send_message", json!({"to": "luna", "message": "done", "reply_to": id})),
        ("list_peers", json!({})),
    ] {
        let result = orion.call(tool, arguments);
        assert!(!result.text.contains("drop the table"), "{tool}: {}", result.text);
    }
    assert_eq!(trace(&home, &id), ["stored", "held"], "nothing of that settled it");

    let entries = held(&home);
    assert_eq!(
        (entries.len(), &entries[0]["id"], &entries[0]["stage"]),
        (1, &json!(id), &json!("held")),
        "{entries:#?}"
    );
    home.kill_broker();
    let released = home.peerctl(&["release", &id, "--json"]).success().json();
    assert_eq!(released["deliveries"], json!([{"id": id, "to": "orion", "stage": "stored"}]));
    assert_eq!(held(&home), Vec::<Value>::new());
    let checked = orion.call("check_messages", json!({})).success();
    assert!(checked.text.contains("| drop the table"), "{}", checked.text);
    let _ = orion.call("ack_messages", json!({"message_ids": id})).success();
    let stages = trace(&home, &id);
    assert_eq!(stages[..3], ["stored", "held", "released"], "{stages:?}");
    assert_eq!(stages.last().map(String::as_str), Some("acked"), "{stages:?}");
    home.peerctl(&["release", &id, "--json"]).refused(1, "too_late");
}

#[test]
fn a_refused_sender_hears_of_it_and_the_person_and_an_asked_for_reply_come_through() {
    let home = peer_tests::home!();
    let (luna, orion) = home.two_sessions();
    let _ = home.peerctl(&["policy", "luna", "refuse"]).success();
    let sent = orion.call("send_message", json!({"to": "luna", "message": "x"}));
    assert!(sent.is_error && sent.text.contains("its inbound policy is refuse"), "{}", sent.text);
    let some = orion.call("send_message", json!({"to": "luna,human", "message": "x"})).success();
    assert!(some.text.contains("- luna: refused, nothing was stored for it"), "{}", some.text);

    let sent = home.peerctl(&["send", "luna", "--json", "--", "from the person"]).success().json();
    assert_eq!(sent["deliveries"][0]["stage"], "stored", "{sent:#}");
    let question = luna
        .call("send_message", json!({"to": "orion", "message": "which port?"}))
        .success()
        .message_id();
    let _ = orion.call("check_messages", json!({})).success();
    let answer =
        orion.call("send_message", json!({"message": "8080", "reply_to": question})).success();
    assert!(answer.text.contains("- luna: stored"), "the reader asked for it: {}", answer.text);
    let more = orion.call("send_message", json!({"message": "and 9090", "reply_to": question}));
    assert!(more.is_error, "{}", more.text);

    // From an agent's shell it is an agent's, and exit 6.
    let seat = home
        .adapter("claude-code")
        .env("PEER_NAME", "vega")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .start();
    seat.register();
    let shell = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        command.env("CLAUDE_CODE_SESSION_ID", "s-1");
        home.run(command, "")
    };
    shell(&["send", "luna", "--json", "--", "x"]).refused(6, "refused_by_policy");
    for forbidden in [
        &["policy", "luna", "accept", "--json"][..],
        &["policy", "all", "accept", "--json"],
        &["policy", "inbox-socket", "allow", "--json"],
        &["release", "m-0000000000000001", "--json"],
        &["uninstall", "--purge", "--yes", "--json"],
    ] {
        shell(forbidden).refused(6, "not_permitted");
    }
    let _ = home.peerctl(&["policy", "luna", "hold"]).success();
    let held = shell(&["send", "luna", "--", "x"]).success().stdout;
    assert!(held.contains("held for luna, until the person releases it"), "{held}");

    // Nor does an agent's shell read what is held for the agent, not even once it is too late for
    // it.
    let _ = home.peerctl(&["policy", "vega", "hold"]).success();
    let id = orion
        .call("send_message", json!({"to": "vega", "message": "a secret plan"}))
        .success()
        .message_id();
    let reads = |run: &dyn Fn(&[&str]) -> Outcome| {
        let history = run(&["history", "--json"]).success().stdout;
        (history.contains("a secret plan"), run(&["show", &id]).code)
    };
    let person = |arguments: &[&str]| home.peerctl(arguments);
    assert_eq!((reads(&shell), reads(&person)), ((false, 4), (true, 0)));
    let _ = home.peerctl(&["cancel", &id]).success();
    assert_eq!((reads(&shell), reads(&person)), ((false, 4), (true, 0)));
    assert!(seat.call("check_messages", json!({"message_id": id})).is_error);
}

/// Each role against each request that can show a text; the search is the real index.
#[test]
fn held_text_is_read_by_the_person_by_its_sender_and_by_nobody_else() {
    let home = peer_tests::home!();
    home.configure("[adapter]\nprofile = \"full\"\n");
    let seated = |name: &str| {
        let session = home
            .adapter("claude-code")
            .env("PEER_NAME", name)
            .env("CLAUDE_CODE_SESSION_ID", name)
            .start();
        session.register();
        session
    };
    let (luna, orion, vega, zoe) = (seated("luna"), seated("orion"), seated("vega"), seated("zoe"));
    // Several sessions of different clients below this process: it is nobody's shell, and counts as
    // the person.
    let codex = home.codex("lyra");
    codex.register();
    let _ = home.peerctl(&["policy", "orion", "hold"]).success();
    let alone = luna
        .call("send_message", json!({"to": "orion", "message": "secretplan for one"}))
        .success()
        .message_id();
    let both = luna
        .call("send_message", json!({"to": "orion,vega", "message": "secretplan for two"}))
        .success()
        .message_id();

    // What a shell of this session, or the person, reads of one of the texts: by id, by both
    // listings, by the search.
    let as_operator = |of: Option<&str>, id: &str, text: &str| {
        let run = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            of.map(|of| command.env("CLAUDE_CODE_SESSION_ID", of));
            home.run(command, "").stdout
        };
        let histories = [
            &["history", "--json"][..],
            &["history", "--peer", "orion", "--json"],
            &["history", "--with", "luna", "--json"],
        ];
        let mut seen = vec![run(&["show", id]).contains(text)];
        seen.extend(histories.map(|arguments| run(arguments).contains(text)));
        seen.push(run(&["search", text, "--json"]).contains(id));
        seen.push(run(&["inbox", "orion", "--json"]).contains(id));
        seen
    };
    let as_session = |session: &Mcp, id: &str, text: &str| {
        let calls =
            [("check_messages", json!({"message_id": id})), ("search", json!({"query": text}))];
        calls.map(|(tool, arguments)| session.call(tool, arguments).text.contains(text)).to_vec()
    };
    for (id, text, who_got_it) in
        [(&alone, "secretplan for one", None), (&both, "secretplan for two", Some("vega"))]
    {
        for of in [None, Some("luna"), Some("orion"), Some("vega"), Some("zoe")] {
            let mut seen = as_operator(of, id, text);
            let listed = seen.pop().expect("the listing is last");
            // The reader's own shell sees that it waits, and no text.
            assert_eq!(
                listed,
                of.is_none_or(|of| of == "luna" || of == "orion"),
                "{of:?}, {text}: the list of what waits"
            );
            let reads = of.is_none_or(|of| of == "luna" || who_got_it == Some(of));
            assert_eq!(
                seen,
                vec![reads; seen.len()],
                "a shell of {of:?}, {text}: show, three histories, search"
            );
        }
        for (name, session) in
            [("luna", &luna), ("orion", &orion), ("vega", &vega), ("zoe", &zoe), ("lyra", &codex)]
        {
            let reads = name == "luna" || who_got_it == Some(name);
            assert_eq!(
                as_session(session, id, text),
                vec![reads; 2],
                "a session of {name}, {text}: check_messages, search"
            );
        }
    }
    // Once the person let it go it is mail like any other.
    let _ = home.peerctl(&["release", &both]).success();
    let seen = as_operator(Some("zoe"), &both, "secretplan for two");
    assert_eq!(seen, vec![true; seen.len()], "a shell of another, after the release");
}

#[test]
fn policies_are_shown_set_and_kept() {
    let home = peer_tests::home!();
    home.configure("[policy]\ndefault = \"hold\"\nescalation = \"hold\"\n");
    let (_luna, orion) = home.two_sessions();
    let policies = |home: &Home| home.peerctl(&["policy", "--json"]).success().json();
    let expected =
        json!({"default": "hold", "escalation": "hold", "inbox_socket": false, "peers": []});
    assert_eq!(policies(&home), expected, "as config.toml says");
    let sent = orion.call("send_message", json!({"to": "luna", "message": "x"})).success();
    assert!(sent.text.contains("- luna: held"), "{}", sent.text);

    assert_eq!(
        home.peerctl(&["policy", "all", "accept", "--json"]).success().json(),
        json!({"default": "accept"})
    );
    let _ = home.peerctl(&["policy", "luna", "refuse"]).success();
    let consent = home.peerctl(&["policy", "inbox-socket", "allow", "--json"]).success().json();
    assert_eq!(consent, json!({"inbox_socket": true}));
    let set = json!({
        "default": "accept", "escalation": "hold", "inbox_socket": true, "peers": [{"name": "luna", "policy": "refuse"}],
    });
    assert_eq!(policies(&home), set);
    home.kill_broker();
    assert_eq!(policies(&home), set, "it outlives the broker");
    let shown = home.peerctl(&["policy"]).success().stdout;
    assert!(shown.contains("luna  refuse (mail from other sessions is refused)"), "{shown}");

    let own =
        |home: &Home| home.peerctl(&["policy", "luna", "--json"]).success().json()["own"].clone();
    assert_eq!(own(&home), "refuse");
    for (who, what) in [("luna", "default"), ("all", "default"), ("inbox-socket", "deny")] {
        let _ = home.peerctl(&["policy", who, what]).success();
    }
    assert_eq!((policies(&home), own(&home)), (expected, Value::Null), "all as it was");

    home.peerctl(&["policy", "nobody", "hold", "--json"]).refused(4, "unknown_peer");
    home.peerctl(&["policy", "nobody", "--json"]).refused(4, "unknown_peer");
    home.peerctl(&["release", "m-0000000000000001", "--json"]).refused(4, "unknown_message");
    home.peerctl(&["release", "--from", "nobody", "--json"]).refused(4, "unknown_peer");
    for wrong in [
        &["policy", "luna", "sometimes", "--json"][..],
        &["policy", "me", "hold", "--json"],
        &["policy", "inbox-socket", "hold", "--json"],
        &["release", "--json"],
    ] {
        home.peerctl(wrong).refused(2, "usage");
    }
}

#[test]
fn held_mail_is_released_by_sender_and_by_reader() {
    let home = peer_tests::home!();
    let (luna, orion) = home.two_sessions();
    let vega = home.claude("vega");
    vega.register();
    let _ = home.peerctl(&["policy", "all", "hold"]).success();
    let send = |from: &Mcp, to: &str, text: &str| {
        from.call("send_message", json!({"to": to, "message": text})).success().message_id()
    };
    let to_both = send(&luna, "orion,vega", "to both");
    let (second, from_vega) = (send(&luna, "orion", "second"), send(&vega, "orion", "from vega"));
    let released = |arguments: &[&str]| {
        let told = home.peerctl(arguments).success().json()["deliveries"].clone();
        let told = told.as_array().expect("deliveries is a list").clone();
        told.iter()
            .map(|one| {
                format!("{} {}", one["id"].as_str().unwrap_or(""), one["to"].as_str().unwrap_or(""))
            })
            .collect()
    };
    let told: Vec<String> = released(&["release", "--from", "luna", "--to", "orion", "--json"]);
    assert_eq!(
        told,
        [format!("{to_both} orion"), format!("{second} orion")],
        "in their order, and to nobody else"
    );
    let checked = orion.call("check_messages", json!({})).success().text;
    let place =
        |text: &str| checked.find(text).unwrap_or_else(|| panic!("no {text:?} in {checked}"));
    assert!(place("| to both") < place("| second") && !checked.contains("from vega"), "{checked}");

    // What the person does not want is withdrawn by them.
    let _ = home.peerctl(&["cancel", &from_vega]).success();
    let told: Vec<String> = released(&["release", "--all", "--json"]);
    assert_eq!(told, [format!("{to_both} vega")]);
    let nothing = home.peerctl(&["release", "--all"]).success();
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", "none of that is held\n"));
}

#[test]
fn a_session_that_may_do_less_is_held_before_one_that_bypasses_permissions() {
    let home = peer_tests::home!();
    home.configure("[policy]\nescalation = \"hold\"\n[limits]\nidentical_text_ms = 0\n");
    let luna = home
        .adapter("claude-code")
        .env("PEER_NAME", "luna")
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .start();
    let orion = home.codex("orion");
    for session in [&luna, &orion] {
        session.register();
    }
    let hook = |mode: &str| {
        let input = json!({
            "session_id": "s-1", "hook_event_name": "UserPromptSubmit", "cwd": home.home(), "permission_mode": mode,
        });
        let _ = home
            .peerctl_with_input(&["hook", "claude", "UserPromptSubmit"], &input.to_string())
            .success();
        // The hook's report stands before the answer to a later call.
        luna.register();
        home.peerctl(&["peers", "luna", "--json"]).success().json()[0]["mode"].clone()
    };
    let told = |from: &Mcp, to: &str| {
        from.call("send_message", json!({"to": to, "message": "x"})).success().text
    };
    assert_eq!(hook("default"), "prompting");
    assert!(told(&orion, "luna").contains("- luna: stored"));
    assert_eq!(hook("bypassPermissions"), "bypass");
    assert!(told(&orion, "luna").contains("- luna: held"));
    assert!(
        told(&luna, "orion").contains("- orion: stored"),
        "from more to less is nothing special"
    );
    let question =
        luna.call("send_message", json!({"to": "orion", "message": "?"})).success().message_id();
    let reply =
        orion.call("send_message", json!({"message": "!", "reply_to": question})).success().text;
    assert!(reply.contains("- luna: held"), "also what was asked for: {reply}");

    // Its shell asks, and reads the answer once the person has let it go.
    let _ = orion.call("check_messages", json!({})).success();
    let mut ask =
        home.command(&["ask", "orion", "--wait", "60s", "--json", "--", "from the shell?"]);
    let ask = ask
        .env("CLAUDE_CODE_SESSION_ID", "s-1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run peerctl");
    let asked = orion.call("check_messages", json!({"from": "luna", "wait_s": 40})).success();
    assert!(asked.text.contains("| from the shell?"), "{}", asked.text);
    let answer = json!({"message": "yes", "reply_to": asked.message_id()});
    let answer = orion.call("send_message", answer).success().message_id();
    let _ = home.peerctl(&["release", &answer]).success();
    let asked = ask.wait_with_output().expect("wait for peerctl");
    let printed: Value = serde_json::from_slice(&asked.stdout).expect("one object");
    assert_eq!(printed["reply"]["text"], "yes", "{printed:#}");

    let mine = home.peerctl(&["inbox", "me"]).success().stderr;
    assert!(mine.contains("held messages to sessions: 2"), "{mine}");
    drop(luna);
    home.kill_broker();
    assert!(
        told(&orion, "luna").contains("- luna: held"),
        "the last known mode outlives session and broker"
    );
    assert_eq!(held(&home).len(), 3);
}
