"""SQL cells without their engines: templates, bound values, the magic's line, the code location's weight."""

import datetime as dt
import subprocess
import sys

import pytest

from assets.attribution.rules import Rules
from assets.engines.choice import embedded_only
from assets.lake import Lake, Window
from assets.notebook.files import SQL_MAGIC, tables_of
from assets.notebook.sql import ClickHouseSql, LakeSql, SqlError, register, render
from assets.samples.sql_job import Head, variables
from dagster_project.services import free_port
from tests.conftest import ROOT

VALUES = {
    "window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T02:00:00Z", "who": "o'hara", "ids": object(),
}  # fmt: skip


def test_a_cell_gets_the_variables_of_a_job_as_a_job_gets_them():
    text = "{{ window_start }} {{ window_end }} {{ window_ms }} {{ delay_ms }} {{ long_view_ms }}"
    window = Window(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC))
    of_job = variables(Head("x", "team:x", ("hour",), "hourly", "x", None), window, Rules())
    assert render(text, VALUES, Rules()) == " ".join(map(str, of_job.values()))


def test_other_variables_become_literals_that_cannot_break_out():
    assert render("select {{ who }}", VALUES, Rules()) == r"select 'o\'hara'"
    assert render("-- lookback: 2d\n{{ lookback_start }}", VALUES, Rules()).endswith("TIMESTAMP '2025-12-30T00:00:00Z'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ nobody }}", "`nobody` is not defined"),
        ("{{ ids }}", "no SQL literal"),
        ("{{ lookback_start }}", "-- lookback: 7d"),
        ("-- lookback: 5m\n{{ lookback_start }}", "whole hours or days"),
        ("{{ window_start ", "template"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error(text, says):
    with pytest.raises(SqlError, match=says):
        render(text, VALUES, Rules())


def test_a_window_that_is_none_is_an_error():
    for values in ({}, {"window_start": None, "window_end": None}, {**VALUES, "window_end": "2026-01-01T01:30:00Z"}):
        with pytest.raises(SqlError, match="window_start and window_end are whole hours"):
            render("{{ window_start }}", values, Rules())


def test_the_magics_line_is_understood():
    for line, want in {
        "%%sql lake\nx": ("lake", None),
        "%%sql lake --as c\nx": ("lake", "c"),
        "\n%%sql clickhouse \nx": ("clickhouse", None),
    }.items():
        found = SQL_MAGIC.match(line)
        assert (found["engine"], found["name"], found["rest"]) == (*want, "")
    assert SQL_MAGIC.match("select 1") is None


def test_tables_of_a_query_leave_its_own_ctes_out():
    text = "with a as (select * from events) select * from a join click_sessions as c on a.user_id = c.user_id"
    assert set(tables_of(text)) == {"events", "click_sessions"}
    with pytest.raises(ValueError, match="."):
        tables_of("select from where (")


def test_clickhouse_asks_for_what_it_is_not_given_and_says_what_to_start():
    engine = ClickHouseSql(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SqlError, match="`day` is not defined"):
        engine.query("SELECT {day:Date}", {})
    with pytest.raises(SqlError, match="is bound to a DateTime"):
        engine.query("SELECT {day:DateTime('UTC')}", {"day": "2026-01-01"})
    with pytest.raises(SqlError, match="no ClickHouse answers"):
        engine.query("SELECT 1", {})


def test_the_magic_says_how_it_is_written_and_shows_errors_without_a_traceback(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    register(shell, {"lake": LakeSql(Lake(str(tmp_path)), embedded_only(), Rules())})
    for line in ("", "sea", "lake --as", "lake --to x"):
        with pytest.raises(SqlError, match="write `%%sql ENGINE`"):
            shell.run_cell_magic("sql", line, "select 1")
    assert SqlError("what to do")._render_traceback_() == ["SqlError: what to do"]


def test_what_the_code_location_imports_of_notebooks_is_light():
    check = (
        "import sys, assets.notebook.files, assets.notebook.tables; "
        "heavy = {'papermill', 'pyspark', 'pandas', 'IPython', 'clickhouse_connect'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)
