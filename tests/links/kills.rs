//! Kills and stops of every process of a link under load: nothing is lost, doubled or out of order.
//!
//! `PEERD_LINK_KILLS=N` takes so many moments.

#![expect(clippy::print_stdout, reason = "it says how often each process was killed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::{Home, home};

use crate::machines::{Machines, Running, wait};

/// Moments in the plain run: each process is killed and stopped at least three times.
const MOMENTS: usize = 40;

/// How long a stopped process stays so.
const STOPPED_MS: u64 = 400;

/// Sends numbered messages to the other machine's person until it is told to stop. A send that got
/// no answer is repeated under its key. Returns how many were accepted.
pub(crate) fn send_all(home: &Home, to: &str, until: &AtomicBool) -> usize {
    let mut number = 0;
    while !until.load(Ordering::Relaxed) {
        let (key, text) = (format!("k{number}"), format!("number {number}"));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let arguments = ["send", to, "--idempotency-key", &key, "--json", "--", &text];
            let sent = home.peerctl(&arguments);
            if sent.code == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "a send is never accepted: {sent:?}");
            thread::sleep(Duration::from_millis(50));
        }
        number += 1;
        // Below the rate of a pair, which the test raises, and so that kills fall between.
        thread::sleep(Duration::from_millis(15));
    }
    number
}

/// The numbers that came from a peer, in the order in which they were stored.
pub(crate) fn came(home: &Home, from: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut after = "m-0000000000000000".to_owned();
    loop {
        let page = home.peerctl(&["history", "--after", &after, "-n", "200", "--json"]).success();
        let page = page.json();
        let rows = page.as_array().expect("a list");
        let Some(last) = rows.last() else { return numbers };
        last["id"].as_str().expect("an id").clone_into(&mut after);
        numbers.extend(rows.iter().filter(|row| row["from"] == from).filter_map(|row| {
            row["text"].as_str()?.strip_prefix("number ")?.parse::<usize>().ok()
        }));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// The process of a link that is ssh, or that is not, on either machine.
pub(crate) fn found(homes: [&Home; 2], is_ssh: bool) -> Option<u32> {
    let read = |pid: u32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    homes.iter().flat_map(|home| home.processes()).find(|pid| {
        read(*pid, "cmdline").contains("link --stdio --as")
            && read(*pid, "comm").starts_with("ssh") == is_ssh
    })
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_whatever_is_killed() {
    let _serial = peer_tests::serial();
    let moments = std::env::var("PEERD_LINK_KILLS").ok().and_then(|text| text.parse().ok());
    let moments = moments.unwrap_or(MOMENTS);
    let (laptop, desk) = (home!(), home!());
    for home in [&laptop, &desk] {
        home.configure(
            "[limits]\nsender_per_minute = 100000\npair_per_minute = 100000\npending_per_peer = 100000\n",
        );
    }
    let machines = Machines::linked(laptop, desk);
    let mut running = Some(machines.run());
    machines.wait_up();
    let alias = machines.alias_of_laptop();
    let (to_desk, to_laptop) = ("human@desk".to_owned(), format!("human@{alias}"));
    wait("both know each other", || {
        [(&machines.laptop, &to_desk), (&machines.desk, &to_laptop)]
            .iter()
            .all(|(home, name)| home.peerctl(&["peers", "--remote"]).stdout.contains(*name))
    });
    let stop = AtomicBool::new(false);
    let mut done = [0; 5];
    let (sent_to_desk, sent_to_laptop) = thread::scope(|scope| {
        let to_desk = scope.spawn(|| send_all(&machines.laptop, &to_desk, &stop));
        let to_laptop = scope.spawn(|| send_all(&machines.desk, &to_laptop, &stop));
        for moment in 0..moments {
            disturb(&machines, &mut running, moment, &mut done);
        }
        stop.store(true, Ordering::Relaxed);
        (to_desk.join().expect("the sends"), to_laptop.join().expect("the sends"))
    });
    println!("moments of [ssh, far end, link run, laptop's broker, desk's broker]: {done:?}");
    println!("sent {sent_to_desk} to desk, {sent_to_laptop} to the laptop");
    assert!(done.iter().all(|count| *count >= moments / 10), "{done:?}");
    let _ = machines.desk.peerctl(&["daemon", "start"]).success();
    wait("everything has crossed", || {
        came(&machines.desk, &format!("human@{alias}")).len() >= sent_to_desk
            && came(&machines.laptop, "human@desk").len() >= sent_to_laptop
    });
    let in_order = |count: usize| (0..count).collect::<Vec<_>>();
    assert_eq!(came(&machines.desk, &format!("human@{alias}")), in_order(sent_to_desk));
    assert_eq!(came(&machines.laptop, "human@desk"), in_order(sent_to_laptop));
    wait("nothing is on its way", || {
        [&machines.laptop, &machines.desk].iter().all(|home| {
            let link = home.peerctl(&["link", "ls", "--json"]).success().json()[0].clone();
            link["waiting"] == 0 && link["in_flight"] == 0
        })
    });
}

/// Kills or stops one process, at a moment of its own.
fn disturb(
    machines: &Machines,
    running: &mut Option<Running>,
    moment: usize,
    done: &mut [usize; 5],
) {
    // Not random, but no two alike: the waits are spread over the time of several messages.
    thread::sleep(Duration::from_millis(150 + (moment * 37 % 110) as u64 * 5));
    let homes = [&machines.laptop, &machines.desk];
    let which = moment % 5;
    let stops = moment / 5 % 2 == 1;
    let pid = match which {
        0 => found(homes, true),
        1 => found(homes, false),
        2 => running.as_ref().map(Running::pid),
        3 => machines.laptop.broker_pid(),
        _ => machines.desk.broker_pid(),
    };
    let Some(pid) = pid else { return };
    done[which] += 1;
    if stops {
        signal(pid, Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(STOPPED_MS));
        signal(pid, Signal::SIGCONT);
        return;
    }
    signal(pid, Signal::SIGKILL);
    match which {
        2 => *running = Some(machines.run()),
        // The far end starts no broker; the person of that machine does, or a session.
        4 => {
            let _ = machines.desk.peerctl(&["daemon", "start"]);
        }
        _ => {}
    }
    if moment.is_multiple_of(10) {
        machines.wait_up();
    }
}
