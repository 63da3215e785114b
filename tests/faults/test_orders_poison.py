"""Poison for the orders line: no line, file or folder entry stops it, loses a row, or raises anything but a reason in quarantine.

Each test holds a kind. Lines that must be taken lie beside the poison: they always are.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from assets.lake import Lake, Write
from assets.orders import files, reconcile, tables
from assets.orders import take as taking
from assets.orders.changes import MAX_COLUMNS, UNFORESEEN, Broken, Reader
from assets.orders.take import take
from tests.faults.order_lines import HALF, STATEMENTS, TEXTS, deep, hostile
from tests.orders import RULES, added_column, canal, catalogue, debezium, lines, row, standing, us, write

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases"
GOOD = debezium("c", row("good", 1), 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "orders").mkdir()
    return tmp_path / "orders"


def put(folder, name, *bodies):
    (folder / name).write_bytes(b"\n".join(bodies) + b"\n")


def text(record):
    return json.dumps(record).encode()


def reasons(lake):
    """(file name, row) -> (reason, bytes)."""
    names = dict(zip(*(lake.read("order_sources")[name].to_pylist() for name in ("source", "name")), strict=True))
    return {(names[one["source"]], one["row"]): (one["reason"], one["body"]) for one in lake.read("order_quarantine").to_pylist()}


def accounted(lake, taken):
    """Rows in = what was made of them: in what take returns, in its book, and by file."""
    assert taken["lines"] == taken["told"] + taken["pairs"] + taken["skipped"] + taken["quarantined"], taken
    sources, refused = lake.read("order_sources").to_pylist(), lake.read("order_quarantine")["source"].to_pylist()
    told = {(one["source"], one["row"]) for one in lake.read("order_changes").to_pylist()}
    for source in {one["source"] for one in sources}:
        parts = [one for one in sources if one["source"] == source]
        assert sum(one["refused"] for one in parts) == refused.count(source)
        assert sum(one[0] == source for one in told) <= sum(one["rows"] - one["refused"] - one["skipped"] for one in parts)
    book = lake.read("order_batches").to_pylist()
    for name in ("lines", "told", "pairs", "skipped", "quarantined", "changes", "repeats"):
        assert sum(one[name] for one in book) >= taken[name]
    assert lake.read("order_changes").num_rows == sum(one["changes"] for one in book)


# --- lines ------------------------------------------------------------------------------------------------------------


def broken(**parts):
    return GOOD | parts


def of_row(**columns):
    return debezium("c", row("x", 1) | columns, 1)


LINES = {
    "half of an emoji in a column": text(of_row(note="nice \ud83d")),
    "half of an emoji in the key": text(of_row(order_id="\ude00")),
    "half of an emoji as a column's name": text(of_row(**{"a\ud83d": 1})),
    "half of an emoji in the schema": text({"schema": {"fields": [{"field": "\ud83d"}]}, "payload": GOOD}),
    "half of an emoji in a statement": text({"source": {"ts_ms": us(1) // 1000}, "ddl": "ALTER TABLE orders ADD x INT COMMENT '\ud83d'"}),
    "half of an emoji in Canal's statement": text(canal("ALTER", [], 1, isDdl=True, sql="ALTER TABLE orders -- \ud83d")),
    "half of an emoji as bytes": b'{"op": "c", "after": "\xed\xa0\xbd"}',
    "half of an emoji in a text that refuses": text(broken(op="\ud83d")),
    "nested beyond the parser": b'{"op": ' + b"[" * 100_000,
    "nested, closed": text({"op": "c", "after": {"a": deep(900)}}),
    "nested in a column": text(of_row(note=deep(300))),
    "nested objects": text(of_row(note=deep(300, "object"))),
    "an integer of 5,000 digits": b'{"op": "c", "after": {"order_id": ' + b"9" * 5000 + b"}}",
    "no UTF-8": b'{"op": "\xff"}',
    "UTF-16": '{"op": "c"}'.encode("utf-16"),
    "bytes of nothing": bytes(range(1, 9)) + b"\0\x0b\x0c\x1a\x7f\x80",
    "source a text": text(broken(source="mysql")),
    "source a number": text(broken(source=5)),
    "source a list": text(broken(source=[1])),
    "payload a text": text({"schema": None, "payload": "mysql"}),
    "payload a list": text({"payload": [GOOD]}),
    "schema a text": text({"schema": "all", "payload": GOOD}),
    "fields of a schema a text": text({"schema": {"fields": "all"}, "payload": GOOD}),
    "fields of a schema numbers": text({"schema": {"fields": [1]}, "payload": GOOD}),
    "a field of a schema without a name": text({"schema": {"fields": [{"field": "after", "fields": [{"type": "int64"}]}]}, "payload": GOOD}),
    "a field of a schema named by a list": text({"schema": {"fields": [{"field": "after", "fields": [{"field": [1]}]}]}, "payload": GOOD}),
    "op a list": text(broken(op=["c"])),
    "op an object": text(broken(op={"c": 1})),
    "after a text": text(broken(after="row")),
    "ts a text": text(broken(source={"table": "orders", "ts_ms": "soon"})),
    "ts an object": text(broken(source={"table": "orders", "ts_ms": {"a": 1}})),
    "ts of another era": text(broken(source={"table": "orders", "ts_ms": 10**18})),
    "ts NaN": b'{"op": "c", "source": {"table": "orders", "ts_ms": NaN}, "after": {}}',
    "ts too great for a float": b'{"op": "c", "source": {"table": "orders", "ts_ms": 1e999}, "after": {}}',
    "pos an object": text(broken(source=GOOD["source"] | {"pos": {}})),
    "pos beyond 64 bits": text(broken(source=GOOD["source"] | {"pos": 2**63})),
    "file a list": text(broken(source=GOOD["source"] | {"file": ["b.000001"]})),
    "file's number beyond 64 bits": text(broken(source=GOOD["source"] | {"file": "b." + "9" * 200})),
    "file of a megabyte of digits": text(broken(source=GOOD["source"] | {"file": "1" * 2**20 + "x"})),
    "lsn a truth": text(broken(source={"table": "orders", "ts_ms": us(1) // 1000, "lsn": True})),
    "tableChanges a text": text({"source": {"ts_ms": us(1) // 1000}, "tableChanges": "all"}),
    "tableChanges numbers": text({"source": {"ts_ms": us(1) // 1000}, "tableChanges": [1]}),
    "table of tableChanges a text": text({"source": {}, "tableChanges": [{"id": "orders", "table": "x"}]}),
    "columns of tableChanges numbers": text({"source": {}, "tableChanges": [{"id": "orders", "table": {"columns": [1]}}]}),
    "a column of tableChanges without a name": text({"source": {}, "tableChanges": [{"id": "orders", "table": {"columns": [{}]}}]}),
    "a column of tableChanges named by a list": text({"source": {}, "tableChanges": [{"id": "orders", "table": {"columns": [{"name": []}]}}]}),
    "ddl a number": text({"source": {"ts_ms": us(1) // 1000}, "ddl": 5}),
    "ddl an object": text({"source": {"ts_ms": us(1) // 1000}, "ddl": {"a": 1}}),
    "a type that is a list": text(canal(["INSERT"], [row("x")], 1)),
    "a type that is an object": text(canal({}, [row("x")], 1)),
    "sql a number": text(canal("ALTER", [], 1, isDdl=True, sql=5)),
    "old an object": text(canal("UPDATE", [row("x")], 1, old={"order_id": "a"})),
    "old of texts": text(canal("UPDATE", [row("x")], 1, old=["a"])),
    "data an object": text(canal("INSERT", [], 1, data=row("x"))),
    "data of texts": text(canal("INSERT", [], 1, data=["x"])),
    "id an object": text(canal("INSERT", [row("x")], 1, number={})),
    "id beyond 64 bits": text(canal("INSERT", [row("x")], 1, number=2**64)),
    "es a list": text(canal("INSERT", [row("x")], 1) | {"es": [1]}),
    "mysqlType a text": text(canal("INSERT", [row("x")], 1, mysqlType="int")),
    "order_id an object": text(of_row(order_id={})),
    "order_id of 4,000 digits": b'{"op": "d", "source": {"table": "orders", "ts_ms": 1767600000000}, "before": {"order_id": ' + b"9" * 4000 + b"}}",
    "amount NaN": json.dumps(of_row(amount_cents=float("nan"))).encode(),
    "amount infinite": json.dumps(of_row(amount_cents=float("inf"))).encode(),
    "amount 1e400": text(of_row(amount_cents="?")).replace(b'"?"', b"1e400"),
    "amount beyond 64 bits": text(of_row(amount_cents=2**63)),
    "status an object": text(of_row(status={"a": 1})),
    "created_at a truth": text(of_row(created_at=True)),
    "created_at at the end of time": text(of_row(created_at="9999-12-31T23:59:59-23:59")),
    "created_at at its beginning": text(of_row(created_at="0001-01-01T00:00:00+23:59")),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_refused_with_a_reason_and_nothing_else(name):
    reader = Reader("orders", "Asia/Shanghai")
    before = dict(reader.kinds)
    with pytest.raises(Broken) as error:
        reader.line(LINES[name])
    reason = str(error.value)
    assert not reason.startswith(UNFORESEEN) and len(reason) < 300
    reason.encode()
    assert reader.kinds == before, "a line that is refused leaves no column behind"


def test_all_of_them_in_one_file_cost_just_themselves(lake, folder):
    good = [debezium("c", row(f"g{i}", i), i) for i in range(len(LINES))]
    mixed = [body for pair in zip(LINES.values(), map(text, good), strict=True) for body in pair]
    put(folder, "1.jsonl", *mixed)
    taken = take(lake, folder, RULES)
    split = sum(len(body.splitlines()) - 1 for body in LINES.values())  # UTF-16 has bytes that end a line
    assert (taken["changes"], taken["quarantined"]) == (len(good), len(LINES) + split)
    assert set(standing(lake)) == {one["after"]["order_id"] for one in good}
    bodies = {body for _, body in reasons(lake).values()}
    kept = [body if len(body) <= files.KEPT_WHOLE else body[: files.KEPT_BYTES] for name, body in LINES.items() if name != "UTF-16"]
    assert set(kept) <= bodies, "as received"
    accounted(lake, taken)
    assert take(lake, folder, RULES)["batches"] == 0


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_that_cannot_be_read_is_kept_and_announces_nothing(statement):
    reader = Reader("orders", "UTC")
    for record in (
        {"source": {"table": "orders", "ts_ms": us(1) // 1000}, "ddl": statement}, canal("ALTER", [], 1, isDdl=True, sql=statement),
    ):  # fmt: skip
        found = reader.line(text(record))
        assert [(one.op, one.after) for one in found] == ([("s", statement)] if "orders" in statement else [])


def test_a_statement_of_megabytes_is_kept_unparsed():
    reader = Reader("orders", "UTC")
    statement = "ALTER TABLE orders " + ", ".join(f"ADD COLUMN c{i} INT" for i in range(200_000))
    (change,) = reader.line(text(canal("ALTER", [], 1, isDdl=True, sql=statement)))
    assert change.after == statement and "c1" not in reader.kinds


def test_columns_of_any_name_cost_no_order(lake, folder):
    names = [*TEXTS, "_change_type", "_metadata", "__index_level_0__", "a\nb", "a/b", "a'b", 'a"b', "a`b", "%41", "x" * 5000, "Straße", "STRASSE", "ß"]
    odd = [name for name in names if name.lower() not in ("order_id", "amount_cents")]
    for i, name in enumerate(odd):
        write(folder, f"{i:03}.jsonl", debezium("c", row(f"o{i}", i) | {name: "v"}, i))
    every = {name: str(i) for i, name in enumerate(odd)}
    write(folder, "zz.jsonl", debezium("c", row("all", 1) | every, 1), GOOD)
    taken = take(lake, folder, RULES)
    assert (taken["changes"], taken["quarantined"]) == (len(odd) + 2, 0)
    orders = standing(lake)
    for i, name in enumerate(odd):
        kept = {one for key, one in orders[f"o{i}"].items() if key not in ("order_id", "status")}
        assert "v" in kept or json.loads(orders[f"o{i}"]["rescued"])[name] == "v", name
    held = [value for key, value in orders["all"].items() if key in set(orders["all"]) - set(row("a"))]
    held += list(json.loads(orders["all"]["rescued"]).values())
    assert set(every.values()) <= set(held), "every value is somewhere"
    accounted(lake, taken)


@pytest.mark.slow
def test_ten_thousand_columns_are_not_ten_thousand_columns_of_the_lake(lake, folder):
    many = {f"c{i}": i for i in range(10_000)}
    write(folder, "1.jsonl", debezium("c", row("many", 1, **many), 1), added_column(2, *((f"d{i}", "INT") for i in range(10_000))), GOOD)
    taken = take(lake, folder, RULES)
    assert (taken["changes"], taken["quarantined"], taken["rescued"]) == (3, 0, 1)
    order, width = standing(lake)["many"], len(lake.read("orders").schema.names)
    assert MAX_COLUMNS <= width < MAX_COLUMNS + 20
    rescued = json.loads(order["rescued"])
    assert all(order.get(name, rescued.get(name)) == value for name, value in many.items())


def test_numbers_that_json_has_and_columns_have_not(lake, folder):
    numbers = {"nan": "NaN", "inf": "-Infinity", "huge": "1e400", "long": str(10**30), "deep": "1.5"}
    first = text(of_row(**dict.fromkeys(numbers, 0.5)))
    second = text(debezium("u", row("x", 1, **{name: f"<{name}>" for name in numbers}), 2))
    for name, number in numbers.items():
        second = second.replace(f'"<{name}>"'.encode(), number.encode())
    put(folder, "1.jsonl", first, second)
    assert take(lake, folder, RULES)["quarantined"] == 0
    (order,) = standing(lake).values()
    assert (order["nan"], order["inf"], order["huge"], order["deep"]) == (None, None, None, 1.5) and order["long"] == 1e30
    assert json.loads(order["rescued"]) == {"nan": "NaN", "inf": "-Infinity", "huge": "1e400"}
    put(folder, "2.jsonl", second, b"")
    assert take(lake, folder, RULES)["orders"] == 0, "a row is equal to itself"


def test_a_catalogue_of_anything(lake, folder):
    pairs = [b'{"note_id": 5, "product_id": 70}', b'{"note_id": "6", "product_id": 71.0}']
    bad = [b"[]", b"5", b'{"note_id": {}}', b'{"note_id": NaN, "product_id": 1}', b'{"note_id": 1e99, "product_id": 1}', b"[" * 5000, b"\xff",
           b'{"note_id": "\\ud83d", "product_id": 1}', b'{"note_id": true, "product_id": 1}']  # fmt: skip
    put(folder, "Note_Products.JSONL", *pairs, *bad)
    put(folder, "1.jsonl", text(GOOD))
    taken = take(lake, folder, RULES)
    assert (taken["pairs"], taken["changes"], taken["quarantined"]) == (2, 1, len(bad))
    assert lake.read("note_products").num_rows == 2
    accounted(lake, taken)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_are_taken_or_refused(seed):
    reader, taken, refused = Reader("orders", "UTC"), 0, 0
    for number, body in enumerate(hostile(seed, 2500)):
        if number % 500 == 0:
            reader = Reader("orders", "UTC")
        try:
            for change in reader.line(body):
                json.dumps([change.after, change.order_id], ensure_ascii=False).encode()
            taken += 1
        except Broken as error:
            assert not str(error).startswith(UNFORESEEN), (body, error.__cause__)
            str(error).encode()
            refused += 1
    assert taken > 500 and refused > 1000


@pytest.mark.slow
def test_mutated_messages_on_a_lake_are_all_accounted_for(lake, folder):
    count = 1500
    for i in range(2):
        put(folder, f"{i}.jsonl", *hostile(100 + i, count), text(debezium("c", row(f"good{i}", 1), 1)))
        taken = take(lake, folder, RULES)
        assert taken["lines"] == count + 1 and taken["quarantined"] > count / 3
        accounted(lake, taken)
    assert {"good0", "good1"} <= set(standing(lake)) and reconcile.reconcile(lake, RULES)["agree"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_names_that_are_no_text_and_suffixes_of_any_case(lake, folder):
    found = {b"caf\xe9.jsonl": "a", b"\xff\xfe\x80.JSONL": "b", b"new\nline.Json": "c", b"' OR 1=1 --.ndJSON": "d", "日本.jsonl".encode(): "e"}
    for name, order in found.items():
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(text(debezium("c", row(order, 1), 1)))
    (folder / "f.JSONL.GZ").write_bytes(gzip.compress(text(debezium("c", row("f", 1), 1))))
    os.mkdir(os.fsencode(folder) + b"/dir\xff")
    with open(os.fsencode(folder) + b"/dir\xff/g.jsonl", "wb") as file:
        file.write(text(debezium("c", row("g", 1), 1)) + b"\n{")
    taken = take(lake, folder, RULES)
    assert (taken["files"], taken["quarantined"]) == (7, 1) and set(standing(lake)) == set("abcdefg")
    assert ("dir\\xff/g.jsonl", 2) in reasons(lake)
    assert take(lake, folder, RULES)["batches"] == 0


def test_what_is_no_file_is_no_file(lake, folder):
    (folder / "dir.jsonl").mkdir()
    write(folder / "dir.jsonl", "in.jsonl", debezium("c", row("in", 1), 1))
    os.mkfifo(folder / "pipe.jsonl")
    os.mkfifo(folder / "note_products.json.gz")
    write(folder, "1.jsonl", GOOD)
    done = threading.Thread(target=take, args=(Lake(lake.root), folder, RULES), daemon=True)
    done.start()
    done.join(60)
    assert not done.is_alive(), "it waits for the pipe's other end"
    assert set(standing(lake)) == {"in", "good"} and lake.read("order_quarantine").num_rows == 0


@pytest.mark.slow
def test_links_to_nowhere_and_in_circles_are_told_once_and_links_to_files_are_read(lake, folder, tmp_path):
    (folder / "nowhere.jsonl").symlink_to(tmp_path / "gone.jsonl")
    (folder / "self.jsonl").symlink_to(folder / "self.jsonl")
    (folder / "up").symlink_to(folder)
    (folder / "root.jsonl").symlink_to("/")
    write(tmp_path / "else", "far.jsonl", debezium("c", row("far", 1), 1))
    (folder / "far.jsonl").symlink_to(tmp_path / "else" / "far.jsonl")
    write(folder, "1.jsonl", GOOD)
    taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"far", "good"} and taken["quarantined"] == 2
    found = reasons(lake)
    assert set(found) == {("nowhere.jsonl", 0), ("self.jsonl", 0)}
    assert all(reason.startswith("file: cannot be read (") for reason, _ in found.values())
    accounted(lake, taken)
    assert take(lake, folder, RULES)["batches"] == 0
    write(tmp_path, "gone.jsonl", debezium("c", row("back", 1), 1))
    assert take(lake, folder, RULES)["changes"] == 1 and "back" in standing(lake)


def failing(monkeypatch, name, *calls):
    """The operating system refuses to open (or to list) what is named so. Root may read everything: rights cannot show it."""
    for call in calls:
        real = getattr(os, call)

        def refuse(path, *args, real=real, **named):
            if os.fspath(path).endswith(name):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *args, **named)

        monkeypatch.setattr(os, call, refuse)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["open", "stat", "scandir"])
def test_a_file_or_folder_that_may_not_be_read_is_told_once_and_taken_when_it_may(lake, folder, monkeypatch, call):
    write(folder, "1.jsonl", GOOD)
    write(folder / "shut", "2.jsonl", debezium("c", row("shut", 1), 1))
    with monkeypatch.context() as patched:
        failing(patched, "shut" if call == "scandir" else "2.jsonl", call)
        taken = take(lake, folder, RULES)
        assert (taken["changes"], taken["quarantined"]) == (1, 1)
        ((name, line),) = reasons(lake)
        assert line == 0 and name == ("shut" if call == "scandir" else "shut/2.jsonl")
        assert "Permission denied" in reasons(lake)[name, 0][0]
        accounted(lake, taken)
        assert take(lake, folder, RULES)["batches"] == 0
    assert take(lake, folder, RULES)["changes"] == 1 and set(standing(lake)) == {"good", "shut"}


def test_a_disk_that_fails_in_the_middle_of_a_file_costs_that_file(lake, folder, monkeypatch):
    write(folder, "1.jsonl", GOOD)
    write(folder, "2.jsonl", *(debezium("c", row(f"o{i}", i), i) for i in range(9)))
    real = files.Source.lines

    def fail(source, *args):
        for number, line in enumerate(real(source, *args)):
            if source.entry.name == "2.jsonl" and number == 5:
                raise OSError(5, "Input/output error")
            yield line

    with monkeypatch.context() as patched:
        patched.setattr(files.Source, "lines", fail)
        taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"good"} and taken["quarantined"] == 1
    assert take(lake, folder, RULES)["changes"] == 9


@pytest.mark.parametrize("what", ["gone", "pipe", "other", "cut"])
def test_a_file_that_changes_between_listing_and_reading_is_left_to_the_next_take(lake, folder, monkeypatch, what):
    write(folder, "1.jsonl", GOOD)
    write(folder, "2.jsonl", debezium("c", row("b", 1), 1))
    write(folder, "3.jsonl", debezium("c", row("c", 1), 1))
    path, real = folder / "2.jsonl", (files.listed if what in ("gone", "pipe") else files.Source.lines)

    def change():
        if what in ("gone", "pipe"):
            path.unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(path)
        if what in ("other", "cut"):
            path.write_bytes(b"" if what == "cut" else path.read_bytes().replace(b'"b"', b'"B"'))

    def listed(*args):
        found = real(*args)
        if path.is_file():
            change()
        return found

    def read(source, *args):
        if source.entry.name == "2.jsonl":
            change()
        return real(source, *args)

    with monkeypatch.context() as patched:
        patched.setattr(files if what in ("gone", "pipe") else files.Source, "listed" if what in ("gone", "pipe") else "lines",
                        listed if what in ("gone", "pipe") else read)  # fmt: skip
        taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"good", "c"} and taken["quarantined"] == 0 and taken["files"] == 2
    take(lake, folder, RULES)
    assert set(standing(lake)) == {"good", "c"} | ({"B"} if what == "other" else set())


def test_a_file_that_grows_while_it_is_read_is_taken_as_it_was(lake, folder, monkeypatch):
    write(folder, "1.jsonl", GOOD)
    real = files.Source.lines

    def grow(source, *args):
        with open(folder / "1.jsonl", "a") as file:
            file.write(lines(debezium("c", row("later", 1), 1)))
        return real(source, *args)

    with monkeypatch.context() as patched:
        patched.setattr(files.Source, "lines", grow)
        take(lake, folder, RULES)
    assert set(standing(lake)) == {"good"}
    taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"good", "later"} and (taken["changes"], taken["repeats"]) == (1, 1)


def test_packed_files_that_are_none(lake, folder):
    good = gzip.compress(lines(*(debezium("c", row(f"o{i}", i), i) for i in range(50))).encode())
    wrong = bytearray(good)
    wrong[-6] ^= 1  # the check sum
    poison = {"cut.jsonl.gz": good[:-9], "sum.jsonl.gz": bytes(wrong), "text.jsonl.gz": text(GOOD), "tail.jsonl.gz": good + b"rest",
              "head.jsonl.gz": good[:10], "zeros.jsonl.gz": bytes(500), "middle.jsonl.gz": good[:60] + b"\0" * 20 + good[80:]}  # fmt: skip
    for name, body in poison.items():
        (folder / name).write_bytes(body)
    two = (text(debezium("c", row("two", 1), 1)) + b"\n", text(debezium("c", row("members", 1), 1)))
    (folder / "1.jsonl.gz").write_bytes(b"".join(map(gzip.compress, two)) + bytes(512))  # padded
    (folder / "empty.jsonl.gz").write_bytes(b"")
    (folder / "packed_empty.jsonl.gz").write_bytes(gzip.compress(b""))
    taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"two", "members"} and taken["quarantined"] == len(poison)
    assert set(reasons(lake)) == {(name, 0) for name in poison}
    assert all(reason.startswith("file: cannot be read (") for reason, _ in reasons(lake).values())
    accounted(lake, taken)
    (folder / "cut.jsonl.gz").write_bytes(good)
    assert take(lake, folder, RULES)["changes"] == 50


def test_ends_of_lines_marks_and_empty_files(lake, folder):
    one, two, three = (text(debezium("c", row(name, 1), 1)) for name in "abc")
    (folder / "mark.jsonl").write_bytes(b"\xef\xbb\xbf" + one + b"\r\n" + two + b"\r\n\r\n" + three)
    bodies = [text(debezium("c", row(f"cr{i}", 1), 1)) for i in range(3)]
    (folder / "cr.jsonl").write_bytes(b"\r".join(bodies) + b"\r{\r")
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "mark_only.jsonl").write_bytes(b"\xef\xbb\xbf")
    (folder / "blank.jsonl").write_bytes(b"\n\r\n \t\n\r")
    mixed = debezium("c", row("line separators", 1, note="a\u2028b\u0085c\x0cd"), 1)
    (folder / "odd.jsonl").write_bytes(json.dumps(mixed, ensure_ascii=False).replace("\\f", "\x0c").encode() + b"\n" + json.dumps(mixed).encode())
    taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"a", "b", "c", "cr0", "cr1", "cr2", "line separators"}
    assert {key for key in reasons(lake) if key[0] != "odd.jsonl"} == {("cr.jsonl", 4), ("mark_only.jsonl", 1)}
    accounted(lake, taken)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_lines_are_cut_alike_however_the_bytes_come(piece, monkeypatch):
    dice = random.Random(piece)
    monkeypatch.setattr(files, "LINE_BYTES", 40)
    monkeypatch.setattr(files, "KEPT_WHOLE", 40)
    monkeypatch.setattr(files, "KEPT_BYTES", 16)
    for _ in range(300):
        whole = b"".join(dice.choice((b"a", b"bc" * 30, b"\n", b"\r", b"\r\n", b"", b"d" * 41, b" ")) for _ in range(dice.randrange(12)))
        found = list(files.lines(whole[at : at + piece] for at in range(0, len(whole), piece)))
        expected = whole.splitlines()
        assert [one.bytes for one in found] == [len(one) for one in expected]
        assert [one.row for one in found] == list(range(1, len(expected) + 1))
        for one, right in zip(found, expected, strict=True):
            assert whole[one.start : one.start + one.bytes] == right and one.body == (right if len(right) <= 40 else right[:16])
            assert one.digest == (hashlib.sha256(right).hexdigest() if len(right) > 40 else None)
        for one in found:  # going on at a line
            assert list(files.lines([whole[one.start :]], one.row, one.start)) == found[one.row - 1 :]


@pytest.mark.slow
def test_a_long_line_is_kept_by_its_first_bytes_its_length_place_and_sum(lake, folder):
    long = b'{"op": "' + b"x" * (3 * 2**20)
    vast = b"[" * (files.LINE_BYTES + 5)
    taken_whole = text(debezium("c", row("wide", 1, note="y" * (2 * 2**20)), 1))
    put(folder, "1.jsonl", text(GOOD), long, vast, taken_whole, b"{}")
    taken = take(lake, folder, RULES)
    assert set(standing(lake)) == {"good", "wide"} and taken["quarantined"] == 3
    found = reasons(lake)
    at = len(text(GOOD)) + 1
    for number, body in ((2, long), (3, vast)):
        reason, kept = found["1.jsonl", number]
        assert kept == body[: files.KEPT_BYTES] and files.KEPT_BYTES == 65_536
        assert f"{len(body):,} bytes from byte {at:,}" in reason and hashlib.sha256(body).hexdigest() in reason
        at += len(body) + 1
    accounted(lake, taken)


@pytest.mark.slow
def test_a_great_file_is_taken_in_parts_and_goes_on_after_a_stop(lake, folder, monkeypatch):
    history = [debezium("c", row(f"o{i:03}", i), i) for i in range(100)]
    body = lines(*(one for pair in zip(history, ["{broken"] * 100, strict=True) for one in pair)).encode()
    (folder / "1.jsonl").write_bytes(body)
    (folder / "2.jsonl.gz").write_bytes(gzip.compress(body.replace(b'"o0', b'"p0')))
    write(folder, "3.jsonl", GOOD)
    batches = []
    stop_after = 4
    first = take(lake, folder, RULES, part_bytes=5000, say=batches.append, stopped=lambda: len(batches) >= stop_after)
    assert first["batches"] == stop_after and 0 < first["changes"] < 100 and first["files"] == 0
    accounted(lake, first)
    monkeypatch.setattr(taking, "BATCH_LINES", 30)
    rest = take(lake, folder, RULES, part_bytes=5000)
    assert rest["batches"] > 8 and rest["files"] == 3
    assert (first["changes"] + rest["changes"], first["repeats"] + rest["repeats"]) == (201, 0)
    assert first["quarantined"] + rest["quarantined"] == 200 and len(standing(lake)) == 201
    rows = lake.read("order_quarantine").to_pylist()
    assert len({(one["source"], one["row"]) for one in rows}) == 200 and {one["row"] for one in rows} == set(range(2, 201, 2))
    accounted(lake, rest)
    assert take(lake, folder, RULES)["batches"] == 0


# --- memory -----------------------------------------------------------------------------------------------------------

TAKER = """
import resource, sys
from pathlib import Path
from assets.lake import Lake
from assets.orders.take import take
from assets.orders.rules import load_rules
folder = Path(sys.argv[1])
take(Lake(str(folder.parent / "lake")), folder, load_rules())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(folder.parent / "bombs").rename(folder / "bombs")
taken = take(Lake(str(folder.parent / "lake")), folder, load_rules())
print(taken["quarantined"], taken["changes"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_half_a_gigabyte_in_a_line_and_bombs_stay_within_memory(lake, folder, tmp_path):
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    write(folder, "0.jsonl", debezium("c", row("first", 1), 1))
    with open(bombs / "long.jsonl", "wb") as file:
        file.truncate(2**29)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + text(GOOD))
    for name, piece in (("zeros", bytes(2**20)), ("lines", b"x\n" * 2**19), ("blank", b"\n" * 2**20)):
        with gzip.open(bombs / f"{name}.jsonl.gz", "wb", compresslevel=9) as file:
            for _ in range(300):
                file.write(piece)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TAKER, str(folder)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    quarantined, changes, more = map(int, done.stdout.split())
    assert (quarantined, changes) == (4, 1) and more < 200 * 1024, "kB beyond a take of one line"
    found = reasons(lake)
    assert found["bombs/long.jsonl", 1][1] == bytes(files.KEPT_BYTES) and "536,870,912 bytes" in found["bombs/long.jsonl", 1][0]
    assert all("unpack to more than" in found[f"bombs/{name}.jsonl.gz", 0][0] for name in ("zeros", "lines", "blank"))


# --- older lakes ------------------------------------------------------------------------------------------------------

NEW = {
    "orders": ("change_place", "rescued", "left_out"), "order_changes": ("change_place",),
    "order_sources": ("skipped", "refused", "next_byte", "next_row"), "order_batches": ("lines", "told", "pairs", "skipped", "rescued"),
}  # fmt: skip


def test_a_lake_from_before_goes_on(lake, folder, tmp_path):
    """Its tables lack columns, its rows have no place: repeats are known, older changes lose, files are not taken twice."""
    history = [debezium("c", row("a", coupon=5), 1, pos=1), debezium("u", row("a", status="shipped"), 5, pos=5), canal("INSERT", [row("k")], 3, number=9)]
    write(folder, "1.jsonl", *history)
    other = Lake(str(tmp_path / "other"))
    take(other, folder, RULES)
    for table in tables.TABLES:
        names = [name for name in other.read(table.name).schema.names if name not in NEW.get(table.name, ())]
        rows = other.read(table.name).select(names)
        old = dataclasses.replace(table, schema=rows.schema)
        lake.create(old)
        lake.commit([lake.stage(Write(old, rows))], by="orders", app=("orders", 0) if table.name == "order_batches" else None)
    assert not set(NEW["orders"]) & set(lake.read("orders").schema.names)
    assert lake.log.newest().apps == other.log.newest().apps
    write(folder, "2.jsonl", *history, debezium("u", row("a", status="refunded"), 2, pos=9), debezium("u", row("a", coupon="x"), 9, pos=2),
          canal("UPDATE", [row("k", status="refunded")], 4, number=10))  # fmt: skip
    taken = take(lake, folder, RULES)
    assert (taken["files"], taken["changes"], taken["repeats"], taken["rescued"]) == (1, 3, 3, 1)
    assert {key: one["status"] for key, one in standing(lake).items()} == {"a": "refunded", "k": "refunded"}
    assert reconcile.reconcile(lake, RULES)["balanced"]


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_takes_what_is_right_beside_all_of_it(tmp_path):
    folder = tmp_path / "orders"
    folder.mkdir()
    put(folder, "1.jsonl", *LINES.values(), text(GOOD), *(text(canal("ALTER", [], 1, isDdl=True, sql=one)) for one in STATEMENTS))
    put(folder, "2.jsonl", *(text(of_row(order_id="h", note=half)) for half in HALF))
    catalogue(folder, (5, 70))
    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
    with open(os.fsencode(folder) + b"/\xff.jsonl", "wb") as file:
        file.write(b"\xff")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLASSHOUSE_HOME": str(tmp_path)}
    for _ in range(2):
        command = [sys.executable, "-c", "from dagster_project.cli import main; main()", "orders"]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert set(standing(Lake(str(tmp_path / "lake")))) == {"good"}


@pytest.mark.slow
def test_the_process_that_follows_lives_through_it_and_hears_a_signal(tmp_path):
    folder = tmp_path / "orders"
    folder.mkdir()
    put(folder, "1.jsonl", *LINES.values(), text(debezium("c", row("first", 1), 1)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLASSHOUSE_HOME": str(tmp_path), "GLASSHOUSE_ORDERS_INTERVAL": "1s"}
    command = [sys.executable, "-c", "from dagster_project.cli import main; main()", "orders", "--follow"]
    lake = Lake(str(tmp_path / "lake"))
    with open(tmp_path / "out", "w") as out, subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out) as process:
        try:
            for name, poison in (("first", None), ("second", b"\xff.jsonl"), ("third", b"loop.jsonl")):
                if poison == b"loop.jsonl":
                    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
                elif poison:
                    Path(os.fsdecode(os.fsencode(folder) + b"/" + poison)).write_bytes(b"[" * 5000)
                write(folder, f"{name}.jsonl", debezium("c", row(name, 1), 1))
                ends = time.monotonic() + 120
                while not (lake.exists("orders") and name in standing(lake)):
                    assert process.poll() is None and time.monotonic() < ends, (tmp_path / "out").read_text()
                    time.sleep(0.3)
        finally:
            process.terminate()
        assert process.wait(60) == 0


# --- files of the field -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orders_d_srcstr", "orders_ddl_backslash.jsonl"])
def test_a_case_from_the_field(lake, folder, name):
    if not (CASES / name).exists():
        pytest.skip(f"the case {name} lies in ../shared/cases, which is not here")
    for number, file in enumerate([CASES / name] if name.endswith(".jsonl") else sorted((CASES / name).glob("*.jsonl"))):
        (folder / f"{number}.jsonl").write_bytes(file.read_bytes())
    taken = take(lake, folder, RULES)
    accounted(lake, taken)
    if name == "orders_d_srcstr":
        assert [reason for reason, _ in reasons(lake).values()] == ["source: not an object"]
    else:
        assert set(standing(lake)) == {"2"} and lake.read("order_changes").filter(
            lake.read("order_changes")["order_id"].is_null())["after"].to_pylist()[0].endswith("C:\\'")  # fmt: skip
