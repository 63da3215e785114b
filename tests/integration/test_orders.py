"""Orders on real Delta tables: a table that follows the shop's, exactly once; credits against a plain reference; totals."""

import dataclasses
import datetime as dt
import gzip
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from assets.events.contract import EVENTS
from assets.lake import Window, Write, windows
from assets.orders import reconcile
from assets.orders.tables import ORDER_ATTRIBUTIONS, ORDERS
from assets.orders.take import OrderError, take
from assets.tidy import tidy
from tests.orders import (
    RULES, T0, added_column, at, attributed, canal, catalogue, click, debezium, events, expected, lines, row, standing, us,
    write,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
HOUR, DAY = dt.timedelta(hours=1), 24 * 60
TABLES = ("order_changes", "orders", "order_attributions", "note_products", "order_quarantine", "order_sources",
          "planting_actions")  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "orders"


def contents(lake, names=TABLES):
    """Rows of the tables, without the times of taking."""
    clock = {"landed_at", "modified_ns"}
    found = {}
    for name in names:
        drop = clock | ({"hour"} if name == "order_quarantine" else set())
        rows = lake.read(name).to_pylist()
        found[name] = sorted((str({k: v for k, v in one.items() if k not in drop}) for one in rows))
    return found


def append(lake, clicks, number):
    lake.append_once(EVENTS, events(clicks), "test", number)


# --- a table that follows the shop's ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["debezium", "canal"])
def test_insert_update_and_delete(lake, folder, form):
    a, b = row("a"), row("b", 70)
    paid = a | {"status": "refunded", "refunded_cents": 1000}
    if form == "debezium":
        first = [debezium("c", a, 0), debezium("c", b, 70)]
        then = [debezium("u", paid, 90), debezium("d", {"order_id": "b"}, 95)]
    else:
        first = [canal("INSERT", [a], 0), canal("INSERT", [b], 70)]
        then = [canal("UPDATE", [paid], 90, old=[{"status": "paid"}]), canal("DELETE", [b], 95)]
    write(folder, "1.jsonl", *first)
    assert take(lake, folder, RULES)["orders"] == 2
    assert {key: one["status"] for key, one in standing(lake).items()} == {"a": "paid", "b": "paid"}
    write(folder, "2.jsonl", *then)
    taken = take(lake, folder, RULES)
    assert (taken["changes"], taken["orders"], taken["quarantined"]) == (2, 2, 0)
    (left,) = standing(lake).values()
    assert (left["status"], left["refunded_cents"], left["hour"], left["change_op"]) == ("refunded", 1000, T0, "u")
    assert list(attributed(lake).values()) == [(None, None, None, None, 1000, 1000, 0)]
    assert lake.read("order_changes").num_rows == 4
    assert reconcile.reconcile(lake, RULES)["balanced"]


def test_a_column_that_is_announced_or_simply_comes_is_added_and_old_rows_have_none(lake, folder):
    write(folder, "1.jsonl", debezium("c", row("a"), 0))
    take(lake, folder, RULES)
    before = lake.read("orders").schema.names
    write(folder, "2.jsonl", added_column(5, ("coupon_cents", "BIGINT"), ("wrap", "VARCHAR")))
    take(lake, folder, RULES)
    assert lake.read("orders").schema.names == [*before, "coupon_cents", "wrap"]
    write(folder, "3.jsonl", debezium("c", row("b", 6, coupon_cents=250, hour="noon"), 6), debezium("c", row("c", 6, coupon_cents="x"), 7))
    taken = take(lake, folder, RULES)
    assert (taken["quarantined"], taken["rescued"]) == (0, 1)
    held = standing(lake)
    assert [held[key]["coupon_cents"] for key in "ab"] == [None, 250] and held["b"]["shop_hour"] == "noon"
    assert held["a"]["hour"] == held["b"]["hour"], "the hour of the old row was made anew with the new column"
    assert (held["c"]["coupon_cents"], held["c"]["rescued"]) == (None, '{"coupon_cents":"x"}')
    names = {name: str(kind) for name, kind in zip(lake.read("orders").schema.names, lake.read("orders").schema.types, strict=True)}
    assert (names["coupon_cents"], names["shop_hour"]) == ("int64", "string")
    write(folder, "4.jsonl", debezium("u", row("a", 0, status="shipped"), 8))  # a shop whose other writer lacks the column
    take(lake, folder, RULES)
    assert standing(lake)["a"]["status"] == "shipped" and standing(lake)["b"]["coupon_cents"] == 250


def test_repeats_change_nothing_whatever_file_they_come_in(lake, folder):
    history = [debezium("c", row("a"), 0), debezium("u", row("a", status="shipped"), 5), debezium("c", row("b", 61), 61)]
    write(folder, "1.jsonl", *history)
    take(lake, folder, RULES)
    before, moment = contents(lake, ("order_changes", "orders", "order_attributions")), lake.log.newest().number
    assert take(lake, folder, RULES)["batches"] == 0 and lake.log.newest().number == moment
    write(folder, "2.jsonl", *history)  # the same content under another name: no new file
    assert take(lake, folder, RULES)["changes"] == 0
    write(folder, "3.jsonl", *history[::-1], history[0])  # other content, the same changes
    taken = take(lake, folder, RULES)
    assert (taken["changes"], taken["repeats"], taken["orders"], taken["hours"]) == (0, 4, 0, 0)
    assert contents(lake, ("order_changes", "orders", "order_attributions")) == before
    os.utime(folder / "1.jsonl", ns=(1, 1))
    assert take(lake, folder, RULES)["changes"] == 0


def test_broken_lines_lie_in_quarantine_with_their_bytes_and_the_rest_goes_on(lake, folder):
    good, other = debezium("c", row("a"), 0), debezium("c", row("z"), 0, table="users")
    write(folder, "1.jsonl", "{broken", good, "", other)
    write(folder, "note_products.jsonl", {"note_id": 5, "product_id": 70}, {"note_id": "five"})
    (folder / "2.jsonl.gz").write_bytes(gzip.compress(lines(debezium("c", row("b"), 1)).encode()))
    (folder / "3.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
    (folder / ".4.jsonl").write_text("half")
    taken = take(lake, folder, RULES)
    assert (taken["files"], taken["changes"], taken["quarantined"]) == (4, 2, 4) and set(standing(lake)) == {"a", "b"}
    rows = lake.read("order_quarantine").to_pylist()
    names = dict(zip(*(lake.read("order_sources")[name].to_pylist() for name in ("source", "name")), strict=True))
    found = {(names[one["source"]], one["row"]): (one["body"], one["reason"]) for one in rows}
    assert found["1.jsonl", 1] == (b"{broken", "line: not JSON")
    assert found["1.jsonl", 4][1] == "table: 'users' is not 'orders'"
    assert found["note_products.jsonl", 2][1] == "product_id: missing"
    assert found["3.jsonl.gz", 0][1].startswith("file: cannot be read")
    assert take(lake, folder, RULES)["batches"] == 0


def test_an_order_that_moves_to_another_hour_leaves_its_old_one(lake, folder):
    write(folder, "1.jsonl", debezium("c", row("a", 0), 0))
    take(lake, folder, RULES)
    write(folder, "2.jsonl", debezium("u", row("a", 200), 201))
    take(lake, folder, RULES)
    assert standing(lake)["a"]["hour"] == T0 + 3 * HOUR and list(attributed(lake)) == ["a"]
    assert lake.hours("orders") == lake.hours("order_attributions") == [T0 + 3 * HOUR]


def test_only_the_hours_that_are_touched_are_made_anew(lake, folder):
    write(folder, "1.jsonl", *(debezium("c", row(f"o{i}", i * 60), i * 60) for i in range(6)))
    take(lake, folder, RULES)
    files = {path: hour for path, hour in files_of(lake, "order_attributions").items()}
    write(folder, "2.jsonl", *(debezium("u", row(f"o{i}", i * 60, refunded_cents=1), 5000) for i in (1, 4)))
    assert take(lake, folder, RULES)["hours"] == 2
    now = files_of(lake, "order_attributions")
    assert {hour for path, hour in now.items() if path not in files} == {T0 + HOUR, T0 + 4 * HOUR}
    assert len(now) == 6
    note = lake.log.newest().note
    assert note["hours"] == {"order_attributions": [(T0 + HOUR).isoformat(), (T0 + 4 * HOUR).isoformat()]}


def files_of(lake, name):
    from assets.orders.clicks import files_of as listed

    return listed(lake.open(name))


def test_nothing_has_landed(lake, folder):
    assert take(lake, folder, RULES)["batches"] == 0
    found = reconcile.summary(lake)
    assert (found["orders"], found["attributed_orders"], found["taken_at"]) == (0, None, None)
    assert reconcile.reconcile(lake, RULES)["balanced"]


def test_a_lake_without_a_commit_log_is_refused(folder):
    from assets.lake import Lake

    with pytest.raises(OrderError, match="local disk"):
        take(Lake("s3://bucket/lake"), folder, RULES)


# --- credits ----------------------------------------------------------------------------------------------------------


def test_the_last_click_within_the_window_gets_the_order(lake, folder):
    week = 7 * DAY
    orders = [
        row("edge_in", week, user_id=1), row("edge_out", week + 1, user_id=2), row("same_moment", 50, user_id=3),
        row("last", 90, user_id=4), row("tie", 90, user_id=5), row("other_product", 90, user_id=4, product_id=71),
        row("nobody", 90, user_id=99), row("placed", 90, user_id=4, status="placed"),
        row("part", 95, user_id=4, status="shipped", refunded_cents=300),
    ]  # fmt: skip
    clicks = [
        click("c1", 0, 1), click("c2", 0, 2), click("c3", 50, 3), click("c4", 10, 4, note=5), click("c5", 20, 4, note=6),
        click("c6", 21, 4, note=7), click("c7", 22, 4, note=6, action="like"), click("c9", 30, 5, note=5), click("c8", 30, 5, note=6),
    ]  # fmt: skip
    append(lake, clicks, 1)
    catalogue(folder, (5, 70), (6, 70), (7, 71))
    write(folder, "orders.jsonl", *(debezium("c", one, 0) for one in orders))
    take(lake, folder, RULES)
    found = attributed(lake)
    assert {key: value[0] for key, value in found.items()} == {
        "edge_in": 5, "edge_out": None, "same_moment": None, "last": 6, "tie": 5, "other_product": 7, "nobody": None,
        "placed": 6, "part": 6,
    }  # fmt: skip
    assert found["placed"][4:] == (0, 0, 0) and found["part"][4:] == (1000, 300, 700)
    assert found == expected(orders, clicks, {(5, 70), (6, 70), (7, 71)})


def world(dice):
    """Random orders with their lives, clicks, and a catalogue; small, so that they meet."""
    planted = {(note, 70 + dice.randrange(3)) for note in range(8) for _ in range(dice.randrange(3))}
    clicks = [
        click(f"e{i}", dice.randrange(-DAY, 3 * DAY), dice.randrange(4), dice.randrange(8), dice.choice(["click", "click", "like"]))
        for i in range(120)
    ]
    history, final = [], {}
    for i in range(40):
        placed = dice.randrange(0, 3 * DAY)
        now = row(f"o{i}", placed, "placed", user_id=dice.randrange(4), product_id=70 + dice.randrange(3), amount_cents=i * 10)
        history.append(debezium("c", now, placed))
        when = placed
        for status in dice.choice([(), ("paid",), ("paid", "shipped"), ("paid", "refunded"), ("cancelled",), ("paid", "gone")]):
            when += dice.randrange(1, 600)
            if status == "gone":
                history.append(debezium("d", {"order_id": now["order_id"]}, when))
                now = None
                break
            now = now | {"status": status, "refunded_cents": dice.choice([0, 0, 7])}
            history.append(debezium("u", now, when))
        if now:
            final[now["order_id"]] = now
    return planted, clicks, history, final


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_arrives_when_the_credits_are_those_of_the_rules(lake, folder, seed):
    """Changes out of order and repeated, clicks late, hours of events replaced, the catalogue in pieces, compaction."""
    dice = random.Random(seed)
    planted, clicks, history, final = world(dice)
    rules = dataclasses.replace(RULES, window_days=1, actions=("click",) if seed % 2 else ("click", "like"), partial=seed % 3 > 0)
    arrivals = history + dice.choices(history, k=20)
    dice.shuffle(arrivals)
    waiting, pairs, held = list(clicks), sorted(planted), []
    dice.shuffle(waiting)
    for batch in range(5):
        here, arrivals = arrivals[: len(arrivals) // (5 - batch)], arrivals[len(arrivals) // (5 - batch) :]
        write(folder, f"{batch}.jsonl", *here)
        landed, waiting = waiting[: len(waiting) // (5 - batch)], waiting[len(waiting) // (5 - batch) :]
        append(lake, landed, batch)
        held += landed
        catalogue(folder, *pairs[batch::5], name=f"note_products-{batch}.jsonl")
        if batch == 2:  # an hour is recomputed, and half of its clicks are gone
            hour = dice.choice(held)["hour"]
            gone = [one for one in held if one["hour"] == hour and one["event_id"] > "e5"]
            held = [one for one in held if one not in gone]
            lake.replace_window(EVENTS, events(one for one in held if one["hour"] == hour), Window(hour, hour + HOUR))
        if batch == 3:
            tidy(lake, open_hours=0)
        take(lake, folder, rules, batch_bytes=dice.choice([None, 1]))
        assert reconcile.reconcile(lake, rules)["balanced"]
    assert attributed(lake) == expected(final.values(), held, planted, rules)
    assert set(standing(lake)) == set(final) and lake.read("order_changes").num_rows == len(history)
    assert any(one[0] is not None for one in attributed(lake).values())


def test_other_rules_make_every_hour_anew(lake, folder):
    orders = [row("a", 60), row("b", 3 * DAY)]
    append(lake, [click("c1", 0)], 1)
    catalogue(folder, (5, 70))
    write(folder, "1.jsonl", *(debezium("c", one, 0) for one in orders))
    take(lake, folder, RULES)
    assert [one[0] for one in attributed(lake).values()] == [5, 5]
    shorter = dataclasses.replace(RULES, window_days=1)
    assert not reconcile.reconcile(lake, shorter)["balanced"], "rows of other rules are told"
    assert take(lake, folder, shorter)["hours"] == 2
    assert attributed(lake) == expected(orders, [click("c1", 0)], {(5, 70)}, shorter)
    assert reconcile.reconcile(lake, shorter)["balanced"]


# --- totals -----------------------------------------------------------------------------------------------------------


def test_totals_that_do_not_agree_are_told_with_the_hour(lake, folder):
    write(folder, "1.jsonl", *(debezium("c", row(f"o{i}", i * 60, refunded_cents=i), i * 60) for i in range(3)))
    take(lake, folder, RULES)
    found = reconcile.reconcile(lake, RULES)
    totals = {"orders": 3, "gross_cents": 3000, "refunded_cents": 3, "net_cents": 2997}
    assert found["balanced"] and found["orders"] == found["attributions"] == totals
    held, hour = lake.read("order_attributions"), T0 + HOUR
    whole = held.filter(pa.compute.equal(held["hour"], pa.scalar(hour, held.schema.field("hour").type)))
    cent = whole.set_column(whole.schema.get_field_index("net_cents"), "net_cents", pa.array([998], pa.int64()))
    for wrong in (cent, whole.slice(1), pa.concat_tables([whole, whole])):
        lake.replace_window(ORDER_ATTRIBUTIONS, wrong, Window(hour, hour + HOUR))
        found = reconcile.reconcile(lake, RULES)
        assert not found["balanced"] and found["wrong_hours"] == [hour.isoformat()]
    assert found["repeated"] == 1


def test_the_summary_counts_what_there_is(lake, folder):
    append(lake, [click("c1", 0)], 1)
    catalogue(folder, (5, 70))
    write(folder, "1.jsonl", debezium("c", row("a", 5), 5), debezium("c", row("b", 5, user_id=2, amount_cents=3000), 5),
          debezium("c", row("c"), 6), debezium("d", {"order_id": "c"}, 7), "?")  # fmt: skip
    take(lake, folder, RULES)
    found = reconcile.summary(lake)
    assert (found["orders"], found["deleted"], found["changes"], found["quarantined"]) == (2, 1, 4, 1)
    assert (found["gross_cents"], found["attributed_orders"], found["attributed_net"]) == (4000, 0.5, 0.25)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_neighbouring_hours_are_one_window_and_others_stay(lake):
    assert windows([at(120), at(0), at(60), at(300)]) == [Window(at(0), at(180)), Window(at(300), at(360))]
    write_hours = [{"hour": at(60 * n), "order_id": str(n)} for n in range(6)]
    rows = pa.Table.from_pylist(write_hours, ORDERS.schema)
    lake.append_once(ORDERS, rows, "t", 0)
    new = pa.Table.from_pylist([{"hour": at(300), "order_id": "new"}], ORDERS.schema)
    lake.replace_windows([Write(ORDERS, new, windows([at(60), at(300)]))], by="t")
    assert sorted(lake.read("orders")["order_id"].to_pylist()) == ["0", "2", "3", "4", "new"]
    with pytest.raises(Exception, match="lies outside of"):
        lake.stage(Write(ORDERS, rows, windows([at(60), at(300)])))


# --- crashes ----------------------------------------------------------------------------------------------------------

TAKER = """
import os, signal, sys
from pathlib import Path
from assets.lake import Lake
from assets.orders.take import take
from assets.orders.rules import load_rules
lake, folder, point, times = sys.argv[1:]
left = int(times)
def probe(at):
    global left
    left -= at == point
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
take(Lake(lake), Path(folder), load_rules(), probe=probe, batch_bytes=1)
"""
POINTS = (
    "gathered", "read", "columns", "staged", "intent", "order_changes", "orders", "order_attributions", "order_batches", "order_sources",
    "published",
)  # fmt: skip


def killed(lake, folder, point, times=1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", TAKER, lake.root, str(folder), point, str(times)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_killed_at_every_point_nothing_is_lost_or_doubled(lake, folder, tmp_path):
    from assets.lake import Lake

    planted, clicks, history, final = world(random.Random(3))
    append(lake, clicks, 1)
    catalogue(folder, *sorted(planted))
    for at_, start in enumerate(range(0, len(history), 4)):
        extra = [added_column(at_, (f"extra_{at_}", "BIGINT"))]
        write(folder, f"orders-{at_:03}.jsonl", *history[start : start + 4], *extra, "{broken")
    for point in POINTS:
        done = killed(lake, folder, point, times=1 if point == "gathered" else 2)
        assert done.returncode == -signal.SIGKILL, (point, done.stdout, done.stderr)
    assert killed(lake, folder, "never").returncode == 0
    straight = Lake(str(tmp_path / "straight"))
    append(straight, clicks, 1)
    take(straight, folder, RULES)
    assert contents(lake) == contents(straight)
    assert attributed(lake) == expected(final.values(), clicks, planted)
    assert reconcile.reconcile(lake, RULES)["balanced"]
    assert [one["batch"] for one in sorted(lake.read("order_batches").to_pylist(), key=lambda one: one["batch"])] == list(
        range(lake.log.newest().apps["orders"] + 1)
    )


@pytest.mark.slow
def test_two_at_once_take_every_file_once(lake, folder):
    for i in range(12):
        write(folder, f"{i:02}.jsonl", *(debezium("c", row(f"o{i}-{j}", i * 60 + j), i) for j in range(5)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", TAKER, lake.root, str(folder), "never", "1"]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert lake.read("order_changes").num_rows == 60 and len(standing(lake)) == 60
    assert lake.read("order_sources").num_rows == 12 and reconcile.reconcile(lake, RULES)["balanced"]


def test_what_is_made_up_in_tests_is_what_they_say():
    assert us(0) == 1_767_592_800_000_000 and at(0) == T0
