"""Promotion: a SQL cell that has proved itself becomes a job, sql/lake/NAME.sql, with a row test begun.

Here: from a cell to the two files. Not here: what a job is and how it is checked (assets/samples/sql_job.py), how row
tests are run (tests/sql/test_sql_jobs.py).
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import sqlglot
import pyarrow as pa
import yaml
from sqlglot import exp

from assets.attribution import tables as labels
from assets.attribution.rules import Rules
from assets.engines import translate
from assets.engines.choice import SPARK
from assets.events import contract
from assets.lake import Table, Window, utc_text
from assets.notebook import files
from assets.notebook.files import Cell, NotebookError
from assets.notebook.sql import JOB_VARIABLES
from assets.samples import sql_job
from assets.samples.sql_job import SqlJob, SqlJobError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LINE_TABLES = (
    contract.RAW_EVENTS, contract.EVENTS, contract.QUARANTINE, contract.SOURCES, contract.ID_KEYS,
    labels.IMPRESSION_SESSIONS, labels.CLICK_SESSIONS, labels.ORPHAN_ACTIONS, labels.LATE_EVENTS,
)  # fmt: skip

# The hour of a begun row test; its rows lie in it.
TEST_WINDOW = Window(dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC), dt.datetime(2026, 1, 5, 4, tzinfo=dt.UTC))

_HEAD_LINE = re.compile(r"--\s*(grain|owner|description|lookback|engine):\s*(.+)")
# A window written as literals, as one does while trying: hour >= '...' and hour < timestamp '...'.
_BOUND_LITERAL = re.compile(r"(?i)(\bhour\s*(>=|<)(?!=)\s*)(?:timestamp\s*)?'[^']*'")
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def promote(
    notebook: Path,
    cell: str | int,
    name: str | None,
    root: Path,
    tables: Iterable[Table] = LINE_TABLES,
    spark: SparkSession | None = None,
    owner: str | None = None,
) -> list[Path]:
    """Write sql/lake/NAME.sql and tests/sql/NAME.yaml below `root` from a `%%sql lake` cell; returns both paths.

    cell: its number (in brackets in JupyterLab), its result's name (`--as`) or its tag. name: of the job and its table;
    default the cell's own. tables: what the line itself writes. spark: runs the begun test of a job that says `engine: spark`;
    default get_spark().
    owner: e-mail address or team:NAME; default `git config user.email`.

    The description is the text cell above; window literals become {{ window_start }} and {{ window_end }}; the grain is
    what the query groups by. A line `-- grain: ...` (owner, description, lookback, engine) in the cell goes before that.
    Raises NotebookError, having written nothing: no such cell, no SQL, a name that is taken, no `hour`, no window, an
    unknown table or variable.
    """
    metadata, cells = files.read_cells(notebook)
    place = _find(notebook, cells, str(cell))
    chosen = cells[place]
    where = f"{notebook}, cell [{chosen.number}]"
    if chosen.engine != "lake":
        raise NotebookError(f"{where}: {_not_a_job(chosen)}; promotable are: {_promotable(cells)}")
    name = name or next(iter(chosen.names), None)
    target, test = root / "sql" / "lake" / f"{name}.sql", root / "tests" / "sql" / f"{name}.yaml"
    _check_name(where, name, (target, test), tables)
    text = _job_text(where, name, chosen, cells[:place], _parameters(notebook, cells), owner, root)
    job = _checked(where, text, target, tables)
    case = _begun_test(job, root, tables, spark)
    for path, content in ((target, text), (test, case)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return [target, test]


def _find(notebook: Path, cells: tuple[Cell, ...], wanted: str) -> int:
    key = wanted.strip().strip("[]")
    found = [
        place
        for place, cell in enumerate(cells)
        if cell.kind == "code" and (key in cell.names or (key.isdigit() and cell.number == int(key)))
    ]
    if len(found) != 1:
        many = f"{len(found)} cells are" if found else "no code cell is"
        raise NotebookError(f"{notebook}: {many} {key!r}; promotable are: {_promotable(cells)}")
    return found[0]


def _promotable(cells: Iterable[Cell]) -> str:
    found = [f"[{cell.number}] {next(iter(cell.names), '')}".strip() for cell in cells if cell.engine == "lake"]
    return ", ".join(found) or "none; write a `%%sql lake` cell"


def _not_a_job(cell: Cell) -> str:
    if cell.engine:
        return f"a job runs on the lake (Spark SQL), this cell on {cell.engine}"
    return "not a SQL cell; it does not begin with `%%sql lake`"


def _check_name(where: str, name: str | None, paths: tuple[Path, ...], tables: Iterable[Table]) -> None:
    if not name or not files.NAME.match(name):
        raise NotebookError(f"{where}: a job's name is lower case letters, digits and _, not {name!r}; give one")
    if name in {table.name for table in tables}:
        raise NotebookError(f"{where}: `{name}` is a table of the line; choose another name")
    for path in paths:
        if path.exists():
            raise NotebookError(f"{where}: {path} exists; choose another name, or remove it first")


def _parameters(notebook: Path, cells: tuple[Cell, ...]) -> dict:
    tagged = [cell for cell in cells if "parameters" in cell.tags and cell.kind == "code"]
    return files.assigned(notebook, tagged[0]) if tagged else {}


# --- the job's file -----------------------------------------------------------------------------------------------


def _job_text(
    where: str, name: str, cell: Cell, above: tuple[Cell, ...], parameters: dict, owner: str | None, root: Path
) -> str:
    said = {key: text.strip() for line in cell.sql.splitlines() for key, text in _HEAD_LINE.findall(line)}
    body = "\n".join(line for line in cell.sql.splitlines() if not _HEAD_LINE.fullmatch(line.strip())).strip()
    body = _templated(where, body.rstrip("; \n"), parameters)
    head = {
        "name": name,
        "owner": said.get("owner") or owner or _git_owner(where, root),
        "grain": said.get("grain") or ", ".join(_grain(where, body)),
        "partition": "hourly",
        **{key: said[key] for key in ("lookback", "engine") if key in said},
        "description": said.get("description") or _description(where, above),
    }
    lines = [f"-- {key}: {value}" for key, value in head.items()]
    lines[-1] = "\n--   ".join(textwrap.wrap(lines[-1], 116))
    return "\n".join(lines) + "\n" + body + "\n"


def _templated(where: str, body: str, parameters: dict) -> str:
    body = _BOUND_LITERAL.sub(
        lambda found: found[1] + ("{{ window_start }}" if found[2] == ">=" else "{{ window_end }}"), body
    )

    def fixed(found: re.Match) -> str:
        if found[1] in JOB_VARIABLES:
            return found[0]
        if parameters.get(found[1]) is None:
            known = ", ".join(sorted(JOB_VARIABLES))
            message = f"a job knows no `{found[1]}`; write its value into the query. It knows: {known}"
            raise NotebookError(f"{where}: {message}")
        return exp.convert(parameters[found[1]]).sql("spark")

    body = _VARIABLE.sub(fixed, body)
    used = set(_VARIABLE.findall(body))
    if not {"window_start", "window_end"} <= used:
        raise NotebookError(
            f"{where}: the query names no window, so a run would write other hours than its own; add "
            "`where hour >= {{ window_start }} and hour < {{ window_end }}`"
        )
    return body


def _parsed(where: str, body: str) -> exp.Query:
    try:
        query = sqlglot.parse_one(files.TEMPLATED.sub("x", body), read="spark")
    except sqlglot.errors.SqlglotError as error:
        raise NotebookError(f"{where}: {error}") from error
    if not isinstance(query, exp.Query):
        raise NotebookError(f"{where}: a job is one SELECT; its result becomes the table")
    if "hour" not in query.named_selects and not query.is_star:
        raise NotebookError(f"{where}: the result has no column `hour`, the partition; select it (and group by it)")
    return query


def _grain(where: str, body: str) -> list[str]:
    """The columns a row is one of: what the outer query groups by; else `hour` and the ids it selects."""
    query = _parsed(where, body)
    group = query.args.get("group")
    selects = {part.alias_or_name: part.unalias() for part in query.selects}
    if group is None:
        found = [name for name in selects if name.endswith("_id")]
    elif group.args.get("all"):
        found = [name for name, part in selects.items() if not part.find(exp.AggFunc)]
    else:
        keys = [_key(key, query) for key in group.expressions]
        found = [name for name, part in selects.items() if part in keys or name in [key.name for key in keys]]
    return list(dict.fromkeys(["hour", *found]))


def _key(key: exp.Expression, query: exp.Query) -> exp.Expression:
    # `group by 2` names the second column.
    return query.selects[int(key.name) - 1].unalias() if isinstance(key, exp.Literal) and key.is_int else key


def _description(where: str, above: tuple[Cell, ...]) -> str:
    text = next((cell.source for cell in reversed(above) if cell.kind == "markdown" and cell.source.strip()), "")
    prose = " ".join(line.strip() for line in text.splitlines() if not line.startswith("#")).split()
    title = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    if not prose and not title:
        raise NotebookError(f"{where}: say in a text cell above it what the result is; that becomes the description")
    return " ".join(prose) or title


def _git_owner(where: str, root: Path) -> str:
    command = ["git", "-C", str(root), "config", "user.email"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if not found.stdout.strip():
        ways = "set `git config user.email`, or write `-- owner: team:NAME` in the cell"
        raise NotebookError(f"{where}: who owns the job? {ways}")
    return found.stdout.strip()


def _checked(where: str, text: str, target: Path, tables: Iterable[Table]) -> SqlJob:
    """The text as a job among those that there are; everything that would be an error at load is one here."""
    with tempfile.TemporaryDirectory() as folder:
        for path in target.parent.glob("*.sql"):
            shutil.copy(path, folder)
        (Path(folder) / target.name).write_text(text, encoding="utf-8")
        try:
            return next(job for job in sql_job.load_jobs(Path(folder), tables) if job.name == target.stem)
        except SqlJobError as error:
            raise NotebookError(f"{where}: {str(error).replace(f'{folder}/', '')}") from error


# --- its row test, begun ------------------------------------------------------------------------------------------


def _begun_test(job: SqlJob, root: Path, tables: Iterable[Table], spark: SparkSession | None) -> str:
    kinds = translate.schema_of({table.name: table.schema for table in tables})
    for other in sql_job.load_jobs(root / "sql" / "lake", tables):
        kinds[other.name] = {column.name: column.type or "DOUBLE" for column in other.columns}
    given = {name: [_row(kinds[name])] for name in job.inputs}
    if job.head.engine != SPARK:
        expected = sql_job.answered(job, {name: _as_table(rows, kinds[name]) for name, rows in given.items()}, TEST_WINDOW, Rules()).to_pylist()
    else:
        from assets.spark import get_spark

        expected = _run(job, given, kinds, spark or get_spark())
    return _case(job, given, expected)


def _row(kinds: dict[str, str]) -> dict[str, object]:
    """One plausible row: ids are 1, flags true, times some minutes into the hour."""
    return {name: _value(name, kind) for name, kind in kinds.items() if kind != "BINARY"}


def _value(name: str, kind: str) -> object:
    minutes = {"hour": 0, "session_end": 25, "first_click_time": 6, "ingest_time": 6}.get(name, 5)
    if kind == "TIMESTAMP":
        return TEST_WINDOW.start + dt.timedelta(minutes=minutes)
    words = {"action": "impression", "channel": "homefeed", "device": "ios", "context": '{"device": "ios"}'}
    if kind.startswith("ARRAY<"):
        return [_value(name, kind[6:-1])]
    return {"STRING": words.get(name, "a"), "BOOLEAN": True, "DATE": TEST_WINDOW.start.date()}.get(kind, 1)


def _as_table(rows: list[dict], kinds: dict[str, str]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([pa.field(name, translate.arrow_type(kinds[name])) for name in rows[0]]))


def _run(job: SqlJob, given: dict, kinds: dict, spark: SparkSession) -> list[dict]:
    for name, rows in given.items():
        used = {column: kinds[name][column] for column in rows[0]}
        values = [[float(row[c]) if used[c] == "DOUBLE" else row[c] for c in used] for row in rows]
        ddl = ", ".join(f"`{column}` {kind}" for column, kind in used.items())
        spark.createDataFrame(values, ddl).createOrReplaceTempView(name)
    found = spark.sql(sql_job.render(job, TEST_WINDOW, Rules())).toArrow().to_pylist()
    return [dict(row) for row in found]


def _case(job: SqlJob, given: dict, expected: list[dict]) -> str:
    note = (
        f"# Begun by `glasshouse promote`: what {job.name} makes of one row of each input.\n"
        "# Check the expectation by hand, then add the cases that matter: no rows, an edge of the window, a null.\n"
    )
    window = [_plain(TEST_WINDOW.start), _plain(TEST_WINDOW.end)]
    case = {
        "check me - one row of each input": {
            "window": window,
            "inputs": {name: [_plain(row) for row in rows] for name, rows in given.items()},
            "expected": [_plain(row) for row in expected],
        }
    }
    return note + yaml.safe_dump(case, sort_keys=False, allow_unicode=True, width=110)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, dt.datetime):
        return utc_text(value)
    return value
