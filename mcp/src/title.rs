//! The title of the client's terminal tab: `peer:<name>`, for a person who looks for a session
//! among many tabs.
//!
//! Knows terminals: which one shows a process, and how a title is set, saved and restored. Does not
//! know when: its callers report events. The invariants:
//!
//! - Only the tab that shows this client is changed.
//! - Writing never blocks, and a failure has the effect of a missing terminal.
//! - A saved title is restored once.
//!
//! If a terminal accepts only a part of a title, the rest appears with the next one: every sequence
//! begins with ESC, which ends an unfinished one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{getpgrp, getpid, getsid, tcgetpgrp};
use peer_proto::ids::is_well_formed_name;

/// Saves the title on the terminal's own stack. Terminals without one ignore it.
const KEEP: &str = "\x1b[22;0t";

/// Empties the title, for terminals without a stack, and takes the saved one off the stack.
const GIVE_BACK: &str = "\x1b]0;\x07\x1b[23;0t";

/// Terminals that print sequences that they do not understand.
const PLAIN_TERMINALS: [&str; 2] = ["dumb", "linux"];

/// The tab's title, as far as we may set it.
#[derive(Debug)]
pub(crate) struct Title(Mutex<Tab>);

#[derive(Debug, Default)]
struct Tab {
    /// The process that the tab shows; `None`: the title stays unchanged.
    shows: Option<u32>,
    /// The process on whose terminal's stack the previous title is; `None`: none is saved.
    kept: Option<u32>,
}

impl Title {
    /// Returns the title of the tab that shows this process; `None`: we may not set it.
    pub(crate) fn of_tab(process: Option<u32>) -> Self {
        Self(Mutex::new(Tab { shows: process, kept: None }))
    }

    /// Sets the process whose tab the session is in from now on; `None`: no tab whose title we may
    /// set.
    pub(crate) fn is_in(&self, process: Option<u32>) {
        self.tab().shows = process;
    }

    /// Shows `name`, even if it was shown before: the client sets titles of its own.
    pub(crate) fn show(&self, name: &str) {
        let mut tab = self.tab();
        let Some(process) = tab.shows else { return };
        // The broker allows no other name; a title with other characters could control the
        // terminal.
        if !is_well_formed_name(name) {
            return;
        }
        let Some(terminal) = terminal_that_shows(process) else { return };
        let keep = if tab.kept == Some(process) { "" } else { KEEP };
        if write(terminal, &format!("{keep}\x1b]0;peer:{name}\x07")) {
            tab.kept = Some(process);
        }
    }

    /// Restores the previous title, if one was saved.
    pub(crate) fn give_back(&self) {
        let Some(process) = self.tab().kept.take() else { return };
        // The client may have ended or be in the background: the shell's title is restored.
        if let Some(terminal) =
            terminal_of(process).map(|(terminal, _)| terminal).or_else(own_terminal)
        {
            let _ = write(terminal, GIVE_BACK);
        }
    }

    fn tab(&self) -> MutexGuard<'_, Tab> {
        // No code under this lock could leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a title may be set at all, according to the terminal and the person's choice in an
/// environment.
pub(crate) fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let said = |name: &str| variable(name).unwrap_or_default().trim().to_owned();
    matches!(said("PEERD_DISABLE_TAB_TITLE").as_str(), "" | "0")
        && !PLAIN_TERMINALS.contains(&said("TERM").as_str())
}

/// Returns the terminal whose tab shows `process` now: the process is in its foreground. A process
/// in the background left the tab to the shell.
fn terminal_that_shows(process: u32) -> Option<File> {
    // The program that started us may have given us a terminal of our own.
    let is_our_own =
        |terminal: &File| getsid(None) == Ok(getpid()) && tcgetpgrp(terminal) == Ok(getpgrp());
    let of_process = terminal_of(process)
        .filter(|(_, is_in_foreground)| *is_in_foreground)
        .map(|(terminal, _)| terminal);
    of_process.or_else(|| own_terminal().filter(is_our_own))
}

/// Returns the terminal that controls this process, according to the kernel.
fn own_terminal() -> Option<File> {
    open(Path::new("/dev/tty"))
}

/// Opens a terminal for writing, without blocking, and without making it our controlling terminal.
fn open(terminal: &Path) -> Option<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(terminal)
        .ok()
}

/// Returns the terminal that controls `process`, if that is also its input or an output, and
/// whether the process is in its foreground. A daemon has none. A client that another agent started
/// in its own tab talks to that agent.
#[cfg(target_os = "linux")]
fn terminal_of(process: u32) -> Option<(File, bool)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    let stat = peer_client::process::stat(process)?;
    let terminal = stat.terminal?;
    (0..3)
        .find_map(|descriptor| {
            let path = format!("/proc/{process}/fd/{descriptor}");
            let path = Path::new(&path);
            let is_it = |found: std::io::Result<std::fs::Metadata>| {
                found.is_ok_and(|found| {
                    found.file_type().is_char_device() && device_number(found.rdev()) == terminal
                })
            };
            // Checked before opening, as opening another file may have effects, and after, as it
            // may have been replaced.
            is_it(std::fs::metadata(path))
                .then(|| open(path))
                .flatten()
                .filter(|opened| is_it(opened.metadata()))
        })
        .map(|terminal| (terminal, stat.is_in_foreground()))
}

/// Elsewhere only our own terminal is used, and whether the process is in its foreground.
#[cfg(not(target_os = "linux"))]
fn terminal_of(process: u32) -> Option<(File, bool)> {
    let process = nix::unistd::Pid::from_raw(i32::try_from(process).ok()?);
    let terminal = own_terminal()?;
    let is_in_foreground =
        nix::unistd::getpgid(Some(process)).is_ok_and(|group| tcgetpgrp(&terminal) == Ok(group));
    Some((terminal, is_in_foreground))
}

/// Returns a device as `stat` numbers it: the low byte of the minor number, the major number, the
/// rest of the minor number.
#[cfg(target_os = "linux")]
fn device_number(device: libc::dev_t) -> u32 {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Writes once, whatever the result: the terminal may be stopped or gone. Returns whether it took
/// all of the text.
fn write(mut terminal: File, text: &str) -> bool {
    // Codex runs us in a process group of our own, and a terminal may stop background processes
    // that write.
    let mut background_write = SigSet::empty();
    background_write.add(Signal::SIGTTOU);
    let Ok(before) = background_write.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return false };
    let written = terminal.write(text.as_bytes());
    let _ = before.thread_set_mask();
    written.is_ok_and(|written| written == text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_person_and_the_terminal_may_want_none() {
        let said = |said: &'static str| {
            move |name: &str| said.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
        };
        for wanted in
            ["", "TERM=xterm-256color", "PEERD_DISABLE_TAB_TITLE=0", "PEERD_DISABLE_TAB_TITLE="]
        {
            assert!(is_wanted(said(wanted)), "{wanted}");
        }
        for unwanted in
            ["TERM=dumb", "TERM=linux", "PEERD_DISABLE_TAB_TITLE=1", "PEERD_DISABLE_TAB_TITLE=true"]
        {
            assert!(!is_wanted(said(unwanted)), "{unwanted}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_numbered_as_the_kernel_does() {
        // pts/2, and one beyond the first 256.
        assert_eq!(device_number(libc::makedev(136, 2)), 34_818);
        assert_eq!(
            device_number(libc::makedev(136, 300)),
            (300 & 0xff) | (136 << 8) | (0x100 << 12)
        );
    }
}
