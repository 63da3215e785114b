"""Poisoned files and rows in the landing folder, the shop's folder and the checkout: none may stop a process.

Here: what is landed, and that good input after it is taken. Not here: single values that bend (tests/faults, `make fuzz`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.chaos.hostile.attack import GONE, SAME, attack
from tests.chaos.hostile.house import MEMORY_MB, House, Tree, column, event, in_time, land, lines, now, order, taken, takes_orders, works

SLACK_MB = 512  # above the labeler's setting: Python's libraries, allocators
STOP_WITHIN = 20
DEEP = {3_000: "3000", 100_000: "100000"}


def _name(word: str, suffix: str = ".jsonl") -> str:
    return f"poison-{word}-{time.time_ns()}{suffix}"


def _raw(one: dict, **texts: str) -> bytes:
    """An event's line whose named columns are the given JSON texts, well-formed or not."""
    plain = {key: value for key, value in one.items() if key not in texts}
    return (json.dumps(plain)[:-1] + "".join(f", {json.dumps(key)}: {text}" for key, text in texts.items()) + "}\n").encode()


def _memory(house: House, role: str = "live") -> str | None:
    """What the setting bounds is memory that is not of files: mapped ones the system takes back where it runs short."""
    most = house.held(role) >> 20
    return f"took {most:,} MB of {MEMORY_MB:,}" if most > MEMORY_MB + SLACK_MB else None


def _refused(house: House, before: int, put: int) -> str | None:
    """The quarantine holds at least so many rows more."""
    in_time(lambda: len(column(house, "quarantine", "reason")) >= before + put, 10)
    found = len(column(house, "quarantine", "reason")) - before
    return f"{found} rows in quarantine, {put} are owed" if found < put else None


def swallow(house: House, put: Callable[[House], object], refused: int = 0, within_s: float = 30) -> str | None:
    """Put something into the landing folder; good events after it are taken, its rows are in quarantine, memory is kept to."""
    before = len(column(house, "quarantine", "reason"))
    put(house)
    return works(house, within_s) or _refused(house, before, refused) or _memory(house)


# --- rows -------------------------------------------------------------------------------------------------------------------


@attack("file", verb="live", spoils=True)
def half_an_emoji(house):
    """Half of a surrogate pair in each column of a row; the good rows beside are taken."""
    beside = [event() for _ in range(3)]
    half = '"nice \\ud83d"'
    rows = [_raw(event(), **{name: half}) for name in ("title", "event_id", "channel", "request_id", "action", "user_id", "event_time")]
    rows.append(json.dumps(event())[:-1].encode() + b', "a\\udfff": 1}\n')
    land(house.landing, _name("emoji"), lines(beside[:1]) + b"".join(rows) + lines(beside[1:]))
    return taken(house, {one["event_id"] for one in beside}) or swallow(house, lambda house: None)


@attack("file", verb="live", spoils=True)
def json_nested_3000_deep(house):
    """A column nested 3,000 deep, as lists and as objects."""
    return swallow(house, lambda house: land(house.landing, _name("deep"), _deep(3_000)))


@attack("file", verb="live", spoils=True)
def json_nested_100000_deep(house):
    """100,000 deep: a recursive parser overflows its stack, which no exception tells."""
    return swallow(house, lambda house: land(house.landing, _name("deeper"), _deep(100_000)))


def _deep(levels: int) -> bytes:
    return b"".join((
        _raw(event(), more="[" * levels + "]" * levels), _raw(event(), more='{"a":' * levels + "1" + "}" * levels),
        _raw(event(), user_id="[" * levels + "]" * levels), b"[" * levels + b"\n",
    ))  # fmt: skip


@attack("file", verb="live", spoils=True)
def numbers_out_of_this_world(house):
    """Integers of 5,000 digits, 1e999, NaN, minus zero, in columns that are numbers and in others."""
    texts = ("9" * 5_000, "-" + "9" * 400, "1e999", "NaN", "-Infinity", "-0", "1e-400", "0x10", "01", "1.", ".5", "9223372036854775808", "true", "null")
    rows = [_raw(event(), **{name: text}) for text in texts for name in ("user_id", "note_id", "position", "event_time", "extra", "dwell_ms")]
    return swallow(house, lambda house: land(house.landing, _name("numbers"), b"".join(rows)), refused=10)


@attack("file", verb="live", spoils=True)
def times_that_are_none(house):
    """Months, years and offsets that no calendar knows."""
    texts = ("99999-01-01T00:00:00Z", "0000-00-00", "2026-02-30T00:00:00Z", "2026-01-01T24:61:61Z", "2026-01-01T00:00:00+99:99", "-1", "\u0662\u0660\u0662\u0666-01-01",
             "9" * 400, "1e308", "", " ", "now", "2026-W01-1", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00\u0000")  # fmt: skip
    rows = [_raw(event(), **{name: json.dumps(text)}) for text in texts for name in ("event_time", "ingest_time")]
    return swallow(house, lambda house: land(house.landing, _name("times"), b"".join(rows)), refused=10)


@attack("file", verb="live", spoils=True)
def bytes_that_are_no_text(house):
    """Latin-1, UTF-16, NUL, every byte value, lines of blanks, top-level lists, a line without an end."""
    data = b"".join((
        json.dumps(event(channel="caf\xe9"), ensure_ascii=False).encode("latin-1") + b"\n", json.dumps(event()).encode("utf-16") + b"\n", b"\0" * 4096 + b"\n",
        bytes(range(256)) + b"\n", b"   \t\n\n\r\n", b"[1, 2]\n", b'"text"\n', b"null\n", b"{}\n", b'{"a": ' , b"\n", b"\xef\xbb\xbf" + lines([event()]), b"}" * 1000,
    ))  # fmt: skip
    return swallow(house, lambda house: land(house.landing, _name("bytes"), data), refused=5)


# --- CSV --------------------------------------------------------------------------------------------------------------------

HEADER = b"event_id,user_id,note_id,action,event_time\n"


def _csv_row(**more: str) -> bytes:
    one = {key: str(event()[key]) for key in ("event_id", "user_id", "note_id", "action", "event_time")} | more
    return ",".join(one.values()).encode() + b"\n"


@attack("file", verb="live", spoils=True)
def csv_header_with_an_open_quote(house):
    """The header's quote never closes; a header of one million columns; of none; twice the same name."""
    def put(house):
        land(house.landing, _name("quote", ".csv"), HEADER.replace(b"note_id", b'"note_id') + _csv_row())
        land(house.landing, _name("wide", ".csv"), b",".join(b"c%d" % number for number in range(200_000)) + b"\n" + b"1," * 100_000 + b"\n")
        land(house.landing, _name("none", ".csv"), b"\n\n\n")
        land(house.landing, _name("twice", ".csv"), HEADER.replace(b"note_id", b"user_id") + _csv_row())
        land(house.landing, _name("break", ".csv"), HEADER.replace(b"note_id", b'"note\nid"') + _csv_row())
        land(house.landing, _name("nul", ".csv"), HEADER.replace(b"note_id", b"note\0id") + _csv_row())

    return swallow(house, put)


@attack("file", verb="live", spoils=True)
def csv_field_of_200000_characters(house):
    """Longer than the csv module's limit of 131,072, quoted and not, in CSV and TSV; and a quote that opens in the middle."""
    def put(house):
        for suffix, data in ((".csv", HEADER + _csv_row()), (".tsv", (HEADER + _csv_row()).replace(b",", b"\t"))):
            long = data.replace(b"impression", b"i" * 200_000), data.replace(b"impression", b'"' + b"i\n" * 100_000 + b'"')
            for number, one in enumerate((*long, data.replace(b"impression", b'imp"ression') + data * 3)):
                land(house.landing, _name(f"field{number}", suffix), one)
            for number, name in enumerate((b"x" * 200_000, b'"' + b"x" * 200_000 + b'"', b'"' + b"x\n" * 100_000 + b'"')):
                land(house.landing, _name(f"name{number}", suffix), data.replace(b"note_id", name))

    return swallow(house, put)


# --- Parquet ----------------------------------------------------------------------------------------------------------------


def _parquet(**columns) -> bytes:
    """A good event's row as Parquet; columns replace or add arrow arrays of one value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    one = {name: pa.array([value]) for name, value in event().items()} | columns
    pq.write_table(pa.table(one), out)
    return out.getvalue()


@attack("file", verb="live", spoils=True)
def parquet_types_of_elsewhere(house):
    """decimal256, time zones of fixed offset, lists of binary, durations, maps, dictionaries, half floats, in needed and further columns."""
    import decimal

    import pyarrow as pa

    when = now().replace(tzinfo=None)
    odd = {
        "decimal256": pa.array([decimal.Decimal(7)], pa.decimal256(70, 0)), "offset": pa.array([when], pa.timestamp("us", "+05:30")),
        "zone": pa.array([when], pa.timestamp("us", "Mars/Olympus")), "binaries": pa.array([[b"\xff\xfe"]], pa.list_(pa.binary())),
        "duration": pa.array([dt.timedelta(1)]), "map": pa.array([[("a", b"\xff")]], pa.map_(pa.string(), pa.binary())),
        "dictionary": pa.array(["a"]).dictionary_encode(), "half": pa.array([1.5], pa.float32()).cast(pa.float16()), "nothing": pa.nulls(1),
        "struct": pa.array([{"a": {"b": [b"\0\xff"]}}]), "time": pa.array([dt.time(1)], pa.time64("ns")), "fixed": pa.array([b"abcd"], pa.binary(4)),
        "nanoseconds": pa.array([2**62], pa.timestamp("ns", "UTC")), "date": pa.array([dt.date(1, 1, 1)]), "binary": pa.array([b"\xff\xfe"], pa.binary()),
        "large": pa.array([2**64 - 1], pa.uint64()),
    }  # fmt: skip

    def put(house):
        for word, array in odd.items():
            for column_name in ("extra", "user_id", "event_time", "event_id"):
                with contextlib.suppress(pa.ArrowException):  # what arrow itself cannot write
                    land(house.landing, _name(f"{word}-{column_name}", ".parquet"), _parquet(**{column_name: array}))

    return swallow(house, put, within_s=60)


@attack("file", verb="live", spoils=True)
def parquet_that_is_broken(house):
    """Cut in the middle, a flipped byte in pages and in the footer, an empty file, one of no columns, one of zero rows."""
    import pyarrow as pa

    good = _parquet(text=pa.array(["x" * 10_000]))

    def put(house):
        for number, data in enumerate((good[:-100], good[: len(good) // 2], good[:4], b"", b"PAR1PAR1", good[:-8] + b"\xff\xff\xff\x7fPAR1",
                                       *(bytes(byte ^ (0x55 if at == spot else 0) for at, byte in enumerate(good)) for spot in range(40, len(good) - 8, len(good) // 12)))):  # fmt: skip
            land(house.landing, _name(f"cut{number}", ".parquet"), data)

    return swallow(house, put)


# --- files that are none ------------------------------------------------------------------------------------------------------


@attack("file", verb="live", spoils=True)
def names_that_are_odd(house):
    """Names that are not UTF-8, hold line ends, quotes, %, #, ?, braces, or 250 characters."""
    def put(house):
        for name in (b"bad-\xff\xfe.jsonl", b"line\nend.jsonl", b"quote'\".jsonl", b"per%20cent%.jsonl", b"what?.jsonl", b"hash#.jsonl", b"{brace}[b]*.jsonl",
                     b"n" * 240 + b".jsonl", b"-rf.jsonl", b"a\\b.jsonl", "\u202egnp.jsonl".encode(), b" .jsonl", b"~.jsonl", b"$HOME.jsonl"):  # fmt: skip
            land(house.landing, name, lines([event()]))

    before = len(column(house, "events", "event_id"))
    return swallow(house, put) or (
        None if len(column(house, "events", "event_id")) >= before + 14 + 3 else "events of files with odd names are not taken"
    )


@attack("file", verb="live", spoils=True)
def files_that_are_none(house):
    """A folder, a pipe, a socket, a broken link, a link in a circle, links to a folder, to /dev/zero and to a file, all named like logs."""
    folder = house.landing

    def put(house):
        stamp = time.time_ns()
        (folder / f"dir-{stamp}.jsonl").mkdir()
        os.mkfifo(folder / f"fifo-{stamp}.jsonl")
        with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(folder):
            one.bind("sock.jsonl")
        for name, where in (("broken", "nowhere.jsonl"), ("circle", f"circle-{stamp}.jsonl"), ("up", ".."), ("zero", "/dev/zero"), ("self", ".")):
            (folder / f"{name}-{stamp}.jsonl").symlink_to(where)
        (folder / f"loop-{stamp}").symlink_to("..")  # a folder within itself
        aside = house.folder / "linked.jsonl"
        aside.write_bytes(lines([event()]))
        (folder / f"link-{stamp}.jsonl").symlink_to(aside)
        deep = folder
        for number in range(60):
            deep = deep / f"d{number}"
        deep.mkdir(parents=True)
        land(deep, "deep.jsonl", lines([event()]))

    return swallow(house, put)


@attack("file", verb="live", spoils=True)
def a_folder_that_cannot_be_read(house):
    """A mapping.toml that is no TOML, one in Latin-1, one that is a folder, one that names what is not there."""
    def put(house):
        for number, text in enumerate((b"[[[", b"caf\xe9 = 1\n", None, b'[columns]\nuser_id = "nowhere"\n', b"\0", b"a = " + b"[" * 5000)):
            folder = house.landing / f"mapped-{number}-{time.time_ns()}"
            folder.mkdir()
            (folder / "mapping.toml").mkdir() if text is None else (folder / "mapping.toml").write_bytes(text)
            land(folder, _name("mapped"), lines([event()]))

    return swallow(house, put)


@attack("file", verb="live", spoils=True)
def file_removed_once_planned(house):
    """The labeler has decided on a batch; before it reads, the file is gone: stopped in between to be sure of the moment."""
    state = house.home / "lake" / "_live"
    for _ in range(6):
        seen = _newest(state)
        path = land(house.landing, _name("gone"), lines([event() for _ in range(20_000)]))
        end = time.monotonic() + 4
        while _newest(state) == seen and time.monotonic() < end:
            time.sleep(0.0005)
        with contextlib.suppress(KeyError, OSError):
            pid = house.roles()["live"].pid if "live" in house.roles() else None
            if pid:
                os.kill(pid, signal.SIGSTOP)
                path.unlink(missing_ok=True)
                os.kill(pid, signal.SIGCONT)
        time.sleep(1)
    return works(house)


def _newest(folder: Path) -> float:
    newest = 0.0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                newest = max(newest, path.stat().st_mtime)
    return newest


# --- much -------------------------------------------------------------------------------------------------------------------


def _packed(piece: bytes, count: int) -> bytes:
    """gzip of `piece` repeated, made without holding what it unfolds to."""
    press = zlib.compressobj(9, wbits=31)
    return b"".join([*(press.compress(piece) for _ in range(count)), press.flush()])


@attack("file", verb="live", spoils=True)
def gzip_bomb(house):
    """1 MB that unfolds to one line of 1 GiB."""
    return swallow(house, lambda house: land(house.landing, _name("bomb", ".jsonl.gz"), _packed(b"x" * (1 << 20), 1024)), refused=1, within_s=60)


@attack("file", verb="live", spoils=True)
def gzip_bomb_of_lines(house):
    """A small file that unfolds to 5 million rows, none of them an event."""
    rows = HEADER + b"x,1,1,click\n" * 80_000
    return swallow(house, lambda house: land(house.landing, _name("rows", ".csv.gz"), _packed(rows, 60)), refused=1, within_s=120)


@attack("file", verb="live", spoils=True)
def parquet_bomb(house):
    """A file of some kB whose rows unfold to 2 GB: one long text, told once and repeated by a dictionary."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 400
    columns = {name: pa.array([value] * count) for name, value in event().items()}
    columns["event_id"] = pa.array([f"bomb-{time.time_ns()}-{number}" for number in range(count)])
    columns["title"] = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["t" * (5 << 20)]))
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return swallow(house, lambda house: land(house.landing, _name("bomb", ".parquet"), out.getvalue()), within_s=90)


@attack("file", verb="live", spoils=True)
def line_of_200_mb(house):
    """One line of 200 MB, and one event with a column of as much."""
    def put(house):
        land(house.landing, _name("line"), b"y" * (200 << 20) + b"\n" + lines([event()]))
        land(house.landing, _name("column"), _raw(event(), title='"' + "z" * (100 << 20) + '"'))

    return swallow(house, put, refused=1, within_s=180)  # a bomb before it may not be done


@attack("file", verb="live", fresh=True, after=GONE)
def stop_amid_5000_files(house):
    """5,000 files at once: SIGTERM is heard while they are worked off."""
    for number in range(5_000):
        (house.landing / f"many-{number:05}.jsonl").write_bytes(lines([event()]))
    time.sleep(2.5)
    return _stops(house) or _memory(house)


@attack("file", verb="live", fresh=True, after=GONE)
def stop_amid_a_bomb(house):
    """SIGTERM while a gzip file unfolds to 1 GiB of rows."""
    land(house.landing, _name("bomb", ".csv.gz"), _packed(HEADER + b"x,1,1,click\n" * 80_000, 1024))
    time.sleep(3)
    return _stops(house)


def _stops(house: House) -> str | None:
    begun = time.monotonic()
    house.process.send_signal(signal.SIGTERM)
    try:
        house.process.wait(STOP_WITHIN + 20)
    except subprocess.TimeoutExpired:
        return f"SIGTERM is not heard within {STOP_WITHIN + 20} s"
    took = time.monotonic() - begun
    return f"SIGTERM took {took:.0f} s" if took > STOP_WITHIN else None


# --- the shop's folder --------------------------------------------------------------------------------------------------------


def swallow_orders(house: House, *data: bytes, suffix: str = ".jsonl") -> str | None:
    for number, one in enumerate(data):
        land(house.orders, _name(f"order{number}", suffix), one)
    return takes_orders(house) or _memory(house, "orders")


@attack("file", verb="orders --follow", spoils=True)
def orders_half_an_emoji(house):
    """Half of a surrogate pair in each column of an order and in the envelope."""
    one = json.dumps(order(1))
    return swallow_orders(house, *(one.replace(f'"{word}"', '"\\ud83d"').encode() + b"\n" for word in ("paid", "orders", "mysql", "c", "status", "b.000002")))


@attack("file", verb="orders --follow", spoils=True)
def orders_of_wrong_shapes(house):
    """`source` a text, `old` an object, `after` a list, `data` a number: each place of the envelopes holds something else."""
    odd = ("text", 7, [1], {"a": [{}]}, True, 1e300, [[[]]], "", 10**40)
    rows = [order(2, **{name: value}) for name in ("source", "after", "before", "op", "ts_us", "tableChanges", "ddl") for value in odd]
    canal = {"id": 1, "type": "UPDATE", "table": "orders", "isDdl": False, "es": 1, "ts": 1, "data": [order(3)["after"]], "old": [{"status": "paid"}], "mysqlType": {}, "pkNames": ["order_id"]}
    rows += [canal | {name: value} for name in canal for value in odd]
    inner = [order(4, source=order(4)["source"] | {name: value}) for name in order(4)["source"] for value in odd]
    cells = [order(5, after=order(5)["after"] | {name: value}) for name in order(5)["after"] for value in odd]
    schema = [{"source": order(6)["source"], "ddl": "ALTER", "tableChanges": value} for value in ([{"type": "ALTER", "id": 1, "table": []}], [{}], [1], [{"table": {"columns": [1]}}], [{"table": {"columns": {}}}])]
    return swallow_orders(house, lines(rows), lines(inner), lines(cells), lines(schema), b'[1]\nnull\n"x"\n{}\n7\n')


@attack("file", verb="orders --follow", spoils=True)
def orders_with_ddl_that_is_none(house):
    """Statements that no SQL tokenizer takes: backslashes, open quotes, emoji, 1,000 parentheses, a megabyte."""
    words = ("ALTER TABLE orders ADD COLUMN `a\\", "ALTER TABLE orders ADD COLUMN 'a", "ALTER TABLE orders ADD note varchar(10) DEFAULT '\\\\'", "\\", "/* ", "\U0001f600" * 50,
             "ALTER TABLE orders ADD COLUMN " + "(" * 1000, "ALTER TABLE orders " + "ADD COLUMN a int, " * 20_000, "`", "$$", "", " ", "{{ x }}", "SELECT 1; DROP")  # fmt: skip
    found = [{"source": order(7)["source"], "ddl": one, "tableChanges": []} for one in words]
    found += [{"id": 1, "type": kind, "table": "orders", "isDdl": True, "es": 1767600000000, "sql": one, "data": None} for one in words for kind in ("ALTER", "QUERY")]
    return swallow_orders(house, lines(found))


@attack("file", verb="orders --follow", spoils=True)
def orders_nested_and_huge(house):
    """Nested 3,000 and 100,000 deep, integers of 5,000 digits, no UTF-8, a gzip that is none, a line of 50 MB."""
    one = json.dumps(order(8))
    deep = [one[:-1] + ', "x": ' + "[" * levels + "]" * levels + "}\n" for levels in (3_000, 100_000)]
    rows = [one.replace("1000", "9" * 5_000) + "\n", one.replace('"paid"', "NaN") + "\n", one.replace('"paid"', '"' + "p" * (50 << 20) + '"') + "\n"]
    return swallow_orders(house, *(text.encode() for text in (*deep, *rows)), b"\xff\xfe\0\n", b"[" * 100_000) or swallow_orders(house, b"none", gzip.compress(b"{}")[:-5], suffix=".jsonl.gz")


@attack("file", verb="orders --follow", spoils=True)
def orders_that_are_no_files(house):
    """A folder, a pipe, a broken link, a circle, names that are not UTF-8; a file that vanishes at once, twenty times."""
    stamp = time.time_ns()
    (house.orders / f"dir-{stamp}.jsonl").mkdir()
    os.mkfifo(house.orders / f"fifo-{stamp}.jsonl")
    for name, where in (("broken", "nowhere"), ("circle", f"circle-{stamp}.jsonl"), ("up", ".."), ("zero", "/dev/zero")):
        (house.orders / f"{name}-{stamp}.jsonl").symlink_to(where)
    land(house.orders, b"bad-\xff.jsonl", lines([order(9)]))
    land(house.orders, "note_products.jsonl", b'{"note_id": "\\ud83d", "product_id": []}\n[]\n{"note_id": 1e400}\n')
    for _ in range(20):
        path = land(house.orders, _name("gone"), lines([order(10)]))
        time.sleep(0.15)
        path.unlink(missing_ok=True)
    return takes_orders(house)


# --- the checkout -------------------------------------------------------------------------------------------------------------

COPIED_WITHOUT = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "tests", "benchmarks", "docs")


def _loads_with(house: House, put: Callable[[Path], str]) -> str | None:
    """Copy the checkout, put a file into it, load the code location. put: returns the file's name, which is to be said."""
    copy = house.folder / f"copy-{time.time_ns()}"
    shutil.copytree(house.tree.root, copy, ignore=COPIED_WITHOUT, symlinks=True)
    try:
        name = put(copy)
        done = subprocess.run(
            [sys.executable, "-c", "import dagster_project.definitions as found; print(len(found.defs.get_all_job_defs()) if hasattr(found.defs, 'get_all_job_defs') else 'loaded')"],
            cwd=copy, env=Tree(copy, "copy").environment(house.home), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180,
        )  # fmt: skip
        if done.returncode:
            return f"the code location does not load: {done.stdout[-200:]}"
        return None if name in done.stdout else f"it loads without a word of {name}: {done.stdout[-100:]!r}"
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@attack("file", verb="", after=SAME)
def new_notebook_in_the_checkout(house):
    """An empty new notebook as JupyterLab saves it, and one that is no JSON: no job, and no reason not to load."""
    def put(copy: Path) -> str:
        cells = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (copy / "notebooks" / "Untitled.ipynb").write_text(json.dumps(cells))
        (copy / "notebooks" / "Broken.ipynb").write_bytes(b"{\xff")
        return "Untitled.ipynb"

    return _loads_with(house, put)


@attack("file", verb="", after=SAME)
def sql_file_in_latin_1(house):
    """A SQL job saved in Latin-1 by an editor of long ago, and one that is a folder."""
    def put(copy: Path) -> str:
        (copy / "sql" / "lake" / "cafe.sql").write_bytes("-- name: caf\xe9\nSELECT 1\n".encode("latin-1"))
        (copy / "sql" / "lake" / "folder.sql").mkdir()
        return "cafe.sql"

    return _loads_with(house, put)
