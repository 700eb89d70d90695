//! `config.toml`: what is in force is shown, and a mistake in the file stops nobody's mail.

use std::fs;

use peer_tests::Home;
use serde_json::{Value, json};

/// What `peerctl config` says of one key.
#[track_caller]
fn value(home: &Home, key: &str) -> Value {
    let told = home.peerctl(&["config", "--json"]).json();
    let values = told["values"].as_array().unwrap_or_else(|| panic!("no values in {told}"));
    values
        .iter()
        .find(|value| value["key"] == key)
        .unwrap_or_else(|| panic!("no {key} in {told}"))
        .clone()
}

#[test]
fn what_is_in_force_is_told_from_what_the_file_says() {
    let home = peer_tests::home!();
    home.configure("");
    let key = "limits.sender_per_minute";
    assert_eq!(
        (&value(&home, key)["value"], &value(&home, key)["in_force"]),
        (&json!(60), &json!(60))
    );
    let _ = home.peerctl(&["daemon", "start"]).success();
    home.configure("[limits]\nsender_per_minute = 7\n[adapter]\nprofile = \"full\"\n");
    assert_eq!(
        (&value(&home, key)["value"], &value(&home, key)["in_force"]),
        (&json!(7), &json!(60))
    );
    assert_eq!(
        value(&home, "adapter.profile")["in_force"],
        "full",
        "the broker does not go by that"
    );
    assert!(home.peerctl(&["config"]).success().stdout.contains("7 (after a restart; now 60)"));
    let doctor = home.peerctl(&["doctor"]).success().stdout;
    assert!(
        doctor.contains("limits.sender_per_minute is 7 in config.toml, but the broker uses 60"),
        "{doctor}"
    );
    let _ = home.peerctl(&["daemon", "restart"]).success();
    assert_eq!(
        (&value(&home, key)["value"], &value(&home, key)["in_force"]),
        (&json!(7), &json!(7))
    );
    assert!(!home.peerctl(&["config"]).success().stdout.contains("after a restart"));
}

#[test]
fn a_mistake_in_the_file_stops_no_mail_and_opens_nothing_and_is_told_everywhere() {
    let home = peer_tests::home!();
    home.configure("[limits]\nsender_per_minute = 7\n[policy]\ndefault = \"hold\"\n");
    let _ = home.peerctl(&["daemon", "start"]).success();
    let _ = home.peerctl(&["daemon", "stop"]).success();
    home.configure("[limits]\nsender_per_minut = 9\n[policy]\ndefault = \"accept\"\n");
    let started = home.peerctl(&["daemon", "start"]).success();
    assert!(
        started.stderr.contains("line 2")
            && started.stderr.contains("did you mean sender_per_minute?"),
        "{started:?}"
    );

    // Nothing of the broken file holds, and what held before does.
    let (luna, orion) = (home.codex("luna"), home.claude("orion"));
    luna.register();
    let _ =
        orion.call("send_message", json!({"to": "luna", "message": "are you there?"})).success();
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert_eq!(status["messages"]["held"], 1, "{status}");
    assert!(
        status["config_fault"].as_str().expect("a text").contains("last start that could read it"),
        "{status}"
    );
    assert!(home.peerctl(&["status"]).success().stdout.contains("did you mean sender_per_minute?"));

    let config = home.peerctl(&["config"]);
    assert_eq!(config.code, 1, "{config:?}");
    assert!(
        config.stdout.contains("limits.sender_per_minute")
            && config.stderr.contains("did you mean"),
        "{config:?}"
    );
    assert_eq!(value(&home, "limits.sender_per_minute")["in_force"], 7);
    let doctor = home.peerctl(&["doctor"]);
    assert!(
        doctor.code == 7 && doctor.stdout.contains("did you mean sender_per_minute?"),
        "{doctor:?}"
    );
    let log = fs::read_to_string(home.state().join("broker.log")).expect("read the log");
    assert!(log.contains("the configuration is not in force"), "{log}");

    home.configure("[limits]\nsender_per_minute = 9\n");
    let _ = home.peerctl(&["daemon", "restart"]).success();
    assert_eq!(value(&home, "limits.sender_per_minute")["in_force"], 9);
    assert_eq!(home.peerctl(&["status", "--json"]).success().json()["config_fault"], Value::Null);
}

#[test]
fn where_nothing_is_known_of_what_was_wanted_the_defaults_hold() {
    let home = peer_tests::home!();
    // A pipe in the file's place is no configuration either, and holds nobody up.
    home.configure("");
    let file = home.state().join("config.toml");
    fs::remove_file(&file).expect("remove the file");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let status = home.peerctl(&["status", "--json"]).success().json();
    assert!(
        status["config_fault"].as_str().expect("a text").contains("uses all defaults"),
        "{status}"
    );
    let luna = home.codex("luna");
    luna.register();
}
