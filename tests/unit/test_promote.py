"""Promotion up to its row test, which needs Spark (tests/integration/test_notebooks.py)."""

import json
import shutil

import pytest

from assets.notebook import promote as module
from assets.notebook.files import NotebookError, read_cells
from assets.notebook.promote import _checked, _job_text, _parameters, promote
from assets.samples.sql_job import read_head
from tests.conftest import ROOT

WINDOW = "hour >= {{ window_start }} and hour < {{ window_end }}"
GOOD = f"select hour, channel, count(*) as n from impression_sessions where {WINDOW} group by hour, channel"
PARAMETERS = "window_start = None\nsurface = 'search'"


@pytest.fixture
def root(tmp_path):
    shutil.copytree(ROOT / "sql" / "lake", tmp_path / "sql" / "lake")
    return tmp_path


def notebook(root, sql, engine="lake", text="Displays by channel.", parameters=PARAMETERS):
    cells = [
        {"cell_type": "code", "source": parameters, "metadata": {"tags": ["parameters"]}},
        {"cell_type": "markdown", "source": text, "metadata": {}},
        {"cell_type": "code", "source": f"%%sql {engine} --as by_channel\n{sql}", "metadata": {}},
        {"cell_type": "code", "source": "1 + 1", "metadata": {"tags": ["sum"]}},
    ]
    path = root / "mine.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def text_of(root, sql, **more):
    """The job's file as promote would write it, checked among the jobs that there are."""
    path = notebook(root, sql, **more)
    _, cells = read_cells(path)
    text = _job_text("here", "by_channel", cells[2], cells[:2], _parameters(path, cells), "team:feed", root)
    target = root / "sql" / "lake" / "by_channel.sql"
    return text, _checked("here", text, target, module.LINE_TABLES)


def body_of(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def test_the_head_is_filled_and_the_job_loads(root):
    text, job = text_of(root, GOOD, text="# Title\n\nDisplays by\nchannel.")
    head = read_head(root / "by_channel.sql", text)
    assert (head.name, head.owner, head.grain) == ("by_channel", "team:feed", ("hour", "channel"))
    assert (head.partition, head.description) == ("hourly", "Displays by channel.")
    assert job.inputs == ("impression_sessions",)
    assert body_of(text).strip() == GOOD


def test_literal_windows_and_the_notebooks_parameters_become_what_a_job_knows(root):
    text, _ = text_of(
        root,
        "select s.hour, count(*) as n from impression_sessions as s\n"
        "where s.hour >= '2026-01-05T03:00:00Z' and s.hour < timestamp '2026-01-05 06:00:00'\n"
        "and s.channel = {{ surface }}\n"
        "group by s.hour;",
    )
    assert "s.hour >= {{ window_start }} and s.hour < {{ window_end }}\nand s.channel = 'search'" in text
    assert "'2026" not in text and ";" not in body_of(text)


def test_a_cell_may_say_parts_of_the_head_itself(root):
    text, job = text_of(root, f"-- grain: hour, channel\n-- owner: team:ads\n-- description: Mine.\n{GOOD}")
    assert (job.head.owner, job.head.description, text.count("-- grain:")) == ("team:ads", "Mine.", 1)


@pytest.mark.parametrize(
    ("group", "grain"),
    [
        ("group by all", ("hour", "channel")),
        ("group by 1, 2", ("hour", "channel")),
        ("group by channel, hour", ("hour", "channel")),
    ],
)
def test_the_grain_is_what_the_query_groups_by(root, group, grain):
    _, job = text_of(root, GOOD.replace("group by hour, channel", group))
    assert job.head.grain == grain


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (GOOD.replace("select hour, ", "select "), "no column `hour`"),
        (GOOD.replace(f"where {WINDOW}", ""), "names no window"),
        (GOOD.replace("{{ window_end }}", "{{ until }}"), "a job knows no `until`"),
        (GOOD.replace("impression_sessions", "nowhere"), "unknown table `nowhere`"),
        (GOOD.replace("channel, count", "colour, count"), "colour"),
        (f"delete from events where {WINDOW}", "one SELECT"),
        (f"select hour from where {WINDOW} (", r"cell \[2\]"),
    ],
)
def test_a_query_that_cannot_be_a_job_is_an_error_and_nothing_is_written(root, sql, says):
    before = sorted(root.rglob("*"))
    path = notebook(root, sql)
    with pytest.raises(NotebookError, match=says) as error:
        promote(path, "by_channel", None, root, owner="team:feed")
    assert "cell [2]" in str(error.value)
    assert sorted(root.rglob("*")) == sorted({*before, path})


@pytest.mark.parametrize(
    ("cell", "name", "says"),
    [
        ("7", None, r"no code cell is '7'; promotable are: \[2\] by_channel"),
        ("nothing", None, "no code cell is 'nothing'"),
        ("sum", None, "not a SQL cell"),
        ("[3]", None, "not a SQL cell"),
        ("2", "Bad Name", "lower case"),
        ("2", "user_profiles", "exists; choose another name"),
        ("2", "events", "is a table of the line"),
    ],
)
def test_a_cell_or_a_name_that_does_not_do_is_an_error(root, cell, name, says):
    with pytest.raises(NotebookError, match=says):
        promote(notebook(root, GOOD), cell, name, root, owner="team:feed")


def test_a_clickhouse_cell_is_no_job(root):
    with pytest.raises(NotebookError, match="runs on the lake .*, this cell on clickhouse"):
        promote(notebook(root, "SELECT 1", engine="clickhouse"), 2, None, root, owner="team:feed")


def test_the_owner_is_gits_or_must_be_said(root, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    with pytest.raises(NotebookError, match="git config user.email"):
        promote(notebook(root, GOOD), 2, None, root)


def test_a_cell_without_any_text_above_has_no_description(root):
    with pytest.raises(NotebookError, match="say in a text cell above"):
        promote(notebook(root, GOOD, text=" "), 2, None, root, owner="team:feed")
