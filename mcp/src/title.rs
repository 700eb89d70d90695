//! The title of the client's terminal tab: `peer:<name>`, for the person who looks for a session among many tabs.
//!
//! Knows terminals: which one this adapter may write to, how a title is set, kept and given back. Does not know when: its
//! callers tell it of events. Invariants: only the tab that shows this very client is touched; writing never blocks, and
//! whatever fails is as if there were no terminal; what was kept is given back once.
//!
//! A terminal that takes only a part of a title (its program reads no more) shows the rest of it with the next one: every
//! sequence begins with ESC, which ends an unfinished one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid, tcgetpgrp};
use peer_proto::ids::is_well_formed_name;

/// Puts the title on the terminal's own stack. Terminals without one ignore it.
const KEEP: &str = "\x1b[22;0t";

/// Empties the title, for terminals without a stack, and takes the former one off the stack.
const GIVE_BACK: &str = "\x1b]0;\x07\x1b[23;0t";

/// Terminals that print what they do not understand.
const PLAIN_TERMINALS: [&str; 2] = ["dumb", "linux"];

/// The tab's title, as far as it is ours to set.
#[derive(Debug)]
pub(crate) struct Title {
    /// The process whose tab it is; none where the title stays as it is.
    client: Option<Pid>,
    /// The former title is on the terminal's stack.
    kept: AtomicBool,
}

impl Title {
    /// The title of the tab that shows the process `client`.
    pub(crate) fn of_tab(client: u32) -> Self {
        let client = i32::try_from(client).ok().filter(|pid| *pid > 1).map(Pid::from_raw);
        Self { client, kept: AtomicBool::new(false) }
    }

    /// A title that is never touched.
    pub(crate) fn untouched() -> Self {
        Self { client: None, kept: AtomicBool::new(false) }
    }

    /// Shows `name`, also where it was shown before: the client writes titles of its own.
    pub(crate) fn show(&self, name: &str) {
        let Some(client) = self.client else { return };
        // The broker lets no other name be; a title that held anything else could speak to the terminal.
        if !is_well_formed_name(name) {
            return;
        }
        let Some(tab) = tab_of(client) else { return };
        let keep = if self.kept.load(Ordering::Relaxed) { "" } else { KEEP };
        if write(tab, &format!("{keep}\x1b]0;peer:{name}\x07")) {
            self.kept.store(true, Ordering::Relaxed);
        }
    }

    /// Gives the former title back, where one was kept.
    pub(crate) fn give_back(&self) {
        if self.kept.swap(false, Ordering::Relaxed)
            && let Some(tab) = controlling_terminal()
        {
            // The client may be gone, and the shell in the foreground: it is the shell's title that comes back.
            let _ = write(tab, GIVE_BACK);
        }
    }
}

/// Whether a title may be set at all, by what the environment says of the terminal and of the person's wish.
pub(crate) fn is_wanted() -> bool {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    matches!(variable("PEERD_DISABLE_TAB_TITLE").trim(), "" | "0") && !PLAIN_TERMINALS.contains(&variable("TERM").trim())
}

/// The terminal that shows `client`: the one that controls this process, with the client in its foreground.
///
/// A daemon that runs adapters for several tabs has no controlling terminal; a client that another agent started in its own
/// tab is there without that tab's terminal as its input or output; one that the person has sent to the background left
/// the tab to the shell.
fn tab_of(client: Pid) -> Option<File> {
    let terminal = controlling_terminal()?;
    let foreground = tcgetpgrp(&terminal).ok()?;
    let is_ours = getsid(None) == Ok(getpid()) && foreground == getpgrp();
    let is_the_client_s = || getpgid(Some(client)) == Ok(foreground) && talks_to_it(client);
    (is_ours || is_the_client_s()).then_some(terminal)
}

/// The terminal of this process's session, whichever it is by the kernel's word.
fn controlling_terminal() -> Option<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/tty").ok()
}

/// Whether our controlling terminal is also the input or an output of `client`.
#[cfg(target_os = "linux")]
fn talks_to_it(client: Pid) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    let Some(ours) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(terminal_number) else { return false };
    (0..3).any(|descriptor| {
        let Ok(file) = std::fs::metadata(format!("/proc/{client}/fd/{descriptor}")) else { return false };
        file.file_type().is_char_device() && device_number(libc::major(file.rdev()), libc::minor(file.rdev())) == ours
    })
}

/// Elsewhere that cannot be told without the system's private interfaces: the foreground has to do.
#[cfg(not(target_os = "linux"))]
fn talks_to_it(_client: Pid) -> bool {
    true
}

/// The controlling terminal in a process's `stat`: the seventh field. The second one, in brackets, may contain anything.
#[cfg(target_os = "linux")]
fn terminal_number(stat: &str) -> Option<u32> {
    let number: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(4)?.parse().ok()?;
    (number != 0).then_some(number.cast_unsigned())
}

/// A device as `stat` numbers it: the low byte of the minor number, the major number, the rest of the minor number.
#[cfg(target_os = "linux")]
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Writes once, whatever becomes of it: the terminal may be stopped or gone. Whether it took all of it.
fn write(mut terminal: File, text: &str) -> bool {
    // Codex runs us in a process group of our own, and a terminal set so stops whoever writes from the background.
    let mut background_write = SigSet::empty();
    background_write.add(Signal::SIGTTOU);
    let Ok(before) = background_write.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return false };
    let written = terminal.write(text.as_bytes());
    let _ = before.thread_set_mask();
    written.is_ok_and(|written| written == text.len())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_s_number_is_found_behind_any_name() {
        assert_eq!(terminal_number("12 (a) b) (c) S 1 12 12 34818 12 4194304 0"), Some(34_818));
        assert_eq!(terminal_number("12 (daemon) S 1 12 12 0 -1 4194304 0"), None);
        assert_eq!(terminal_number("nonsense"), None);
    }

    #[test]
    fn devices_are_numbered_as_the_kernel_does() {
        // pts/2, and one beyond the first 256.
        assert_eq!(device_number(136, 2), 34_818);
        assert_eq!(device_number(136, 300), (300 & 0xff) | (136 << 8) | (0x100 << 12));
    }
}
