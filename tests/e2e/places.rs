//! Which sessions are in the same directory, where the directory is an odd one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use peer_tests::{Home, Mcp};
use serde_json::json;

/// A session in that directory, registered.
#[track_caller]
fn session_in(home: &Home, name: &str, directory: &Path) -> Mcp {
    let mcp = home.adapter("some-client").env("PEER_NAME", name).cwd(directory).start();
    mcp.register();
    mcp
}

/// The names that `list_peers` shows for a scope.
#[track_caller]
fn names(mcp: &Mcp, scope: &str) -> Vec<String> {
    let listed = mcp.call("list_peers", json!({"scope": scope})).success().text;
    let mut names: Vec<String> = listed
        .lines()
        .filter_map(|line| Some(line.strip_prefix("- ")?.split(' ').next()?.to_owned()))
        .collect();
    names.sort();
    names
}

// Other systems take no such names.
#[cfg(target_os = "linux")]
#[test]
fn directories_whose_names_are_no_text_can_be_told_apart() {
    let home = peer_tests::home!();
    let make = |name: &[u8]| {
        let directory = home.root().join(OsStr::from_bytes(name));
        fs::create_dir_all(directory.join(".git")).unwrap();
        directory
    };
    let (acute, grave) = (make(b"caf\xe9"), make(b"caf\xe8"));
    // The same text as the first one is shown with.
    let literal = make(b"caf\\xE9");
    let luna = session_in(&home, "luna", &acute);
    let orion = session_in(&home, "orion", &acute);
    let vega = session_in(&home, "vega", &grave);
    let rigel = session_in(&home, "rigel", &literal);
    for scope in ["directory", "repo"] {
        assert_eq!(names(&luna, scope), ["luna", "orion"], "{scope}");
        assert_eq!(names(&vega, scope), ["vega"], "{scope}");
        assert_eq!(names(&rigel, scope), ["rigel"], "{scope}");
    }
    let listed = orion.call("list_peers", json!({})).success().text;
    assert!(listed.contains("/caf\\xE9\"): ") && listed.contains("/caf\\xE8\"): "), "{listed}");
}

#[test]
fn sessions_whose_directories_are_gone_are_in_no_directory_with_each_other() {
    let home = peer_tests::home!();
    let gone = |name: &str| {
        let directory = home.root().join(format!("tree-of-{name}"));
        fs::create_dir(&directory).unwrap();
        let script = r#"cd "$0" && rmdir "$0" && exec "$@""#;
        let launcher = ["sh", "-c", script, directory.to_str().unwrap()];
        let mcp = home
            .adapter("some-client")
            .env("PEER_NAME", name)
            .env("PEERD_PROFILE", "full")
            .through(&launcher)
            .start();
        mcp.register();
        mcp
    };
    let (luna, orion) = (gone("luna"), gone("orion"));
    for scope in ["directory", "repo"] {
        let refused = luna.call("list_peers", json!({"scope": scope}));
        assert!(
            refused.is_error && refused.text.contains("this session's directory is unknown"),
            "{}",
            refused.text
        );
        assert!(refused.text.contains("list_peers() without scope"), "{}", refused.text);
    }
    let listed = orion.call("list_peers", json!({})).success().text;
    assert_eq!(listed.matches(", directory unknown): ").count(), 2, "{listed}");
    let asked = luna.call("ask_peer", json!({"question": "who is here?"}));
    assert!(
        asked.is_error,
        "a question to whoever works in the same directory went to somebody: {}",
        asked.text
    );
}

#[test]
fn a_directory_whose_path_is_too_long_to_be_told_is_still_one_directory() {
    let home = peer_tests::home!();
    let make = |last: &str| {
        let mut directory = home.root().to_owned();
        (0..10).for_each(|_| directory.push("d".repeat(200)));
        directory.push(last);
        fs::create_dir_all(&directory).unwrap();
        directory
    };
    let (api, web) = (make("api"), make("web"));
    let luna = session_in(&home, "luna", &api);
    let orion = session_in(&home, "orion", &api);
    let vega = session_in(&home, "vega", &web);
    assert_eq!(names(&luna, "directory"), ["luna", "orion"]);
    assert_eq!(names(&orion, "directory"), ["luna", "orion"]);
    assert_eq!(names(&vega, "directory"), ["vega"]);
}
