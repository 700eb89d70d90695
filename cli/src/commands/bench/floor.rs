//! The floor: the least that a durable broker can do, as a thread in this process.
//!
//! A relay that reads messages from Unix sockets, appends all that arrived to a preallocated file,
//! syncs once, then answers the senders and forwards to the receivers. No names, no leases, no
//! traces, no encoding: what peerd takes beyond it is the price of being a broker.

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

/// The file is written over and over within this many bytes, which were written once: then a sync
/// writes no metadata.
const FILE_BYTES: usize = 64 << 20;

/// What is read at most from one socket in one turn.
const TURN_BYTES_MAX: usize = 64 * RECORD_BYTES;

/// This end of one sender's and one receiver's sockets.
pub(super) struct Pair {
    /// Records go in here, answers come out.
    pub(super) sender: UnixStream,
    /// Forwarded records come out here.
    pub(super) receiver: UnixStream,
}

/// A running relay; ends when all senders' sockets are closed.
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
    /// Sends one record and waits for the answer and the forwarded record; says when each was
    /// there.
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

/// When the answer and the record were there, in microseconds after the send.
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

/// The open sockets that have something to say.
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
