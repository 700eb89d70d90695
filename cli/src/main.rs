//! The one executable of peerd. All code is in the library, so that tests can build the same
//! program.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerctl::main()
}
