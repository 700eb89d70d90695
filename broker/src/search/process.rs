//! The search process: it has the index open, and nothing else.
//!
//! One thread reads requests and searches the last commit, so that no search waits for a disk. The
//! other thread writes. An error in the index ends only this process. It also ends when its
//! connection to the broker closes, and with its parent.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};

use super::index::{Index, IndexError, LOCK, Looked, Views};
use super::wire::{self, SearchReply, SearchRequest};
use super::{confine, words};

/// The sending end of the connection, shared by all threads.
#[derive(Clone)]
struct Voice(Arc<Mutex<UnixStream>>);

impl Voice {
    /// Sends one frame. If that fails, the broker is gone, and this process ends.
    fn send(&self, said: &SearchReply) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wire::write(&mut *line, said).is_err() {
            leave(0);
        }
    }

    fn fail(&self, why: String) -> ! {
        self.send(&SearchReply::Failed { why });
        leave(1)
    }
}

/// Gives this process its own name in process listings. Otherwise its arguments are the broker's,
/// and it would be taken for a second broker.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the arguments are overwritten in place, as setproctitle does")]
pub(super) fn call_it(name: &str) {
    /// The fields in which the kernel reports where the arguments begin and end, counted from
    /// behind the process's name.
    const ARGUMENTS: [usize; 2] = [45, 46];
    if let Ok(short) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&short);
    }
    let Ok(told) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((_, fields)) = told.rsplit_once(") ") else { return };
    let fields: Vec<&str> = fields.split(' ').collect();
    let place = |field: usize| {
        fields.get(field).and_then(|field| field.trim().parse::<usize>().ok()).unwrap_or(0)
    };
    let [start, end] = ARGUMENTS.map(place);
    if start == 0 || end <= start + 1 {
        return;
    }
    let mut line = vec![0; end - start];
    let bytes = name.as_bytes();
    // The last byte stays zero. Without it the kernel would continue into the environment.
    let length = bytes.len().min(line.len() - 1);
    line[..length].copy_from_slice(&bytes[..length]);
    // SAFETY: the kernel placed these bytes, arguments alone, on this process's stack, and reported
    // their place. Nothing reads the arguments after the fork, which copied them for this process
    // alone.
    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), start as *mut u8, line.len()) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn call_it(_name: &str) {}

/// Ends the process at once, whatever its threads do.
#[allow(
    unsafe_code,
    reason = "std's exit runs what the process that this one was forked from registered for its own end"
)]
fn leave(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { nix::libc::_exit(code) }
}

/// Serves the index in `dir` over `line` until `line` closes. `anew`: the existing index must not
/// be read.
pub(super) fn run(line: UnixStream, dir: &Path, anew: bool, confined: bool) -> ! {
    die_with_parent();
    call_it("peerd-search");
    let Ok(voice) = line.try_clone() else { leave(1) };
    let voice = Voice(Arc::new(Mutex::new(voice)));
    let of_panics = voice.clone();
    std::panic::set_hook(Box::new(move |panic| of_panics.fail(panic.to_string())));
    if let Err(why) = hold(dir) {
        voice.fail(format!("cannot lock {}: {why}", dir.display()));
    }
    if confined && let Err(why) = confine::confine(dir) {
        voice.fail(format!("cannot confine the search process: {why}"));
    }
    match open(dir, anew) {
        Ok((index, damaged)) => serve(line, dir, index, damaged, &voice),
        Err(error) => voice.fail(said(&error)),
    }
}

/// Waits until no other process has the index, and locks it.
fn hold(dir: &Path) -> std::io::Result<()> {
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    lock.lock()?;
    // The lock ends with the process.
    std::mem::forget(lock);
    Ok(())
}

fn open(dir: &Path, anew: bool) -> Result<(Index, u64), IndexError> {
    let damaged = match anew {
        true => 0,
        false => match Index::open_dir(dir)? {
            Looked::Sound(index) => return Ok((*index, 0)),
            Looked::Damaged(files) => files,
            Looked::None => 0,
        },
    };
    Ok((Index::create(dir)?, damaged))
}

fn serve(mut line: UnixStream, dir: &Path, index: Index, damaged: u64, voice: &Voice) -> ! {
    let views = Arc::new(Mutex::new(index.views()));
    voice.send(&SearchReply::Opened { cursor: index.cursor(), entries: index.entries(), damaged });
    let (work, works) = mpsc::channel();
    let writer = {
        let (dir, views, voice) = (dir.to_owned(), Arc::clone(&views), voice.clone());
        move || match write(&dir, index, &works, &views, &voice) {
            Ok(()) => {}
            Err(error) => voice.fail(said(&error)),
        }
    };
    if let Err(why) = std::thread::Builder::new().name("search-writer".into()).spawn(writer) {
        voice.fail(format!("cannot start a thread: {why}"));
    }
    loop {
        match wire::read(&mut line) {
            Ok(Some(SearchRequest::Find { number, search })) => {
                let view = views.lock().unwrap_or_else(PoisonError::into_inner).current();
                match view.find(&search, &words::parts(&search.query.text)) {
                    Ok(found) => voice.send(&SearchReply::Found { number, found }),
                    Err(error) => voice.fail(said(&error)),
                }
            }
            Ok(Some(asked)) => {
                if work.send(asked).is_err() {
                    leave(1);
                }
            }
            Ok(None) | Err(_) => leave(0),
        }
    }
}

/// Writes the entries that arrive, in order.
fn write(
    dir: &Path,
    mut index: Index,
    works: &Receiver<SearchRequest>,
    views: &Mutex<Views>,
    voice: &Voice,
) -> Result<(), IndexError> {
    for asked in works {
        match asked {
            SearchRequest::Begin => {
                // Its threads end before its files go.
                drop(index);
                index = Index::create(dir)?;
                *views.lock().unwrap_or_else(PoisonError::into_inner) = index.views();
                voice.send(&SearchReply::Opened {
                    cursor: index.cursor(),
                    entries: index.entries(),
                    damaged: 0,
                });
            }
            SearchRequest::Put(put) => index.put(&put)?,
            SearchRequest::Through { cursor, commit } => {
                index.through(cursor);
                if commit {
                    index.commit()?;
                }
                voice.send(&SearchReply::Done { committed: commit.then(|| index.entries()) });
            }
            // The other thread's.
            SearchRequest::Find { .. } => {}
        }
    }
    Ok(())
}

/// Formats an error with its sources.
fn said(error: &IndexError) -> String {
    crate::Chain(error).to_string()
}

/// Tells the kernel to end this process with its parent.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        // If this is refused, the closed connection ends it a moment later.
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    }
}
