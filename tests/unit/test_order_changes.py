"""Lines of change streams: both forms, columns that appear, what is refused; which change wins; the rules file."""

import dataclasses
import datetime as dt
import json
import random

import pyarrow as pa
import pytest

from assets.events.contract import TIME
from assets.orders.changes import Broken, Reader, added_columns, column_name, sql_kind
from assets.orders.current import apply
from assets.orders.rules import SHIPPED, RulesError, load_rules, parse_rules
from tests.orders import RULES, added_column, at, canal, debezium, row, us


@pytest.fixture
def reader():
    return Reader("orders", "UTC")


def read(reader, record):
    return reader.line(record if isinstance(record, bytes) else json.dumps(record).encode())


def refused(reader, record):
    with pytest.raises(Broken) as error:
        read(reader, record)
    return str(error.value)


# --- forms ------------------------------------------------------------------------------------------------------------


def test_debezium_with_and_without_its_envelope_says_the_same(reader):
    plain = debezium("u", row("a", 3, status="shipped"), 9, pos=41)
    (change,) = read(reader, plain)
    assert (change.op, change.order_id, change.time, change.position, change.item) == ("u", "a", us(9), 2 * 2**40 + 41, 0)
    assert change.values["created_at"] == at(3) and change.values["status"] == "shipped"
    assert read(reader, {"schema": {"fields": []}, "payload": plain}) == [change]


def test_the_envelopes_schema_tells_the_unit_of_times_and_the_type_of_columns(reader):
    kinds = [
        {"field": "created_at", "type": "int64", "name": "io.debezium.time.Timestamp"},
        {"field": "updated_at", "type": "int64", "name": "io.debezium.time.NanoTimestamp"},
        {"field": "weight", "type": "double"},
    ]
    values = row("a") | {"created_at": us(3) // 1000, "updated_at": us(4) * 1000, "weight": 2}
    record = {"schema": {"fields": [{"field": "after", "fields": kinds}]}, "payload": debezium("c", values, 9)}
    (change,) = read(reader, record)
    assert (change.values["created_at"], change.values["updated_at"]) == (at(3), at(4))
    assert change.values["weight"] == 2.0 and reader.kinds["weight"] == pa.float64()


def test_canal_rows_are_texts_and_each_is_a_change(reader):
    values = row("a") | {"created_at": "2026-01-05 06:03:00", "updated_at": "2026-01-05T14:04:00+08:00"}
    first, second = read(reader, canal("INSERT", [values, row("b")], 9, number=17))
    assert (first.op, first.position, first.item, second.item) == ("c", 17, 0, 1)
    assert (first.values["created_at"], first.values["updated_at"]) == (at(3), at(4))
    assert first.values["amount_cents"] == 1000 and second.order_id == "b"
    (gone,) = read(reader, canal("DELETE", [values], 10))
    assert (gone.op, gone.order_id, gone.values) == ("d", "a", None)


def test_a_time_without_a_zone_has_that_of_the_rules():
    (change,) = read(Reader("orders", "Asia/Shanghai"), canal("INSERT", [row("a") | {"created_at": "2026-01-05 14:03:00"}], 9))
    assert change.values["created_at"] == at(3)


def test_canals_update_of_a_key_is_a_delete_and_an_insert(reader):
    gone, new = read(reader, canal("UPDATE", [row("b")], 9, old=[{"order_id": "a"}]))
    assert [(one.op, one.order_id) for one in (gone, new)] == [("d", "a"), ("u", "b")]


@pytest.mark.parametrize("record", [b"null", {"schema": None, "payload": None}])
def test_a_tombstone_is_no_change(reader, record):
    assert read(reader, record) == []


def test_a_position_is_that_of_the_source(reader):
    postgres = debezium("c", row("a"), 1)
    postgres["source"] = {"table": "orders", "ts_ms": us(1) // 1000, "lsn": 24023128}
    assert read(reader, postgres)[0].position == 24023128
    postgres["source"] = {"table": "orders", "ts_ms": us(1) // 1000}
    assert read(reader, postgres)[0].position == 0


# --- columns ----------------------------------------------------------------------------------------------------------


def test_announced_columns_have_the_databases_type(reader):
    (change,) = read(reader, added_column(5, ("order_id", "VARCHAR"), ("coupon_cents", "BIGINT"), ("gift", "TINYINT(1)")))
    assert (change.op, change.order_id) == ("s", None) and "ALTER" in change.after
    assert reader.kinds["coupon_cents"] == pa.int64() and reader.kinds["gift"] == pa.bool_()
    assert reader.kinds["order_id"] == pa.string()
    assert read(reader, added_column(5, ("x", "INT"), table="users")) == [] and "x" not in reader.kinds
    (change,) = read(reader, canal("INSERT", [row("a", coupon_cents=5, gift=1)], 9))
    assert (change.values["coupon_cents"], change.values["gift"]) == (5, True)


def test_canals_statement_announces_columns(reader):
    record = {"type": "ALTER", "isDdl": True, "table": "orders", "es": us(1) // 1000, "id": 3,
              "sql": "ALTER TABLE `shop`.`orders` ADD COLUMN coupon_cents BIGINT NULL, ADD COLUMN paid_on DATETIME(3)"}  # fmt: skip
    assert [change.op for change in read(reader, record)] == ["s"]
    assert (reader.kinds["coupon_cents"], reader.kinds["paid_on"]) == (pa.int64(), TIME)
    assert read(reader, record | {"sql": "ALTER TABLE users ADD COLUMN z INT"}) == [] and "z" not in reader.kinds


def test_an_unannounced_column_takes_the_type_of_its_first_value(reader):
    read(reader, debezium("c", row("a", note=None), 1))
    assert "note" not in reader.kinds
    (change,) = read(reader, debezium("c", row("a", note={"b": 1, "a": [2]}, rate=0.5, gift=True), 1))
    assert change.values["note"] == '{"a": [2], "b": 1}'
    assert [reader.kinds[name] for name in ("note", "rate", "gift")] == [pa.string(), pa.float64(), pa.bool_()]
    (change,) = read(reader, debezium("c", row("a", rate="much"), 1))
    assert (change.values["rate"], change.values["rescued"]) == (None, '{"rate":"much"}')


def test_names_that_delta_or_we_could_not_bear_are_changed():
    assert [column_name(name) for name in ("Coupon", "gift wrap", "hour", "change_op")] == [
        "coupon", "gift_wrap", "shop_hour", "shop_change_op"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind"),
    [("bigint(20) unsigned", pa.int64()), ("INT4", pa.int64()), ("int", pa.int64()), ("serial", pa.int64()),
     ("interval", pa.string()), ("decimal(10,2)", pa.string()), ("double precision", pa.float64()), ("boolean", pa.bool_()),
     ("timestamptz", TIME), ("varchar(20)", pa.string()), ("point", pa.string())],
)  # fmt: skip
def test_types_of_databases(text, kind):
    assert sql_kind(text) == kind


def test_a_statement_that_cannot_be_parsed_announces_nothing():
    assert added_columns("ALTER TABLE orders FROB ((", "orders") == (True, {})
    assert added_columns("CREATE INDEX i ON orders (x)", "orders") == (True, {})


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{", "line: not JSON"),
        (b"\xff\xfe{}", "line: not"),
        (b"[1]", "line: not a JSON object"),
        (b"{}", "line: neither Debezium's form (op) nor Canal's (type)"),
        (debezium("t", row("a"), 1), "op: 't' is not one of"),
        (debezium("c", None, 1), "after: missing"),
        (debezium("d", None, 1), "before: missing"),
        (debezium("c", row("a"), 1, table="users"), "table: 'users' is not 'orders'"),
        (debezium("c", row("a") | {"order_id": None}, 1), "order_id: missing"),
        (debezium("c", row("x" * 201), 1), "order_id: not 1 to 200"),
        (debezium("c", row("a") | {"amount_cents": None}, 1), "amount_cents: missing"),
        (debezium("c", row("a") | {"amount_cents": "1-"}, 1), "amount_cents: not an integer"),
        (debezium("c", row("a") | {"amount_cents": 2**63}, 1), "amount_cents: not an integer"),
        (debezium("c", row("a") | {"refunded_cents": "some"}, 1), "refunded_cents: not an integer"),
        (debezium("c", row("a") | {"amount_cents": 1.5}, 1), "amount_cents: not an integer"),
        (debezium("c", row("a") | {"amount_cents": -1}, 1), "amount_cents: below 0"),
        (debezium("c", row("a") | {"created_at": us(1) // 1000_000}, 1), "created_at: outside of 2000 to 2100"),
        (debezium("c", row("a") | {"created_at": 2**62}, 1), "created_at: outside of 2000 to 2100"),
        (debezium("c", row("a") | {"created_at": "soon"}, 1), "created_at: not a time"),
        (debezium("c", row("a"), 1) | {"source": {"table": "orders"}, "ts_us": None}, "source.ts_ms: missing"),
        (canal("TRUNCATE", [], 1), "type: 'TRUNCATE' is not one of"),
        (canal("INSERT", [], 1), "data: not a list of rows"),
        (canal("INSERT", [row("a"), row("b") | {"status": None}], 1), "status: missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_says_why(reader, record, reason):
    assert refused(reader, record).startswith(reason)


# --- which change wins ------------------------------------------------------------------------------------------------


def test_the_greatest_place_wins_whatever_the_order_of_arrival(reader):
    history = [
        debezium("r", row("a", amount_cents=1), 1, pos=1), debezium("u", row("a", amount_cents=2), 2, pos=1),
        debezium("u", row("a", amount_cents=3), 2, pos=2), debezium("c", row("b"), 2, pos=9), debezium("d", row("b"), 2, pos=9),
        debezium("c", row("c"), 3), debezium("d", {"order_id": "c"}, 4), debezium("c", row("c", amount_cents=7), 5),
    ]  # fmt: skip
    changes = [change for record in history for change in read(reader, record)]
    straight = apply(changes, {})
    assert straight["a"]["amount_cents"] == 3 and straight["c"]["amount_cents"] == 7
    assert (straight["b"]["change_op"], straight["b"].get("created_at"), straight["b"]["hour"]) == ("d", None, at(0))
    dice = random.Random(5)
    for _ in range(40):
        dice.shuffle(changes)
        cut = dice.randrange(len(changes))
        first = apply(changes[:cut], {})
        assert first | apply(changes[cut:], first) == straight
        assert apply(changes[:cut], straight) == {}


def test_of_two_that_are_alike_the_later_to_arrive_wins(reader):
    one, two = (read(reader, debezium("u", row("a", amount_cents=n), 1))[0] for n in (1, 2))
    assert apply([one, two], {})["a"]["amount_cents"] == 2 and apply([two, one], {})["a"]["amount_cents"] == 1


# --- the rules file ---------------------------------------------------------------------------------------------------


def test_the_shipped_rules_are_those_of_the_docs():
    assert load_rules() == RULES and RULES.window == dt.timedelta(days=7) and RULES.actions == ("click",)
    assert RULES.fingerprint == dataclasses.replace(RULES, statuses=RULES.statuses[::-1]).fingerprint
    assert RULES.fingerprint != dataclasses.replace(RULES, partial=False).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("window_days = 7", "window_days = 0", r"r\.toml:8: attribution\.window_days = 0 is not a number of days above 0"),
        ("window_days = 7", 'window_days = "7"', r"r\.toml:8: attribution\.window_days = '7' is not a number"),
        ("window_days", "window_day", r"r\.toml:8: unknown key attribution\.window_day; allowed: window_days, actions"),
        ('actions = ["click"]', 'actions = ["clik"]', r"r\.toml:9: attribution\.actions = \['clik'\] is not a list"),
        ('actions = ["click"]', "", r"r\.toml:7: attribution\.actions is missing; it is a list"),
        ("[revenue]", "[revenu]", r"r\.toml:11: unknown \[revenu\]; allowed: stream"),
        ('["refunded"]', '["returned"]', r"r\.toml:15: refunds\.full_statuses names 'returned', which revenue\.statuses"),
        ("partial = true", 'partial = "yes"', r"r\.toml:16: refunds\.partial = 'yes' is not true or false"),
        ('"UTC"', '"Mars"', r"r\.toml:5: stream\.time_zone = 'Mars' is not a time zone"),
        ("partial = true", "partial = ", r"r\.toml: not TOML: .*line 16"),
    ],
)
def test_a_wrong_rules_file_is_told_by_key_and_line(old, new, message):
    text = SHIPPED.read_text()
    assert old in text
    with pytest.raises(RulesError, match=message):
        parse_rules(text.replace(old, new, 1), "r.toml")
