//! `peerctl version`: prints the versions of this build and of the running broker. Starts no
//! broker.

use peer_client::{Endpoint, Start};
use peer_proto::request::Welcome;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Failure;
use crate::operator::Operator;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  peerctl version
  peerctl version --json | jq -r .broker.version

This starts no broker.";

/// Show the versions of this program and of the running broker
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}

/// The versions of this program and of the running broker.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Versions {
    version: String,
    executable: String,
    /// Null if no broker is running.
    broker: Option<RunningBroker>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RunningBroker {
    version: String,
    executable: String,
    pid: u32,
}

pub(crate) async fn run(_args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let quiet = Endpoint { start: Start::Never, ..endpoint.clone() };
    let broker = match Operator::connect(&quiet).await {
        Ok(operator) => Some(operator.welcome),
        Err(failure) if failure.is_not_running() => None,
        Err(failure) => return Err(failure),
    };
    let (version, executable) =
        (env!("CARGO_PKG_VERSION"), endpoint.executable.display().to_string());
    if output.json {
        let running = |welcome: Welcome| RunningBroker {
            version: welcome.version,
            executable: welcome.executable,
            pid: welcome.pid,
        };
        return output.json(&Versions {
            version: version.to_owned(),
            executable,
            broker: broker.map(running),
        });
    }
    let running = match broker {
        Some(welcome) => {
            format!("{}, pid {}, {}", welcome.version, welcome.pid, welcome.executable)
        }
        None => "none is running".to_owned(),
    };
    output.facts(&[("peerctl", format!("{version}, {executable}")), ("broker", running)])
}
