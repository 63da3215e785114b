"""Templates of SQL jobs and of notebook cells fill in values; they reach nothing else, and end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.attribution.rules import Rules
from assets.notebook import sql
from assets.notebook.files import NotebookError
from assets.notebook.promote import promote
from assets.samples.sql_job import EXAMPLE, SqlJobError, load_jobs, render
from dagster_project.line_assets import TABLES

HEAD = "-- name: tried\n-- owner: team:feed\n-- grain: hour\n-- partition: hourly\n-- description: d\n"
QUERY = "select hour, count(*) as c from events where hour >= {{ window_start }} and hour < {{ window_end }} group by hour"
ESCAPES = {  # each runs a command in Jinja's plain environment, or reads what is not the template's
    "cycler": "{{ cycler.__init__.__globals__.os.system('touch FILE') }}", "lipsum": "{{ lipsum.__globals__['os'].system('touch FILE') }}",
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() | length }}", "self": "{{ self._TemplateReference__context.environment }}",
    "attr": "{{ ('' | attr('__class__')) }}", "item": "{{ window_start['__class__'] }}", "format": "{{ '{0.__class__}'.format(window_start) }}",
    "filter": "{{ [''] | map(attribute='__class__') | first }}", "method": "{{ window_start.join(['a']) }}", "globals": "{{ namespace(a=1) }}",
    "change": "{% set found = [1] %}{{ found.append(2) }}", "file": "{% include '/etc/hostname' %}", "import": "{% import '/etc/hostname' as x %}", "missing": "{{ nobody }}",
}  # fmt: skip
BIG = "{% set a = '" + "y" * 1000 + "' %}{% set a = a" + " ~ a" * 900 + " %}"
BOMBS = {
    "text": "{{ 'a' * 3000000 }}", "range": "{% for i in range(100001) %}{% endfor %}", "words": "{% for i in range(9000) %}{{ 'x' ~ '" + "y" * 200 + "' }}{% endfor %}",
    "width": "{{ 'a' | center(3000000) }}", "percent": "{{ '%3000000d' % 1 }}", "doubled": "{% set a = 'aaaa' %}" + "{% set a = a ~ a %}\n" * 21 + "{{ a | length }}",
    "power": "{{ (9 ** 999999) % 7 }}", "added": "{% set a = 'aaaa' %}" + "{% set a = a + a %}\n" * 21 + "{{ a | length }}",
    "endless": "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}", "deep": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "squared": "{% set x = 9 %}" + "{% set x = x * x %}" * 40 + "{{ x % 7 }}", "digits": "{{ " + "9" * 5000 + " }}", "hex": "{{ 0x" + "f" * 100_000 + " // 3 }}",
    "chained": "{% set a = '" + "y" * 1000 + "' %}{{ (a" + " ~ a" * 12_000 + ") | length }}", "rounded": "{{ 1 | round(999999999, 'ceil') }}",
    "kept": BIG + "{% set b = [" + "a | upper, " * 2000 + "] %}", "summed": "{% set a = range(10000) | list %}{{ [" + "a, " * 2000 + "] | sum(start=[]) | length }}",
    "in itself": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ (a ~ '') | length }}", "in itself, shown": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "block": BIG + "{% set b %}{% for i in range(9000) %}{{ a }}{% endfor %}{% endset %}", "long": "a" * (2**20 + 1), "words of it": "{{ 1 }}" * 20_000,
    "one line": "{% set a = '" + "y" * 9000 + "' %}{{ [" + "a | sort, " * 8000 + "] | length }}",
    "itself": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
}  # fmt: skip


@pytest.mark.slow
def test_what_a_bomb_takes_is_bounded():
    """The worst of the bombs in a process of its own: its memory, with all that Jinja compiles."""
    pytest.importorskip("assets.templates")
    work = """
import sys
from assets import templates
from tests.faults.test_templates import BIG, BOMBS
for name in ("chained", "kept", "in itself", "block", "squared", "hex"):
    try:
        templates.render(BOMBS[name], {})
    except templates.TemplateRefused:
        continue
    sys.exit(f"{name} was rendered")
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", work], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512


def job_file(folder, template):
    (folder / "tried.sql").write_text(f"{HEAD}{QUERY}\n-- {template}\n")
    return folder / "tried.sql"


@pytest.fixture
def soon(monkeypatch):
    try:
        from assets import templates
    except ImportError:
        return
    monkeypatch.setattr(templates, "MAX_SECONDS", 0.5)


@pytest.mark.parametrize("template", ESCAPES.values(), ids=ESCAPES)
def test_a_job_reaches_nothing_but_its_values(tmp_path, template):
    path = job_file(tmp_path, template.replace("FILE", str(tmp_path / "touched")))
    with pytest.raises(SqlJobError, match=rf"{path}:7: ") as error:
        load_jobs(tmp_path, TABLES)
    assert "Traceback" not in str(error.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.slow
@pytest.mark.parametrize("template", BOMBS.values(), ids=BOMBS)
def test_a_job_that_would_not_end_or_fill_the_memory_is_refused(tmp_path, template, soon):
    job_file(tmp_path, template.replace("\n", ""))
    with pytest.raises(SqlJobError, match=r"tried\.sql:\d+: "):
        load_jobs(tmp_path, TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("template", [*ESCAPES.values(), *BOMBS.values()], ids=[*ESCAPES, *BOMBS])
def test_neither_does_a_cell_of_a_notebook(tmp_path, template, soon):
    values = {"window_start": "2026-01-05T03:00:00Z", "window_end": "2026-01-05T04:00:00Z"}
    with pytest.raises(sql.SqlError):
        sql.render(f"{QUERY} -- {template.replace('FILE', str(tmp_path / 'touched'))}", values, Rules())
    assert not (tmp_path / "touched").exists()


def test_a_cell_is_not_promoted_with_what_a_job_may_not_do(tmp_path):
    cells = [
        ("markdown", "What it shows."),
        ("code", f"%%sql lake --as tried\n{QUERY} -- {ESCAPES['cycler'].replace('FILE', str(tmp_path / 'touched'))}"),
    ]
    body = {"cells": [{"cell_type": kind, "source": source, "metadata": {}} for kind, source in cells], "metadata": {}, "nbformat": 4}
    (tmp_path / "mine.ipynb").write_text(json.dumps(body))
    with pytest.raises(NotebookError, match="unsafe|undefined|no template variable"):
        promote(tmp_path / "mine.ipynb", "tried", "tried", tmp_path, owner="team:feed")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.ipynb"]


@pytest.mark.parametrize(
    ("template", "gives"),
    [
        ("{{ window_ms // 1000 }}", "1200"), ("{% for n in range(3) %}{{ n }}{{ ',' if not loop.last }}{% endfor %}", "0,1,2"),
        ("{{ ['a', 'b'] | join(' or ') }}", "a or b"), ("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(1) }}", "11"),
        ("{% set names = {'a': 1} %}{{ names['a'] + 1 }}", "2"), ("{{ 'a' ~ long_view_ms }}", "a10000"), ("{{ 7 % 4 }}{{ 2 ** 8 }}{{ 'x' | upper }}", "3256X"),
    ],
)  # fmt: skip
def test_what_jobs_need_they_have(tmp_path, template, gives):
    job_file(tmp_path, template)
    (job,) = load_jobs(tmp_path, TABLES)
    assert render(job, EXAMPLE, Rules()).splitlines()[-1] == f"-- {gives}"
