"""What a stopped demo has started goes with it; what a killed one left, `glasshouse down` finds; `up` beside a running one leaves it alone."""

import os
import signal
import subprocess
import sys

import pytest

from dagster_project import processes
from tests.conftest import ROOT
from tests.faults.processes import wait_for

pytestmark = pytest.mark.slow

# A child in a session of its own, deaf to SIGINT, as the JVM is.
BODY = """
import subprocess, sys, time
from pathlib import Path
from dagster_project.processes import leaving_nothing, registered
home = Path(sys.argv[1])
with registered(home, "demo"), leaving_nothing(home, "demo"):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (home / "child").write_text(str(child.pid))
    time.sleep(600)
"""


@pytest.fixture
def demo(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    started = subprocess.Popen([sys.executable, "-c", BODY, str(home)], cwd=ROOT, stderr=subprocess.DEVNULL)
    child = int(wait_for(lambda: (home / "child").exists() and (home / "child").read_text()))
    yield home, started, child
    for pid in (started.pid, child):
        if there(pid):
            os.kill(pid, signal.SIGKILL)
    started.wait()


def there(pid):
    return processes.began(pid) is not None


def test_one_that_is_interrupted_takes_with_it_what_it_started(demo):
    _, started, child = demo
    started.send_signal(signal.SIGINT)
    assert started.wait(30) != 0 and not there(child)


def test_what_a_killed_one_left_is_ended_by_down(demo):
    home, started, child = demo
    started.kill()
    started.wait()
    assert there(child)
    said = []
    assert processes.down(home, [], said.append) == 1
    assert not there(child) and "below demo" in said[0]


def test_what_a_running_one_has_is_no_leftover(demo):
    home, started, child = demo
    assert processes.leftovers(home) == []
    started.kill()
    started.wait()
    assert [process.pid for process in processes.leftovers(home)] == [child]
    assert "_GLASSHOUSE_UP" not in os.environ
