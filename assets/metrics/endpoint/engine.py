"""ClickHouse's engine (chdb) on one folder: the folder's lock, a handle for each request, answers and inserts in pieces.

Here: what touches chdb. Not here: what may run (guard.py), HTTP (http.py), the process (serving.py).

Every request has its own handle to the engine (about 2 ms), so its settings and its database end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assets.metrics import access
from assets.metrics.endpoint.errors import EndpointError, QueryError
from assets.metrics.endpoint.guard import Guard, Statement, check_name, is_one, quoted

LOCK = "endpoint.lock"
TEMPORARY = "endpoint.tmp"
# chdb makes the database it starts with one that reads a table named like a file from that file. Here that is a database
# of this name, dropped at once, and `default` is a plain one.
_OF_FILES = "endpoint_files"
SPOOL = 8 << 20  # an answer that waits for its end is kept in memory up to here, then on disk
SPARE = 4  # handles made ahead
SMALL = 64 << 10  # a first block below is mostly the last too
PROBED_S = 2.0  # so long may another process hold the lock to see whether the folder is served

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# Formats of which each block is complete in itself: only these can be sent as they come.
STREAMED = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})


@dataclass
class Call:
    """One request, parsed: the statement, its bound parameters and its settings. writes: may it change anything?"""

    sql: str
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    database: str | None = None
    default_format: str = "TabSeparated"
    wait: bool = False
    writes: bool = False


class Engine:
    """chdb on one folder: locked against a second endpoint, a handle for each request.

    read_keys: reads the folder's keys, where this process itself may not (KeyReader).
    """

    def __init__(self, path: str | Path, url: str = "", read_keys: Callable[[], access.Keys] | None = None):
        import chdb

        self.path = Path(path).resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path, url)
        self._read_keys = read_keys or (lambda: access.keys(self.path))
        self.spool = self.path / TEMPORARY
        self.spool.mkdir(exist_ok=True)
        address = f"{self.path}?default_database={_OF_FILES}"
        self._connect = lambda: chdb.connect(address)
        try:
            self.keys = self._read_keys()
            _plain_default(self.path / "metadata")
            self._keep = self._connect()  # the engine lives as long as one handle is open
            self._asking = threading.Lock()
            self._ask(f"DROP DATABASE IF EXISTS {_OF_FILES}")
            if (kind := self._ask("SELECT engine FROM system.databases WHERE name = 'default'")) != ["Atomic"]:
                raise QueryError(f"its database `default` is {kind}, not Atomic")
            (self.timezone,) = self._ask("SELECT timezone()")
            self.guard = Guard(self._ask)
            self._spare: deque[Any] = deque()
        except access.AccessError as error:
            self._lock.close()
            raise EndpointError(str(error)) from error
        except Exception as error:
            self._lock.close()
            raise EndpointError(f"ClickHouse's engine does not open {self.path}: {error}") from error

    def close(self) -> None:
        while self._spare:
            self._spare.pop().close()
        self._keep.close()
        self._lock.close()

    def current_keys(self) -> access.Keys:
        """The folder's keys, read again where the file has changed."""
        if access.changed(self.path, self.keys):
            with contextlib.suppress(access.AccessError):
                self.keys = self._read_keys()
        return self.keys

    def _ask(self, sql: str) -> list[str]:
        """The rows of a statement of one text column."""
        with self._asking:
            try:
                data = self._keep.query(sql, "RowBinary").bytes()
            except Exception as error:
                raise QueryError(str(error)) from error
        return list(_strings(data))

    def statement(self, call: Call) -> Statement:
        """The call's statement as it may run, its settings as they may be. Raises QueryError."""
        statement = self.guard.read(call.sql)
        self.permit(call, statement)
        return statement

    def permit(self, call: Call, statement: Statement) -> None:
        """Raises QueryError where the call may not run the statement; lowers a reader's settings to the limits."""
        writes = call.writes and call.settings.get("readonly", "0") == "0"
        check_name(call.database or "")
        self.guard.check(statement, writes, call.params)
        if call.writes:
            for name, value in call.settings.items():
                self.guard.check_setting(name, value, writes=True)
            if readonly := call.settings.pop("readonly", None):
                call.settings["readonly"] = readonly  # last, for it counts for what follows
        else:
            streamed = statement.selects and (statement.format or call.default_format) in STREAMED
            call.settings = self.guard.reader_settings(call.settings, streamed)

    @contextlib.contextmanager
    def handle(self, call: Call) -> Iterator[Any]:
        """A handle with the request's database and settings. Raises QueryError."""
        try:
            handle = self._spare.popleft()  # never used before
        except IndexError:
            handle = self._connect()
        try:
            _prepare(handle, call)
            yield handle
        except QueryError:
            raise
        except Exception as error:
            raise QueryError(str(error)) from error
        finally:
            handle.close()
            if len(self._spare) < SPARE:
                # After an answer, when nobody waits for it.
                with contextlib.suppress(Exception):
                    self._spare.append(self._connect())


class KeyReader(threading.Thread):
    """Reads a folder's keys for a process that gives up that right: started before it does, so this thread keeps it (confine.py)."""

    def __init__(self, folder: str | Path):
        super().__init__(name="keys", daemon=True)
        self._folder, self._asked = folder, queue.SimpleQueue()
        self.start()

    def __call__(self) -> access.Keys:
        """Raises AccessError."""
        answer: Future = Future()
        self._asked.put(answer)
        return answer.result()

    def run(self) -> None:
        while True:
            answer = self._asked.get()
            try:
                answer.set_result(access.keys(self._folder))
            except Exception as error:
                answer.set_exception(error)


def _plain_default(metadata: Path) -> None:
    """Note the database `default` of a store for the engine, which makes it by itself otherwise, as one of tables alone.

    chdb gives the database it starts with the folder that this link leads to. The engine makes the link again, so what ran here before finds it.
    """
    link, note = metadata / "default", metadata / "default.sql"
    if link.is_symlink():
        name = Path(os.readlink(link)).name
    elif link.exists() or note.exists():
        return
    else:
        name = str(uuid.uuid4())
        metadata.mkdir(exist_ok=True)
    if not _UUID.fullmatch(name):
        return
    new = metadata / f".default.{uuid.uuid4().hex}"
    with open(new, "w") as file:
        file.write(f"ATTACH DATABASE _ UUID '{name}'\nENGINE = Atomic\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, note)
    handle = os.open(metadata, os.O_RDONLY)
    try:
        os.fsync(handle)  # the note is there before the link is not
    finally:
        os.close(handle)
    link.unlink(missing_ok=True)


def _strings(data: bytes) -> Iterator[str]:
    """Texts of a RowBinary column. Bytes that are no UTF-8 become the escapes that ClickHouse reads in a quoted text."""
    at = 0
    while at < len(data):
        size = shift = 0
        while True:
            byte, at = data[at], at + 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield data[at : at + size].decode("utf-8", "backslashreplace")
        at += size


def _lock(path: Path, url: str):
    """Hold the folder for this process, and leave in it who serves it where. Raises EndpointError."""
    file = open(path / LOCK, "a+")
    end = time.monotonic() + PROBED_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not held(path) and time.monotonic() < end:  # by one that only looks whether the folder is served
                time.sleep(0.02)
                continue
            file.seek(0)
            holder = " at ".join(file.read().split()) or "another process"
            file.close()
            raise EndpointError(
                f"{path} is served by {holder}: one endpoint serves a folder. "
                "Connect to that one, stop it first, or give another folder"
            ) from error
    file.truncate(0)
    file.write(f"process-{os.getpid()} {url}")
    file.flush()
    return file


def held(path: Path) -> bool:
    """Is the folder's lock held by an endpoint?"""
    try:
        with open(path / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _prepare(handle: Any, call: Call) -> None:
    if call.database and call.database != "default":
        handle.query("USE `" + call.database.replace("\\", "\\\\").replace("`", "\\`") + "`")
    if call.settings:
        # One statement, as one URL: `readonly` counts only for what follows.
        handle.query("SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in call.settings.items()))


def _chunks(handle: Any, call: Call, statement: Statement) -> Iterator[bytes]:
    """The answer's bytes, block by block where the format allows it."""
    form = statement.format or call.default_format
    if statement.selects and form in STREAMED:
        stream = handle.send_query(statement.text, form, params=call.params)
        empty = True
        try:
            for block in stream:
                if data := block.bytes():
                    empty = False
                    yield data
        finally:
            stream.close()
        if empty and form == "Native":
            yield _header_block(handle, call, statement)
    else:
        if statement.selects and "max_result_bytes" in call.settings:
            _measure(handle, call, statement)
        yield handle.query(statement.text, call.default_format, params=call.params).bytes()


def _measure(handle: Any, call: Call, statement: Statement) -> None:
    """Let a reader's answer that cannot be sent as it comes pass by first: chdb holds such a one whole, whatever max_result_bytes says.

    Raises QueryError where it is too large.
    """
    size, most = 0, int(call.settings["max_result_bytes"])
    stream = handle.send_query(statement.without_format, "JSONEachRow", params=call.params)
    try:
        for block in stream:
            size += len(block.bytes())
            if size > most:
                raise QueryError(
                    f"the answer is larger than {most} bytes; ask for it in a format that is sent as it comes, like Native, TSV or "
                    "JSONEachRow. (TOO_MANY_ROWS_OR_BYTES)", 396,
                )  # fmt: skip
    finally:
        stream.close()


def _header_block(handle: Any, call: Call, statement: Statement) -> bytes:
    """Names and types of an empty answer: chdb sends nothing, a server sends a block of no rows."""
    described = handle.query(f"DESCRIBE TABLE ({statement.without_format}\n)", "JSONCompact", params=call.params)
    columns = [(row[0], row[1]) for row in json.loads(described.bytes())["data"]]
    return _varint(len(columns)) + b"\0" + b"".join(_string(name) + _string(kind) for name, kind in columns)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


class Insert:
    """An INSERT whose data comes in pieces. Nothing is committed before `finish`, up to a million rows a block."""

    def __init__(self, engine: Engine, call: Call, sql: str, form: str, data: bytes):
        call.sql = sql
        statement = engine.statement(call)
        if statement.kind != "INSERT" or not statement.format:
            raise QueryError("only an INSERT takes data. (SYNTAX_ERROR)", 62)
        if form == "Values" and not is_one(data):
            raise QueryError("Multi-statements are not allowed. (SYNTAX_ERROR)", 62)
        if form == "Values" and not engine.guard.values_may_call(data):
            call.settings |= {"input_format_values_interpret_expressions": "0", "input_format_values_deduce_templates_of_expressions": "0"}
        self._stack = contextlib.ExitStack()
        handle = self._stack.enter_context(engine.handle(call))
        try:
            self._writer = handle.send_insert(statement.without_format, form)
        except BaseException as error:
            self._stack.close()
            raise QueryError(str(error)) from error

    def append(self, data: bytes) -> None:
        try:
            self._writer.append(data)
        except Exception as error:
            raise QueryError(str(error)) from error

    def finish(self) -> dict[str, str]:
        try:
            done = self._writer.finish()
        except Exception as error:
            raise QueryError(str(error)) from error
        return {"written_rows": str(done.rows_written), "written_bytes": str(done.bytes_written)}

    def close(self) -> None:
        with contextlib.suppress(Exception):  # finished, or the engine has said why already
            self._writer.cancel()
        self._stack.close()


class Answer:
    """A running statement of which the first block is there. format: of the answer."""

    def __init__(self, engine: Engine, call: Call):
        self.summary = {"read_rows": "0", "written_rows": "0"}
        statement = engine.statement(call)
        self.format = statement.format or call.default_format
        self.streamed = statement.selects and self.format in STREAMED
        self._stack = contextlib.ExitStack()
        handle = self._stack.enter_context(engine.handle(call))
        self._chunks = _chunks(handle, call, statement)
        try:
            self._ready = [next(self._chunks, b"")]
            self.ended = False
            if len(self._ready[0]) < SMALL:
                second = next(self._chunks, None)
                self.ended = second is None
                self._ready += [] if second is None else [second]
        except BaseException as error:
            self.close()
            raise error if isinstance(error, QueryError) else QueryError(str(error)) from error

    def ready(self) -> Iterator[bytes]:
        """The pieces that are there already."""
        while self._ready:
            yield self._ready.pop(0)

    def next(self) -> bytes | None:
        """The next piece after those, None at the end. Raises QueryError."""
        if self.ended:
            return None
        try:
            return next(self._chunks, None)
        except Exception as error:
            raise QueryError(str(error)) from error

    def close(self) -> None:
        self._ready, self.ended = [], True
        with contextlib.suppress(Exception):
            self._chunks.close()
        self._stack.close()
