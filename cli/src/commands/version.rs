//! `peerctl version`: which build this is, and which one runs as the broker.

use peer_client::{Endpoint, Start};
use serde_json::json;

use crate::error::Failure;
use crate::operator::Operator;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  peerctl version
  peerctl version --json | jq -r .broker.version

It starts no broker.";

/// The version of this program and of the broker that runs
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let broker = match Operator::connect(&quiet).await {
        Ok(operator) => Some(operator.welcome),
        Err(failure) if failure.is_not_running() => None,
        Err(failure) => return Err(failure),
    };
    let (version, executable) = (env!("CARGO_PKG_VERSION"), endpoint.executable.display().to_string());
    if output.json {
        let broker =
            broker.map(|welcome| json!({ "version": welcome.version, "executable": welcome.executable, "pid": welcome.pid }));
        return output.json(&json!({ "version": version, "executable": executable, "broker": broker }));
    }
    let running = match broker {
        Some(welcome) => format!("{}, pid {}, {}", welcome.version, welcome.pid, welcome.executable),
        None => "none runs".to_owned(),
    };
    output.facts(&[("peerctl", format!("{version}, {executable}")), ("broker", running)])
}
