"""Files of sql/lake/ and notebooks/ that are broken: all else loads, and Dagster, the log and the start say which and why."""

import json
import os
import shutil
import subprocess
import sys

import dagster as dg
import pytest

from dagster_project import settings as environment
from dagster_project.settings import ROOT

HEAD = "-- name: {name}\n-- owner: team:feed\n-- grain: hour\n-- partition: hourly\n-- description: d\n"
SELECT = "select hour, count(*) as c from {table} where hour >= {{{{ window_start }}}} and hour < {{{{ window_end }}}} group by hour"
PARAMETERS = {"cell_type": "code", "source": "window_start = None\nwindow_end = None", "metadata": {"tags": ["parameters"]}}


def sql(name, body=None, table="events"):
    return HEAD.format(name=name) + (SELECT.format(table=table) if body is None else body)


def notebook(declared=None, cells=(PARAMETERS,), **more):
    metadata = {} if declared is None else {"glasshouse": declared}
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5, **more})


SQL = {
    "latin.sql": sql("latin", "select hour, 'é' as c from events group by hour").encode("latin-1"), "empty.sql": b"", "no_head.sql": b"select 1",
    "other.sql": sql("another").encode(), "jinja.sql": sql("jinja", "select {{ hour from events").encode(), "syntax.sql": sql("syntax", "select from where").encode(),
    "missing.sql": sql("missing", "select hour, {{ nobody }} as c from events").encode(), "nowhere.sql": sql("nowhere", table="no_such_table").encode(),
    "events.sql": sql("events").encode(), "ranker.sql": sql("ranker").encode(), "input.sql": sql("input").encode(), "UPPER.sql": sql("UPPER").encode(),
    "null.sql": b"\0" * 100, "utf16.sql": sql("utf16").encode("utf-16"), "quote.sql": sql("quote", "select hour, 'open from events").encode(),
    "deep.sql": sql("deep", f"select hour, {'(' * 5000}1{')' * 5000} as c from events").encode(), "code_location.sql": sql("code_location").encode(),
    "one.sql": sql("one", "select hour from two").encode(), "two.sql": sql("two", "select hour from one").encode(), "big.sql": b"-- " + b"x" * (2 * 2**20),
    "owner.sql": sql("owner").replace("team:feed", "nobody in particular").encode(), "unsafe.sql": sql("unsafe", "{{ ''.__class__ }}").encode(),
}  # fmt: skip
D = {"description": "d"}
NOTEBOOKS = {
    "Untitled.ipynb": notebook(cells=[]).encode(), "untitled1.ipynb": notebook(cells=[]).encode(), "empty.ipynb": b"", "no_json.ipynb": b"{",
    "latin.ipynb": notebook(D).replace("window_end", "\xe9").encode("latin-1"), "list.ipynb": b"[]", "null.ipynb": b"null", "no_cells.ipynb": b'{"metadata": {}}',
    "old_format.ipynb": b'{"metadata": {}, "worksheets": [], "nbformat": 3}', "deep.ipynb": b"[" * 100_000, "cells.ipynb": notebook(D, cells=["text", 5]).encode(),
    "tags.ipynb": notebook(D, cells=[{**PARAMETERS, "metadata": {"tags": 5}}]).encode(), "source.ipynb": notebook(D, cells=[{"cell_type": "code", "source": 5}]).encode(),
    "texts.ipynb": notebook("a text").encode(), "owner.ipynb": notebook({**D, "owner": "nobody in particular"}).encode(), "deps.ipynb": notebook({**D, "deps": 5}).encode(),
    "odd_deps.ipynb": notebook({**D, "deps": ["a b!"]}).encode(), "unknown.ipynb": notebook({**D, "deps": ["no_such_asset"]}).encode(), "half.ipynb": notebook({"description": "\ud83d"}).encode(),
    "events.ipynb": notebook(D).encode(), "input.ipynb": notebook(D).encode(), "code.ipynb": notebook(D, cells=[{**PARAMETERS, "source": "window_start = ("}]).encode(),
    "labels-checkpoint.ipynb": notebook(D).encode(), "itself.ipynb": notebook({**D, "deps": ["itself"]}).encode(), "metadata.ipynb": b'{"metadata": [], "cells": []}',
}  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    """The shipped jobs and notebooks, copied."""
    shutil.copytree(ROOT / "sql" / "lake", tmp_path / "sql")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path / "sql", tmp_path / "notebooks"


def load(tmp_path, folders):
    from dagster_project.build import build_defs

    return build_defs(environment.load({"GLASSHOUSE_HOME": str(tmp_path / "home")}), sql_folder=folders[0], notebook_folder=folders[1])


def assets(defs):
    return {key.to_user_string() for key in defs.get_repository_def().asset_graph.executable_asset_keys}


def checked(defs):
    """What the check of `code_location` says when the asset is materialized."""
    done = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), asset_selection=[dg.AssetKey("code_location")]
    )
    (found,) = done.get_asset_check_evaluations()
    return found


def named(defs):
    found = checked(defs)
    rows = found.metadata["files"].value.records if "files" in found.metadata else []
    return {os.path.basename(row.data["file"]): row.data["why"] for row in rows}


@pytest.mark.slow
def test_every_broken_file_is_left_out_and_named_and_all_others_load(tmp_path, folders, capsys):
    from dagster import serialize_value
    from dagster._core.remote_representation.external_data import RepositorySnap

    sound = assets(load(tmp_path, folders))
    for folder, broken in zip(folders, (SQL, NOTEBOOKS), strict=True):
        for name, content in broken.items():
            (folder / name).write_bytes(content)
        (folder / f"folder.{'sql' if broken is SQL else 'ipynb'}").mkdir()
        (folder / f"link.{'sql' if broken is SQL else 'ipynb'}").symlink_to("/nowhere")
        os.mkfifo(folder / f"pipe.{'sql' if broken is SQL else 'ipynb'}")
        (folder / os.fsdecode(b"no_utf8_\xff." + (b"sql" if broken is SQL else b"ipynb"))).write_bytes(content)
        (folder / f".hidden.{'sql' if broken is SQL else 'ipynb'}").write_bytes(b"an editor's")
    defs = load(tmp_path, folders)
    assert assets(defs) == sound
    said = named(defs)
    wanted = {*SQL, *NOTEBOOKS, *(f"{name}.{kind}" for name in ("folder", "link", "pipe", "no_utf8_\\xff") for kind in ("sql", "ipynb"))}
    assert set(said) == wanted and all(said.values())
    assert said["latin.sql"] == "line 6: not UTF-8 (byte 0xe9); save the file as UTF-8"
    assert "is already an asset" in said["ranker.sql"] and "a cycle" in said["one.sql"]
    serialize_value(RepositorySnap.from_def(defs.get_repository_def())).encode()  # what is sent to Dagster's other processes
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("code location: ")]
    assert all(any(f"/{name} is left out: " in line for line in lines) for name in wanted)


@pytest.mark.slow
def test_what_reads_a_broken_jobs_table_is_loaded_and_so_is_the_line(tmp_path, folders):
    sound = assets(load(tmp_path, folders))
    (folders[0] / "user_profiles.sql").write_bytes(b"\xff")
    (folders[0] / "after.sql").write_text(sql("after", table="user_profiles"))
    (folders[0] / "after_that.sql").write_text(sql("after_that", table="after"))
    (folders[1] / "mine.ipynb").write_text(notebook({**D, "deps": ["user_profiles"]}))
    defs = load(tmp_path, folders)
    assert assets(defs) == sound - {"user_profiles"} | {"after", "after_that", "mine"}
    graph = defs.get_repository_def().asset_graph
    assert graph.get(dg.AssetKey("after")).parent_keys == {dg.AssetKey("user_profiles")}
    assert defs.resolve_job_def("line") is not None
    assert set(named(defs)) == {"user_profiles.sql"}


@pytest.mark.slow
def test_the_check_passes_when_all_is_well_and_warns_of_a_sheet_of_paper(tmp_path, folders):
    found = checked(load(tmp_path, folders))
    assert found.passed
    (folders[1] / "Untitled.ipynb").write_text(notebook(cells=[]))
    found = checked(load(tmp_path, folders))
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    (folders[0] / "broken.sql").write_text("select 1")
    found = checked(load(tmp_path, folders))
    assert not found.passed and found.severity == dg.AssetCheckSeverity.ERROR


def test_dagster_says_it_by_itself_once(tmp_path, folders):
    (folders[0] / "broken.sql").write_text("select 1")
    defs = load(tmp_path, folders)
    sensor = defs.resolve_sensor_def("files_left_out")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    first = sensor.evaluate_tick(dg.build_sensor_context(repository_def=defs.get_repository_def(), resources={}))
    (said,) = first.asset_events
    assert not said.passed and "broken.sql" in said.description
    again = dg.build_sensor_context(cursor=first.cursor, repository_def=defs.get_repository_def(), resources={})
    assert not sensor.evaluate_tick(again).asset_events


@pytest.mark.slow
def test_a_file_of_words_that_is_broken_costs_the_words_alone(tmp_path, folders, monkeypatch):
    from assets import definitions

    sound = assets(load(tmp_path, folders))
    broken = tmp_path / "definitions.toml"
    for content in (b"x = [", b'a = "\xe9"', b"a = 5"):
        broken.write_bytes(content)
        monkeypatch.setattr(definitions, "FILE", broken)
        monkeypatch.setattr(definitions, "texts", lambda: {name: one.text for name, one in definitions.load.__wrapped__(broken).items()})
        defs = load(tmp_path, folders)
        assert assets(defs) == sound and set(named(defs)) == {"definitions.toml"}


def test_a_rules_file_in_latin_1_is_refused_by_name(tmp_path):
    (tmp_path / "rules.toml").write_bytes(b'version = "\xe9"')
    with pytest.raises(environment.SettingsError, match="GLASSHOUSE_RULES.*cannot be read"):
        environment.load({"GLASSHOUSE_RULES": str(tmp_path / "rules.toml")})


@pytest.mark.slow
def test_the_untitled_notebook_of_a_new_user(tmp_path):
    """As in the public report: saved by JupyterLab in notebooks/, beside a whole copy of the project."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "tests", "docs", "benchmarks")
    shutil.copytree(environment.ROOT, project, ignore=ignored)
    (project / "notebooks" / "Untitled.ipynb").write_text(notebook(cells=[]))
    command = "import dagster_project.definitions as d; print(len(d.defs.get_repository_def().asset_graph.executable_asset_keys))"
    env = {**os.environ, "PYTHONPATH": str(project), "GLASSHOUSE_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", command], cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout) > 30, done.stderr
    assert "notebooks/Untitled.ipynb is left out" in done.stderr
