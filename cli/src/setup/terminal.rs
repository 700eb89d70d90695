//! Asking the person at the terminal.
//!
//! Questions go to standard error and answers come from standard input, so that a plan on standard output can be kept. It
//! asks only where both are terminals.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether somebody is there to answer.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question that is answered with yes or no; an empty line, or the end of the input, is `default`.
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
