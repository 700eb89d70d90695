//! The memory budget for requests from sockets: how many bytes may wait for the engine, in all and
//! per connection and process.
//!
//! A frame takes room before its body is read, and returns it when the engine has handled the
//! request. Without room, the connection is not read and its program waits. Room is taken in three
//! steps: from the connection, from its process, and from the total. So a program that leaves
//! frames incomplete, or sends faster than the store can commit, first uses up its own room.
//!
//! Invariants: an idle connection can always send [`HELLO_BYTES_MAX`] bytes, whatever other
//! connections do. In all, the broker holds at most that per connection, [`REQUESTS_BYTES_MAX`] and
//! [`OVERSIZED_BYTES_MAX`]. Room is never held without an end: the engine waits for no program, and
//! an incomplete frame has a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use peer_proto::limits::{
    CONNECTION_BYTES_MAX, HELLO_BYTES_MAX, OVERSIZED_BYTES_MAX, PROCESS_BYTES_MAX,
    REQUEST_BYTES_MAX, REQUESTS_BYTES_MAX,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room that all connections of one broker share.
#[derive(Debug)]
pub(crate) struct Budget {
    requests: Arc<Semaphore>,
    oversized: Arc<Semaphore>,
    /// By process, with the number of its connections.
    processes: Mutex<BTreeMap<u32, (Arc<Semaphore>, usize)>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            requests: bytes(REQUESTS_BYTES_MAX),
            oversized: bytes(OVERSIZED_BYTES_MAX),
            processes: Mutex::default(),
        }
    }
}

impl Budget {
    /// Returns the share of a new connection of that process. If the kernel names no process, the
    /// share is for this connection alone.
    pub(crate) fn share(self: &Arc<Self>, pid: Option<u32>) -> Share {
        let process = match pid {
            Some(pid) => {
                let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
                let (process, connections) =
                    processes.entry(pid).or_insert_with(|| (bytes(PROCESS_BYTES_MAX), 0));
                *connections += 1;
                Arc::clone(process)
            }
            None => bytes(PROCESS_BYTES_MAX),
        };
        let (small, connection) = (bytes(HELLO_BYTES_MAX), bytes(CONNECTION_BYTES_MAX));
        Share { budget: Arc::clone(self), pid, process, connection, small }
    }
}

fn bytes(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

/// One connection's part of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    pid: Option<u32>,
    process: Arc<Semaphore>,
    connection: Arc<Semaphore>,
    /// The connection's own room.
    small: Arc<Semaphore>,
}

impl Share {
    /// Waits until a frame of that many bytes may be read. Dropping the room returns it. If
    /// interrupted, it has taken nothing.
    pub(crate) async fn take(&self, frame_bytes: usize) -> Room {
        let connection = permits(&self.connection, frame_bytes.min(CONNECTION_BYTES_MAX)).await;
        if let Ok(count) = u32::try_from(frame_bytes)
            && let Ok(small) = Arc::clone(&self.small).try_acquire_many_owned(count)
        {
            return Room { _permits: [Some(connection), Some(small), None] };
        }
        if frame_bytes > REQUEST_BYTES_MAX {
            let oversized =
                permits(&self.budget.oversized, frame_bytes.min(OVERSIZED_BYTES_MAX)).await;
            return Room { _permits: [Some(connection), Some(oversized), None] };
        }
        let process = permits(&self.process, frame_bytes).await;
        let everybodys = permits(&self.budget.requests, frame_bytes).await;
        Room { _permits: [Some(connection), Some(process), Some(everybodys)] }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(pid) = self.pid else { return };
        let mut processes = self.budget.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connections)) = processes.get_mut(&pid) {
            *connections -= 1;
            if *connections == 0 {
                // Requests that the connection sent and that are not handled yet still hold room in
                // the total.
                processes.remove(&pid);
            }
        }
    }
}

async fn permits(of: &Arc<Semaphore>, count: usize) -> OwnedSemaphorePermit {
    let count = u32::try_from(count).expect("the bounds are small numbers");
    Arc::clone(of).acquire_many_owned(count).await.expect("nobody closes these semaphores")
}

/// Room for one frame, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permits: [Option<OwnedSemaphorePermit>; 3],
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Takes room at once. `None`: it must wait.
    fn at_once(share: &Share, frame_bytes: usize) -> Option<Room> {
        match pin!(share.take(frame_bytes)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(room) => Some(room),
            Poll::Pending => None,
        }
    }

    /// All that a process can take with frames of that size, each on a connection of its own.
    fn all(budget: &Arc<Budget>, pid: u32, frame_bytes: usize) -> Vec<(Share, Room)> {
        let mut taken = Vec::new();
        loop {
            let share = budget.share(Some(pid));
            let Some(room) = at_once(&share, frame_bytes) else { return taken };
            taken.push((share, room));
        }
    }

    #[test]
    fn a_connection_that_waits_for_much_is_not_read_until_some_was_worked_on() {
        let budget = Arc::new(Budget::default());
        let share = budget.share(Some(1));
        let mut taken: Vec<Room> = (0..4).map(|_| at_once(&share, 60_000).unwrap()).collect();
        assert!(at_once(&share, 60_000).is_none(), "a fifth goes beyond its share");
        assert!(at_once(&budget.share(Some(1)), 60_000).is_some(), "another connection is read");
        taken.pop();
        assert!(at_once(&share, 60_000).is_some());
    }

    #[test]
    fn one_process_leaves_room_for_another() {
        let budget = Arc::new(Budget::default());
        let greedy = all(&budget, 1, 100_000);
        assert_eq!(greedy.len(), PROCESS_BYTES_MAX / 100_000);
        assert!(at_once(&budget.share(Some(2)), 100_000).is_some());
        drop(greedy);
        assert!(at_once(&budget.share(Some(1)), 100_000).is_some());
        assert!(
            budget.processes.lock().unwrap().is_empty(),
            "processes without connections are forgotten"
        );
    }

    #[test]
    fn a_small_request_never_waits_for_others() {
        let budget = Arc::new(Budget::default());
        let greedy: Vec<_> = (1..=8).flat_map(|pid| all(&budget, pid, REQUEST_BYTES_MAX)).collect();
        assert_eq!(greedy.len(), REQUESTS_BYTES_MAX / REQUEST_BYTES_MAX, "all room is taken");
        let modest = budget.share(Some(100));
        assert!(at_once(&modest, 60_000).is_none());
        assert!(at_once(&modest, HELLO_BYTES_MAX).is_some());
        assert!(
            at_once(&greedy[0].0, HELLO_BYTES_MAX).is_some(),
            "those that wait can ask little too"
        );
        drop(greedy);
        assert!(at_once(&modest, 60_000).is_some());
    }

    #[test]
    fn frames_that_can_only_be_refused_wait_for_each_other_alone() {
        let budget = Arc::new(Budget::default());
        let greedy: Vec<_> = (1..=8).flat_map(|pid| all(&budget, pid, 1024 * 1024)).collect();
        assert_eq!(greedy.len(), OVERSIZED_BYTES_MAX / (1024 * 1024));
        assert!(at_once(&budget.share(Some(1)), REQUEST_BYTES_MAX).is_some());
        drop(greedy);
        assert!(at_once(&budget.share(Some(9)), 1024 * 1024).is_some());
    }
}
