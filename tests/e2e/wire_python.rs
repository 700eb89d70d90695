//! A client written from `docs/protocol.md` alone, in another language, talks to the real broker.

use std::io::Write;
use std::process::Command;

/// Without Python the test cannot run. It then says so, and fails where `PEERD_REQUIRE_PYTHON=1`
/// demands it (`.ci/run`).
#[test]
fn a_client_written_from_the_document_alone_can_talk_to_the_broker() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert_ne!(
            std::env::var("PEERD_REQUIRE_PYTHON").as_deref(),
            Ok("1"),
            "python3 is missing and required"
        );
        // Straight to the stream: what a passing test prints with a macro is swallowed.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: python3 is missing, so the protocol's document was not tried"
        );
        return;
    }
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/wire_client.py");
    let output = Command::new("python3")
        .arg("-I")
        .arg(script)
        .arg(home.socket())
        .output()
        .expect("run python3");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "wire_client.py failed after\n{stdout}\n{stderr}");
    assert!(stdout.ends_with("ok\n"), "{stdout}");
}
