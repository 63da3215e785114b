"""JSON lines as columns: the wanted values as text, the others as one JSON object a row.

Here: rows of bytes to columns and reasons, by the kernels of scan.py. Not here: files and lines (sources.py), what a
value means (values.py).

What is read is JSON (RFC 8259) and, as Python and JavaScript write them, NaN, Infinity and -Infinity. Of a key that a row
repeats the last value counts. Numbers that not every reader of JSON takes (these three, 1e400, integers beyond 64 bits)
stay in the context as texts. A row with half a character (a \\ud800 to \\udfff without its other half) is no text in any
encoding, and is refused.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow as pa

from assets.events import scan
from assets.events.contract import TYPED_NAMES

CONTEXT = "_context"

REASONS = {
    scan.NOT_OBJECT: "line: not a JSON object",
    scan.HALF_CHARACTER: "line: half a character (an escape \\ud800 to \\udfff without its other half)",
    scan.TOO_DEEP: f"line: lists and objects nested deeper than {scan.MAX_DEPTH}",
}
NOT_UTF8 = "line: not UTF-8"


def read(
    data: np.ndarray, start: np.ndarray, end: np.ndarray, wanted: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.Series, dict[str, pl.Series], int]:
    """Rows in data[start:end] (uint8, int64[n]) to (columns, wrong, odd, repeated_keys).

    columns: the wanted values as text (a string's characters, a number's digits, true, false, the JSON of a list or an
    object; null: not there) and CONTEXT. wrong: why a row cannot be read, else null. odd: of the columns that hold any,
    which values are no text, number or truth: a list, an object, NaN. repeated_keys: rows that hold a key twice.
    """
    rows = len(start)
    names, name_at = _names(wanted)
    code = np.zeros(rows, np.int8)
    kind = np.zeros((rows, len(wanted)), np.int8)
    value_start, value_end = np.zeros((rows, len(wanted)), np.int64), np.zeros((rows, len(wanted)), np.int64)
    out = np.empty(2 * int((end - start).sum()) + 2 * rows, np.uint8)
    out_at, odd, twice = np.zeros(rows + 1, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    used = scan.objects(data, start, end, names, name_at, code, kind, value_start, value_end, out, out_at, odd, twice)
    broken = (code != scan.GOOD) & (code != scan.PAIRWISE)
    not_text = not_utf8(data, start, end)
    wrong = _reasons(code, broken, not_text)
    kind[broken | not_text] = scan.ABSENT
    columns = {
        name: _texts(data, value_start[:, place], value_end[:, place], kind[:, place]) for place, name in enumerate(wanted)
    }
    context = _further(out[:used], out_at, not_text)
    slow = np.flatnonzero((code == scan.PAIRWISE) & ~not_text)
    if slow.size:
        found = [_pairwise(data, int(start[row]), int(end[row]), wanted) for row in slow]
        context = context.scatter(slow, pl.Series([text for _, text, _ in found], dtype=pl.String))
        twice[slow] = [repeats for *_, repeats in found]
        for place, name in enumerate(wanted):
            escaped = [(row, more[name]) for row, (more, *_) in zip(slow, found, strict=True) if name in more]
            for row, (value, what) in escaped:
                kind[row, place] = what
                columns[name] = columns[name].scatter([row], pl.Series([value], dtype=pl.String))
    if not_text.any() or broken.any():
        context = context.set(pl.Series(broken | not_text), None)
    strange = {}
    for place, name in enumerate(wanted):
        mask = (kind[:, place] == scan.NESTED) | _no_number(columns[name], kind[:, place])
        if mask.any():
            strange[name] = pl.Series(name, mask)
    return pl.DataFrame({**columns, CONTEXT: context}), wrong, strange, int(np.count_nonzero(twice & ~broken & ~not_text))


def elements(texts: pl.Series) -> tuple[pl.Series, np.ndarray, np.ndarray, np.ndarray]:
    """Texts of JSON lists to (elements as text, of which of the texts each is, kinds of scan.py, whether a text is no list).

    A null has no elements. A string's element is its characters, a number's its digits, a list's or an object's its JSON.
    """
    data, start, end = spans(texts.fill_null("[]").cast(pl.Binary))
    rows = len(start)
    code, count = np.zeros(rows, np.int8), np.zeros(rows, np.int64)
    room = rows + int(np.count_nonzero(data == 44))
    value_start, value_end, kind = np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(room, np.int8)
    used = scan.elements(data, start, end, code, count, value_start, value_end, kind)
    found = _texts(data, value_start[:used], value_end[:used], kind[:used])
    return found, np.repeat(np.arange(rows), count), kind[:used], code != scan.GOOD


def not_utf8(data: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """bool[n]: which rows are not UTF-8."""
    wrong = np.zeros(len(start), bool)
    if len(start) and (data[start[0] : end[-1]] >= 128).any():
        scan.not_utf8(data, start, end, wrong)
    return wrong


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _names(wanted: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [name.encode("utf-8", "surrogatepass") for name in wanted]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return np.frombuffer(b"".join(encoded) or b"\0", np.uint8), ends


def _reasons(code: np.ndarray, broken: np.ndarray, not_text: np.ndarray) -> pl.Series:
    wrong = pl.Series([None], dtype=pl.String).new_from_index(0, len(code))
    for number, reason in REASONS.items():
        if (code == number).any():
            wrong = wrong.set(pl.Series(code == number), reason)
    return wrong.set(pl.Series(not_text), NOT_UTF8) if not_text.any() else wrong


def text_series(data: np.ndarray, start: np.ndarray, end: np.ndarray, missing: np.ndarray) -> pl.Series:
    """Spans of UTF-8 as a column of text; null where `missing`."""
    start, end = np.where(missing, 0, start), np.where(missing, 0, end)
    offsets = np.empty(len(start) + 1, np.int64)
    body = scan.gather(data, start, end, offsets)
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None
    array = pa.LargeStringArray.from_buffers(len(start), pa.py_buffer(offsets), pa.py_buffer(body), valid)
    return pl.from_arrow(array)


def _texts(data: np.ndarray, start: np.ndarray, end: np.ndarray, kind: np.ndarray) -> pl.Series:
    texts = text_series(data, start, end, (kind == scan.ABSENT) | (kind == scan.NULL))
    escaped = np.flatnonzero(kind == scan.ESCAPED)
    if escaped.size:
        plain = [json.loads(f'"{text}"') for text in texts.gather(escaped)]
        texts = texts.scatter(escaped, pl.Series(plain, dtype=pl.String))
    return texts


def _no_number(texts: pl.Series, kind: np.ndarray) -> np.ndarray:
    """bool[n]: NaN, Infinity and -Infinity; 1e400 and huge integers are numbers, and what reads them says no."""
    mask = kind == scan.NOT_FINITE
    if mask.any():
        mask &= texts.is_in(["NaN", "Infinity", "-Infinity"]).fill_null(False).to_numpy()
    return mask


def _further(out: np.ndarray, out_at: np.ndarray, not_text: np.ndarray) -> pl.Series:
    nothing = (out_at[1:] == out_at[:-1]) | not_text
    if not_text.any():  # a column of text is checked as a whole
        return text_series(out, out_at[:-1], out_at[1:], nothing).rename(CONTEXT)
    valid = pa.py_buffer(np.packbits(~nothing, bitorder="little")) if nothing.any() else None
    array = pa.LargeStringArray.from_buffers(len(nothing), pa.py_buffer(out_at), pa.py_buffer(out), valid)
    return pl.from_arrow(array).rename(CONTEXT)


# --- one row, pair by pair ----------------------------------------------------------------------------------------


def _pairwise(data: np.ndarray, begin: int, end: int, wanted: tuple[str, ...]) -> tuple[dict[str, tuple], str | None, bool]:
    """(wanted values whose key is written with escapes: text and kind, further pairs as one object, whether a key stands twice)
    of a good row.

    A nested `context`, an object or the text of one, is what an export of our own tables holds: its pairs are further
    columns, where the row has none of that name. The typed columns of such an export were made of that context, so of them
    only those remain that say something else than it does.
    """
    found: dict[str, tuple] = {}
    further: dict[str, str] = {}
    pairs = _pairs(data, begin, end)
    repeats = len({key for key, *_ in pairs}) < len(pairs)
    for key, value, kind in pairs:
        if key not in wanted:
            further[key] = value
        elif kind is not None:
            found[key] = (None if kind == scan.NULL else json.loads(value) if value.startswith('"') else value, kind)
        else:
            found.pop(key, None)  # the kernel has it, and it is the later one
    if (inner := _object_in(further.get("context"))) is None and further.get("context") == "null" and further.keys() >= set(TYPED_NAMES):
        inner = {}  # of an export too: an event without further columns
    if inner is not None:
        del further["context"]
        further = inner | {key: value for key, value in further.items() if key not in TYPED_NAMES or not _repeats(key, value, inner)}
    return found, as_object(further), repeats


def _repeats(name: str, value: str, inner: dict[str, str]) -> bool:
    """Whether the JSON value of a typed column is nothing, or what a context of these pairs gives that column."""
    from assets.events import context  # it is made of this file's parts

    if value == "null":
        return True
    return name in inner and (said := context.one(name, value)) is not None and said == context.one(name, inner[name])


def _pairs(data: np.ndarray, begin: int, end: int) -> list[tuple[str, str, int | None]]:
    """Keys, values as JSON that every reader takes, and of a key that is written with escapes the value's kind."""
    _, spans = scan.pairs(data, begin, end)
    found = []
    for k0, k1, v0, v1, odd in spans.tolist():
        key = data[k0:k1].tobytes().decode()
        value = scan.copied(data, v0, v1, odd).tobytes().decode() if odd else data[v0:v1].tobytes().decode()
        found.append((json.loads(key), value, _kind(data[v0], odd) if "\\" in key else None))
    return found


def _kind(first: int, odd: int) -> int:
    if first in b"[{":
        return scan.NESTED
    if odd:
        return scan.NOT_FINITE
    return scan.NULL if first == ord("n") else scan.PLAIN


def _object_in(value: str | None) -> dict[str, str] | None:
    """The pairs of a JSON value that is an object or the text of one; None for any other."""
    if value is None:
        return None
    text = json.loads(value) if value.startswith('"') else value
    inner = np.frombuffer(text.encode() or b"\0", np.uint8)
    code, _ = scan.pairs(inner, 0, inner.size)
    return {key: one for key, one, _ in _pairs(inner, 0, inner.size)} if code == scan.GOOD else None


def as_object(pairs: dict[str, str]) -> str | None:
    """Pairs of key and JSON value as one object; None where there are none."""
    if not pairs:
        return None
    return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in pairs.items()) + "}"


def merged(context: pl.Series) -> pl.Series:
    """Rows of JSON objects whose pair `context`, where it is an object or the text of one, is taken apart (see above)."""
    rows = []
    for text in context:
        if text is None:
            rows.append(None)
            continue
        data = np.frombuffer(text.encode(), np.uint8)
        rows.append(_pairwise(data, 0, data.size, ())[1])
    return pl.Series(context.name, rows, pl.String)


def whole_objects(contexts: pl.Series) -> bool:
    """Whether each text is an object, written as `merged` would write it: then nothing is to be taken apart."""
    texts = contexts.drop_nulls()
    if len(texts) != len(contexts):
        return False
    data, start, end = spans(texts.cast(pl.Binary))
    names, name_at = _names(())
    rows = len(texts)
    code, none, no_kinds = np.zeros(rows, np.int8), np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.int8)
    out, out_at = np.empty(2 * int((end - start).sum()) + 2 * rows, np.uint8), np.zeros(rows + 1, np.int64)
    odd, twice = np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    used = scan.objects(data, start, end, names, name_at, code, no_kinds, none, none, out, out_at, odd, twice)
    # A blank anywhere, or an escape, could be written otherwise.
    plain = not (data[start[0] : end[-1]] == 92).any() and not (data[start[0] : end[-1]] == 32).any() if rows else True
    return plain and not code.any() and not odd.any() and np.array_equal(out_at[1:] - out_at[:-1], end - start) and used > 0


def spans(bodies: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column of bytes as (bytes of all rows, start, end)."""
    array = bodies.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"\0", np.uint8)
    return data, offsets[:-1].copy(), offsets[1:].copy()
