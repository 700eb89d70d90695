//! The floor of the measurements: a relay that does the least that a durable broker must do, as a
//! thread of this process.
//!
//! The relay reads messages from Unix sockets and appends all that arrived to a preallocated file.
//! It syncs once, answers the senders, and forwards the messages to the receivers. It knows no
//! names, leases, traces or encoding: the difference to peerd is the cost of these.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Failure;

/// The bytes of one message in the file and on the sockets.
pub(super) const RECORD_BYTES: usize = 320;

/// The answer to the sender.
pub(super) const ANSWER_BYTES: usize = 8;

/// The relay writes the file again and again within these bytes, which are written once before. A
/// sync then writes no metadata.
const FILE_BYTES: usize = 64 << 20;

/// Most bytes that are read from one socket in one turn.
const TURN_BYTES_MAX: usize = 64 * RECORD_BYTES;

/// The bench's ends of the sockets of one sender and one receiver.
pub(super) struct Pair {
    /// Takes records, and returns answers.
    pub(super) sender: UnixStream,
    /// Returns the forwarded records.
    pub(super) receiver: UnixStream,
}

/// A running relay. It ends when the sockets of all senders are closed.
pub(super) struct Floor {
    pub(super) pairs: Vec<Pair>,
    relay: JoinHandle<io::Result<()>>,
}

impl Floor {
    /// Prepares the file in `dir` and starts the relay for this many pairs.
    pub(super) fn start(dir: &Path, pairs: usize) -> Result<Self, Failure> {
        let path = dir.join("floor");
        prepare(&path, pairs).map_err(|source| Failure::file("preparing", path, source))
    }

    /// Closes the sockets and waits for the relay.
    pub(super) fn stop(self) -> Result<(), Failure> {
        drop(self.pairs);
        match self.relay.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(Failure::system("running the relay of the floor", source)),
            Err(_) => Err(Failure::wrong("the relay of the floor died".to_owned())),
        }
    }
}

impl Pair {
    /// Sends one record, and waits for the answer and the forwarded record. Returns the time of
    /// each.
    pub(super) fn exchange(&mut self, record: &[u8; RECORD_BYTES]) -> Result<Exchange, Failure> {
        self.try_exchange(record).map_err(|source| {
            Failure::system("exchanging a message with the relay of the floor", source)
        })
    }

    fn try_exchange(&mut self, record: &[u8; RECORD_BYTES]) -> io::Result<Exchange> {
        let mut answer = [0; ANSWER_BYTES];
        let mut forwarded = [0; RECORD_BYTES];
        let begun = std::time::Instant::now();
        self.sender.write_all(record)?;
        self.sender.read_exact(&mut answer)?;
        let answered_us = super::report::us_since(begun);
        self.receiver.read_exact(&mut forwarded)?;
        Ok(Exchange { answered_us, forwarded_us: super::report::us_since(begun) })
    }
}

/// The times of the answer and of the forwarded record, in microseconds after the send.
pub(super) struct Exchange {
    pub(super) answered_us: f64,
    pub(super) forwarded_us: f64,
}

fn prepare(path: &Path, pairs: usize) -> io::Result<Floor> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES / zeros.len() {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..pairs {
        let (sender, relay_in) = UnixStream::pair()?;
        let (receiver, relay_out) = UnixStream::pair()?;
        ours.push(Pair { sender, receiver });
        theirs.push((relay_in, relay_out));
    }
    let relay =
        std::thread::Builder::new().name("floor".to_owned()).spawn(move || relay(&file, theirs))?;
    Ok(Floor { pairs: ours, relay })
}

fn relay(file: &File, mut pairs: Vec<(UnixStream, UnixStream)>) -> io::Result<()> {
    let mut offset = 0;
    let mut buffers = vec![Vec::with_capacity(TURN_BYTES_MAX); pairs.len()];
    let mut open = vec![true; pairs.len()];
    let mut batch = Vec::new();
    while open.contains(&true) {
        let ready = ready(&pairs, &open)?;
        batch.clear();
        for &place in &ready {
            let buffer = &mut buffers[place];
            let kept = buffer.len();
            buffer.resize(kept + TURN_BYTES_MAX, 0);
            let read = pairs[place].0.read(&mut buffer[kept..])?;
            buffer.truncate(kept + read);
            open[place] = read > 0;
            let whole = buffer.len() - buffer.len() % RECORD_BYTES;
            batch.extend_from_slice(&buffer[..whole]);
        }
        if batch.is_empty() {
            continue;
        }
        if offset + batch.len() > FILE_BYTES {
            offset = 0;
        }
        file.write_all_at(&batch, offset as u64)?;
        file.sync_data()?;
        offset += batch.len();
        for &place in &ready {
            let buffer = &mut buffers[place];
            let whole = buffer.len() - buffer.len() % RECORD_BYTES;
            let (sender, receiver) = &mut pairs[place];
            sender.write_all(&vec![1; whole / RECORD_BYTES * ANSWER_BYTES])?;
            receiver.write_all(&buffer[..whole])?;
            buffer.drain(..whole);
        }
    }
    Ok(())
}

/// The indexes of the open sockets that can be read.
fn ready(pairs: &[(UnixStream, UnixStream)], open: &[bool]) -> io::Result<Vec<usize>> {
    let places: Vec<_> = (0..pairs.len()).filter(|&place| open[place]).collect();
    let mut asked: Vec<_> = places
        .iter()
        .map(|&place| PollFd::new(pairs[place].0.as_fd(), PollFlags::POLLIN))
        .collect();
    poll(&mut asked, PollTimeout::NONE)?;
    Ok(places
        .into_iter()
        .zip(&asked)
        .filter(|(_, asked)| asked.any() == Some(true))
        .map(|(place, _)| place)
        .collect())
}
