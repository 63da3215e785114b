"""The `glasshouse` command as a person starts it: a process, its output, its exit status."""

import json
import os
import signal
import subprocess
import time
import urllib.request

import pyarrow.parquet as pq
import pytest

from assets.lake import Lake
from dagster_project.services import BIN, free_port
from dagster_project.settings import ROOT

pytestmark = pytest.mark.slow


def glasshouse(*words, home, **settings):
    return subprocess.run(
        [str(BIN / "glasshouse"), *map(str, words)], capture_output=True, text=True, cwd=ROOT, env=env(home, **settings)
    )


def env(home, **settings):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GLASSHOUSE_")}
    named = {f"GLASSHOUSE_{name}": str(value) for name, value in settings.items()}
    return {**clean, "GLASSHOUSE_HOME": str(home), **named}


def event(number, action, minute, **more):
    row = {"event_id": f"e{number}", "user_id": 1, "note_id": 2, "action": action,
           "event_time": f"2026-01-01T10:{minute:02}:00Z", **more}  # fmt: skip
    return json.dumps(row)


def test_label_writes_parquet_and_tells_what_it_did(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [event(1, "impression", 0), event(2, "click", 1), event(3, "like", 2), event(3, "like", 2), "{broken"]
    log.write_text("\n".join(lines) + "\n")
    done = glasshouse("label", log, "--out", tmp_path / "out", home=tmp_path)
    assert done.returncode == 0, done.stderr
    (session,) = pq.read_table(tmp_path / "out" / "click_sessions.parquet").to_pylist()
    assert session["like"] and session["attributed"]
    (bad,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert bad["body"] == b"{broken"
    assert "repeats dropped" in done.stdout and "not a JSON object" in done.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (["label", "nowhere.jsonl", "--out", "x"], "does not exist"),
        (["label", "README.md", "--out", "x", "--mapping", "nowhere.toml"], "shipped mappings: deskdrop, ebnerd, kuairand, mind"),
        (["label", "README.md", "--out", "x", "--window", "20"], "write a positive number with ms, s, m or h"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, words, said):
    done = glasshouse(*words, home=tmp_path)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.replace("│", " ").split()) and "Traceback" not in done.stderr


def test_label_goes_by_the_settings_rules_and_an_option_over_them(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join([event(1, "impression", 0), event(2, "click", 3)]))

    def attributed(*words, **settings):
        done = subprocess.run([str(BIN / "glasshouse"), "label", log, "--out", tmp_path / "out", *words], env=env(tmp_path, **settings), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return pq.read_table(tmp_path / "out" / "click_sessions.parquet")["attributed"].to_pylist() == [True]

    assert attributed() and not attributed(WINDOW="2m") and attributed("--window", "20m", WINDOW="2m")
    done = subprocess.run([str(BIN / "glasshouse"), "label", log, "--out", tmp_path / "out"], env=env(tmp_path, WINDOW="banana"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "GLASSHOUSE_WINDOW" in done.stderr and "Traceback" not in done.stderr


def test_label_of_a_log_of_which_nothing_is_taken_says_what_to_look_at(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("[1]\n[2]\n")
    assert "No row was taken" in glasshouse("label", log, "--out", tmp_path / "out", home=tmp_path).stdout


def test_status_of_an_empty_home_says_what_to_start(tmp_path):
    done = glasshouse("status", home=tmp_path)
    assert done.returncode == 0 and "make up" in done.stdout


def test_status_names_what_lies_there_and_is_not_taken(tmp_path):
    for name in ("landing/a.log", "landing/[b].jsonl.part", "landing/.c.jsonl", "landing/good.jsonl", "orders/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = glasshouse("status", home=tmp_path).stdout
    for words in ("Not taken, in", "not a log, by its suffix", "a.log", "temporary, by its suffix", "[b].jsonl.part", "hidden", ".c.jsonl", "d.csv"):
        assert words in done, done


def test_up_starts_everything_and_one_signal_stops_it(tmp_path):
    ports = {"CLICKHOUSE_PORT": free_port(), "DAGSTER_PORT": free_port(), "STREAMLIT_PORT": free_port()}
    settings = {**ports, "LIVE_INTERVAL": "2s", "TRAFFIC_RATE": 200}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / "glasshouse"), "up"], stdout=log, stderr=log, cwd=ROOT, env=env(tmp_path, **settings),
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: code_location(ports["DAGSTER_PORT"]) == ("glasshouse", "RepositoryLocation"), process, tmp_path)
            wait_for(lambda: answers(ports["STREAMLIT_PORT"], "/_stcore/health"), process, tmp_path)
            lake = Lake(str(tmp_path / "lake"))
            wait_for(lambda: lake.exists("events") and lake.read("events").num_rows > 0, process, tmp_path)
            first = glasshouse("status", home=tmp_path).stdout
            wait_for(lambda: glasshouse("status", home=tmp_path).stdout != first, process, tmp_path)
            wait_for(lambda: clickhouse_events(tmp_path) > 0, process, tmp_path)
        finally:
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
            status = process.wait(60)
    assert status == 0
    assert not any(answers(port, "/") for port in ports.values())
    troubles = [line for line in (tmp_path / "log").read_text().splitlines() if "trying again" in line]
    # On a busy machine ClickHouse may be up after those who ask it.
    assert not [line for line in troubles if "no ClickHouse answers" not in line], "everyone has heard of every commit"


def wait_for(happens, process, folder, seconds=120):
    end = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
        time.sleep(1)


def answers(port, path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).status == 200
    except OSError:
        return False


def code_location(port):
    """Name and state of what Dagster's web server has loaded, as its UI asks for it; None before it answers."""
    query = "{workspaceOrError {... on Workspace {locationEntries {name locationOrLoadError {__typename}}}}}"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    try:
        answer = json.load(urllib.request.urlopen(request, timeout=5))
    except OSError:
        return None
    (entry,) = answer["data"]["workspaceOrError"]["locationEntries"]
    return entry["name"], entry["locationOrLoadError"]["__typename"]


def clickhouse_events(home):
    from assets.metrics import endpoint
    from assets.metrics.client import connect

    url = endpoint.running(home / "clickhouse", "reader")
    if url is None:
        return 0
    return connect(url, read_only=True).command("SELECT count() FROM events")
