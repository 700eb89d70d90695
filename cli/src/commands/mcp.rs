//! `peerctl mcp`: the options of the adapter. The adapter itself is the crate `peer-mcp`.

const AFTER_HELP: &str = "\
A configured client starts the server by itself:
  claude mcp add peers -- peerctl mcp
  codex mcp add peers -- peerctl mcp

Environment:
  PEER_NAME       the name that this session asks for
  PEERD_DIR       where the broker keeps its state
  PEERD_ENABLED   0: do nothing: no tools, no broker, no mail
  PEERD_CLIENT    claude, codex, ...: overrides the client's own name";

/// Run the MCP server for a client (Claude Code, Codex, …), over standard input and output
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {}
