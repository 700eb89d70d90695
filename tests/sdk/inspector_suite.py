"""The official MCP Inspector, on its command line, against the real `peerctl mcp`.

Every call of the inspector is a session of its own: it starts the adapter, initializes it, does one thing and ends it. Run
with the path of the inspector's program and that of the executable; the last line says how many scenarios passed.
"""

import json
import subprocess
import sys

from throwaway import run_scenarios

TOOLS = {"list_peers", "send_message", "check_messages", "ack_messages", "set_summary", "rename_peer"}
INSPECTOR = sys.argv[1]


def inspect(home, *options, name="inspected"):
    """Runs the inspector against an adapter of that name; returns how it ended and what it printed."""
    environment = []
    for key, value in (home.environment | {"PEER_NAME": name}).items():
        environment += ["-e", f"{key}={value}"]
    return subprocess.run(
        ["node", INSPECTOR, "--cli", home.executable, "mcp", "--format", "json", *environment, *options],
        # It keeps a catalogue in its home directory: this scenario's.
        env=home.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def result(home, *options, name="inspected"):
    done = inspect(home, *options, name=name)
    assert done.returncode == 0, f"{options} ended with {done.returncode}: {done.stdout}{done.stderr}"
    printed = json.loads(done.stdout)
    return printed.get("result", printed)


def call(home, tool, name="inspected", **arguments):
    options = ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
    return inspect(home, *options, name=name)


def text(home, tool, name="inspected", **arguments):
    done = call(home, tool, name, **arguments)
    assert done.returncode == 0, f"{tool} ended with {done.returncode}: {done.stdout}{done.stderr}"
    printed = json.loads(done.stdout)
    printed = printed.get("result", printed)
    assert not printed.get("isError"), printed
    return "\n".join(part["text"] for part in printed["content"])


def it_lists_six_tools(home):
    tools = result(home, "--method", "tools/list")["tools"]
    assert {tool["name"] for tool in tools} == TOOLS, tools
    assert len(json.dumps(tools)) < 8_000, f"the tools take {len(json.dumps(tools))} characters"


def it_finds_no_fault_in_the_schemas(home):
    done = inspect(home, "--method", "tools/list", "--strict")
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"


def it_falls_back_to_initialize_where_it_may_choose_the_era(home):
    tools = result(home, "--method", "tools/list", "--protocol-era", "auto")["tools"]
    assert {tool["name"] for tool in tools} == TOOLS, tools


def a_message_waits_from_one_session_to_the_next(home):
    assert "inspected" in text(home, "list_peers")
    sent = text(home, "send_message", name="other", to="inspected", message="by the inspector")
    assert "offline" in sent, sent
    shown = text(home, "check_messages")
    assert "[PEER INBOX]" in shown and "| by the inspector" in shown, shown
    # Nothing proved that it was read, so the next session gets it again and is told so.
    again = text(home, "list_peers")
    assert "| by the inspector" in again and "(shown before)" in again, again
    identity = next(word.strip("[](),") for word in again.split() if word.startswith("[m-"))
    text(home, "ack_messages", message_ids=identity)
    assert "| by the inspector" not in text(home, "check_messages"), "acknowledged and shown again"


def bad_calls_are_results_that_say_what_to_do(home):
    for tool, arguments, named in [
        ("send_message", {"to": "nobody", "message": "x"}, "nobody"),
        ("send_message", {"message": "x"}, "to"),
        ("send_message", {"to": "inspected", "message": "x", "volume": 11}, "volume"),
        ("rename_peer", {"new_name": "system"}, "system"),
    ]:
        done = call(home, tool, **arguments)
        said = done.stdout + done.stderr
        assert "isError" in said and named in said, f"{tool} {arguments}: {done.returncode} {said}"


def an_unknown_tool_is_refused(home):
    done = call(home, "no_such_tool")
    assert done.returncode != 0, done.stdout
    assert "no_such_tool" in done.stdout + done.stderr, done.stderr


def two_hundred_calls_ten_at_a_time_all_succeed(home):
    summary = inspect(
        home, "--method", "tools/call", "--tool-name", "list_peers", "--load", "--load-requests", "200", "--load-concurrency", "10"
    )
    assert summary.returncode == 0, f"ended with {summary.returncode}: {summary.stdout}{summary.stderr}"


SCENARIOS = [
    it_lists_six_tools,
    it_finds_no_fault_in_the_schemas,
    it_falls_back_to_initialize_where_it_may_choose_the_era,
    a_message_waits_from_one_session_to_the_next,
    bad_calls_are_results_that_say_what_to_do,
    an_unknown_tool_is_refused,
    two_hundred_calls_ten_at_a_time_all_succeed,
]


def run(scenario, home):
    scenario(home)


if __name__ == "__main__":
    sys.exit(run_scenarios("mcp inspector", SCENARIOS, sys.argv[2], sys.argv[3:], run))
