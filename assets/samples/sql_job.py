"""SQL jobs: a file of sql/lake/ read, checked, rendered and run, on the embedded engine or on Spark.

Here: the head of a file, its template, its inputs and the lineage of its columns (sqlglot), and the run that replaces a
window of its table. Not here: what a job computes (sql/lake/NAME.sql), how an engine answers (assets/engines), how a job becomes
an asset (dagster_project/). Everything that can be wrong with a file is found by `load_jobs`, without Spark, and named with file and
line: also what the embedded engine does not understand.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2.nodes
import pyarrow as pa
import sqlglot
from sqlglot import exp
from sqlglot.errors import OptimizeError, ParseError, TokenError
from sqlglot.optimizer.scope import Scope, build_scope

from assets import definitions, templates, upgrade
from assets.attribution.rules import Rules
from assets.counts import rows_by_hour
from assets.engines import embedded, translate
from assets.engines.choice import EMBEDDED, SPARK, Choice, Engines
from assets.lake import Lake, Table, Window, utc_text

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REQUIRED = ("name", "owner", "grain", "partition", "description")
OPTIONAL = ("lookback", "engine")
HEAD_LINE = re.compile(r"--\s?(?:(?P<key>[a-z_]+):\s?)?(?P<text>.*)")
OWNER = re.compile(r"team:[\w-]+|[^@\s]+@[^@\s]+")
LOOKBACK = re.compile(r"(\d+)([hd])")
NAME = re.compile(r"[a-z][a-z0-9_]*")

MAX_BYTES = 2**20  # of a job's file

# Any hour does for reading a template; the values never reach a table.
EXAMPLE = Window(dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2000, 1, 1, 1, tzinfo=dt.UTC))


class SqlJobError(Exception):
    """A file of sql/lake/ that cannot be a job; the message begins with file:line."""

    def __init__(self, path: Path, line: int, message: str, jobs: tuple[str, ...] = ()) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.jobs = jobs  # those that the error is about, where there are more than one


@dataclass(frozen=True)
class Head:
    """The comment lines with which a job's file begins. lookback: how far before the window the job reads. engine: the one engine
    that understands it; None for both."""

    name: str
    owner: str
    grain: tuple[str, ...]
    partition: str
    description: str
    lookback: dt.timedelta | None
    engine: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a job's output: Spark type, its comment, and the (table, column) pairs its value comes from."""

    name: str
    type: str
    comment: str
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SqlJob:
    path: Path
    head: Head
    template: str
    inputs: tuple[str, ...]
    columns: tuple[Column, ...] = ()

    @property
    def name(self) -> str:
        return self.head.name


@dataclass(frozen=True)
class JobRun:
    """What a run did. rows: by hour of the window. read: the Delta version of each input. version: the one written.

    engine: which one ran, and why; rows_in, bytes_in: what the inputs hold in the hours that the job reads, by Delta's statistics;
    seconds: of the whole run.
    """

    version: int
    rows: dict[dt.datetime, int]
    read: dict[str, int]
    warnings: list[str] = field(default_factory=list)
    engine: Choice | None = None
    seconds: float = 0.0


# --- reading a folder ---------------------------------------------------------------------------------------------


def load_jobs(folder: Path, tables: Iterable[Table], words: Mapping[str, str] | None = None) -> list[SqlJob]:
    """Read every *.sql of `folder`; the jobs come in an order in which each follows its inputs.

    tables: what the rest of the line writes. words: what a column without a comment means, by `job.column` or by its name
    alone; those of sql/definitions.toml by default. Raises SqlJobError for anything that would fail later: a wrong head, a
    template variable that does not exist, a syntax error, an unknown table or column, a cycle.
    """
    jobs, broken = load_sound_jobs(folder, tables, words)
    for error in broken.values():
        raise error
    return jobs


def load_sound_jobs(
    folder: Path, tables: Iterable[Table], words: Mapping[str, str] | None = None, taken: Iterable[str] = ()
) -> tuple[list[SqlJob], dict[Path, Exception]]:
    """As `load_jobs`, without the files that cannot be jobs: (jobs, why not by file).

    taken: names that other assets have. A job that reads the table of a broken file is there, without columns: what they are made of
    is not known until that file is mended.
    """
    known = translate.schema_of({table.name: table.schema for table in tables})
    broken: dict[Path, Exception] = {}
    if words is None:
        words = {}
        with _noted(broken, definitions.FILE):
            words = definitions.texts()
    by_name: dict[str, tuple[SqlJob, exp.Query]] = {}
    for path in files_of(folder, "sql"):
        with _noted(broken, path):
            job, query = _parse(path)
            if job.name in known:
                raise SqlJobError(path, _head_line(job, "name"), f"`{job.name}` is already a table of the line")
            if job.name in taken:
                raise SqlJobError(path, _head_line(job, "name"), f"`{job.name}` is already an asset; rename the job")
            by_name[job.name] = job, query
    tables_there = set(known) | set(by_name) | {path.stem for path in broken if path.suffix == ".sql"}
    for job, query in list(by_name.values()):
        with _noted(broken, job.path):
            _check_tables(job, query, tables_there)
    _leave_out(by_name, broken)
    done = []
    with contextlib.ExitStack() as stack:
        checker = stack.enter_context(contextlib.closing(embedded.Checker())) if by_name else None
        for name in _order_without_cycles(by_name, broken):
            job, query = by_name[name]
            with _noted(broken, job.path):
                columns: tuple[Column, ...] = ()
                if all(known.get(table) for table in job.inputs):
                    query = _typed(job, query, known)
                    columns = _columns(job, query, words)
                    known[name] = {column.name: column.type or "UNKNOWN" for column in columns}
                    _check_engine(job, query, known, checker)
                done.append(SqlJob(job.path, job.head, job.template, job.inputs, columns))
    return done, broken


def files_of(folder: Path, suffix: str) -> list[Path]:
    """What of a folder is to be loaded, by name; hidden files (of editors) are not."""
    return sorted(path for path in Path(folder).glob(f"*.{suffix}") if not path.name.startswith("."))


@contextlib.contextmanager
def _noted(broken: dict[Path, Exception], path: Path) -> Iterator[None]:
    """What is wrong with one file is noted, whatever a parser makes of it, and the others go on."""
    try:
        yield
    except Exception as error:
        broken[path] = error


def _leave_out(by_name: dict[str, tuple[SqlJob, exp.Query]], broken: Mapping[Path, Exception]) -> None:
    for name in [name for name, (job, _) in by_name.items() if job.path in broken]:
        del by_name[name]


def _order_without_cycles(by_name: dict[str, tuple[SqlJob, exp.Query]], broken: dict[Path, Exception]) -> list[str]:
    while True:
        try:
            return _ordered(by_name)
        except SqlJobError as error:  # a cycle: all of it is left out, what reads from it stays
            for name in error.jobs:
                broken[by_name[name][0].path] = error
            _leave_out(by_name, broken)


def read_head(path: Path, text: str) -> Head:
    """The head of a file: `-- key: value` lines before the query; a line without a key continues the one before."""
    found: dict[str, tuple[int, str]] = {}
    key = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("--"):
            break
        match = HEAD_LINE.match(line)
        if match["key"] in REQUIRED + OPTIONAL:
            key = match["key"]
            if key in found:
                raise SqlJobError(path, number, f"the head says `{key}` twice")
            found[key] = (number, match["text"].strip())
        elif match["key"] and key != "description":
            allowed = ", ".join(REQUIRED + OPTIONAL)
            raise SqlJobError(path, number, f"`{match['key']}` is not a word of the head; those are: {allowed}")
        elif key is None:
            raise SqlJobError(path, number, "the head begins with `-- name: ...`")
        else:
            found[key] = (found[key][0], f"{found[key][1]} {line.removeprefix('--').strip()}".strip())
    return _checked_head(path, found)


def _checked_head(path: Path, found: Mapping[str, tuple[int, str]]) -> Head:
    missing = [key for key in REQUIRED if not found.get(key, (0, ""))[1]]
    if missing:
        raise SqlJobError(path, 1, f"the head lacks {', '.join(missing)}; it is lines like `-- {missing[0]}: ...`")

    def refuse(key: str, message: str) -> SqlJobError:
        return SqlJobError(path, found[key][0], message)

    value = {key: text for key, (_, text) in found.items()}
    if value["name"] != path.stem or not NAME.fullmatch(value["name"]):
        raise refuse("name", f"the file {path.name} holds the job `{path.stem}` in lower case, not `{value['name']}`")
    if not OWNER.fullmatch(value["owner"]):
        raise refuse("owner", f"an owner is an e-mail address or team:NAME, not `{value['owner']}`")
    if value["partition"] != "hourly":
        raise refuse("partition", f"`hourly` is the one partition there is, not `{value['partition']}`")
    if value.get("engine") not in (None, SPARK):
        raise refuse("engine", f"`{SPARK}` is the one engine that a job can ask for, not `{value['engine']}`; without the line it runs on both")
    return Head(
        name=value["name"],
        owner=value["owner"],
        grain=tuple(part.strip() for part in value["grain"].split(",")),
        partition=value["partition"],
        description=value["description"],
        lookback=_lookback(value.get("lookback"), lambda message: refuse("lookback", message)),
        engine=value.get("engine"),
    )


def _lookback(text: str | None, refuse: Callable[[str], SqlJobError]) -> dt.timedelta | None:
    if text is None:
        return None
    match = LOOKBACK.fullmatch(text)
    if not match or not int(match[1]):
        raise refuse(f"a lookback is whole hours or days, like 6h or 7d, not `{text}`")
    return dt.timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1))


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise SqlJobError(path, 1, "not a file; rename or remove it")
        if path.stat().st_size > MAX_BYTES:
            raise SqlJobError(path, 1, f"larger than {MAX_BYTES:,} bytes, which no query is")
        body = path.read_bytes()
        return body.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise SqlJobError(path, line, f"not UTF-8 (byte 0x{body[error.start]:02x}); save the file as UTF-8") from error
    except OSError as error:
        raise SqlJobError(path, 1, f"cannot be read: {error.strerror}") from error


def _parse(path: Path) -> tuple[SqlJob, exp.Query]:
    text = _read(path)
    job = SqlJob(path, read_head(path, text), text, inputs=())
    _check_template(job)
    try:
        found = [query for query in sqlglot.parse(render(job, EXAMPLE, Rules()), read="spark") if query is not None]
    except ParseError as error:
        first = error.errors[0]
        raise SqlJobError(path, first["line"] or 1, f"{first['description']} (near `{first['highlight']}`)") from error
    except TokenError as error:
        raise SqlJobError(path, len(text.splitlines()), f"{error}: is a quote or a comment left open?") from error
    except RecursionError as error:
        raise SqlJobError(path, 1, "the query is nested too deep") from error
    if len(found) != 1 or not isinstance(found[0], exp.Query):
        raise SqlJobError(path, 1, "a job is one SELECT; its result becomes the table")
    query = found[0]
    return SqlJob(path, job.head, text, tuple(sorted({table.name for table in _tables(query)}))), query


def _tables(query: exp.Query) -> list[exp.Table]:
    scope = build_scope(query)
    found = []
    for part in scope.traverse():
        found += [source for source in part.sources.values() if isinstance(source, exp.Table)]
    return found


def _check_tables(job: SqlJob, query: exp.Query, known: set[str]) -> None:
    for table in _tables(query):
        if table.db or table.name not in known:
            name = ".".join(part.name for part in table.parts)
            line = table.this.meta.get("line", 1)
            raise SqlJobError(job.path, line, f"unknown table `{name}`; known are: {', '.join(sorted(known))}")


def _ordered(by_name: Mapping[str, tuple[SqlJob, exp.Query]]) -> list[str]:
    graph = {name: [table for table in job.inputs if table in by_name] for name, (job, _) in by_name.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = error.args[1]  # each name reads the one before it; the first is also the last
        job, query = by_name[cycle[1]]
        line = next(table.this.meta.get("line", 1) for table in _tables(query) if table.name == cycle[0])
        raise SqlJobError(job.path, line, f"a cycle, each reading the one before: {' -> '.join(cycle)}", tuple(cycle[1:])) from error


def _head_line(job: SqlJob, key: str) -> int:
    lines = job.template.splitlines()
    return next(number for number, line in enumerate(lines, 1) if re.match(rf"--\s*{key}:", line))


# --- columns and their lineage ------------------------------------------------------------------------------------


def _typed(job: SqlJob, query: exp.Query, known: Mapping[str, Mapping[str, str]]) -> exp.Query:
    """The query with each column's table and type."""
    comments = {part.alias_or_name: part.comments for part in query.selects}
    try:
        query = translate.typed(query, known)
    except OptimizeError as error:
        raise SqlJobError(job.path, _line_of(str(error), query), str(error)) from error
    for part in query.selects:
        part.comments = comments.get(part.alias_or_name)
    return query


def _check_engine(job: SqlJob, query: exp.Query, known: Mapping[str, Mapping[str, str]], checker: embedded.Checker) -> None:
    """A job of both engines is understood by the embedded one too. query: it changes."""
    if job.head.engine == SPARK or any("UNKNOWN" in known[table].values() for table in job.inputs):
        return
    advice = f"; write it otherwise, or say `-- engine: {SPARK}` in the head: then it runs there only"
    try:
        checker.check(translate.written(query), {table: known[table] for table in job.inputs})
    except translate.Untranslatable as error:
        raise SqlJobError(job.path, error.line, f"the embedded engine: {error}{advice}") from error
    except embedded.EmbeddedError as error:
        raise SqlJobError(job.path, _line_of(str(error), query), f"the embedded engine says: {error}{advice}") from error


def _columns(job: SqlJob, query: exp.Query, words: Mapping[str, str]) -> tuple[Column, ...]:
    comments = {part.alias_or_name: " ".join(c.strip() for c in part.comments or ()) for part in query.selects}
    names = [part.alias_or_name for part in query.selects]
    for name in ("hour", *job.head.grain):
        if name not in names:
            where = "grain" if name in job.head.grain else "partition"
            raise SqlJobError(job.path, _head_line(job, where), f"the {where} needs the column `{name}` in the result")
    if twice := {name for name in names if names.count(name) > 1}:
        raise SqlJobError(job.path, 1, f"the result has two columns named {', '.join(sorted(twice))}")
    sources = Lineage(build_scope(query))
    return tuple(
        Column(
            name=name,
            type=part.type.sql("spark") if part.type and not part.type.is_type("unknown") else "",
            comment=comments.get(name) or words.get(f"{job.name}.{name}") or words.get(name, ""),
            sources=sources.of(name),
        )
        for name, part in zip(names, query.selects, strict=True)
    )


def _line_of(message: str, query: exp.Query) -> int:
    """sqlglot names the line of some mistakes and only the column of others."""
    if line := re.search(r"[Ll]ine:? (\d+)", message):
        return int(line[1])
    names = set(re.findall(r"\w+", message))
    named = [column.this.meta for column in query.find_all(exp.Column) if column.name in names]
    return min((meta["line"] for meta in named if "line" in meta), default=1)


class Lineage:
    """Where the columns of a qualified query come from.

    sqlglot.lineage answers the same for one column, but walks the whole query for each: seconds for a wide job.
    """

    def __init__(self, root: Scope) -> None:
        self.root = root
        self.seen: dict[tuple[int, str], frozenset[tuple[str, str]]] = {}

    def of(self, name: str) -> tuple[tuple[str, str], ...]:
        """The (table, column) pairs that the output column is computed from, sorted."""
        return tuple(sorted(self._of(self.root, name)))

    def _of(self, scope: Scope, name: str) -> frozenset[tuple[str, str]]:
        key = (id(scope), name)
        if key not in self.seen:
            self.seen[key] = frozenset()  # a recursive CTE ends here
            found = self._union if scope.set_operation_scopes else self._select
            self.seen[key] = frozenset(found(scope, name))
        return self.seen[key]

    def _union(self, scope: Scope, name: str) -> Iterable[tuple[str, str]]:
        # The parts of a union match by place; the first one gives the names.
        place = scope.expression.named_selects.index(name)
        for part in scope.set_operation_scopes:
            yield from self._of(part, part.expression.named_selects[place])

    def _select(self, scope: Scope, name: str) -> Iterable[tuple[str, str]]:
        part = next(part for part in scope.expression.selects if part.alias_or_name == name)
        for column in part.find_all(exp.Column):
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table):
                yield source.name, column.name
            elif isinstance(source, Scope) and column.name in source.expression.named_selects:
                yield from self._of(source, column.name)


# --- templates ----------------------------------------------------------------------------------------------------


def variables(head: Head, window: Window, rules: Rules) -> dict[str, str | int]:
    """What a template may use: the window's bounds as SQL timestamps, the rules in milliseconds."""
    values: dict[str, str | int] = {
        "window_start": _timestamp(window.start),
        "window_end": _timestamp(window.end),
        "window_ms": _milliseconds(rules.window),
        "delay_ms": _milliseconds(rules.delay),
        "long_view_ms": _milliseconds(rules.long_view),
    }
    if head.lookback:
        values["lookback_start"] = _timestamp(window.widened(before=head.lookback).start)
    return values


def _timestamp(time: dt.datetime) -> str:
    return f"TIMESTAMP '{utc_text(time)}'"


def _milliseconds(duration: dt.timedelta) -> int:
    return duration // dt.timedelta(milliseconds=1)


def render(job: SqlJob, window: Window, rules: Rules) -> str:
    """The job's SQL for a window. The lines stay where they are in the file. Raises SqlJobError for what a template may not do."""
    try:
        return templates.render(job.template, variables(job.head, window, rules))
    except templates.TemplateRefused as error:
        raise SqlJobError(job.path, error.lineno or 1, f"template: {error.message}") from error


def _check_template(job: SqlJob) -> None:
    try:
        tree, names = templates.parse(job.template), templates.names(job.template)
    except templates.TemplateRefused as error:
        raise SqlJobError(job.path, error.lineno or 1, f"template: {error.message}") from error
    allowed = variables(job.head, EXAMPLE, Rules())
    for name in sorted(names - set(allowed)):
        line = next(node.lineno for node in tree.find_all(jinja2.nodes.Name) if node.name == name)
        hint = "; say `-- lookback: 7d` in the head" if name == "lookback_start" else ""
        raise SqlJobError(job.path, line, f"no template variable `{name}`{hint}; there are: {', '.join(allowed)}")


# --- running ------------------------------------------------------------------------------------------------------


def run_job(job: SqlJob, lake: Lake, engines: Engines, window: Window, rules: Rules) -> JobRun:
    """Compute the job for a window, replace that window of its table in one commit, say what was read and written.

    All inputs are read as of one moment.

    Raises LakeError where an input has no table yet, or a row lies outside of the window; SqlJobError where the table on disk has
    other column types; EmbeddedError with the embedded engine's words.
    """
    began = time.perf_counter()
    # A job may read so far before its window, and the sessions of its displays after it.
    reads = window.widened(job.head.lookback or dt.timedelta(0), dt.timedelta(hours=1))
    upgrade.complete(lake, job.inputs, reads)
    now = lake.pinned()
    read = {name: now.version(name) for name in job.inputs}
    for name in read:
        now.open(name)  # raises where there is none, with the message that says what to do
    choice = engines.chosen(now, job.inputs, reads, job.head.engine)
    sql = render(job, window, rules)
    if choice.name == SPARK:
        version = _on_spark(job, lake, window, _spark_frame(now, read, engines, sql))
    else:
        query = partial(_for_duckdb, job, sql)
        version = embedded.ask(now, read, query, partial(_written, job, lake, window), engines.embedded, reads)
    warnings = _empty_inputs(lake, read, window, job.head)
    return JobRun(version, rows_by_hour(lake, job.name, window), read, warnings, choice, time.perf_counter() - began)


@dataclass(frozen=True)
class Compared:
    """The same job for the same window at one moment, by both engines. rows: of the embedded one. embedded_only, spark_only: rows that the
    other does not have. columns_differ: names of columns whose types differ."""

    rows: int
    embedded_only: int
    spark_only: int
    columns_differ: tuple[str, ...]
    embedded_s: float
    spark_s: float

    @property
    def same(self) -> bool:
        return not self.embedded_only and not self.spark_only and not self.columns_differ


def compared(job: SqlJob, lake: Lake, engines: Engines, window: Window, rules: Rules) -> Compared:
    """Ask both engines; nothing is written. Raises as run_job does."""
    now, sql = lake.pinned(), render(job, window, rules)
    read = {name: now.version(name) for name in job.inputs}
    marks = [time.perf_counter()]
    ours = embedded.ask(now, read, partial(_for_duckdb, job, sql), embedded.Answer.read_all, engines.embedded)
    marks.append(time.perf_counter())
    theirs = _spark_frame(now, read, engines, sql).toArrow()
    marks.append(time.perf_counter())
    one, other = (Counter(map(repr, table.to_pylist())) for table in (ours, theirs))
    types = [{field.name: _flat(_kept_type(field.type)) for field in table.schema} for table in (ours, theirs)]
    differ = tuple(name for name in sorted(set(types[0]) | set(types[1])) if types[0].get(name) != types[1].get(name))
    return Compared(
        ours.num_rows, (one - other).total(), (other - one).total(), differ, marks[1] - marks[0], marks[2] - marks[1]
    )  # fmt: skip


def _spark_frame(now: Lake, read: Mapping[str, int], engines: Engines, sql: str) -> DataFrame:
    spark = engines.spark()
    for name, version in read.items():
        now.frame(spark, name, version).createOrReplaceTempView(name)
    return spark.sql(sql)


def answered(job: SqlJob, tables: Mapping[str, pa.Table], window: Window, rules: Rules) -> pa.Table:
    """What the embedded engine makes of rows in memory: for tests of a job. tables: its inputs. Raises EmbeddedError."""
    sql = render(job, window, rules)
    return embedded.ask_rows(tables, partial(_for_duckdb, job, sql))


def _on_spark(job: SqlJob, lake: Lake, window: Window, frame: DataFrame) -> int:
    from pyspark.sql.pandas.types import to_arrow_schema

    _prepare(job, lake, to_arrow_schema(frame.schema))
    # One task an hour's file: without it every shuffle partition writes its own small file into every hour.
    return lake.replace_window_frame(job.name, frame.repartition("hour"), window)


def _written(job: SqlJob, lake: Lake, window: Window, rows: embedded.Answer) -> int:
    """Rows stream from the embedded engine into the hours' files; it has sorted them, and spills where they are many."""
    schema = pa.schema([pa.field(item.name, _kept_type(item.type)) for item in rows.schema])
    table = _prepare(job, lake, schema)
    parts = (pa.Table.from_batches([batch], rows.schema) for batch in rows if batch.num_rows)
    lake.commit([lake.stage_sorted(table, window, parts)], by=job.name)
    return lake.version(job.name)


def _for_duckdb(job: SqlJob, sql: str, tables: Mapping[str, Mapping[str, str]]) -> str:
    """The job's SQL for DuckDB, with the types that Spark would give its columns, by hour and then by its grain: files are the same each time."""
    named = {column.name: embedded.quoted_name(column.name) for column in job.columns}
    typed = ", ".join(
        f"CAST({named[column.name]} AS {translate.duckdb_name(column.type)}) AS {named[column.name]}" if column.type else named[column.name]
        for column in job.columns
    )
    order = ", ".join(embedded.quoted_name(name) for name in dict.fromkeys(("hour", *job.head.grain)))
    return f"SELECT {typed or '*'} FROM ({translate.to_duckdb(sql, tables)}) ORDER BY {order}"


def _kept_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a table keeps what DuckDB hands out: times in UTC by the microsecond, texts as they are everywhere."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_list(kind):
        return pa.list_(pa.field("element", _kept_type(kind.value_type)))
    return pa.string() if kind in (pa.large_string(), pa.string_view()) else kind


def _prepare(job: SqlJob, lake: Lake, schema: pa.Schema) -> Table:
    """The job's table, created so that the first write is held to its window too, or given the columns that are new."""
    from deltalake.schema import Field

    comments = {column.name: column.comment for column in job.columns}
    schema = pa.schema([pa.field(f.name, f.type, metadata={"comment": comments.get(f.name, "")}) for f in schema])
    made = Table(job.name, schema, job.head.description)
    lake.create(made)
    # Not as the last moment has it: a run that died after it had added a column has not published that yet.
    table = lake.open_newest(job.name)
    there = {f.name: f for f in pa.schema(table.schema())}
    changed = [f.name for f in schema if f.name in there and _flat(there[f.name].type) != _flat(f.type)]
    if changed:
        raise SqlJobError(
            job.path,
            1,
            f"the table `{job.name}` has another type for {', '.join(changed)}; "
            f"name the new column differently, or remove {lake.path(job.name)} and materialize the job again",
        )
    if new := [f for f in schema if f.name not in there]:
        table.alter.add_columns([Field.from_arrow(f) for f in new])
    return made


def _flat(kind: pa.DataType) -> object:
    """A type without the names that engines give the elements of lists."""
    return ("list", _flat(kind.value_type)) if pa.types.is_list(kind) else kind


def _empty_inputs(lake: Lake, read: Mapping[str, int], window: Window, head: Head) -> list[str]:
    reads = window.widened(before=head.lookback) if head.lookback else window
    span = f"[{reads.start:%Y-%m-%d %H:%M}, {reads.end:%Y-%m-%d %H:%M})"
    return [
        f"the input `{name}` (version {version}) has no rows in {span}: "
        f"materialize `{name}` for these hours first, unless nothing happened in them"
        for name, version in read.items()
        if _is_partitioned(lake, name) and not any(rows_by_hour(lake, name, reads).values())
    ]


def _is_partitioned(lake: Lake, name: str) -> bool:
    return "hour" in lake.open(name).metadata().partition_columns
