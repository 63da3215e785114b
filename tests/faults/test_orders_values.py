"""Values and orders of changes that databases really send: no order is lost for a column nobody needs, no older state wins.

Here: the log's order and what columns hold. Not here: what cannot be read at all (test_orders_poison.py).
"""

import json
import random
from pathlib import Path

import pytest

from assets.orders import reconcile
from assets.orders.changes import Reader
from assets.orders.current import apply
from assets.orders.take import take
from tests.orders import RULES, T0, at, canal, debezium, row, standing, us, write

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "orders").mkdir()
    return tmp_path / "orders"


def state(messages, reader=None):
    """order_id -> its row, of the orders that stand."""
    reader = reader or Reader("orders", "UTC")
    changes = [change for one in messages for change in reader.line(json.dumps(one).encode())]
    return {key: one for key, one in apply(changes, {}).items() if one["change_op"] != "d"}


# --- the log's order --------------------------------------------------------------------------------------------------

SOURCES = {
    "mysql": lambda n, at: {"file": f"b.{n // 10:06}", "pos": 4 + n % 10 * 1000, "row": 0},
    "postgres": lambda n, at: {"lsn": 24_000_000 + n * 56},
    "sqlserver": lambda n, at: {"commit_lsn": f"00000027:{n // 3:08x}:0003", "change_lsn": f"00000027:{n // 3:08x}:{n % 3 + 1:04x}", "event_serial_no": 1},
    "oracle": lambda n, at: {"scn": str(9_000_000 + n // 4), "commit_scn": str(9_000_000 + n // 4), "rs_id": "0x000001.00000002.0010", "ssn": n % 4},
    "oracle without its commit": lambda n, at: {"scn": str(9_000_000 + n // 4), "ssn": n % 4},
}  # fmt: skip


class Shop:
    """A shop's table, and the log of what was done to it: (op, row, time in minutes). The clock goes back now and then."""

    def __init__(self, dice, steps=120):
        self.rows, self.log, clock = {}, [], 0
        for _ in range(steps):
            clock += dice.choice((0, 0, 1, 1, 3, -2))
            key = f"o{dice.randrange(6)}"
            if key not in self.rows:
                self.rows[key] = row(key, amount_cents=dice.randrange(3) * 100)  # a row may come back just as it was
                self.log.append(("c", self.rows[key], clock))
            elif dice.random() < 0.35:
                self.log.append(("d", self.rows.pop(key), clock))
            else:
                self.rows[key] = self.rows[key] | {"status": dice.choice(("paid", "refunded", "shipped"))}
                self.log.append(("u", self.rows[key], clock))

    def as_of(self, place):
        rows = {}
        for op, values, _ in self.log[: place + 1]:
            rows[values["order_id"]] = None if op == "d" else values
        return [one for one in rows.values() if one]


def alike(found, shop):
    names = ("amount_cents", "status")
    return {key: [one[name] for name in names] for key, one in found.items()} == {key: [one[name] for name in names] for key, one in shop.rows.items()}


@pytest.mark.parametrize("form", SOURCES)
@pytest.mark.parametrize("seed", range(8))
def test_a_random_shop_whatever_its_clock_says_and_whenever_a_snapshot_is_read(form, seed):
    dice = random.Random(seed)
    shop = Shop(dice)
    messages = []
    for number, (op, values, minute) in enumerate(shop.log):
        messages.append(debezium(op, values, minute))
        messages[-1]["source"] = {"table": "orders", "ts_ms": us(minute) // 1000} | SOURCES[form](number, minute)
    for place in dice.sample(range(len(shop.log)), 3):  # snapshots, of which all or some is read much later
        if form == "sqlserver" and place % 3 != 2 or form.startswith("oracle") and place % 4 != 3:
            continue  # a snapshot sees whole transactions
        for values in shop.as_of(place):
            messages.append(debezium("r", values, 500 + place))
            source = {"table": "orders", "ts_ms": us(500 + place) // 1000, "snapshot": "true"} | SOURCES[form](place, 0)
            messages[-1]["source"] = {name: value for name, value in source.items() if name not in ("change_lsn", "event_serial_no", "ssn", "rs_id")}
            if form == "sqlserver":
                messages[-1]["source"]["commit_lsn"] = f"00000027:{place // 3:08x}:0003"
    messages += dice.choices(messages, k=30)
    dice.shuffle(messages)
    assert alike(state(messages), shop)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_shop_by_canal_in_batches_that_come_again(seed, lake, folder):
    dice = random.Random(seed)
    shop = Shop(dice)
    batches, left = [], list(shop.log)
    while left:
        size = dice.randrange(1, 6)
        here, left = left[:size], left[size:]
        kinds = {"c": "INSERT", "u": "UPDATE", "d": "DELETE"}
        batches.append([canal(kinds[op], [values], minute, number=7 + len(batches)) for op, values, minute in here])
    stream = []
    for number, batch in enumerate(batches):
        stream += batch
        if dice.random() < 0.2:  # not acknowledged: all since some batch comes again
            stream += [one for again in batches[dice.randrange(number + 1) : number + 1] for one in again]
    assert alike(state(stream), shop)
    if seed == 0:  # the same through the lake, cut anywhere into files
        cut = len(stream) // 3
        for number in range(3):
            write(folder, f"{number}.jsonl", *stream[number * cut : (number + 1) * cut if number < 2 else None])
            take(lake, folder, RULES)
        assert alike(standing(lake), shop)


def test_canals_numbers_begin_anew_with_its_server():
    before, after = canal("INSERT", [row("a")], 0, number=5000), canal("UPDATE", [row("a", status="refunded")], 60, number=1)
    assert state([before, after])["a"]["status"] == state([after, before])["a"]["status"] == "refunded"


def test_delete_and_insert_in_one_transaction_leave_the_insert_of_two_that_are_alike():
    """The same row, deleted and inserted again as it was: neither is a repeat of the other."""
    for form, place in SOURCES.items():
        parts = [("c", 1), ("d", 4), ("c", 5)]
        messages = [debezium(op, row("a"), 5) for op, _ in parts]
        for one, (_, number) in zip(messages, parts, strict=True):
            one["source"] = {"table": "orders", "ts_ms": us(5) // 1000} | place(number, 5)
        assert set(state(messages)) == set(state(messages[::-1])) == {"a"}, form


def test_an_oracle_transaction_that_was_open_at_the_snapshot_comes_after_it():
    old, new = debezium("r", row("a"), 9), debezium("u", row("a", status="refunded"), 3)
    old["source"] = {"table": "orders", "ts_ms": us(9) // 1000, "scn": "500", "snapshot": "true"}
    new["source"] = {"table": "orders", "ts_ms": us(3) // 1000, "scn": "450", "commit_scn": "510", "ssn": 0}
    assert state([old, new])["a"]["status"] == state([new, old])["a"]["status"] == "refunded"


# --- columns ----------------------------------------------------------------------------------------------------------

UNNEEDED = {
    "tinyint(1) that is 2": ("tinyint(1)", "2", None), "tinyint(1)": ("tinyint(1)", "1", True),
    "a zero date": ("datetime", "0000-00-00 00:00:00", "null"), "a birthday": ("datetime", "1985-03-01 00:00:00", "1985-03-01T00:00:00+00:00"),
    "the end of time": ("datetime", "9999-12-31 23:59:59", "9999-12-31T23:59:59+00:00"), "its beginning": ("datetime", "0001-01-01 00:00:00", None),
    "an unsigned bigint": ("bigint unsigned", str(2**64 - 1), None), "a widened int": ("int", "gold", None), "a number": ("int", "5", 5),
    "a double": ("double", "NaN", None), "nothing": ("int", None, "null"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNNEEDED)
def test_a_column_that_nobody_needs_costs_no_order(name):
    kind, value, expected = UNNEEDED[name]
    message = canal("INSERT", [row("a")], 1, mysqlType={"extra": kind})
    message["data"][0]["extra"] = value
    (order,) = state([message]).values()
    if expected is None:
        assert order["extra"] is None and json.loads(order["rescued"]) == {"extra": value}
    else:
        found = order["extra"].isoformat() if hasattr(order["extra"], "isoformat") else order["extra"]
        assert found == (None if expected == "null" else expected) and order["rescued"] is None


@pytest.mark.parametrize("name", ["user_id", "product_id", "updated_at"])
def test_an_order_of_a_user_that_does_not_fit_counts_and_is_nobodys(lake, folder, name):
    write(folder, "1.jsonl", debezium("c", row("a") | {name: "?"}, 1), debezium("c", {key: one for key, one in row("b").items() if key != name}, 1))
    assert take(lake, folder, RULES)["quarantined"] == 0
    assert standing(lake)["a"][name] is None and json.loads(standing(lake)["a"]["rescued"]) == {name: "?"}
    found = reconcile.reconcile(lake, RULES)
    assert found["balanced"] and found["orders"]["gross_cents"] == 2000


@pytest.mark.parametrize(("factor", "shown"), [(1, "µs"), (1000, "ms"), (0.001, "ns")])
def test_times_whose_unit_nobody_says_are_told_by_their_size(factor, shown):
    when = int(us(7) / factor)
    (order,) = state([debezium("c", row("a") | {"created_at": when}, 9)]).values()
    assert abs(order["created_at"] - at(7)).total_seconds() < 1e-3, shown


def test_a_snapshot_whose_source_has_no_time_has_that_of_the_envelope():
    message = debezium("r", row("a"), 3)
    message["source"] |= {"ts_ms": 0, "ts_us": 0}
    assert state([message])["a"]["change_time"] == at(3)


PLACEHOLDERS = ("__debezium_unavailable_value", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", ["__debezium_unavailable_value"])


@pytest.mark.parametrize("seed", range(12))
def test_a_value_that_postgres_left_out_is_the_one_known_whatever_the_order_of_arrival(seed):
    dice = random.Random(seed)
    messages, notes, note = [], {}, None
    for number in range(30):
        key = f"o{dice.randrange(3)}"
        op, keep = ("u", dice.random() < 0.6) if key in notes else ("c", False)
        if key in notes and dice.random() < 0.15:
            op = "d"
            notes.pop(key)
        elif not keep:
            notes[key] = note = dice.choice((None, f"v{number}", "gold", 5))
        values = row(key, status=dice.choice(("paid", "shipped")), note=dice.choice(PLACEHOLDERS) if keep and op == "u" else note)
        messages.append(debezium(op, values, number))
        messages[-1]["source"] = {"table": "orders", "ts_ms": us(number) // 1000, "lsn": 1000 + number}
    reader = Reader("orders", "UTC")
    reader.line(json.dumps(debezium("c", row("z", note="text"), 0)).encode())
    dice.shuffle(messages)
    found = state(messages, reader)
    assert {key: one.get("note") for key, one in found.items()} == {key: None if one is None else str(one) for key, one in notes.items()}


def test_a_value_that_was_left_out_stays_in_the_lake(lake, folder):
    first, then = debezium("c", row("a", note="long", points="many"), 1, pos=1), debezium("u", row("a", note=PLACEHOLDERS[0], points=5), 2, pos=2)
    last = debezium("u", row("a", status="refunded", note=PLACEHOLDERS[0], points=PLACEHOLDERS[0]), 3, pos=3)
    write(folder, "0.jsonl", last)
    take(lake, folder, RULES)
    write(folder, "1.jsonl", debezium("c", row("b", points=1), 1), first)
    take(lake, folder, RULES)
    held = standing(lake)["a"]
    assert (held["note"], held["points"], json.loads(held["rescued"])) == ("long", None, {"points": "many"})
    write(folder, "2.jsonl", then)
    take(lake, folder, RULES)
    held = standing(lake)["a"]
    assert (held["note"], held["points"], held["rescued"], held["status"]) == ("long", 5, None, "refunded")
    write(folder, "3.jsonl", first, then, last)
    assert take(lake, folder, RULES)["orders"] == 0


# --- what was refused -------------------------------------------------------------------------------------------------


def test_revenue_that_was_refused_is_told_with_its_sum_until_it_is_made_good(lake, folder):
    write(
        folder, "1.jsonl", debezium("c", row("taken"), 1), debezium("c", row("time") | {"created_at": "soon"}, 2), "{broken", "[1]",
        debezium("u", row("time") | {"created_at": "later"}, 3), debezium("c", row("open", status="placed") | {"created_at": None}, 3),
        debezium("c", row("amount") | {"amount_cents": "much"}, 3), debezium("c", row("else"), 3, table="users"),
        canal("INSERT", [row("one") | {"created_at": "x"}, row("two", amount_cents=50)], 4), debezium("d", {"order_id": None}, 4),
    )  # fmt: skip
    assert take(lake, folder, RULES)["changes"] == 1
    found = reconcile.reconcile(lake, RULES)
    assert found["agree"] and not found["balanced"]
    assert (found["refused"], found["refused_cents"], found["refused_unread"]) == (4, 2050, 1)
    write(folder, "2.jsonl", debezium("u", row("time"), 5), debezium("c", row("amount"), 3), canal("INSERT", [row("one"), row("two")], 4))
    take(lake, folder, RULES)
    assert reconcile.reconcile(lake, RULES)["balanced"]


# --- files of the field -----------------------------------------------------------------------------------------------

FIELD = {  # case -> (orders that stand, gross cents, refunded cents)
    "orders_c_batch_replace": (1, 2500, 0), "orders_c_birth": (1, 1000, 0), "orders_c_schema_then_ms": (2, 2000, 0),
    "orders_c_tiny": (1, 1000, 0), "orders_c_widen": (3, 3000, 0), "orders_c_zero": (1, 1000, 0), "orders_ms_ints": (1, 1000, 0),
    "orders_mysql_snap_zero": (1, 1000, 0), "orders_snap_stale": (1, 1000, 1000), "orders_sqlserver_tx": (1, 2500, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELD)
def test_a_case_from_the_field(lake, folder, name):
    if not (CASES / name).exists():
        pytest.skip(f"the case {name} lies in ../shared/cases, which is not here")
    for file in sorted((CASES / name).glob("*.jsonl")):
        (folder / file.name).write_bytes(file.read_bytes())
    assert take(lake, folder, RULES)["quarantined"] == 0
    found = reconcile.reconcile(lake, RULES)
    count, gross, refunded = FIELD[name]
    assert found["orders"] == {"orders": count, "gross_cents": gross, "refunded_cents": refunded, "net_cents": gross - refunded}
    assert found["balanced"]
    if name == "orders_c_schema_then_ms":
        assert standing(lake)["1"]["shipped_at"].replace(minute=0, second=0) == T0.replace(hour=8) and standing(lake)["2"]["shipped_at"] is None
    if name == "orders_c_tiny":
        assert json.loads(standing(lake)["1"]["rescued"]) == {"kind": "2"}
    if name == "orders_c_zero":
        assert standing(lake)["1"]["shipped_at"] is None and standing(lake)["1"]["rescued"] is None
