"""Homes: a copy is independent of what it was copied from, and a home's name may be odd or is refused in words."""

import os
import subprocess
import sys


import pytest

from dagster_project import code_server, instance, processes
from dagster_project.settings import ROOT, SettingsError, load


pytestmark = pytest.mark.slow

EVENT = {"event_id": "e1", "user_id": 1, "note_id": 2, "action": "impression", "event_time": "2026-01-01T10:00:00Z"}
OBSERVE = """
import sys
import dagster as dg
from dagster_project import instance, settings
with instance.open_instance(settings.load()) as opened:
    for name in sys.argv[1:]:
        opened.report_runless_asset_event(dg.AssetMaterialization(name))
    print(*sorted(key.to_user_string() for key in opened.all_asset_keys()))
"""


def python(home, code, *words):
    env = {name: value for name, value in os.environ.items() if not name.startswith("GLASSHOUSE_")}
    env |= {"GLASSHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_copied_home_keeps_its_dagster_log_to_itself(tmp_path):
    home, copy = tmp_path / "home", tmp_path / "copy"
    assert python(home, OBSERVE, "before").split() == ["before"]
    subprocess.run(["cp", "-a", home, copy], check=True)
    said = python(copy, OBSERVE, "in_the_copy")
    assert "the home was copied or moved" in said and said.split()[-2:] == ["before", "in_the_copy"]
    assert python(home, OBSERVE, "in_the_home").split() == ["before", "in_the_home"]
    assert python(copy, OBSERVE).split() == ["before", "in_the_copy"], "once told is enough"


def test_a_log_that_the_user_has_put_elsewhere_stays_there(tmp_path):
    elsewhere = tmp_path / "big disk" / "log"
    settings = load({"GLASSHOUSE_HOME": str(tmp_path / "home")})
    settings.dagster_home.mkdir(parents=True)
    yaml = instance.DAGSTER_YAML.format(events=f'"{elsewhere}"')
    (settings.dagster_home / "dagster.yaml").write_text(yaml)
    instance.prepare(settings)
    assert (settings.dagster_home / "dagster.yaml").read_text() == yaml and elsewhere.is_dir()


def test_nothing_but_the_dagster_log_s_place_names_the_home(tmp_path):
    """What a home holds is right wherever it is moved."""
    home = tmp_path / "home"
    label(home)
    python(home, OBSERVE, "thing")
    lines = ((path, line) for path in home.rglob("*") if path.is_file() for line in path.read_bytes().split(b"\n"))
    # Where a table was made stands in a note of Delta's log, which nobody reads.
    named = {str(path.relative_to(home)) for path, line in lines if os.fsencode(home) in line and not line.startswith(b'{"commitInfo"')}
    assert named <= {"dagster/dagster.yaml"}


LIVE = """
import json, pathlib, sys, threading
from assets.attribution import live
from dagster_project.settings import load
found = load()
found.landing.mkdir(parents=True, exist_ok=True)
(found.landing / f"{sys.argv[1]}.jsonl").write_text(sys.argv[2] + "\\n")
live.run(found.lake, found.landing, found.rules, 0.0, threading.Event(), once=True)
print(found.lake.read("events").num_rows)
"""


def label(home, name="a", event=EVENT):
    import json

    return int(python(home, LIVE, name, json.dumps(event)).split()[-1])


def test_a_copy_and_its_original_label_on_each_for_itself(tmp_path):
    home, copy = tmp_path / "home", tmp_path / "copy"
    label(home)
    subprocess.run(["cp", "-a", home, copy], check=True)
    assert label(copy, "b", {**EVENT, "event_id": "e2"}) == 2
    assert label(home, "c", {**EVENT, "event_id": "e3", "event_time": "2026-01-01T10:00:01Z"}) == 2
    assert {path.name for path in (copy / "landing").iterdir()} == {"a.jsonl", "b.jsonl"}


# --- names --------------------------------------------------------------------------------------------------------------

FINE = ["it's größer & (家 😀) #100%", '-a:b;"c",$HOME+d=e@~|!^<f>{g}`..']
REFUSED = ["what?", "100%20", "a\\b", "st*r", "[a]", "line\nbreak", "es\x1bcape", b"no utf-8 \xff".decode("utf-8", "surrogateescape")]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_home_whose_name_would_not_work_is_refused_before_anything_is_written(tmp_path, name):
    for setting in ("HOME", "LAKE"):
        with pytest.raises(SettingsError, match=f"GLASSHOUSE_{setting}"):
            load({f"GLASSHOUSE_{setting}": str(tmp_path / name / "below")})
    assert not list(tmp_path.iterdir())


ALL = """
import sys, threading
import dagster as dg
from assets.metrics import endpoint, loader
from assets.metrics.client import connect
from dagster_project import instance
from dagster_project.settings import load
found = load()
with endpoint.started(found.clickhouse_folder) as url:
    loader.load_missing(found.lake, connect(url))
    print("clickhouse", connect(url).command("SELECT count() FROM events"))
with instance.open_instance(found) as opened:
    opened.report_runless_asset_event(dg.AssetMaterialization("thing"))
    print("dagster", *(key.to_user_string() for key in opened.all_asset_keys()))
"""


@pytest.mark.parametrize("name", FINE)
def test_a_home_with_an_odd_name_works(tmp_path, name):
    home = tmp_path / name
    assert label(home) == 1
    assert python(home, ALL).splitlines()[-2:] == ["clickhouse 1", "dagster thing"]
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing was written beside it"
    with processes.registered(home, "live"):
        assert [one.name for one in processes.running(home)] == ["live"]


@pytest.mark.usefixtures("spark")
def test_spark_reads_and_writes_in_a_home_with_an_odd_name(tmp_path, spark):
    import datetime as dt

    from assets.lake import Lake, Window

    for name in FINE:
        label(tmp_path / name)
        lake = Lake(str(tmp_path / name / "lake"))
        hour = dt.datetime(2026, 1, 1, 10, tzinfo=dt.UTC)
        rows = lake.frame(spark, "events")
        lake.replace_window_frame("events", rows.union(rows), Window(hour, hour + dt.timedelta(hours=1)))
        assert lake.read("events").num_rows == 2, name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FINE)


# --- runs whose process is gone -----------------------------------------------------------------------------------------


def test_a_run_that_lost_its_process_with_the_code_server_does_not_block_the_queue(tmp_path):
    import json

    from dagster import DagsterRunStatus, job
    from dagster._core.storage.tags import GRPC_INFO_TAG

    @job
    def nothing():
        pass

    settings = load({"GLASSHOUSE_HOME": str(tmp_path)})
    with instance.open_instance(settings) as opened:
        assert code_server.end_orphans(settings, "/tmp/x/code.sock") == []
        going = {
            socket: opened.create_run_for_job(nothing, status=DagsterRunStatus.STARTED, tags={GRPC_INFO_TAG: json.dumps({"socket": socket})}).run_id
            for socket in ("/tmp/gone/code.sock", "/tmp/dagster-dev/other")
        }
        assert code_server.end_orphans(settings, "/tmp/x/code.sock") == [going["/tmp/gone/code.sock"]]
        assert opened.get_run_by_id(going["/tmp/gone/code.sock"]).status == DagsterRunStatus.FAILURE
        assert opened.get_run_by_id(going["/tmp/dagster-dev/other"]).status == DagsterRunStatus.STARTED


