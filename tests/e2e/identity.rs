//! Who a session is, over every end of the broker: its name, its id and its mailbox are its own as
//! long as it runs.

use std::io::Write;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::{Home, Mcp, PATIENCE};
use serde_json::{Value, json};

/// How the broker ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Stop,
    Restart,
    Kill,
}

/// What a stranger asks for while the broker is away.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Name,
    Seat,
}

/// How many rounds each kind of end gets. `.ci/run` asks for 20.
fn rounds() -> usize {
    std::env::var("PEERD_IDENTITY_ROUNDS")
        .map_or(2, |rounds| rounds.parse().expect("PEERD_IDENTITY_ROUNDS is a number"))
}

/// A home for the executable under test, or for the one that is to be compared with it.
fn home() -> Home {
    let compared = std::env::var_os("PEERD_IDENTITY_EXECUTABLE").map(PathBuf::from);
    compared.map_or_else(
        || peer_tests::home!(),
        |executable| Home::new(executable.to_str().expect("a path in UTF-8")),
    )
}

fn end(home: &Home, end: End) {
    match end {
        End::Stop => drop(home.peerctl(&["daemon", "stop"]).success()),
        End::Restart => drop(home.peerctl(&["daemon", "restart"]).success()),
        End::Kill => drop(home.kill_broker()),
    }
}

/// An adapter under a client process of its own, which a shell stands for; and that process.
fn of_its_own_client(home: &Home, name: Option<&str>, seat: Option<&str>) -> Mcp {
    of_a_client(home, "claude-code", name, seat)
}

fn of_a_client(home: &Home, client: &str, name: Option<&str>, seat: Option<&str>) -> Mcp {
    let mut adapter = home.adapter(client);
    if let Some(name) = name {
        adapter = adapter.env("PEER_NAME", name);
    }
    if let Some(seat) = seat {
        adapter = adapter.env("CLAUDE_CODE_SESSION_ID", seat);
    }
    // What follows the command keeps the shell from becoming it.
    adapter.through(&["sh", "-c", "\"$@\"; exit $?", "client"]).start()
}

fn signal(pid: u32, which: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), which).expect("signal a process");
}

/// The process that a shell started.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .expect("the kernel tells children");
    children.split_whitespace().next().expect("it has a child").parse().expect("a process id")
}

/// The peer that an adapter process speaks for, as the broker lists it.
fn id_of(home: &Home, name: &str) -> Option<Value> {
    let peers = home.peerctl(&["peers", "--all", "--json"]).success().json();
    peers
        .as_array()
        .expect("a list")
        .iter()
        .find(|peer| peer["name"] == name && peer["online"] == true)
        .map(|peer| peer["id"].clone())
}

/// One end of the broker; whether the session is who it was afterwards, and has its mail. Says what
/// went wrong.
fn round(how: End, asks: Option<Asks>) -> Result<(), String> {
    let home = home();
    let victim = of_its_own_client(&home, Some("victim"), Some("seat-of-victim"));
    let luna = of_its_own_client(&home, Some("luna"), None);
    for adapter in [&victim, &luna] {
        adapter.register();
    }
    let before = id_of(&home, "victim").ok_or("the victim is not there")?;
    let _ =
        luna.call("send_message", json!({"to": "victim", "message": "before the end"})).success();
    let adapter = child_of(victim.pid);
    // It cannot come back before the stranger has asked.
    if asks.is_some() {
        signal(adapter, Signal::SIGSTOP);
    }
    end(&home, how);
    let stranger = asks.map(|asks| match asks {
        Asks::Name => of_its_own_client(&home, Some("victim"), None),
        Asks::Seat => of_its_own_client(&home, None, Some("seat-of-victim")),
    });
    if let Some(stranger) = &stranger {
        stranger.register();
        signal(adapter, Signal::SIGCONT);
    }
    let back = victim.call("list_peers", json!({})).success().text;
    let after = id_of(&home, "victim");
    if after.as_ref() != Some(&before) {
        return Err(format!("victim was {before}, and is {after:?} now"));
    }
    let _ =
        luna.call("send_message", json!({"to": "victim", "message": "after the end"})).success();
    // The result of the first call after the end may carry the first message already.
    let mail = victim.call("check_messages", json!({})).success().text;
    for text in ["| before the end", "| after the end"] {
        if !back.contains(text) && !mail.contains(text) {
            return Err(format!("the victim does not have {text:?}: {back}\n{mail}"));
        }
    }
    if let Some(stranger) = stranger {
        let theirs = stranger.call("check_messages", json!({})).success().text;
        if theirs.contains("the end") {
            return Err(format!("the stranger reads the victim's mail: {theirs}"));
        }
        // With the first answer after its return.
        if !back.contains("you keep victim") {
            return Err(format!("the victim was not told: {back}"));
        }
    }
    Ok(())
}

/// All rounds of one kind: how many times the session kept what is its own, and what went wrong in
/// the others.
fn cell(how: End, with_stranger: bool, rounds: usize) -> (usize, Vec<String>) {
    let asks = |n: usize| {
        with_stranger.then_some(if n.is_multiple_of(2) { Asks::Name } else { Asks::Seat })
    };
    let wrong: Vec<_> = (0..rounds)
        .filter_map(|n| {
            round(how, asks(n)).err().map(|why| format!("{how:?}, {:?}: {why}", asks(n)))
        })
        .collect();
    (rounds - wrong.len(), wrong)
}

/// The figure: over each kind of end, with and without a new adapter that asks for the same name or
/// seat meanwhile.
#[test]
fn a_running_session_keeps_its_name_id_and_mailbox_over_every_end_of_the_broker() {
    let _serial = peer_tests::serial();
    let rounds = rounds();
    let ends = [End::Stop, End::Restart, End::Kill];
    // Most of a round is waiting for processes, so the kinds run side by side.
    let cells: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = ends
            .iter()
            .flat_map(|how| [false, true].map(|with_stranger| (*how, with_stranger)))
            .map(|(how, with_stranger)| scope.spawn(move || cell(how, with_stranger, rounds)))
            .collect();
        running.into_iter().map(|cell| cell.join().expect("a round does not panic")).collect()
    });
    let mut table = format!("kept of {rounds} | alone | a new adapter asks for its name or seat\n");
    for (how, kept) in ends.iter().zip(cells.chunks(2)) {
        table.push_str(&format!("{:<10} | {:>5} | {}\n", format!("{how:?}"), kept[0].0, kept[1].0));
    }
    // For whoever runs this with `--nocapture`; it also stands beside a failure.
    std::io::stderr().write_all(table.as_bytes()).expect("write the figures");
    let wrong: Vec<_> = cells.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_tab_that_was_closed_while_no_broker_ran_gets_its_name_back_at_once() {
    let home = home();
    let tab = of_its_own_client(&home, Some("fox"), None);
    let luna = of_its_own_client(&home, Some("luna"), None);
    for adapter in [&tab, &luna] {
        adapter.register();
    }
    let id = id_of(&home, "fox").expect("the tab is there");
    let adapter = child_of(tab.pid);
    signal(adapter, Signal::SIGSTOP);
    home.kill_broker();
    signal(adapter, Signal::SIGKILL);
    tab.kill();
    let _ =
        luna.call("send_message", json!({"to": "fox", "message": "for the next tab"})).success();
    let next = of_its_own_client(&home, Some("fox"), None);
    let mail = next.call("check_messages", json!({})).success().text;
    assert!(mail.contains("| for the next tab"), "{mail}");
    assert_eq!(id_of(&home, "fox"), Some(id));
}

/// A client that has ended leaves an adapter behind that looks for its last words: so does
/// `codex exec`, whose next run may follow within a second. Here the adapter is stopped, so that it
/// is certainly still there.
#[test]
fn the_next_session_of_a_name_gets_it_while_the_dead_ones_adapter_is_still_there() {
    for client in ["claude-code", "codex-mcp-client"] {
        for was_shown in [false, true] {
            let home = home();
            let luna = of_a_client(&home, client, Some("luna"), None);
            let orion = of_its_own_client(&home, Some("orion"), None);
            for adapter in [&luna, &orion] {
                adapter.register();
            }
            let id = id_of(&home, "luna").expect("luna is there");
            let _ = orion
                .call("send_message", json!({"to": "luna", "message": "for whoever is luna"}))
                .success();
            if was_shown {
                // Nothing proves that the model saw this result: it is the last one.
                let shown = luna.call("check_messages", json!({})).success().text;
                assert!(shown.contains("| for whoever is luna"), "{shown}");
            }
            let adapter = child_of(luna.pid);
            signal(adapter, Signal::SIGSTOP);
            signal(luna.pid, Signal::SIGKILL);
            let _ = luna.wait_exit(PATIENCE);
            let next = of_a_client(&home, client, Some("luna"), None);
            let mail = next.call("check_messages", json!({})).success().text;
            assert!(mail.contains("| for whoever is luna"), "{client}: {mail}");
            assert!(!was_shown || mail.contains("(shown before)"), "{client}: {mail}");
            assert_eq!(id_of(&home, "luna"), Some(id), "{client}");
            signal(adapter, Signal::SIGCONT);
        }
    }
}

/// An agent's shell, which ran `arguments`.
fn in_the_shell_of_an_agent(home: &Home, arguments: &str) -> (i32, String) {
    // One process is the client of one adapter, and runs peerctl beside it: an agent's shell as far
    // as anybody can tell.
    let exe = home.executable().display();
    let handshake = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "1"}}});
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "list_peers", "arguments": {}}});
    let script = format!(
        "mkfifo in out; {exe} mcp <in >out & exec 3>in 4<out; echo '{handshake}' >&3; read -r line <&4; \
         echo '{call}' >&3; read -r line <&4; {exe} {arguments} 2>&1; echo exit $?"
    );
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script])
        .env_clear()
        .env("HOME", home.home())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("PEERD_DIR", home.state()).env("PEER_NAME", "agent").current_dir(home.root());
    let said = home.run(command, "").stdout;
    for fifo in ["in", "out"] {
        std::fs::remove_file(home.root().join(fifo)).expect("the script made it");
    }
    let (said, code) = said
        .trim_end()
        .rsplit_once("exit ")
        .map(|(said, code)| (said.to_owned(), code.to_owned()))
        .expect("a code");
    (code.parse().expect("a number"), said)
}

#[test]
fn an_agents_shell_does_not_stop_the_broker_for_others() {
    let home = home();
    for arguments in ["daemon stop", "daemon restart"] {
        let (code, said) = in_the_shell_of_an_agent(&home, arguments);
        assert_eq!(code, 6, "{arguments}: {said}");
        assert!(said.contains("stopping the broker is reserved for the person"), "{said}");
        assert!(said.contains("operator.allow_from_agents"), "{said}");
    }
    let broker = home.broker_pid();
    assert!(broker.is_some(), "it runs on");
    // The person's own shell may, such as after an upgrade.
    let _ = home.peerctl(&["daemon", "restart"]).success();
    assert_ne!(home.broker_pid(), broker);
    let _ = home.peerctl(&["daemon", "stop"]).success();

    home.configure("[operator]\nallow_from_agents = true\n");
    let (code, said) = in_the_shell_of_an_agent(&home, "daemon restart");
    assert_eq!(code, 0, "{said}");
}
