//! Resets what a process inherits from its starter and a broker must not keep: signals, limits, a
//! nice value.
//!
//! A broker outlives its starter and serves every program of its user. One starter's settings for
//! its own child would apply to all of them.

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

/// One more than the last signal that Linux and macOS have.
const SIGNALS_END: libc::c_int = 65;

/// Lets this process wait for its children, even if its starter ignored or blocked SIGCHLD. If it
/// is ignored, the kernel discards a child's exit status, and each wait for it fails.
///
/// Call it before any thread is made.
pub fn wait_for_children() {
    default_if_ignored(libc::SIGCHLD);
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    // The mask of the calling thread; it cannot fail with a known signal.
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&child), None);
}

/// Unblocks every signal, and gives each ignored one its default effect, except for two. Writing to
/// a closed pipe, and beyond the largest file, are errors of that write and do not end the process.
///
/// Call it before any thread is made: threads inherit the mask.
pub(crate) fn heed_signals() {
    for signal in (1..SIGNALS_END).filter(|signal| *signal != libc::SIGPIPE) {
        default_if_ignored(signal);
    }
    set_action(libc::SIGXFSZ, libc::SIG_IGN);
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Raises each soft limit to its hard one and resets the nice value, as far as the system permits.
/// Core dumps stay off, because texts and tokens pass through memory.
pub(crate) fn raise_limits() {
    let all = [
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_STACK,
        Resource::RLIMIT_NOFILE,
        Resource::RLIMIT_AS,
        Resource::RLIMIT_NPROC,
        Resource::RLIMIT_MEMLOCK,
    ];
    for resource in all {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft != hard
        {
            // If the system does not allow it, the soft limit stays as it was.
            let _ = setrlimit(resource, hard, hard);
        }
    }
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    not_nice();
}

/// Resets the nice value to that of an ordinary process, if it is larger.
#[allow(unsafe_code, reason = "nix has no wrapper of these two calls")]
fn not_nice() {
    // SAFETY: both take numbers alone. Only root and those with RLIMIT_NICE may lower the value;
    // others keep it.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) > 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
    }
}

#[allow(
    unsafe_code,
    reason = "nix asks for unsafe as well, and cannot ask what is set without setting it"
)]
fn default_if_ignored(signal: libc::c_int) {
    // SAFETY: `action` is plain data for which zeros are a value, and the call with a null pointer
    // only fills it in.
    let ignored = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    };
    if ignored {
        set_action(signal, libc::SIG_DFL);
    }
}

#[allow(
    unsafe_code,
    reason = "nix asks for unsafe as well: a handler could do anything; these two are no handlers"
)]
fn set_action(signal: libc::c_int, action: libc::sighandler_t) {
    // SAFETY: only the default and ignoring are set, so that no code of ours runs in a signal.
    unsafe {
        libc::signal(signal, action);
    }
}
