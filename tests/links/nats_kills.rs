//! Kills and stops of every process of a team under load: nothing is lost, doubled or out of order.
//!
//! `PEERD_LINK_KILLS=N` takes so many moments.

#![expect(clippy::print_stdout, reason = "it says how often each process was killed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use peer_tests::Home;

use crate::kills::{came, send_all, signal};
use crate::machines::wait;
use crate::nats::{alias, pair, wait_up};
use crate::nats_server::{Member, Server, Version, serve};

/// Moments in the plain run: each process is killed and stopped at least twice.
const MOMENTS: usize = 24;

/// How long a stopped process stays so.
const STOPPED_MS: u64 = 400;

#[test]
fn nothing_is_lost_doubled_or_out_of_order_whatever_of_a_team_is_killed() {
    let _serial = peer_tests::serial();
    let moments = std::env::var("PEERD_LINK_KILLS").ok().and_then(|text| text.parse().ok());
    let moments = moments.unwrap_or(MOMENTS);
    let mut server = Server::open(Version::V2_15);
    let (one, two) = pair(&server);
    for home in [&one, &two] {
        home.configure(
            "[limits]\nsender_per_minute = 100000\npair_per_minute = 100000\npending_per_peer = 100000\n",
        );
        let _ = home.peerctl(&["daemon", "restart"]).success();
    }
    let mut running = [serve(&one), serve(&two)];
    wait_up(&one, &two);
    let (of_one, of_two) = (format!("human@{}", alias(&two)), format!("human@{}", alias(&one)));
    let stop = AtomicBool::new(false);
    let mut done = [0; 5];
    let (sent_by_one, sent_by_two) = thread::scope(|scope| {
        let by_one = scope.spawn(|| send_all(&one, &of_two, &stop));
        let by_two = scope.spawn(|| send_all(&two, &of_one, &stop));
        for moment in 0..moments {
            disturb([&one, &two], &mut server, &mut running, moment, &mut done);
        }
        stop.store(true, Ordering::Relaxed);
        (by_one.join().expect("the sends"), by_two.join().expect("the sends"))
    });
    println!("moments of [server, link of one, of two, broker of one, of two]: {done:?}");
    println!("sent by one: {sent_by_one}, by two: {sent_by_two}");
    assert!(done.iter().all(|count| *count >= moments / 10), "{done:?}");
    wait_up(&one, &two);
    wait("everything has crossed", || {
        came(&two, &of_one).len() >= sent_by_one && came(&one, &of_two).len() >= sent_by_two
    });
    let in_order = |count: usize| (0..count).collect::<Vec<_>>();
    assert_eq!(came(&two, &of_one), in_order(sent_by_one));
    assert_eq!(came(&one, &of_two), in_order(sent_by_two));
    wait("nothing is on its way", || {
        [&one, &two].iter().all(|home| {
            let link = home.peerctl(&["link", "ls", "--json"]).success().json()[0].clone();
            link["waiting"] == 0 && link["in_flight"] == 0
        })
    });
}

/// Kills or stops one process, at a moment of its own.
fn disturb(
    homes: [&Home; 2],
    server: &mut Server,
    running: &mut [Member; 2],
    moment: usize,
    done: &mut [usize; 5],
) {
    // Not random, but no two alike: the waits are spread over the time of several messages.
    thread::sleep(Duration::from_millis(600 + (moment * 37 % 110) as u64 * 20));
    let which = moment % 5;
    let stops = moment / 5 % 2 == 1;
    let pid = match which {
        0 => server.pid(),
        1 | 2 => Some(running[which - 1].pid()),
        _ => homes[which - 3].broker_pid(),
    };
    let Some(pid) = pid else { return };
    done[which] += 1;
    if stops {
        signal(pid, Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(STOPPED_MS));
        signal(pid, Signal::SIGCONT);
        return;
    }
    match which {
        0 => {
            server.kill();
            assert!(server.start());
        }
        1 | 2 => {
            running[which - 1].kill();
            running[which - 1] = serve(homes[which - 1]);
        }
        _ => {
            signal(pid, Signal::SIGKILL);
            let _ = homes[which - 3].peerctl(&["daemon", "start"]);
        }
    }
}
