//! Confines the search process: it may use the files of its index, and its open connection to the
//! broker.
//!
//! On Linux, Landlock confines it to the one directory. The broker's list of system calls, without
//! those for new sockets, keeps it from other programs and processes. Elsewhere there is neither.
//! On a kernel without Landlock the search runs with the list of system calls alone.

/// Confines this process, which has one thread. This cannot be undone. Returns whether the kernel
/// confines it to `dir`, or the reason why the filter was not accepted.
#[cfg(target_os = "linux")]
pub(super) fn confine(dir: &std::path::Path) -> Result<bool, String> {
    use landlock::{
        ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetStatus,
    };

    use crate::{Chain, sandbox};

    sandbox::keep_memory_to_itself().map_err(|error| Chain(&error).to_string())?;
    let all = AccessFs::from_all(ABI::V3);
    let index = PathFd::new(dir).map_err(|error| error.to_string())?;
    let restricted = Ruleset::default()
        .handle_access(all)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(index, all)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| error.to_string())?;
    sandbox::apply_without_sockets().map_err(|error| Chain(&error).to_string())?;
    Ok(restricted.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_dir: &std::path::Path) -> Result<bool, String> {
    Ok(false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{self, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::Command;

    use super::confine;
    use crate::search::in_a_child;

    /// Each attempt, with the system's error if it failed.
    type Tried = Vec<(String, Option<i32>)>;

    fn error_of<T>(result: io::Result<T>) -> Option<i32> {
        // An error of our own has no number.
        result.err().map(|error| error.raw_os_error().unwrap_or(-1))
    }

    /// Reads and writes files in `dir` and beside it.
    fn files(dir: &Path, beside: &Path) -> Tried {
        let at = |path: &Path| path.display().to_string();
        let mut tried = Tried::new();
        for dir in [dir, beside] {
            let there = dir.join("there");
            tried.push((format!("read {}", at(&there)), error_of(fs::read(&there))));
            tried.push((
                format!("append to {}", at(&there)),
                error_of(OpenOptions::new().append(true).open(&there)),
            ));
            tried.push((
                format!("cut {}", at(&there)),
                error_of(OpenOptions::new().write(true).truncate(true).open(&there)),
            ));
            let fresh = dir.join("fresh");
            tried.push((format!("make {}", at(&fresh)), error_of(File::create_new(&fresh))));
            tried.push((format!("list {}", at(dir)), error_of(fs::read_dir(dir))));
            tried.push((
                format!("rename {}", at(&there)),
                error_of(fs::rename(&there, dir.join("renamed"))),
            ));
            let goes = dir.join("goes");
            tried.push((format!("remove {}", at(&goes)), error_of(fs::remove_file(&goes))));
        }
        tried
    }

    #[test]
    fn a_confined_process_opens_what_is_in_its_directory_and_nothing_outside() {
        let room = tempfile::tempdir().unwrap();
        let (dir, beside) = (room.path().join("search"), room.path().join("beside"));
        for dir in [&dir, &beside] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("there"), "words").unwrap();
            fs::write(dir.join("goes"), "").unwrap();
        }
        // One link within the directory, and one that leads out of it.
        std::os::unix::fs::symlink(beside.join("there"), dir.join("leads_out")).unwrap();
        let told = in_a_child(|| {
            let kept = confine(&dir)?;
            let mut tried = files(&dir, &beside);
            tried.push(("read what leads out".into(), error_of(fs::read(dir.join("leads_out")))));
            tried.push(("read /etc/passwd".into(), error_of(fs::read("/etc/passwd"))));
            tried.push(("list /".into(), error_of(fs::read_dir("/"))));
            Ok::<_, String>((kept, tried))
        });
        let (kept, tried) = told.unwrap().expect("it goes on under its rules").unwrap();
        if !kept {
            let word = "NOT RUN: this kernel has no Landlock, which alone keeps the search process to its directory\n";
            io::stderr().write_all(word.as_bytes()).unwrap();
            return;
        }
        let (inside, outside) = tried.split_at(7);
        assert!(inside.iter().all(|(_, error)| error.is_none()), "{inside:?}");
        assert_eq!(outside.len(), 10);
        assert!(outside.iter().all(|(_, error)| *error == Some(nix::libc::EACCES)), "{outside:?}");
        assert_eq!(fs::read_to_string(beside.join("there")).unwrap(), "words");
        assert_eq!(fs::read_dir(&beside).unwrap().count(), 2);
    }

    #[test]
    fn a_confined_process_has_threads_and_its_line_and_no_other_socket_program_or_process() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let told = in_a_child(|| {
            let (mut line, mut other) = UnixStream::pair().map_err(|error| error.to_string())?;
            confine(room.path())?;
            let said = line
                .write_all(b"word")
                .and_then(|()| io::Read::read_exact(&mut other, &mut [0; 4]));
            let mut tried = vec![("its line".to_owned(), error_of(said))];
            let thread = std::thread::Builder::new().name("t".into()).spawn(|| 5);
            tried.push((
                "a thread".into(),
                thread.map_or(Some(-1), |thread| (thread.join().ok() != Some(5)).then_some(-1)),
            ));
            tried.push(("a Unix socket".into(), error_of(UnixStream::connect(&socket))));
            tried.push(("a pair".into(), error_of(UnixStream::pair())));
            tried.push(("a network socket".into(), error_of(TcpListener::bind("127.0.0.1:0"))));
            tried.push(("a program".into(), error_of(Command::new("/bin/true").status())));
            let parent = nix::sys::signal::kill(nix::unistd::getppid(), None);
            tried.push(("another process".into(), error_of(parent.map_err(io::Error::from))));
            Ok::<_, String>(tried)
        });
        let tried = told.unwrap().expect("it goes on under its rules").unwrap();
        let (its_own, others) = tried.split_at(2);
        assert!(its_own.iter().all(|(_, error)| error.is_none()), "{its_own:?}");
        use nix::libc::{EAFNOSUPPORT, ENOSYS, EPERM};
        let errors: Vec<_> = others.iter().map(|(_, error)| error.unwrap_or(0)).collect();
        assert_eq!(errors, [ENOSYS, ENOSYS, EAFNOSUPPORT, ENOSYS, EPERM], "{others:?}");
    }
}
