"""What the command line prints: tables, progress and one-line errors.

Here: layout and wording on a terminal. Not here: numbers (the rooms compute them).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Width is fixed where the output is a file or a pipe, so that a table is not folded at 80 columns.
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
errors = Console(stderr=True, highlight=False)


def number(value: Any) -> str:
    """Whole numbers with separators, shares in percent where they are given as text already, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or isinstance(value, str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def table(title: str, rows: Mapping[str, Any] | list[tuple], columns: tuple[str, ...] = ("", "")) -> None:
    """Print rows under a title; the first column is a name, the others are right-aligned figures."""
    sheet = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for position, name in enumerate(columns):
        sheet.add_column(name, justify="right" if position else "left")
    for row in rows.items() if isinstance(rows, Mapping) else rows:
        sheet.add_row(*(number(cell) for cell in row))
    console.print(sheet)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing on a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    with errors.status(what):
        yield


class Steps:
    """Progress of long work, a line a step, with the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self.started:6.1f} s[/dim]  {text}")


@contextmanager
def expected_errors() -> Iterator[None]:
    """Print an error that a person can act on as one line and exit with 1; let a bug keep its traceback."""
    try:
        yield
    except Exception as error:
        if not is_expected(error):
            raise
        errors.print("[red]error:[/red]", end=" ")
        errors.print(str(error), markup=False, soft_wrap=True)
        raise SystemExit(1) from None


def is_expected(error: Exception) -> bool:
    """Whether the error is one of ours (their messages say what to do) or names a bad argument or a missing file."""
    ours = type(error).__module__.split(".")[0] in ("assets", "dagster_project", "dashboards")
    return ours or isinstance(error, (FileNotFoundError, PermissionError))


def addresses(found: Mapping[str, str], title: str) -> None:
    table(title, dict(found))


def settings(rows: list[tuple[str, str, str]]) -> None:
    sheet = Table(title="Settings", title_justify="left", title_style="bold")
    for name in ("variable", "value", "what it does"):
        sheet.add_column(name, overflow="fold")
    for row in rows:
        sheet.add_row(*row)
    console.print(sheet)


def short(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def written(paths: list[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path}")
