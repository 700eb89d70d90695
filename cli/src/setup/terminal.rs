//! Asking the person at the terminal.
//!
//! Questions go to standard error and answers come from standard input, so that a plan on standard
//! output can be kept. It asks a terminal, or whoever has written answers into a pipe; never an
//! input that says nothing.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};

/// How long an input that is no terminal may take to say something, in milliseconds.
const PATIENCE_MS: u16 = 200;

/// Whether somebody is there to answer.
pub(crate) fn is_there() -> bool {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        return io::stderr().is_terminal();
    }
    let says_something = {
        let mut asked = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PATIENCE_MS).is_ok_and(|ready| ready > 0)
    };
    // What is read here stays in the buffer that the answers come from.
    says_something && input.fill_buf().is_ok_and(begins_with_an_answer)
}

/// Whether an input that is no terminal was meant for us: a script that is read from it was not.
fn begins_with_an_answer(input: &[u8]) -> bool {
    let first = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_answer = |answer: &str| first.trim_ascii().eq_ignore_ascii_case(answer.as_bytes());
    !input.is_empty() && ["", "y", "yes", "n", "no"].into_iter().any(is_answer)
}

/// Asks a question that is answered with yes or no; an empty line, or the end of the input, is
/// `default`.
pub(crate) fn asks(question: &str, default: bool) -> bool {
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    let mut stderr = io::stderr().lock();
    // Where nobody can be asked, nobody said yes.
    if write!(stderr, "{question} {choice} ").and_then(|()| stderr.flush()).is_err() {
        return false;
    }
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => false,
        Ok(_) => match line.trim().to_ascii_lowercase().as_str() {
            "" => default,
            answer => ["y", "yes"].contains(&answer),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_a_script() {
        for answers in ["y\n", "Yes\nno\n", "\n", " n"] {
            assert!(begins_with_an_answer(answers.as_bytes()), "{answers:?}");
        }
        for other in ["", "echo y\n", "{}", "yesterday\n"] {
            assert!(!begins_with_an_answer(other.as_bytes()), "{other:?}");
        }
    }
}
