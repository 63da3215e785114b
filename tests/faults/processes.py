"""Real processes under the real supervisor, small ones in place of the services: what they do is what is tried.

Run as a module it is an `up` of two or three of them: python -m tests.faults.processes HOME NAME...
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Touches its heartbeat; has a child in a session of its own, which only dies when somebody looks for it.
BEATS = """
import pathlib, subprocess, sys, time
subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("at work", flush=True)
while True:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(0.1)
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + BEATS
DIES = "import sys; print('no such table', flush=True); sys.exit(3)"
TALKS = "print('x' * 3_000_000, flush=True)" + BEATS


def up(home: Path, *names: str) -> None:
    from dagster_project import processes
    from dagster_project.supervisor import Service, Supervisor

    programs = {"beats": BEATS, "deaf": DEAF, "dies": DIES, "talks": TALKS, "clickhouse": BEATS}
    meeting = home / "meeting"
    with processes.only_up(home):
        meeting.mkdir(exist_ok=True)
        services = [
            Service(name, [sys.executable, "-S", "-c", programs[name], str(meeting / name)], None if name == "dies" else meeting / name,
                    hang_after=2.0, last=name == "clickhouse")
            for name in names
        ]  # fmt: skip
        env = {**os.environ, "GLASSHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
        Supervisor(services, home, env, ROOT, meeting, stop_seconds=2.0, first_wait=0.1).run()


def started(home: Path, *names: str, **more) -> subprocess.Popen:
    home.mkdir(exist_ok=True)
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.processes", str(home), *names], cwd=ROOT, start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **more},
        )  # fmt: skip


def of(home: Path) -> dict[int, str]:
    """What names the home in its environment or command line: pid to command line. This process and ended ones do not count."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            words, theirs = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and int(path.name) != os.getpid() and os.fsencode(home) in words + theirs:
            found[int(path.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def wait_for(what, seconds: float = 60.0):
    """What `what` gives as soon as it is true; a guard against hanging, not a limit on speed."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def service(home: Path, name: str) -> dict:
    """What `up` says of a service; empty before it does."""
    from dagster_project import processes

    return next((one for one in processes.read_states(home) if one["name"] == name), {})


def runs(home: Path, name: str) -> dict:
    found = service(home, name)
    return found if found.get("state") == "running" else {}


if __name__ == "__main__":
    up(Path(sys.argv[1]), *sys.argv[2:])
