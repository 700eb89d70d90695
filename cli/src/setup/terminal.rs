//! Asks the person at the terminal.
//!
//! Writes questions to standard error and reads answers from standard input, so that a plan on
//! standard output can be saved. Invariant: it asks only a terminal, or a pipe that has an answer
//! ready.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};

/// Milliseconds in which a pipe must have an answer.
const PATIENCE_MS: u16 = 200;

/// Whether a person or a pipe can answer.
pub(crate) fn is_there() -> bool {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        return io::stderr().is_terminal();
    }
    let says_something = {
        let mut asked = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PATIENCE_MS).is_ok_and(|ready| ready > 0)
    };
    // Bytes that are read here stay in the buffer from which the answers are read.
    says_something && input.fill_buf().is_ok_and(begins_with_an_answer)
}

/// Whether a pipe begins with an answer. A script that the shell reads from it does not.
fn begins_with_an_answer(input: &[u8]) -> bool {
    let first = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_answer = |answer: &str| first.trim_ascii().eq_ignore_ascii_case(answer.as_bytes());
    !input.is_empty() && ["", "y", "yes", "n", "no"].into_iter().any(is_answer)
}

/// Asks a yes-or-no question. An empty line means `default`; the end of the input means no.
pub(crate) fn asks(question: &str, default: bool) -> bool {
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    let mut stderr = io::stderr().lock();
    // If the question cannot be asked, the answer is no.
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
