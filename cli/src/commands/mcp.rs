//! `peerctl mcp`: hands over to the adapter.

const AFTER_HELP: &str = "\
A client starts this by itself once it is configured:
  claude mcp add peers -- peerctl mcp
  codex mcp add peers -- peerctl mcp

Environment:
  PEER_NAME       the name to ask for
  PEERD_DIR       where the broker keeps its state
  PEERD_ENABLED   0: stay dormant, without tools and without a broker
  PEERD_CLIENT    claude, codex, ...: overrides what the client says that it is";

/// The MCP server that a client (Claude Code, Codex, …) runs, over standard input and output
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}
