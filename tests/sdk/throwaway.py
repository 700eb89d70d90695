"""A home of a scenario's own, and the running of scenarios."""

import contextlib
import os
import pathlib
import subprocess
import tempfile
import time
import traceback

HERE = str(pathlib.Path(__file__).resolve().parent)


class Home:
    """A throw-away home with its own broker."""

    def __init__(self, executable):
        self.executable = executable
        self.directory = tempfile.TemporaryDirectory(prefix="pds", dir="/tmp")
        self.root = pathlib.Path(self.directory.name)
        (self.root / "home").mkdir()

    @property
    def environment(self):
        return {"HOME": str(self.root / "home"), "PEERD_DIR": str(self.root / "state"), "PATH": os.environ["PATH"]}

    def peerctl(self, *arguments):
        return subprocess.run(
            [self.executable, *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def close(self):
        """Stops the broker and removes everything; raises if anything stays behind."""
        end = time.monotonic() + 10
        while True:
            # A session that was cut short may still be starting the broker: stop until nobody is left.
            stopped = self.peerctl("daemon", "stop", "--no-start")
            left = list(processes_of(self.root))
            if not left or time.monotonic() > end:
                break
            time.sleep(0.02)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.directory.cleanup()
        assert not left, f"processes {left} outlived their home"
        assert stopped.returncode in (0, 3), f"daemon stop ended with {stopped.returncode}: {stopped.stderr}"


def processes_of(root):
    """Processes with this home in their environment."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(root).encode() in (entry / "environ").read_bytes():
                yield int(entry.name)


def leaves(failure):
    """The failures themselves: the SDK wraps them in exception groups."""
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from leaves(inner)
    else:
        yield failure


def run_scenarios(suite, scenarios, executable, wanted, run):
    """Runs each scenario in a home of its own; prints a line for each, and the count; returns the exit status."""
    executable = str(pathlib.Path(executable).resolve())
    passed = failed = 0
    for scenario in scenarios:
        name = scenario.__name__
        if wanted and name not in wanted:
            continue
        home, begun = Home(executable), time.monotonic()
        try:
            try:
                run(scenario, home)
            finally:
                home.close()
            passed += 1
            print(f"ok    {suite}: {name} ({time.monotonic() - begun:.1f} s)", flush=True)
        except Exception as failure:
            failed += 1
            print(f"FAIL  {suite}: {name}", flush=True)
            for error in leaves(failure):
                ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(HERE)]
                for frame in ours[-3:]:
                    print(f"      {pathlib.Path(frame.filename).name}:{frame.lineno}: {frame.line}")
                print(f"      {type(error).__name__}: {error}", flush=True)
    print(f"{suite}: {passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0
