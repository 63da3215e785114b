"""Notebook files: what a job must declare, how cells are numbered, what the shipped ones are."""

import json

import pytest

from assets.notebook import files
from assets.notebook.files import NotebookError
from tests.conftest import ROOT

SHIPPED = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = ("code", "window_start = None\nwindow_end = None\nlimit: int = 5", ["parameters"])


def write(path, cells, declared=None, counts=()):
    body = {
        "cells": [
            {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": {"tags": tags},
             **({"outputs": [], "execution_count": dict(counts).get(place)} if kind == "code" else {})}
            for place, (kind, source, tags) in enumerate(cells)
        ],
        "metadata": {"glasshouse": {"description": "what it shows"} if declared is None else declared},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_notebooks_load_and_carry_no_outputs(path):
    notebook = files.load(path)
    assert notebook.owner and notebook.deps
    cells = json.loads(path.read_text())["cells"]
    assert [c["outputs"] for c in cells if c["cell_type"] == "code" and c["outputs"]] == []
    assert {c["execution_count"] for c in cells if c["cell_type"] == "code"} == {None}


def test_the_notebooks_depend_on_what_they_read():
    deps = {path.stem: set(files.load(path).deps) for path in SHIPPED}
    assert deps["labels"] == {"impression_sessions", "click_sessions", "events"}
    copies = ("events", "impression_sessions", "click_sessions", "orphan_actions", "late_events", "quarantine")
    assert deps["try_a_rule"] == {"events", "impression_sessions", "click_sessions", "orphan_actions", "late_events"}
    assert deps["metrics"] == {f"clickhouse/{name}" for name in copies}


@pytest.mark.parametrize(
    ("cells", "declared", "says"),
    [
        ([("code", "1", [])], None, "no cells are tagged `parameters`"),
        ([("markdown", "x", ["parameters"])], None, "no cells are tagged `parameters`"),
        ([PARAMETERS, PARAMETERS], None, "2 cells are tagged"),
        ([("code", "window_start = None", ["parameters"])], None, "does not assign window_end"),
        ([("code", "window_start = (", ["parameters"])], None, "not plain Python"),
        ([PARAMETERS], {}, "its metadata lacks"),
        ([PARAMETERS, ("code", "%%sql lake\nselect from where", [])], None, r"cell \[2\]"),
    ],
)
def test_a_notebook_that_cannot_be_a_job_is_an_error_that_names_it(tmp_path, cells, declared, says):
    path = write(tmp_path / "mine.ipynb", cells, declared)
    with pytest.raises(NotebookError, match=says) as error:
        files.load(path)
    assert str(path) in str(error.value)


def test_names_and_formats_are_checked(tmp_path):
    with pytest.raises(NotebookError, match="lower case"):
        files.load(write(tmp_path / "My Notebook.ipynb", [PARAMETERS]))
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(NotebookError, match="not a Jupyter notebook"):
        files.load(tmp_path / "broken.ipynb")


def test_tables_read_are_found_in_sql_and_calls_and_joined_with_those_declared(tmp_path):
    cells = [
        PARAMETERS,
        ("code", "%%sql lake\nwith c as (select * from events) select * from c where hour > {{ window_start }}", []),
        ("code", "a = lake.table('click_sessions', version=3)\nb = lake.scan(\"orphan_actions\")", []),
        ("code", "%%sql clickhouse\nSELECT count() FROM quarantine WHERE hour >= {window_start:DateTime('UTC')}", []),
    ]
    notebook = files.load(write(tmp_path / "mine.ipynb", cells, {"description": "d", "deps": ["note_profiles"]}))
    assert notebook.deps == ("note_profiles", "events", "click_sessions", "orphan_actions", "clickhouse/quarantine")
    assert notebook.reads_clickhouse


def test_cells_are_numbered_as_jupyter_shows_or_will_show_them(tmp_path):
    cells = [PARAMETERS, ("markdown", "text", []), ("code", "", []), ("code", "%%sql lake --as x\nselect 1", ["t"])]
    _, fresh = files.read_cells(write(tmp_path / "a.ipynb", cells))
    assert [cell.number for cell in fresh] == [1, None, None, 2]
    assert (fresh[3].engine, fresh[3].names, fresh[3].sql) == ("lake", ("x", "t"), "select 1")
    _, ran = files.read_cells(write(tmp_path / "b.ipynb", cells, counts=[(0, 4), (3, 9)]))
    assert [cell.number for cell in ran] == [4, None, None, 9]


def test_parameters_are_read_as_literals(tmp_path):
    _, cells = files.read_cells(write(tmp_path / "a.ipynb", [PARAMETERS]))
    assert files.assigned(tmp_path, cells[0]) == {"window_start": None, "window_end": None, "limit": 5}
