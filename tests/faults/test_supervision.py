"""`up` keeps its processes up, leaves none behind however it ends, and `down` ends what a home has running."""

import os
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from dagster_project import processes
from tests.faults.processes import of, runs, service, started, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    yield folder
    for pid in of(folder):
        os.kill(pid, signal.SIGKILL)


def said(home):
    return (home / "log").read_text()


def test_a_process_that_is_killed_starts_again_alone_and_it_is_said(home):
    up = started(home, "beats", "deaf")
    first, other = (wait_for(lambda name=name: runs(home, name))["pid"] for name in ("beats", "deaf"))
    os.kill(first, signal.SIGKILL)
    again = wait_for(lambda: (found := runs(home, "beats")) and found["pid"] != first and found)
    assert again["restarts"] == 1 and runs(home, "deaf")["pid"] == other and up.poll() is None
    assert "beats was ended by SIGKILL; it starts again in 0.1 s" in said(home)
    # What the killed one had started goes with it: one child each is left.
    wait_for(lambda: sum(words.startswith("sleep") for words in of(home).values()) == 2)


def test_one_that_keeps_dying_is_tried_later_each_time_and_one_is_told_what_to_do(home):
    started(home, "beats", "dies")
    wait_for(lambda: "has ended 5 times in a row" in said(home), 90)
    waits = [line.partition("it starts again in ")[2] for line in said(home).splitlines() if "it starts again in" in line]
    assert waits[:5] == ["0.1 s", "0.2 s", "0.4 s", "0.8 s", "1.6 s"]
    assert "dies ended with exit status 3" in said(home) and "no such table" in said(home) and "glasshouse down" in said(home)
    assert runs(home, "beats"), "the others went on"


@pytest.mark.parametrize("name", ["beats", "deaf"])
def test_one_that_hangs_is_noticed_and_started_again(home, name):
    started(home, name)
    first = wait_for(lambda: runs(home, name))["pid"]
    os.kill(first, signal.SIGSTOP)
    again = wait_for(lambda: (found := runs(home, name)) and found["pid"] != first and found)
    assert again["restarts"] == 1 and f"{name} hangs: no sign of life" in said(home)
    assert ("does not stop: killed" in said(home)) == (name == "deaf")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_clickhouse_last(home, number):
    up = started(home, "clickhouse", "deaf", "beats")
    for name in ("clickhouse", "deaf", "beats"):
        wait_for(lambda name=name: runs(home, name))
    up.send_signal(number)
    assert up.wait(60) == 0
    assert wait_for(lambda: not of(home)), of(home)
    ends = [line.split("| ")[1].split()[0] for line in said(home).splitlines() if " was ended by " in line]
    assert ends[-1] == "clickhouse" and set(ends) == {"clickhouse", "deaf", "beats"}


@pytest.mark.parametrize("whom", ["up", "its group", "up and its keeper"])
def test_a_killed_up_leaves_no_process(home, whom):
    up = started(home, "clickhouse", "deaf" if whom != "up and its keeper" else "beats")
    wait_for(lambda: runs(home, "clickhouse") and len(of(home)) >= 6)
    if whom == "its group":
        os.killpg(up.pid, signal.SIGKILL)
    else:
        keeper = next(pid for pid, words in of(home).items() if "dagster_project.keeper" in words)
        for pid in [up.pid] + [keeper] * (whom == "up and its keeper"):
            os.kill(pid, signal.SIGKILL)
    up.wait()
    if whom == "up and its keeper":  # their children are asked to end by the kernel; what these had started is left for the next
        wait_for(lambda: not any("touch" in words for words in of(home).values()))
        again = started(home, "beats")
        wait_for(lambda: runs(home, "beats"))
        again.terminate()
        again.wait(60)
        processes.down(home, [], print)
    assert wait_for(lambda: not of(home), 30), of(home)


def test_the_keeper_is_kept_too(home):
    up = started(home, "beats")
    keeper = wait_for(lambda: next((pid for pid, words in of(home).items() if "dagster_project.keeper" in words), 0))
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: any("dagster_project.keeper" in words and pid != keeper for pid, words in of(home).items()))
    up.kill()
    assert wait_for(lambda: not of(home), 30)


def test_a_closed_terminal_stops_everything(home):
    import pty

    ours, theirs = pty.openpty()
    up = started(home, "beats", stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: _control(theirs))
    os.close(theirs)
    wait_for(lambda: runs(home, "beats"))
    os.close(ours)
    assert up.wait(60) == 0
    assert wait_for(lambda: not of(home), 30)


def _control(terminal):
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_output_that_nobody_reads_holds_nothing_up(home):
    up = started(home, "talks", "beats", stdout=subprocess.PIPE)
    wait_for(lambda: runs(home, "talks"))
    os.kill(runs(home, "beats")["pid"], signal.SIGKILL)
    assert wait_for(lambda: (found := runs(home, "beats")) and found["restarts"] == 1)
    up.terminate()
    up.stdout.close()
    assert up.wait(60) == 0


def test_a_second_up_is_refused_and_names_the_first(home):
    up = started(home, "beats")
    wait_for(lambda: runs(home, "beats"))
    with pytest.raises(processes.ProcessError, match=f"is up already: process {up.pid} "):
        with processes.only_up(home):
            pass


# --- down ---------------------------------------------------------------------------------------------------------------

ALONE = "import sys, time, pathlib; from dagster_project.processes import registered\nwith registered(pathlib.Path(sys.argv[1]), 'live'):\n    print('there', flush=True); time.sleep(1000)"


def alone(home):
    process = subprocess.Popen([sys.executable, "-c", ALONE, str(home)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    return process


def test_down_ends_what_runs_whoever_started_it(home):
    up = started(home, "clickhouse", "beats")
    wait_for(lambda: runs(home, "clickhouse") and runs(home, "beats"))
    by_hand, told = alone(home), []
    assert processes.down(home, [], told.append) == 2
    assert up.wait(60) == 0 and by_hand.wait(60) == -signal.SIGTERM and not of(home)
    assert [line for line in told if f"pid {up.pid}" in line] and [line for line in told if f"live (pid {by_hand.pid})" in line]
    assert processes.down(home, [], told.append) == 0


def test_down_ends_one_that_is_stopped_and_one_that_holds_a_lock_without_a_word(home):
    home.mkdir()
    stopped = alone(home)
    stopped.send_signal(signal.SIGSTOP)
    lock = home / "lock"
    holder = subprocess.Popen(["flock", str(lock), "sleep", "1000"])
    wait_for(lambda: lock.exists() and processes._holders(home, [lock]))
    assert processes.down(home, [lock], print) == 2
    assert stopped.wait(60) == -signal.SIGTERM and holder.wait(60) == -signal.SIGTERM


def test_what_is_written_of_a_process_is_believed_only_of_that_process(home):
    """A number that another process has by now, files of a copied home, half a file: none of them ends anybody."""
    home.mkdir()
    bystander = alone(home)
    (path,) = (home / "run").glob("live.*")
    copy = home.with_name("copy")
    subprocess.run(["cp", "-a", home, copy], check=True)
    assert processes.down(copy, [], print) == 0 and bystander.poll() is None
    path.rename(path.with_name("up.lock"))  # its lock is held, and it says another home, another machine, nothing
    for text in ('{"name": "up"', path.with_name("up.lock").read_text().replace(str(home), "/elsewhere")):
        path.with_name("up.lock").write_text(text)
        assert processes.down(home, [], print) == 0 and bystander.poll() is None
    bystander.kill()


def test_status_lists_processes_with_restarts_and_signs_of_life(home, capsys):
    from dagster_project import show

    up = started(home, "beats", "dies")
    wait_for(lambda: service(home, "dies").get("restarts"))
    show.processes(processes.running(home), processes.read_states(home))
    printed = capsys.readouterr().out
    assert f"pid {up.pid}" in printed and "s ago" in printed and "exit status 3" in printed
    up.terminate()
    up.wait(60)
    show.processes(processes.running(home), processes.read_states(home))
    assert "nothing runs in this home" in capsys.readouterr().out


def test_a_pause_of_the_supervisor_itself_blames_nobody(home):
    up = started(home, "beats")
    first = wait_for(lambda: runs(home, "beats"))["pid"]
    group = [up.pid, first]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    for pid in group:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    assert runs(home, "beats")["pid"] == first and "hangs" not in said(home)


# --- signs of life ------------------------------------------------------------------------------------------------------


def test_a_loop_beats_while_it_waits_and_while_it_works(tmp_path, monkeypatch):
    from dagster_project import heartbeats

    monkeypatch.setattr(heartbeats, "EVERY_SECONDS", 0.05)
    path = tmp_path / "beat"
    stop, beats = heartbeats.BeatingStop(heartbeats.Beat(path)), set()
    ends = time.monotonic() + 0.5
    while not stop.wait(0.1) and time.monotonic() < ends:
        beats.add(path.stat().st_mtime_ns)
    assert len(beats) >= 3 and not stop.is_set()
    stop.set()
    assert stop.wait(1000) and stop.is_set()


def test_clickhouse_that_answers_pings_but_no_query_gives_no_sign_of_life(tmp_path):
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from assets.metrics import endpoint
    from dagster_project import heartbeats

    release = threading.Event()

    class PingsOnly(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/ping":
                release.wait(60)
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"Ok.\n")

        do_POST = do_GET

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), PingsOnly)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, found = f"http://127.0.0.1:{server.server_port}", []
    asking = threading.Thread(target=lambda: found.append(heartbeats.queries(url)()), daemon=True)
    asking.start()
    asking.join(2)
    assert heartbeats.answers(f"{url}/ping")() and not found
    release.set()
    asking.join(60)
    assert found == [False]
    server.shutdown()
    with endpoint.started(tmp_path / "clickhouse") as url:
        bare = f"http://127.0.0.1:{urlsplit(url).port}"  # urllib takes no password in an address
        assert heartbeats.answers(f"{bare}/ping")() and heartbeats.queries(url)()
    assert not heartbeats.answers(f"{url}/ping")() and not heartbeats.queries(url)()


def test_dagster_s_daemons_beat_when_their_newest_time_changes(tmp_path):
    import sqlite3

    from dagster_project import heartbeats

    database = tmp_path / "what? runs.db"
    probe = heartbeats.daemon_beats(str(database))
    assert not probe(), "there is none yet"
    with sqlite3.connect(database) as opened:
        opened.execute("CREATE TABLE daemon_heartbeats (timestamp TIMESTAMP)")
        opened.execute("INSERT INTO daemon_heartbeats VALUES ('2026-01-01 10:00:00')")
    assert probe(), "the first ever"
    probe = heartbeats.daemon_beats(str(database))
    assert not probe() and not probe(), "one from before is no sign of life"
    with sqlite3.connect(database) as opened:
        opened.execute("UPDATE daemon_heartbeats SET timestamp = '2025-12-31 10:00:00'")
    assert probe() and not probe(), "a clock set back is no hang"


def test_every_service_has_a_sign_of_life_and_no_command_line_a_password(tmp_path):
    from dagster_project import instance, services, settings

    for number, url in enumerate(("", "http://user:geheim@127.0.0.1:8123/feed")):
        found = settings.load({"GLASSHOUSE_HOME": str(tmp_path / "home"), "GLASSHOUSE_CLICKHOUSE_URL": url})
        instance.prepare(found)
        meeting = tmp_path / str(number)
        meeting.mkdir()
        kept = services.services(found, meeting)
        names = {one.name for one in kept}
        assert names >= {"traffic", "live", "orders", "code", "dagster", "daemon", "pages", "watch"} and ("clickhouse" in names) == (not url)
        assert all(one.heartbeat for one in kept)
        assert all(one.works or one.watched_by == "watch" for one in kept if one.name != "watch")
        assert not [word for one in kept for word in one.command if "geheim" in word]
        assert [one.name for one in kept if one.last] == ["clickhouse"] * (not url)


def test_processes_meet_where_a_socket_s_name_is_short_enough(tmp_path, monkeypatch):
    import tempfile

    from dagster_project import services

    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert services._short_folder() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert services._short_folder() == "/var/tmp"
