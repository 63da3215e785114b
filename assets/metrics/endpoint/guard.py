"""What a statement may do at the endpoint: files, networks and programs are out of reach, and limits stay.

Here: a statement in the engine's own words, the rules for it and for its settings. Not here: who asks (access.py, http.py),
running it (engine.py).

No lexer of ours reads what a client sent: the engine's parser does (`formatQuerySingleLine`), and writes it anew without comments,
heredocs and odd quotes, one statement, its data left out. That text is looked at here, token by token, and that text is
what runs: what is hidden from the one is hidden from the other. In it only ASCII words, numbers, quoted texts and single signs exist;
a text with anything else is refused. Rules are lists of what is allowed wherever the list is finite: kinds of statements, objects,
engines, table functions, settings that are texts.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from assets.metrics.endpoint.errors import QueryError

MAX_SQL_BYTES = 256 << 10  # as the engine's own max_query_size, without an INSERT's data
KNOWN_STATEMENTS = 512
KNOWN_BYTES = 16 << 10

READ_KINDS = frozenset("SELECT WITH SHOW DESCRIBE EXISTS EXPLAIN".split())
WRITE_KINDS = READ_KINDS | frozenset(
    "INSERT CREATE ALTER DROP TRUNCATE RENAME EXCHANGE OPTIMIZE DELETE UPDATE SET USE KILL CHECK DETACH ATTACH UNDROP".split()
)
OBJECTS = frozenset("TABLE VIEW DATABASE FUNCTION INDEX".split())  # of CREATE and ATTACH
_BEFORE_OBJECT = frozenset("OR REPLACE TEMPORARY MATERIALIZED IF NOT EXISTS UNIQUE".split())
ALTER_REFUSED = frozenset("FREEZE UNFREEZE FETCH EXPORT DISK VOLUME SHARD".split())
TABLE_FUNCTIONS = frozenset(
    "numbers numbers_mt zeros zeros_mt primes generate_series generateseries generaterandom values sqlstandardvalues null view merge format".split()
)
ENGINES = frozenset(
    "mergetree aggregatingmergetree summingmergetree replacingmergetree collapsingmergetree versionedcollapsingmergetree "
    "coalescingmergetree graphitemergetree memory null log tinylog stripelog set join merge generaterandom view "
    "materializedview atomic ordinary".split()
)
# Functions of these categories reach models, dictionaries with sources, the process's own symbols.
CATEGORIES = ("AI", "Dictionary", "Embedded Dictionary", "Introspection", "Machine Learning")
# joinGet names a table by a text, which no rule for names sees.
FUNCTIONS_REFUSED = ("file", "joinGet", "joinGetOrNull", "hasColumnInTable", "catboostEvaluate", "trap", "showCertificate", "getClientHTTPHeader")

# Settings that are texts and harmless. One that is a number, a switch or a choice is allowed unless it is refused below.
TEXT_SETTINGS = frozenset(
    "log_comment insert_deduplication_token bool_false_representation bool_true_representation count_distinct_implementation "
    "column_names_for_schema_inference schema_inference_hints format_csv_null_representation format_tsv_null_representation "
    "format_custom_field_delimiter format_custom_result_after_delimiter format_custom_result_before_delimiter format_regexp "
    "format_custom_row_after_delimiter format_custom_row_before_delimiter format_custom_row_between_delimiter "
    "format_json_object_each_row_column_for_object_name ignore_data_skipping_indices force_data_skipping_indices "
    "force_optimize_projection_name preferred_optimize_projection_name errors_output_format output_format_pretty_grid_charset "
    "output_format_sql_insert_table_name input_format_mysql_dump_table_name query_cache_tag output_format_avro_codec "
    "auto_statistics_types default_compression_codec marks_compression_codec primary_key_compression_codec "
    "columns_to_prewarm_mark_cache exclude_materialize_skip_indexes_on_merge exclude_materialize_skip_indexes_on_insert".split()
)
_KEPT = re.compile(  # what nobody may set: the parser, guards, and doors to elsewhere
    r"allow_ddl|allow_introspection_functions|dialect|implicit_select|compatibility|default_\w*engine|max_query_size|max_parser_\w+|"
    r"max_(?:expanded_)?ast_\w+|engine_file_\w+|storage_file_\w+|python_\w+|\w*_(?:url|uri|path)|\w*(?:credential|zookeeper|schema_source)\w*|"
    r"param_\w+|\w*memory_tracker\w*|max_untracked_memory|memory_profiler_\w+|query_profiler_\w+|ai_\w+"
)
_LIMITS = re.compile(r"memory_\w+|max_\w*threads|max_execution_time|max_memory_usage")
READER_LIMITS = {"max_execution_time": 60, "max_memory_usage": 4 << 30, "max_threads": max(2, os.cpu_count() or 2)}
READER_DEFAULTS = {"max_execution_time": "60", "max_memory_usage": str(2 << 30)}
READER_RESULT = 128 << 20  # bytes of an answer that cannot be sent as it comes (engine._measure)

_TOKEN = re.compile(
    r"(?P<space>[ \n]+)|(?P<word>[A-Za-z_][A-Za-z0-9_]*+)|(?P<number>[0-9]++(?:\.[0-9]*+)?[eE][+-]?[0-9]++|[0-9][A-Za-z0-9_.]*+)"
    r"|(?P<text>'(?:[^'\\]|\\.)*+')|(?P<name>`(?:[^`\\]|\\.)*+`)|(?P<sign>[()\[\]{},.:=<>!+*/%|&^~?@-])",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What may stand for a table, and wherever that cannot be told from a column: no path, no glob, no address.
_TABLE = re.compile(r"(?!\.)(?!.*\.\.)[\w $().,+=%&@#!^-]*", re.DOTALL)
# What a SELECT calls its own columns.
_ALIAS = re.compile(r"(?![/.])(?!.*(?:\.\.|//))[\w $().,+=%&@#!^/:;|\[\]-]*", re.DOTALL)
_LAKE_FILE = re.compile(r"(?P<table>/[^*?{}]*)/hour=[^/*?{}]+/(?:[^/*?{},]+\.parquet|\{[^/*?{}]+\.parquet(?:,[^/*?{},]+\.parquet)*\})")


class Token(NamedTuple):
    kind: str
    text: str  # of a quoted text or name what it stands for

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text in words

    def is_sign(self, sign: str) -> bool:
        return self.kind == "sign" and self.text == sign


END = Token("end", "")


def _refused(what: str, code: int = 497) -> QueryError:
    name = {497: "ACCESS_DENIED", 164: "READONLY", 62: "SYNTAX_ERROR", 452: "SETTING_CONSTRAINT_VIOLATION"}[code]
    return QueryError(f"{what}. ({name})", code)


def tokens(text: str) -> list[Token]:
    """The tokens of a text that the engine wrote. Raises QueryError for what such a text does not hold outside quotes."""
    found, at = [], 0
    while at < len(text):
        one = _TOKEN.match(text, at)
        if not one or text.startswith(("--", "/*"), at):
            raise _refused(f"the statement cannot be read at {text[at : at + 20]!r}", 62)
        if one.lastgroup in ("text", "name"):
            found.append(Token(one.lastgroup, _unquoted(one[0])))
        elif one.lastgroup != "space":
            found.append(Token(one.lastgroup, one[0]))
        at = one.end()
    return found


def _unquoted(text: str) -> str:
    plain = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
    return _ESCAPE.sub(lambda one: plain.get(one[1], one[1]), text[1:-1])


@dataclass(frozen=True)
class Statement:
    """A statement in the engine's words. `text` is what runs."""

    text: str
    tokens: list[Token] = field(repr=False, compare=False)
    passed: set[bool] = field(default_factory=set, repr=False, compare=False)  # the rules, as one that writes or not

    def __iter__(self) -> Iterator[tuple[Token, Token, Token]]:
        """Each token with the two after it."""
        padded = [*self.tokens, END, END]
        yield from zip(padded, padded[1:], padded[2:], strict=False)

    @cached_property
    def kind(self) -> str:
        first = next((one for one in self.tokens if not one.is_sign("(")), END)
        return first.text if first.kind == "word" else ""

    @property
    def selects(self) -> bool:
        return self.kind in ("SELECT", "WITH")

    @cached_property
    def format(self) -> str | None:
        """The format that the statement's end names."""
        depth = 0
        for position in range(len(self.tokens) - 1, 0, -1):
            one = self.tokens[position]
            depth += one.is_sign(")") - one.is_sign("(")
            if depth:
                return None
            before = self.tokens[position - 1]
            if one.kind == "word" and before.is_word("FORMAT"):
                rest = self.tokens[position + 1 :]
                return one.text if not rest or rest[0].is_word("SETTINGS") else None
        return None

    @cached_property
    def without_format(self) -> str:
        """The text up to its FORMAT, which must be the statement's last word."""
        return re.sub(r" FORMAT \w+$", "", self.text) if self.format else self.text

    @cached_property
    def settings(self) -> list[tuple[str, str]]:
        """What SETTINGS clauses, SET and MODIFY SETTING set."""
        found = []
        for at, one in enumerate(self.tokens):
            before = self.tokens[at - 1] if at else END
            if one.is_word("SETTING") and before.is_word("RESET"):
                continue
            if one.is_word("SETTINGS", "SETTING") and at < 3 and self.kind == "SHOW" and before.is_word("SHOW", "CHANGED"):
                continue
            if one.is_word("SETTINGS", "SETTING") or (one.is_word("SET") and at == 0):
                found += self._assignments(at + 1)
        return found

    def _assignments(self, at: int) -> Iterator[tuple[str, str]]:
        """Settings from token `at` on. Raises QueryError for all that is not `name = value, ...` up to a word, `)` or the end."""
        rest = iter([*self.tokens[at:], END, END, END])
        name = next(rest)
        if name.is_sign("("):  # of a column
            name = next(rest)
        while True:
            if name.kind not in ("word", "name") or not next(rest).is_sign("="):
                raise _refused(f"settings are given as name = value; {name.text[:40] or 'the end'!r} is not", 452)
            value = next(rest)
            if value.is_sign("-"):
                value = next(rest)
            after = next(rest)
            if value.kind not in ("word", "number", "text") or not (after.kind in ("word", "end") or after.is_sign(",") or after.is_sign(")")):
                raise _refused(f"setting {name.text[:80]} is given something else than a number or a text", 452)
            yield name.text, value.text
            if not after.is_sign(","):
                return
            name = next(rest)

    @cached_property
    def identifiers(self) -> set[str]:
        """Names of parameters that stand for a table or column."""
        words = [one.text for one in self.tokens]
        return {words[i + 1] for i in range(len(words) - 3) if words[i] == "{" and words[i + 2] == ":" and words[i + 3] == "Identifier"}


class Guard:
    """The rules, with the engine's own lists of functions and settings. ask(sql): the rows of a text column."""

    def __init__(self, ask: Callable[[str], list[str]]):
        self._ask = ask
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Statement] = OrderedDict()
        quoted = ", ".join(f"'{one}'" for one in CATEGORIES)
        refused = {one.lower() for one in FUNCTIONS_REFUSED}
        refused |= set(ask(f"SELECT lower(name) FROM system.functions WHERE categories IN ({quoted}) OR origin = 'ExecutableUserDefined'"))
        listed = ", ".join(f"'{one}'" for one in refused)
        refused |= set(ask(f"SELECT lower(name) FROM system.functions WHERE lower(alias_to) IN ({listed})"))
        refused |= set(ask("SELECT lower(name) FROM system.table_functions")) - TABLE_FUNCTIONS
        self._functions = frozenset(refused)
        self._text_settings = frozenset(
            ask("SELECT name FROM system.settings WHERE type IN ('String', 'Map', 'URI') "
                "UNION DISTINCT SELECT name FROM system.merge_tree_settings WHERE type IN ('String', 'Map', 'URI')")
        ) - TEXT_SETTINGS  # fmt: skip

    def read(self, sql: str) -> Statement:
        """A statement as the engine understands it. Raises QueryError where it does not, or where it is several or too long."""
        with self._lock:
            if found := self._known.get(sql):
                self._known.move_to_end(sql)
                return found
        if len(sql.encode()) > MAX_SQL_BYTES:
            raise QueryError(f"the statement is longer than {MAX_SQL_BYTES} bytes. (QUERY_IS_TOO_LARGE)", 394)
        if "\0" in sql:
            raise _refused("the statement holds a zero byte", 62)
        try:
            (text,) = self._ask(f"SELECT formatQuerySingleLine({quoted(sql)})")
        except QueryError as error:
            raise QueryError(re.sub(r":? In scope SELECT formatQuerySingleLine\(.*\)(?=\. \(|$)", "", error.message, flags=re.DOTALL), error.code) from error
        found = Statement(text, tokens(text))
        if len(sql) <= KNOWN_BYTES:
            with self._lock:
                self._known[sql] = found
                while len(self._known) > KNOWN_STATEMENTS:
                    self._known.popitem(last=False)
        return found

    def check(self, statement: Statement, writes: bool, params: Mapping[str, str]) -> None:
        """Raises QueryError for what nobody may do, and, unless `writes`, for all that changes anything."""
        for name in statement.identifiers:
            check_name(params.get(name, ""))
        if statement.identifiers and statement.kind in ("CREATE", "ATTACH", "ALTER") and any(one.is_word("VIEW", "QUERY") for one in statement.tokens):
            raise _refused("a view takes no parameter that stands for a name: its value would be chosen by who reads it")
        if writes in statement.passed:
            return
        if statement.kind not in WRITE_KINDS:
            raise _refused(f"{statement.kind or 'this statement'} is refused by the embedded endpoint")
        if not writes and statement.kind not in READ_KINDS:
            raise _refused(f"Cannot execute {statement.kind} in readonly mode: it takes POST and the writer's password", 164)
        self._check_words(statement, writes)
        for name, value in statement.settings:
            self.check_setting(name, value, writes)
        if statement.kind in ("CREATE", "ATTACH"):
            _check_object(statement)
        if statement.kind == "ALTER" and (found := next((one for one in statement.tokens if one.is_word(*ALTER_REFUSED)), None)):
            raise _refused(f"ALTER with {found.text} is refused by the embedded endpoint")
        if not any(one.is_word("file") for one in statement.tokens):  # that one depends on what lies there
            statement.passed.add(writes)

    def _check_words(self, statement: Statement, writes: bool) -> None:
        before = END
        for at, (one, second, third) in enumerate(statement):
            if one.kind in ("word", "name") and second.is_sign("(") and one.text.lower() in self._functions:
                if not (writes and one.is_word("file") and _reads_lake(statement.tokens[at : at + 8])):
                    raise _refused(f"{one.text}() reaches files, networks, programs or models, and is refused by the embedded endpoint")
            if one.is_word("APPLY") and (third if second.is_sign("(") else second).text.lower() in self._functions:
                raise _refused(f"APPLY {second.text} is refused by the embedded endpoint")
            if (
                (one.is_word("INTO") and second.is_word("OUTFILE", "FUNCTION"))
                or (one.is_word("FROM") and second.is_word("INFILE"))
                or (one.is_word("ON") and second.is_word("CLUSTER"))
                or (one.is_word("TABLE") and second.is_word("OVERRIDE"))
                or (one.is_word("PARALLEL") and second.is_word("WITH"))
            ):
                raise _refused(f"{one.text} {second.text} is refused by the embedded endpoint")
            if one.kind == "name" and not (statement.selects and before.is_word("AS") and _ALIAS.fullmatch(one.text)):
                check_name(one.text)
            before = one

    def check_setting(self, name: str, value: str, writes: bool) -> None:
        """Raises QueryError for a setting that is a guard, a door, or, unless `writes`, above a reader's limit."""
        if not _NAME.fullmatch(name):
            raise QueryError(f"Unknown setting {name!r}. (UNKNOWN_SETTING)", 115)
        if name == "readonly":
            if value not in ("1", "2") and not (writes and value == "0"):
                raise _refused("Cannot modify 'readonly' setting in readonly mode", 164)
            return
        if name in self._text_settings or _KEPT.fullmatch(name):
            raise _refused(f"Setting {name} cannot be changed at the embedded endpoint", 452)
        if writes or not _LIMITS.fullmatch(name):
            return
        limit = READER_LIMITS.get(name)
        if limit is None or not _within(value, limit):
            raise _refused(f"Setting {name} cannot be {value} for a reader" + (f": its limit is {limit}" if limit else ""), 452)

    def reader_settings(self, given: Mapping[str, str], streamed: bool) -> dict[str, str]:
        """A reader's settings: what was given, lowered to the limits, and readonly whatever was given."""
        kept = {}
        for name, value in (READER_DEFAULTS | dict(given)).items():
            if (limit := READER_LIMITS.get(name)) is not None and not _within(value, limit):
                value = str(limit)
            if name != "readonly":
                self.check_setting(name, value, writes=False)
                kept[name] = value
        if not streamed:
            kept["max_result_bytes"] = str(READER_RESULT)
        # Last, for it counts for what follows.
        return kept | {"readonly": "1" if given.get("readonly") == "1" else "2"}

    def values_may_call(self, data: bytes) -> bool:
        """May the engine work out expressions in VALUES? Only where none of them can be what a statement may not hold."""
        if len(data) > KNOWN_BYTES or re.search(rb"[`\"$#{\x00\x80-\xff]|--|/\*|(?i:\bselect\b)", data):
            return False
        names = {one.lower().decode() for one in re.findall(rb"\b(\w++)\s*+\(", data)}
        return not names & self._functions


def _within(value: str, limit: int) -> bool:
    return bool(_NUMBER.fullmatch(value)) and 0 < float(value) <= limit


def check_name(name: str) -> None:
    """Raises QueryError for a name that clickhouse-local, which chdb is, could take for a file, several files or an address."""
    if not _TABLE.fullmatch(name):
        raise _refused(f"{name[:80]!r} could name a file or an address, which the embedded endpoint does not read: "
                       "a name holds letters, digits, blanks and _ $ . , ( ) + - = % & @ # ! ^")  # fmt: skip


def _check_object(statement: Statement) -> None:
    words = iter(statement.tokens[1:])
    kind = next((one for one in words if not one.is_word(*_BEFORE_OBJECT)), END)
    if not kind.is_word(*OBJECTS):
        raise _refused(f"{statement.kind} {kind.text} is refused by the embedded endpoint")
    if statement.kind == "ATTACH" and any(one.is_word("FROM") and second.kind == "text" for one, second, _ in statement):
        raise _refused("ATTACH ... FROM is refused by the embedded endpoint")
    for one, second, third in statement:
        if one.kind == "word" and one.text.upper() == "ENGINE" and second.is_sign("=") and third.kind in ("word", "name"):
            if third.text.lower() not in ENGINES:
                raise _refused(f"ENGINE = {third.text} is refused by the embedded endpoint")
    if kind.is_word("FUNCTION") and not any(one.is_sign("-") and second.is_sign(">") for one, second, _ in statement):
        raise _refused("CREATE FUNCTION takes only a lambda here")


def _reads_lake(call: Iterable[Token]) -> bool:
    """The one way of the loader to files: file('Parquet files of an hour of a Delta table', 'Parquet', 'columns')."""
    name, opening, path, first, kind, second, columns, closing = [*call, *[END] * 8][:8]
    given = [one.kind for one in (path, kind, columns)] == ["text"] * 3 and kind.text == "Parquet"
    signs = opening.is_sign("(") and first.is_sign(",") and second.is_sign(",") and closing.is_sign(")")
    found = _LAKE_FILE.fullmatch(path.text) if name.is_word("file") and given and signs else None
    if not found or "/../" in path.text or "/./" in path.text:
        return False
    hour, _, files = path.text.rpartition("/")
    return os.path.isdir(f"{found['table']}/_delta_log") and not any(
        os.path.islink(f"{hour}/{one}") for one in files.strip("{}").split(",")
    )


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- the head of an INSERT that brings data -------------------------------------------------------------------------

# In what a client sent: only finds where data begins. The head itself is read by the engine, the rest is data whatever it holds.
_RAW = re.compile(
    rb"(?P<space>\s++|--[^\n]*+(?:\n|$)|#[ !][^\n]*+(?:\n|$)|/\*(?:[^*]|\*(?!/))*+\*/)|(?P<word>[A-Za-z_][A-Za-z0-9_]*+)"
    rb"|(?P<quoted>'(?:[^'\\]|\\.)*+'|`(?:[^`\\]|\\.)*+`|\"(?:[^\"\\]|\\.)*+\")"
    rb"|(?P<open>['`\"]|/\*)|(?P<plain>[^\sA-Za-z_'`\"/#();-]++)|(?P<sign>.)",
    re.DOTALL,
)
_DATA_FOLLOWS = re.compile(rb"[ \t\r\f\v]*;?[ \t\r\f\v]*\n?")


@dataclass(frozen=True)
class Head:
    """Of an INSERT with data: the statement up to its data, the data's format, how many bytes of what was read are head."""

    sql: str
    format: str
    length: int


def insert_head(data: bytes, whole: bool) -> Head | None | bool:
    """The head of an INSERT with data; False where `data` begins another statement, None where more must be read.

    whole: no more comes.
    """
    at, depth, words = 0, 0, []
    while at < len(data):
        one = _RAW.match(data, at)
        if one.end() == len(data) and not whole:
            return None  # a token that may go on
        if one["open"]:  # to the end; looked for once, not again from each byte in it
            return False if whole else None
        if not words and not one["space"] and not one["word"]:
            return False
        at = one.end()
        if one["sign"] in (b"(", b")"):
            depth += 1 if one["sign"] == b"(" else -1
        if depth or not one["word"]:
            continue
        word = one["word"].upper()
        words.append(word)
        if words[0] != b"INSERT" or word in (b"SELECT", b"WITH", b"FROM", b"WATCH"):
            return False
        if word == b"VALUES" and len(words) > 2:
            return _head(data[:at], b"Values", at)
        if len(words) > 3 and words[-2] == b"FORMAT":
            follows = _DATA_FOLLOWS.match(data, at).end()
            return _head(data[:at], one["word"], follows) if whole or follows < len(data) or data[follows - 1 :] == b"\n" else None
    return False if whole else None


def is_one(values: bytes) -> bool:
    """Does nothing follow the semicolon of these VALUES? The engine would leave it out and say nothing."""
    ended, at = False, 0
    while at < len(values):
        one = _RAW.match(values, at)
        if ended and not one["space"]:
            return False
        if one["open"]:
            return True
        ended, at = ended or one["sign"] == b";", one.end()
    return True


def _head(sql: bytes, format: bytes, length: int) -> Head:
    try:
        return Head(sql.decode(), format.decode(), length)
    except UnicodeDecodeError as error:
        raise _refused(f"the statement is not UTF-8: {error}", 62) from error
