//! The real executable, built where end-to-end tests can find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerctl::main()
}
