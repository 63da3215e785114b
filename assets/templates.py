"""Templates of SQL: the one Jinja environment, for the jobs of sql/lake/ and for cells of notebooks.

Here: what a template may do, and its bounds in text, time and memory. Not here: which variables there are (assets/samples/sql_job.py,
assets/notebook/sql.py). A template fills in values, chooses (`if`) and repeats (`for`); it reaches nothing of Python, no file, no
other template.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

MAX_TEXT = 2**20  # characters of a result, and of any text on the way to it
MAX_ITEMS = 10_000  # of a list or a range
MAX_POWER = 64
MAX_SECONDS = 5.0
LOOP = {"index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem", "cycle", "changed"}
# Those that make no more of what they are given.
FILTERS = (
    "abs", "count", "d", "default", "first", "float", "int", "last", "length", "list", "lower", "map", "max", "min", "reject", "round",
    "select", "sort", "string", "sum", "trim", "unique", "upper",
)  # fmt: skip


class TemplateRefused(jinja2.TemplateError):
    """A template that cannot be rendered. lineno: the line of the template, where it is known."""

    def __init__(self, message: str, lineno: int | None = None) -> None:
        super().__init__(message)
        self.lineno = lineno


class _Environment(ImmutableSandboxedEnvironment):
    # Those that can make much of little; Jinja also computes constants with them while it compiles.
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, LoopContext) and attr in LOOP

    def is_safe_callable(self, obj: Any) -> bool:
        return obj is safe_range or isinstance(obj, Macro) or isinstance(getattr(obj, "__self__", None), LoopContext)

    def call(self, context, obj, *given, **named):  # type: ignore[override]
        if obj is safe_range and len(range(*given)) > MAX_ITEMS:
            raise TemplateRefused(f"a range of more than {MAX_ITEMS:,} numbers")
        return super().call(context, obj, *given, **named)

    def call_binop(self, context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (not _numbers(left, right) or abs(right) > MAX_POWER or abs(left) > 2**63):
            raise TemplateRefused("a power that is too large")
        if operator == "%" and not _numbers(left, right):
            raise TemplateRefused("`%` is for numbers; a text is put together with `~`")
        if operator == "*" and not _numbers(left, right):
            raise TemplateRefused("`*` is for numbers")
        if operator == "+" and not _numbers(left, right):
            _bounded(len(left) + len(right), left)
        return super().call_binop(context, operator, left, right)


def _numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _bounded(length: int, kind: object = "") -> None:
    if length > (MAX_TEXT if isinstance(kind, str) else MAX_ITEMS):
        raise TemplateRefused(f"more than {MAX_TEXT:,} characters or {MAX_ITEMS:,} items")


def _join(items: Iterable[object], between: str = "") -> str:
    texts = [str(item) for item in items]
    _bounded(sum(map(len, texts)) + len(str(between)) * len(texts))
    return str(between).join(texts)


def _environment() -> _Environment:
    made = _Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # SQL, not HTML
    made.globals = {"range": safe_range}
    made.filters = {**{name: made.filters[name] for name in FILTERS}, "join": _join}
    return made


_ENVIRONMENT = _environment()


def parse(text: str) -> jinja2.nodes.Template:
    """The template's tree. Raises TemplateRefused, with the line, where it is none."""
    with _refusing():
        return _ENVIRONMENT.parse(text)


def names(text: str) -> set[str]:
    """The variables that a template asks for. Raises TemplateRefused, with the line, for what is none or asks for an unknown filter."""
    with _refusing():
        return jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(text)) - set(_ENVIRONMENT.globals)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except jinja2.TemplateSyntaxError as error:
        raise TemplateRefused(error.message or "", error.lineno) from error
    except RecursionError as error:
        raise TemplateRefused("nested too deep") from error


def render(text: str, values: Mapping[str, Any]) -> str:
    """The template with its values filled in. Raises TemplateRefused: a syntax error, a variable that is not there, anything that the
    sandbox or its bounds refuse."""
    parse(text)
    before = sys.gettrace()
    try:
        template = _ENVIRONMENT.from_string(text)
        pieces, length = [], 0
        sys.settrace(_watch(time.monotonic() + MAX_SECONDS))
        for piece in template.generate(dict(values)):
            length += len(piece)
            _bounded(length)
            pieces.append(piece)
        return "".join(pieces)
    except TemplateRefused as error:
        error.lineno = error.lineno or _line(error)
        raise
    except Exception as error:  # whatever an expression of the template raised
        raise TemplateRefused(str(error) or type(error).__name__, getattr(error, "lineno", None) or _line(error)) from error
    finally:
        sys.settrace(before)


def _watch(end: float):
    """A trace function for the template's own lines: a loop can be long without writing a word."""

    def line(frame: FrameType, event: str, arg: object):
        if time.monotonic() > end:
            raise TemplateRefused(f"not done after {MAX_SECONDS:g} s")
        for value in frame.f_locals.values():
            if type(value) is str:
                _bounded(len(value))
        return line

    def call(frame: FrameType, event: str, arg: object):
        return line if frame.f_code.co_filename == "<template>" else None

    return call


def _line(error: BaseException) -> int | None:
    """The line of the template that raised: Jinja writes its own into the traceback."""
    found, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            found = step.tb_lineno
        step = step.tb_next
    return found
