"""A shop in a few lines: changes in both forms, clicks, and the rules once more in plain Python."""

import datetime as dt
import json

import pyarrow as pa

from assets.events.context import retyped
from assets.events.contract import EVENTS
from assets.lake import EPOCH
from assets.orders.rules import load_rules

RULES = load_rules()
T0 = dt.datetime(2026, 1, 5, 6, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def us(minute):
    return (T0 + minute * MINUTE - EPOCH) // dt.timedelta(microseconds=1)


def at(minute):
    return T0 + minute * MINUTE


def row(order_id, placed=0, status="paid", **more):
    """A row of the shop's table. placed: minutes after T0."""
    return {
        "order_id": order_id, "user_id": 1, "product_id": 70, "amount_cents": 1000, "refunded_cents": 0, "status": status,
        "created_at": us(placed), "updated_at": us(placed),
    } | more  # fmt: skip


def debezium(op, values, minute, pos=0, table="orders"):
    """A change by Debezium's MySQL connector, without the envelope of a schema."""
    source = {"connector": "mysql", "table": table, "ts_ms": us(minute) // 1000, "ts_us": us(minute), "file": "b.000002", "pos": pos}
    before, after = (values, None) if op == "d" else (None, values)
    return {"op": op, "before": before, "after": after, "source": source, "ts_us": us(minute)}


def added_column(minute, *columns, table="orders"):
    """Debezium's schema change: the table now has these columns, (name, typeName)."""
    found = [{"name": name, "typeName": kind} for name, kind in columns]
    return {
        "source": {"table": table, "ts_us": us(minute)}, "ddl": f"ALTER TABLE {table} ADD COLUMN ...",
        "tableChanges": [{"type": "ALTER", "id": f'"shop"."{table}"', "table": {"columns": found}}],
    }  # fmt: skip


def canal(kind, rows, minute, number=1, **more):
    """A flat message of Canal: every value is a text."""
    data = [{name: None if value is None else str(value) for name, value in one.items()} for one in rows]
    return {"id": number, "type": kind, "table": "orders", "isDdl": False, "es": us(minute) // 1000, "data": data, **more}


def lines(*records):
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)


def write(folder, name, *records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(lines(*records))


def catalogue(folder, *pairs, name="note_products.jsonl"):
    write(folder, name, *({"note_id": note, "product_id": product} for note, product in pairs))


def click(event_id, minute, user=1, note=5, action="click", channel="search"):
    when = at(minute)
    return {
        "hour": when.replace(minute=0, second=0, microsecond=0), "event_id": event_id, "user_id": user, "note_id": note,
        "action": action, "event_time": when, "ingest_time": when, "dwell_ms": None, "request_id": "r", "channel": channel,
        "position": 0, "context": json.dumps({"author_id": note * 10}),
    }  # fmt: skip


def events(clicks):
    return retyped(pa.Table.from_pylist(list(clicks), EVENTS.schema))


def expected(orders, clicks, planted, rules=RULES):
    """order_id -> (note_id, author_id, channel, click_time, gross, refunded, net), straight from docs/orders.md.

    orders: rows of the shop's table that stand. planted: pairs (note, product).
    """
    found = {}
    for order in orders:
        placed = EPOCH + dt.timedelta(microseconds=order["created_at"])
        led = [
            one for one in clicks
            if one["action"] in rules.actions and one["user_id"] == order["user_id"]
            and (one["note_id"], order["product_id"]) in planted and placed - rules.window <= one["event_time"] < placed
        ]  # fmt: skip
        last = max(led, key=lambda one: (one["event_time"], one["event_id"]), default=None)
        who = (last["note_id"], last["note_id"] * 10, last["channel"], last["event_time"]) if last else (None,) * 4
        gross = order["amount_cents"] if order["status"] in rules.statuses else 0
        back = order["amount_cents"] if order["status"] in rules.full_statuses else order["refunded_cents"] * rules.partial
        back = back if order["status"] in rules.statuses else 0
        found[order["order_id"]] = (*who, gross, back, gross - back)
    return found


ATTRIBUTED = ("note_id", "author_id", "channel", "click_time", "gross_cents", "refunded_cents", "net_cents")


def attributed(lake):
    """What the lake holds, in the form of `expected`."""
    rows = lake.read("order_attributions").to_pylist()
    assert len({one["order_id"] for one in rows}) == len(rows)
    assert all(one["hour"] == one["placed_at"].replace(minute=0, second=0, microsecond=0) for one in rows)
    return {one["order_id"]: tuple(one[name] for name in ATTRIBUTED) for one in rows}


def standing(lake):
    """order_id -> row of `orders` without its place in the stream; the deleted ones left out."""
    rows = lake.read("orders").to_pylist()
    assert len({one["order_id"] for one in rows}) == len(rows)
    return {one["order_id"]: one for one in rows if one["change_op"] != "d"}
