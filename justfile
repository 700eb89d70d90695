# The few commands of daily work; `.ci/run` is the whole of it.

default:
    @just --list

# Format everything.
fmt:
    cargo fmt

# What must be clean before a commit.
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests that need nothing but Rust.
test:
    cargo test --workspace

# Clients that others wrote: the official Python SDK and the MCP Inspector.
clients:
    cargo build -p peerctl
    tests/sdk/run target/debug/peerctl

# The real Claude Code and Codex against a model server of the tests' own; needs tmux and npm.
programs *tests:
    cargo build -p peerctl
    tests/clients/run target/debug/peerctl {{tests}}

# Two brokers joined by the real ssh, on loopback; needs sshd.
links *tests:
    tests/links/run {{tests}}

# Two agents talk, in under a minute.
demo:
    cargo run -q -p peerctl -- demo

# Everything, as the build machine runs it.
ci:
    .ci/run
