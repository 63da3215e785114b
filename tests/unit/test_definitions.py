"""Every metric of a job or a page has its definition; queries take values as bound parameters only."""

import ast
import re
from pathlib import Path

import pytest

from assets import definitions
from assets.samples.sql_job import load_jobs
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER
from dashboards import data

ROOT = Path(__file__).resolve().parents[2]
CODE = [*sorted((ROOT / "dashboards").glob("*.py")), *sorted((ROOT / "dashboards" / "views").glob("*.py"))]
QUERIES = {path.stem: path.read_text() for path in sorted(data.QUERIES.glob("*.sql"))}
METRIC_JOBS = ("hourly_funnel", "daily_active_users")
ASKED = ("ask", "fresh", "query", "both")


@pytest.fixture(scope="module")
def jobs():
    return {job.name: job for job in load_jobs(FOLDER, TABLES)}


@pytest.mark.parametrize("name", METRIC_JOBS)
def test_every_column_of_a_metric_job_says_what_it_means(jobs, name):
    assert {column.name for column in jobs[name].columns if not column.comment} == set()


def test_a_jobs_metrics_have_the_words_of_the_pages(jobs):
    comments = {column.name: column.comment for column in jobs["hourly_funnel"].columns}
    assert comments["ctr"] == definitions.load()["ctr"].text and comments["hour"] == "hour of the display, UTC"
    missing = set(comments) - {"hour", "channel"} - set(definitions.load())
    assert not missing


def test_own_words_of_a_job_come_first(tmp_path):
    (tmp_path / "counted.sql").write_text(
        "-- name: counted\n-- owner: team:a\n-- grain: hour\n-- partition: hourly\n-- description: d\n"
        "select e.hour, count(*) as displays, count(*) as n -- mine\nfrom events as e\n"
        "where e.hour >= {{ window_start }} and e.hour < {{ window_end }}\ngroup by e.hour\n"
    )
    (job,) = load_jobs(tmp_path, TABLES, {"displays": "any", "counted.displays": "here", "n": "not this"})
    assert {column.name: column.comment for column in job.columns} == {"hour": "", "displays": "here", "n": "mine"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node




@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_every_panel_and_tile_has_a_definition(path):
    known = definitions.load()
    for called, node in calls(path):
        if called in ("panel", "sheet", "heading") and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            assert node.args[1].value in known, (path.name, node.lineno)
        if called == "meaning" and isinstance(node.args[0], ast.Constant):
            assert node.args[0].value in known
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("TILES"):
            assert {tile.elts[1].value for tile in node.value.elts} <= set(known), path.name


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_no_query_is_made_of_strings(path):
    """What is asked is the name of a file; its text is handed on as it is."""
    for called, node in calls(path):
        if called in ASKED and node.args and isinstance(node.args[0], ast.Constant):
            assert node.args[0].value in QUERIES, (path.name, node.lineno)
        if called in ("command", "query_df", "query_arrow", "raw_query"):
            pytest.fail(f"{path.name}:{node.lineno} asks ClickHouse otherwise than by data.fresh")
    strings = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in strings if isinstance(text, str) and re.search(r"\bSELECT\b", text)]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_itself_and_binds_what_it_is_given(name):
    text = QUERIES[name]
    assert text.startswith(f"-- name: {name}\n-- description: ") and "\n-- parameters: " in text
    assert not re.search(r"\{\{|%\(|\{\w+\}", text), "a value that is not bound"
    if "{channels:" in text and not name.startswith("revenue"):
        assert text.count("{devices:") == text.count("{channels:") == text.count("{bands:"), "a filter that is ignored"


def test_an_entry_without_a_text_is_refused(tmp_path):
    path = tmp_path / "definitions.toml"
    path.write_text('[a]\nclickhouse = "count()"\n')
    with pytest.raises(definitions.DefinitionError, match="`a`"):
        definitions.load(path)
