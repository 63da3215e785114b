"""Templates of SQL: the one Jinja environment, for the jobs of sql/lake/ and for cells of notebooks.

Here: what a template may do, and its bounds in text, time and memory. Not here: which variables there are (assets/samples/sql_job.py,
assets/notebook/sql.py). A template fills in values, chooses (`if`) and repeats (`for`); it reaches nothing of Python, no file, no
other template.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import jinja2
import jinja2.filters
import jinja2.meta
import jinja2.nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

MAX_TEXT = 2**20  # characters of a template, of a result, and of any text on the way to it
MAX_MADE = 64 * MAX_TEXT  # characters, all texts together that are made while one template is rendered; an item of a list counts 8
MAX_BITS = 4096  # of a whole number
MAX_TOKENS = 50_000  # of a template: names, operators, spaces between them; each takes 2 KB while it is compiled
MAX_ITEMS = 10_000  # of a list or a range
MAX_POWER = 64
MAX_DIGITS = 64  # to which `round` rounds
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


class _Generator(CodeGenerator):
    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Frame) -> None:
        """`a ~ b` as a call that can be bounded, in place of Jinja's own function."""
        self.write("environment.joined((")
        for one in node.nodes:
            self.visit(one, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator
    # Jinja also computes constants while it compiles, with these not.
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What a macro or a block has written, as one text."""
        pieces = list(pieces)
        _made(sum(map(len, pieces)))
        return "".join(pieces)

    @staticmethod
    def joined(values: Iterable[object]) -> str:
        return _join(values)

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
            _made(len(left) + len(right), left)
        return _small(super().call_binop(context, operator, _small(left), _small(right)))


def _numbers(*values: object) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _bounded(length: int, kind: object = "") -> None:
    if length > (MAX_TEXT if isinstance(kind, str) else MAX_ITEMS):
        raise TemplateRefused(f"more than {MAX_TEXT:,} characters or {MAX_ITEMS:,} items")


class _Made(threading.local):
    count = 0


_so_far = _Made()


def _made(length: int, kind: object = "") -> None:
    """Count what an expression is about to make. Raises TemplateRefused where that, or all of one rendering, is too much."""
    _bounded(length, kind)
    _so_far.count += length if isinstance(kind, str) else 8 * length
    if _so_far.count > MAX_MADE:
        raise TemplateRefused(f"more than {MAX_MADE:,} characters made on the way")


def _small(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TemplateRefused(f"a number of more than {MAX_BITS:,} bits")
    return value


def _text(value: Any) -> str:
    """A value as text, of which the length is known to be bounded before it is written."""
    if not isinstance(value, str):
        _bounded(_length(value))
        value = str(value)
    _made(len(value))
    return value


def _length(value: Any, before: int = 0) -> int:
    """Characters of a value's text, at least, or some number above MAX_TEXT: a list can hold another many times over."""
    found = before + (len(value) if isinstance(value, str) else 1)
    if found <= MAX_TEXT and isinstance(value, (list, tuple, set, dict)):
        for one in itertools.chain(value, value.values()) if isinstance(value, dict) else value:
            if (found := _length(one, found)) > MAX_TEXT:
                break
    elif isinstance(value, int):
        _small(value)
    return found


def _join(items: Iterable[object], between: str = "") -> str:
    between, texts, length = str(between), [], 0
    for item in items:
        texts.append(_text(item))
        length += len(texts[-1]) + len(between)
        _bounded(length)
    _made(length)
    return between.join(texts)


def _listed(items: Iterable[object]) -> list[object]:
    found = list(itertools.islice(items, MAX_ITEMS + 1))
    _made(len(found), found)
    return found


def _round(value: Any, precision: int = 0, method: str = "common") -> float:
    if not _numbers(value, precision) or abs(precision) > MAX_DIGITS:
        raise TemplateRefused(f"`round` takes numbers, and at most {MAX_DIGITS} digits")
    return jinja2.filters.do_round(_small(value), precision, method)


@jinja2.pass_environment
def _sum(environment: _Environment, items: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    given = items if attribute is None else map(jinja2.filters.make_attrgetter(environment, attribute), items)
    for one in given:
        start = environment.call_binop(None, "+", start, one)  # type: ignore[arg-type]
    return start


def _environment() -> _Environment:
    made = _Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_text,  # SQL, not HTML
    )  # fmt: skip
    made.globals = {"range": safe_range}
    given = made.filters
    texts = {name: _of_text(given[name]) for name in ("lower", "string", "trim", "upper")}
    made.filters = {**{name: given[name] for name in FILTERS}, **texts, "join": _join, "list": _listed, "round": _round, "sum": _sum}
    made.filters["sort"] = _of_list(given["sort"])
    return made


def _of_text(filter_: Any) -> Any:
    return lambda value, *given: filter_(_text(value), *given)


def _of_list(filter_: Any) -> Any:
    @jinja2.pass_environment
    def bounded(environment: _Environment, items: Iterable[Any], *given: Any, **named: Any) -> Any:
        return filter_(environment, _listed(items), *given, **named)

    return bounded


_ENVIRONMENT = _environment()


def parse(text: str) -> jinja2.nodes.Template:
    """The template's tree. Raises TemplateRefused, with the line, where it is none."""
    with _refusing():
        return _parsed(text)


def names(text: str) -> set[str]:
    """The variables that a template asks for. Raises TemplateRefused, with the line, for what is none or asks for an unknown filter."""
    with _refusing():
        return jinja2.meta.find_undeclared_variables(_parsed(text)) - set(_ENVIRONMENT.globals)


def _parsed(text: str) -> jinja2.nodes.Template:
    if len(text) > MAX_TEXT:
        raise TemplateRefused(f"a template of more than {MAX_TEXT:,} characters")
    for count, (line, kind, word) in enumerate(_ENVIRONMENT.lex(text), 1):
        if count > MAX_TOKENS:
            raise TemplateRefused(f"a template of more than {MAX_TOKENS:,} words", line)
        if kind == "integer" and len(word) > MAX_BITS // 4:
            raise TemplateRefused(f"a number of more than {MAX_BITS // 4:,} digits", line)
    return _ENVIRONMENT.parse(text)


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
    _so_far.count = 0
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
    """A trace function for the template's own lines, and for what they call: a loop can be long without writing a word."""

    def line(frame: FrameType, event: str, arg: object):
        if time.monotonic() > end:
            raise TemplateRefused(f"not done after {MAX_SECONDS:g} s")
        for value in frame.f_locals.values():
            if type(value) is str:
                _bounded(len(value))
        return line

    def call(frame: FrameType, event: str, arg: object):
        if time.monotonic() > end:
            raise TemplateRefused(f"not done after {MAX_SECONDS:g} s")
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
