//! A disk in memory that loses what was not synced, and fails when it is told to.
//!
//! Knows sectors and syncs, and nothing of databases. A seed decides the content after a power cut:
//! of each 512-byte sector, the synced content or any later one, and the same for the length. A
//! sector is never torn, which redb assumes too.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

const SECTOR_BYTES: usize = 512;

/// When and how the disk fails. Writes, changes of length and syncs are counted, from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes in the middle of this operation: it and all after it do not return a result.
    PowerCutAt(usize),
    /// This operation alone fails with this error number and does nothing.
    FailsOnceAt(usize, i32),
    /// This operation and all later ones fail with this error number and do nothing.
    FailsFrom(usize, i32),
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct CrashDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// The content that is read.
    present: Vec<u8>,
    /// The content that every power cut leaves.
    synced: Vec<u8>,
    /// The contents of each sector since the last sync, in order.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The lengths since the last sync.
    unsynced_lengths: Vec<usize>,
    operations: usize,
    reads: usize,
    fault: Option<Fault>,
}

impl CrashDisk {
    pub(super) fn new() -> Self {
        Self::holding(Vec::new())
    }

    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Disk { present: bytes.clone(), synced: bytes, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Lets the disk fail; operations are counted from here.
    pub(super) fn fail(&self, fault: Fault) {
        let mut disk = self.disk.lock().unwrap();
        disk.fault = Some(fault);
        disk.operations = 0;
    }

    /// Writes, changes of length and syncs so far.
    pub(super) fn operations(&self) -> usize {
        self.disk.lock().unwrap().operations
    }

    pub(super) fn reads(&self) -> usize {
        self.disk.lock().unwrap().reads
    }

    /// Returns the disk as the next process finds it after a kill: the system keeps what was
    /// written.
    pub(super) fn after_kill(&self) -> Self {
        Self::holding(self.disk.lock().unwrap().present.clone())
    }

    /// Returns the disk as the machine may find it after a power cut.
    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let disk = self.disk.lock().unwrap();
        let mut draw = Draw(seed);
        let mut bytes = disk.synced.clone();
        // If a file grew and was not synced, it may have the new length without the new content, or
        // the reverse.
        let longest = disk.unsynced_lengths.iter().copied().max().unwrap_or(0).max(bytes.len());
        let length = match draw.below(disk.unsynced_lengths.len() + 1) {
            0 => disk.synced.len(),
            n => disk.unsynced_lengths[n - 1],
        };
        bytes.resize(longest.max(disk.present.len()), 0);
        for (sector, versions) in &disk.unsynced {
            let survivor = draw.below(versions.len() + 1);
            if survivor > 0 {
                let content = &versions[survivor - 1];
                let start = sector * SECTOR_BYTES;
                let end = (start + content.len()).min(bytes.len());
                if start < end {
                    bytes[start..end].copy_from_slice(&content[..end - start]);
                }
            }
        }
        bytes.truncate(length);
        Self::holding(bytes)
    }
}

impl Disk {
    /// Counts an operation. Returns whether its effect takes place, and its result.
    fn operate(&mut self) -> (bool, io::Result<()>) {
        self.operations += 1;
        match self.fault {
            Some(Fault::PowerCutAt(at)) if self.operations == at => {
                (true, Err(io::Error::other("power cut")))
            }
            Some(Fault::PowerCutAt(at)) if self.operations > at => {
                (false, Err(io::Error::other("power cut")))
            }
            Some(Fault::FailsOnceAt(at, errno)) if self.operations == at => {
                (false, Err(io::Error::from_raw_os_error(errno)))
            }
            Some(Fault::FailsFrom(at, errno)) if self.operations >= at => {
                (false, Err(io::Error::from_raw_os_error(errno)))
            }
            _ => (true, Ok(())),
        }
    }
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap().present.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.reads += 1;
        let start = offset as usize;
        let found =
            disk.present.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let (takes_place, result) = disk.operate();
        if takes_place {
            disk.present.resize(len as usize, 0);
            disk.unsynced_lengths.push(len as usize);
        }
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let (takes_place, result) = disk.operate();
        // An interrupted sync proves nothing: the seed decides which sectors were written.
        if takes_place && result.is_ok() {
            disk.synced = disk.present.clone();
            disk.unsynced.clear();
            disk.unsynced_lengths.clear();
        }
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let (takes_place, result) = disk.operate();
        if takes_place {
            let (start, end) = (offset as usize, offset as usize + data.len());
            if end > disk.present.len() {
                disk.present.resize(end, 0);
                disk.unsynced_lengths.push(end);
            }
            disk.present[start..end].copy_from_slice(data);
            for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                let from = sector * SECTOR_BYTES;
                let to = (from + SECTOR_BYTES).min(disk.present.len());
                let content = disk.present[from..to].to_vec();
                disk.unsynced.entry(sector).or_default().push(content);
            }
        }
        result
    }
}

/// A small generator of numbers (splitmix64), so that a seed replays a run.
#[derive(Debug)]
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
