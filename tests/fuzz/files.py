"""Files of the fuzz: rows of one form in one format, what is done to the file as a whole, and how many rows it holds.

Here: one file, drawn from its seed, that can be built again from a part of its rows. Not here: single rows (rows.py, orders.py),
columns of Parquet (tables.py), who reads the file (drive.py).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import odd, orders, reference, tables
from tests.fuzz.rows import CSV_KINDS, FORMS, HEAVY, JSON_KINDS, NATIVE, Form, Row, csv_line, json_line

TEXT = ("jsonl", "csv", "tsv")
FORMATS = ("jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "tsv.gz", "parquet")
ORDER_FORMATS = ("debezium", "canal")
SUFFIXES = {"jsonl": (".jsonl", ".jsonl", ".jsonl", ".ndjson", ".json"), "csv": (".csv",), "tsv": (".tsv",), "parquet": (".parquet",)}
SIZES = ((0.55, 1, 12), (0.3, 13, 120), (0.12, 121, 600), (0.03, 1_000, 4_000))  # share, rows from, to
ODD_NAMES = ("a\nb", "\udcff\udcfe", "a b%20c", "-x", "ü", "a\u2028b", "x" * 180, "'\"$(x)", "a=b", "#?", "[a]*", "\udced\udca0\udcbd", "漢字", "\x1b[31m")

Finish = Callable[[bytes], bytes]


@dataclass
class File:
    """A file to be written. name: without folder; an undecodable byte is a surrogate, as os.fsdecode has it.

    parts: the rows, which `data` takes any of; of Parquet none. fault: what was done to the file as a whole, else None; certain:
    whether it can nevertheless be told how many rows it holds. kinds: faults of rows, for the report.
    """

    name: str
    format: str
    form: Form | None
    head: bytes
    parts: list[tuple[Row, bytes]]
    finish: Finish
    fault: str | None
    certain: bool
    kinds: tuple[str, ...]
    table: pa.Table | None = None
    table_bytes: Callable[[pa.Table], bytes] | None = None

    @property
    def inputs(self) -> int:
        return max(1, self.table.num_rows if self.table is not None else len(self.parts))

    @property
    def malformed(self) -> int:
        if self.fault or (self.table is not None and self.kinds):
            return self.inputs
        return sum(row.malformed for row, _ in self.parts)

    def text(self, parts: list[tuple[Row, bytes]] | None = None) -> bytes:
        """The text before it is packed."""
        return self.head + b"".join(row.data + end for row, end in (self.parts if parts is None else parts))

    def data(self, parts: list | None = None, table: pa.Table | None = None) -> bytes:
        """The file's bytes, of all its rows or of these."""
        if self.table is not None:
            return self.finish(self.table_bytes(self.table if table is None else table))
        return self.finish(self.text(parts))

    def is_readable(self) -> bool:
        """Whether pyarrow reads its own file again (it does not where a list has the fixed size 0)."""
        try:
            return self.table is None or pq.read_table(io.BytesIO(self.data())).num_rows == self.table.num_rows
        except (pa.ArrowException, OSError):
            return False

    def rows(self, parts: list | None = None) -> reference.Rows | None:
        """The rows that the file holds; None where nobody can tell."""
        if not self.certain:
            return None
        if self.table is not None:
            return reference.Rows([], self.table.num_rows, self.table.num_rows)
        text = self.text(parts)
        if self.format.startswith("jsonl") or self.form is None:
            return reference.json_rows(text)
        return reference.csv_rows(text, separator(self.format), self.form.quote, None if self.form.header else len(self.form.columns))


def separator(format: str) -> str:
    return "\t" if format.startswith("tsv") else ","


def draw(seed: int, way: str, format: str, number: int) -> File:
    """The file of this number: the same for the same arguments."""
    rng = Random(f"{seed}/{way}/{format}/{number}")
    tag = f"{format[0]}{number}"
    if format in ORDER_FORMATS:
        return _orders(rng, format, number, tag)
    if format == "parquet":
        return _parquet(rng, way, number, tag)
    return _text(rng, way, format, number, tag)


def form_of(rng: Random, format: str) -> Form:
    forms = [form for form in FORMS if form.name != "mind" or format.startswith("tsv")]
    return NATIVE if rng.random() < 0.75 else rng.choice(forms)


def _size(rng: Random) -> int:
    draw = rng.random()
    for share, least, most in SIZES:
        if draw < share:
            return rng.randrange(least, most + 1)
        draw -= share
    return 1


def _kinds(rng: Random, all_kinds: dict) -> list[str]:
    return rng.sample(list(all_kinds), rng.choice((1, 1, 2, 3, 5)))


def _within(heavy: dict[str, int], kind: str, light: str) -> str:
    """The kind, or a light one where the file has enough of it."""
    if kind in heavy:
        heavy[kind] -= 1
    return kind if heavy.get(kind, 0) >= 0 else light


def _name(rng: Random, number: int, format: str, suffix: str) -> str:
    stem = f"f{number:06d}"
    if rng.random() < 0.04:
        stem += rng.choice(ODD_NAMES)
    if rng.random() < 0.02:
        suffix = suffix.upper()
    packed = (".gz" if rng.random() < 0.98 else ".GZ") if format.endswith(".gz") else ""
    return stem + suffix + packed


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)  # the time would make another file of it


# --- text -------------------------------------------------------------------------------------------------------------


def _text(rng: Random, way: str, format: str, number: int, tag: str) -> File:
    plain_format = format.removesuffix(".gz")
    form = form_of(rng, format)
    kinds = _kinds(rng, JSON_KINDS if plain_format == "jsonl" else CSV_KINDS)
    share = rng.choice((0.5, 0.6, 0.8, 1.0))
    ends = [b"\n"] * 4 + [b"\r\n"] + ([] if plain_format == "jsonl" else [b"\r"])
    ends = rng.choice(([b"\n"], [b"\n"], [b"\r\n"], ends))
    heavy, light = dict(HEAVY), "type"
    parts = []
    for at in range(_size(rng)):
        kind = _within(heavy, rng.choice(kinds), light) if rng.random() < share else None
        make = json_line(rng, form, at, tag, kind) if plain_format == "jsonl" else csv_line(rng, form, separator(format), at, tag, kind)
        parts.append((make, rng.choice(ends)))
    if parts and rng.random() < 0.2:
        parts[-1] = (parts[-1][0], b"")  # the last line has no end
    head, fault, certain = b"", None, True
    if plain_format != "jsonl" and form.header:
        head, fault, certain = _head(rng, form, separator(format), parts)
    finish: Finish = bytes
    if format.endswith(".gz"):
        finish, packed_fault, packed_certain = _packed(rng)
        fault, certain = packed_fault or fault, packed_certain and certain
    elif rng.random() < 0.04:
        finish, fault, certain = _spoiled(rng)
    return File(_name(rng, number, format, rng.choice(SUFFIXES[plain_format])), format, form, head, parts, finish, fault, certain, tuple(kinds))


def _head(rng: Random, form: Form, separator: str, parts: list) -> tuple[bytes, str | None, bool]:
    names = list(form.columns)
    plain = separator.join(names)
    if rng.random() < 0.8:
        return plain.encode() + rng.choice((b"\n", b"\n", b"\r\n")), None, True
    end = rng.choice((b"\n", b"\r\n", b"\r"))
    at = rng.randrange(len(names))
    heads: dict[str, tuple[str, bool]] = {
        "open quote": (plain.replace(names[at], '"' + names[at], 1), False),
        "a name twice": (separator.join([*names, names[at]]), True),
        "no names": ("", True),
        "line feed in a name": (plain + separator + '"a\nb"', True),
        "carriage return in a name": (plain + separator + '"a\rb"', True),
        "quoted": (separator.join(f'"{name}"' for name in names), True),
        "byte order mark": ("\ufeff" + plain, True),
        "two byte order marks": ("\ufeff\ufeff" + plain, True),
        "many columns": (separator.join([*names, *(f"x{number}" for number in range(10_000))]), True),
        "a column missing": (separator.join(names[:at] + names[at + 1 :]), True),
        "unknown columns": (separator.join(f"u{number}" for number in range(len(names))), True),
        "blanks": (f"{separator} ".join(names), True),
        "upper case": (plain.upper(), True),
        "stray quote": (plain + separator + 'a"b', True),
        "text after a quote": (plain + separator + '"a"b', True),
        "empty name": (plain + separator, True),
        "another separator": (";".join(names), True),
        "unicode line break": (plain + separator + '"a\u2028b"', True),
        "NUL": (plain + separator + "a\x00b", True),
        "a long name": (plain + separator + "x" * odd.MANY, True),
        "a name of quotes": (plain + separator + '""""', True),
        "control": (plain + separator + "a\x0cb", True),
        "blank line before": ("\n" + plain, True),
        "sep=": (f"sep={separator}\n" + plain, False),
        "context": (plain + separator + "context", True),
        "surrogate": (plain + separator + "\\ud83d", True),
    }
    fault = rng.choice([*heads, "not UTF-8", "half a character", "alone", "UTF-16"])
    if fault == "not UTF-8":
        return plain.encode() + separator.encode() + b"\xff" + end, fault, True
    if fault == "half a character":
        return plain.encode() + separator.encode() + b"\xed\xa0\xbd" + end, fault, True
    if fault == "UTF-16":
        return plain.encode("utf-16") + end, fault, False
    if fault == "alone":
        parts.clear()
        return plain.encode() + rng.choice((b"", end)), fault, True
    text, certain = heads[fault]
    return text.encode() + end, "header: " + fault, certain


def _spoiled(rng: Random) -> tuple[Finish, str, bool]:
    """What is done to a file that is not packed."""
    at = rng.random()
    return rng.choice((
        (lambda data: b"", "empty", False),
        (_gz, "packed, by its name not", False),
        (lambda data: b"\xef\xbb\xbf" + data, "byte order mark", False),
        (lambda data: data.decode("utf-8", "replace").encode("utf-16"), "UTF-16", False),
        (lambda data: data.decode("utf-8", "replace").encode("utf-16-le"), "UTF-16 without a mark", False),
        (lambda data: data.decode("utf-8", "replace").encode("utf-32"), "UTF-32", False),
        (lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r"), "carriage returns alone", False),
        (lambda data: data[: int(len(data) * at)], "cut", False),
        (lambda data: bytes(1_000), "zeros", False),
        (lambda data: data + bytes(100_000), "zeros after it", False),
        (lambda data: b"\n" * 50_000 + data, "blank lines before", False),
        (lambda data: Random(at).randbytes(5_000), "noise", False),
        (lambda data: b"PAR1" + data + b"PAR1", "marks of Parquet around it", False),
        (lambda data: tables.to_bytes(Random(at), pa.table({"event_id": ["a"]})), "Parquet by another name", False),
        (lambda data: b"x" * 3_000_000, "a line without an end", False),
        (lambda data: data + b'"' * 100_001, "quotes after it", False),
    ))  # fmt: skip


def _packed(rng: Random) -> tuple[Finish, str | None, bool]:
    """gzip, and what is done to it."""
    if rng.random() < 0.8:
        return _gz, None, True
    at, bit = rng.random(), 1 << rng.randrange(8)

    def flipped(data: bytes) -> bytes:
        packed = bytearray(_gz(data))
        packed[int(at * len(packed))] ^= bit
        return bytes(packed)

    def members(data: bytes) -> bytes:
        cut = int(at * len(data))
        return _gz(data[:cut]) + _gz(b"") + _gz(data[cut:])

    return rng.choice((
        (lambda data: (packed := _gz(data))[: int(at * len(packed))], "gzip: cut", False),
        (lambda data: _gz(data)[:-4], "gzip: cut in its last bytes", False),
        (lambda data: _gz(data) + b"garbage", "gzip: garbage after it", False),
        (lambda data: _gz(data) + bytes(512), "gzip: zeros after it", False),
        (members, "gzip: several members", True),
        (lambda data: data, "gzip: not packed", False),
        (lambda data: b"", "gzip: empty", False),
        (lambda data: _gz(b""), "gzip: of nothing", False),
        (lambda data: _gz(_gz(data)), "gzip: twice", False),
        (lambda data: _gz(data) + _gz(bytes(30_000_000)), "gzip: a bomb of zeros", False),
        (lambda data: _gz(data + b"\n" * 20_000_000), "gzip: a bomb of blank lines", False),
        (lambda data: _gz(data + b'"' + b"a," * 5_000_000), "gzip: a bomb of one field", False),
        (flipped, "gzip: a bit flipped", False),
        (lambda data: b"\x1f\x8b", "gzip: two bytes", False),
        (lambda data: b"\x1f\x8b\x08\xff" + Random(at).randbytes(300), "gzip: noise", False),
    ))  # fmt: skip


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet(rng: Random, way: str, number: int, tag: str) -> File:
    form = form_of(rng, "parquet")
    rows = rng.choice((0, _size(rng), _size(rng), _size(rng), _size(rng)))
    table, kinds = tables.plain(rng, form, rows, tag), ()
    if rng.random() < 0.85:
        table, kinds = tables.mutated(rng, form, table)
    fault, certain, finish = None, True, bytes
    if rng.random() < 0.1:
        table, word = tables.shape(rng, table)
        fault, certain = f"Parquet: columns {word}", word != "none"
    if rng.random() < 0.12:
        finish, fault = _spoiled_parquet(rng)
        certain = False
    seed = rng.random()
    file = File(_name(rng, number, "parquet", ".parquet"), "parquet", form, b"", [], finish, fault, certain, kinds, table)
    file.table_bytes = lambda table: tables.to_bytes(Random(seed), table)
    return file


def _spoiled_parquet(rng: Random) -> tuple[Finish, str]:
    at, seed = rng.random(), rng.random()

    def flipped(first: float, last: float, times: int) -> Finish:
        def made(data: bytes) -> bytes:
            found, local = bytearray(data), Random(seed)
            for _ in range(times):
                found[int((first + (last - first) * local.random()) * (len(found) - 1))] ^= 1 << local.randrange(8)
            return bytes(found)

        return made

    return rng.choice((
        (lambda data: data[: int(len(data) * at)], "Parquet: cut"),
        (lambda data: data[:-1], "Parquet: cut by a byte"),
        (lambda data: data[int(len(data) * at) :], "Parquet: its begin is missing"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1", "Parquet: footer too long"),
        (lambda data: data[:-8] + bytes(4) + b"PAR1", "Parquet: footer of no length"),
        (lambda data: data[:-4] + b"PARE", "Parquet: said to be encrypted"),
        (lambda data: b"PAR1PAR1", "Parquet: marks alone"),
        (lambda data: b"", "Parquet: empty"),
        (lambda data: Random(seed).randbytes(3_000), "Parquet: noise"),
        (lambda data: b"PAR1" + Random(seed).randbytes(300) + b"\x2c\x01\x00\x00PAR1", "Parquet: noise between marks"),
        (_gz, "Parquet: packed"),
        (lambda data: b'{"event_id":"a"}\n', "Parquet: JSON"),
        (lambda data: data + data, "Parquet: twice"),
        (flipped(0, 1, 1), "Parquet: a bit flipped"), (flipped(0, 1, 20), "Parquet: bits flipped"),
        (flipped(0.7, 1, 3), "Parquet: bits of the footer flipped"), (flipped(0.7, 1, 3), "Parquet: bits of the footer flipped"),
    ))  # fmt: skip


# --- orders -----------------------------------------------------------------------------------------------------------


def _orders(rng: Random, format: str, number: int, tag: str) -> File:
    kinds = _kinds(rng, orders.KINDS)
    share = rng.choice((0.5, 0.6, 0.8, 1.0))
    heavy, light = dict(HEAVY), "column"
    parts, dialect = [], rng.choice(orders.DIALECTS)
    for at in range(min(_size(rng), 400)):
        kind = _within(heavy, rng.choice(kinds), light) if rng.random() < share else None
        parts.append((orders.line(rng, format, dialect, number * 10_000 + at, kind), rng.choice((b"\n", b"\n", b"\n", b"\r\n"))))
    finish, fault, certain = bytes, None, True
    packed = rng.random() < 0.2
    if packed:
        finish, fault, certain = _packed(rng)
    elif rng.random() < 0.04:
        finish, fault, certain = _spoiled(rng)
    name = _name(rng, number, "jsonl.gz" if packed else "jsonl", rng.choice(SUFFIXES["jsonl"]))
    name = "note_products-" + name if rng.random() < 0.05 else name
    return File(name, format, None, b"", parts, finish, fault, certain, tuple(kinds))
