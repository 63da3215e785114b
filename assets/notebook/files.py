"""Notebook files: what they declare, which cells they have, how one is run and what it found.

Here: .ipynb as data, and running one with papermill. Not here: Dagster (dagster_project/notebook_jobs.py), what cells
do. Only the standard library at module level: the code location reads every notebook when it loads.

A notebook that is a job declares itself in its metadata:
    "glasshouse": {"description": "...", "owner": "...", "deps": ["impression_sessions"]}
and has a cell tagged `parameters` that assigns window_start and window_end (RFC 3339, UTC, half-open; None: your
choice).
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WINDOW = ("window_start", "window_end")
RESULTS_MIME = "application/vnd.glasshouse.results+json"
SQL_MAGIC = re.compile(r"\A\s*%%sql[ \t]+(?P<engine>\w+)(?:[ \t]+--as[ \t]+(?P<name>\w+))?[ \t]*(?P<rest>[^\n]*)\n?")
TEMPLATED = re.compile(r"\{\{.*?\}\}")
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
DEP = re.compile(r"\w+(?:/\w+)*", re.ASCII)
OWNER = re.compile(r"team:[\w-]+|[^@\s]+@[^@\s]+")  # as of a SQL job
MAX_BYTES = 64 * 2**20  # of a notebook that is read when the code location loads


class NotebookError(Exception):
    """A notebook that cannot be a job, or a cell that cannot be promoted; names the file and what to do."""


@dataclass(frozen=True)
class Cell:
    """One cell. number: as JupyterLab shows it in brackets, or as a run from top to bottom will; None: no code."""

    kind: str
    source: str
    tags: tuple[str, ...]
    number: int | None

    @property
    def sql(self) -> str | None:
        """The query of a SQL cell, else None."""
        found = SQL_MAGIC.match(self.source) if self.kind == "code" else None
        return self.source[found.end():].strip() if found else None

    @property
    def engine(self) -> str | None:
        """Where a SQL cell runs: lake or clickhouse."""
        found = SQL_MAGIC.match(self.source)
        return found["engine"] if found else None

    @property
    def names(self) -> tuple[str, ...]:
        """What the cell answers to: the variable its result goes to (`--as`), then its tags."""
        found = SQL_MAGIC.match(self.source)
        return (*((found["name"],) if found and found["name"] else ()), *self.tags)


@dataclass(frozen=True)
class Notebook:
    """A notebook as a job: `name` is the file's stem and the asset key."""

    path: Path
    name: str
    description: str
    owner: str | None
    deps: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def reads_clickhouse(self) -> bool:
        return any(cell.engine == "clickhouse" for cell in self.cells) or any("clickhouse/" in dep for dep in self.deps)


def read_cells(path: Path) -> tuple[dict, tuple[Cell, ...]]:
    """The notebook's metadata and its cells. Raises NotebookError where the file is no notebook of format 4."""
    try:
        if not path.is_file():
            raise NotebookError(f"{path}: not a file; rename or remove it")
        if path.stat().st_size > MAX_BYTES:
            raise NotebookError(f"{path}: larger than {MAX_BYTES:,} bytes; clear its outputs")
        body = json.loads(path.read_text(encoding="utf-8"))
        metadata, cells = body["metadata"], tuple(_numbered(body["cells"]))
        if not isinstance(metadata, dict):
            raise TypeError("its metadata is no object")
    except NotebookError:
        raise
    except KeyError as error:
        raise NotebookError(f"{path}: not a Jupyter notebook (format 4): it lacks {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"{path}: not a Jupyter notebook (format 4): {error}") from error
    return metadata, cells


def _numbered(cells: list[dict]):
    saved = any(cell.get("execution_count") for cell in cells)
    position = 0
    for cell in cells:
        source = "".join(cell.get("source", ""))
        code = cell["cell_type"] == "code"
        position += bool(code and source.strip())
        number = cell.get("execution_count") if saved else position if code and source.strip() else None
        tags = cell.get("metadata", {}).get("tags") or ()
        if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
            raise TypeError("a cell's tags are no list of texts")
        yield Cell(str(cell["cell_type"]), source, tuple(tags), number)


def load(path: Path) -> Notebook:
    """Read a notebook that is to be a job.

    Raises NotebookError, naming the file: no parameters cell, one without window_start and window_end, a stem that is
    no table name, no description.
    """
    metadata, cells = read_cells(path)
    if not NAME.match(path.stem):
        raise NotebookError(f"{path}: the file's name becomes an asset's: lower case letters, digits and _ only")
    _check_parameters(path, cells)
    own = metadata.get("glasshouse", {})
    wanted = '"glasshouse": {"description": ..., "owner": ..., "deps": [...]}'
    if not isinstance(own, dict) or not own.get("description"):
        raise NotebookError(f"{path}: its metadata lacks {wanted}")
    _check_declared(path, own, wanted)
    deps = dict.fromkeys([*(own.get("deps") or ()), *tables_read(path, cells)])
    return Notebook(path, path.stem, own["description"], own.get("owner"), tuple(deps), cells)


def _check_declared(path: Path, own: dict, wanted: str) -> None:
    deps = own.get("deps") or []
    texts = [own["description"], own.get("owner") or "", *(deps if isinstance(deps, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise NotebookError(f"{path}: its metadata is to be texts and a list of texts: {wanted}")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise NotebookError(f"{path}: its metadata holds half a character: {error}") from error
    if own.get("owner") and not OWNER.fullmatch(own["owner"]):
        raise NotebookError(f"{path}: an owner is an e-mail address or team:NAME, not {own['owner']!r}")
    if wrong := [name for name in deps if not DEP.fullmatch(name)]:
        raise NotebookError(f"{path}: `deps` are names of assets, not {wrong[0]!r}")


def is_scratch(path: Path) -> bool:
    """Whether a notebook does not ask to be a job: a new one, somebody's sheet of paper."""
    try:
        return not read_cells(path)[0].get("glasshouse")
    except NotebookError:
        return path.is_file() and not path.stat().st_size


def _check_parameters(path: Path, cells: tuple[Cell, ...]) -> None:
    tagged = [cell for cell in cells if "parameters" in cell.tags and cell.kind == "code"]
    if len(tagged) != 1:
        raise NotebookError(
            f"{path}: {len(tagged) or 'no'} cells are tagged `parameters`; tag one code cell that assigns "
            "window_start and window_end (JupyterLab: property inspector, cell tags)"
        )
    if missing := sorted(set(WINDOW) - set(assigned(path, tagged[0]))):
        raise NotebookError(f"{path}: the parameters cell does not assign {' and '.join(missing)}")


def assigned(path: Path, cell: Cell) -> dict[str, Any]:
    """Names that a parameters cell assigns, with their values where they are literals."""
    try:
        tree = ast.parse(cell.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotebookError(f"{path}: the parameters cell is not plain Python: {error}") from error
    found = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = _literal(node.value)
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def tables_read(path: Path, cells: tuple[Cell, ...]) -> list[str]:
    """Assets that the cells visibly read: tables of SQL cells (ClickHouse's as clickhouse/NAME), lake.table("NAME")."""
    found = []
    for cell in cells:
        if cell.engine == "lake" and cell.sql:
            try:
                found += tables_of(cell.sql)
            except ValueError as error:
                raise NotebookError(f"{path}, cell [{cell.number}]: {error}") from error
        elif cell.engine == "clickhouse" and cell.sql:
            # ClickHouse has syntax that no other parser knows: what such a cell reads is declared in `deps`.
            with contextlib.suppress(ValueError):
                found += [f"clickhouse/{name}" for name in tables_of(cell.sql, "clickhouse")]
        elif cell.kind == "code":
            found += re.findall(r"""\blake\.(?:table|scan)\(\s*["'](\w+)["']""", cell.source)
    return list(dict.fromkeys(found))


def tables_of(text: str, dialect: str = "spark") -> list[str]:
    """The tables that a query reads, its own CTEs left out. Raises ValueError where it does not parse."""
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(TEMPLATED.sub("x", text), dialect=dialect)
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("the query is nested too deep") from error
    own = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    return list(dict.fromkeys(table.name for table in tree.find_all(exp.Table) if table.name not in own))


def run(
    path: Path, output: Path, parameters: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, float | int | str]:
    """Run a notebook in a kernel of its own and keep it, outputs and all, at `output`; returns its results.

    environment: variables for the kernel, over those that it inherits from this process.
    Raises NotebookError for a cell that fails; the notebook with the traceback is kept at `output`.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from papermill.translators import PythonTranslator, papermill_translators

    # Importing dagstermill anywhere makes its translator, which takes no plain parameters, the one for all of Python.
    papermill_translators.register("python3", PythonTranslator)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(path), str(output), dict(parameters), kernel_name="python3", progress_bar=False, start_timeout=120,
            kernel_manager_class=_manager(environment or {}),
        )  # fmt: skip
    except PapermillExecutionError as error:
        what = f"cell [{error.exec_count}] failed: {error.ename}: {error.evalue}"
        raise NotebookError(f"{path}: {what}; the notebook so far is {output}") from error
    return read_results(output)


def _manager(environment: Mapping[str, str]) -> type:
    from jupyter_client.manager import AsyncKernelManager

    class Manager(AsyncKernelManager):
        @property
        def kernel_spec(self):
            spec = super().kernel_spec
            spec.env = {**spec.env, **environment}
            return spec

    return Manager


def results(**values: float | int | str) -> None:
    """Show named scalars in a notebook and keep them in its outputs, where tests and Dagster find them."""
    from IPython.display import display

    plain = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    rows = "".join(f"<tr><td>{name}</td><td>{_shown(value)}</td></tr>" for name, value in plain.items())
    text = "\n".join(f"{name}: {_shown(value)}" for name, value in plain.items())
    display({RESULTS_MIME: plain, "text/html": f"<table>{rows}</table>", "text/plain": text}, raw=True)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def read_results(path: Path) -> dict[str, Any]:
    """The scalars that an executed notebook handed to `results`."""
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            found |= output.get("data", {}).get(RESULTS_MIME, {})
    return found
