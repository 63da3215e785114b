"""Generated traffic: the same for the same seed, as distorted as it says, and with a truth that fits the events."""

import dataclasses
import datetime as dt
import json
import threading
import time

import numpy as np
import polars as pl
import pytest

from assets.events.contract import ACTIONS
from assets.events.generator import HEADS, TrafficConfig, displays, follow, generate
from assets.events.intake import read_log
from assets.ranking.evaluate import auc

CONFIG = TrafficConfig(seed=3, users=400, notes=500, hours=3, events_per_hour=12_000, broken=0.002)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("traffic")
    return root, generate(CONFIG, root / "landing", root / "truth")


@pytest.fixture(scope="module")
def read(made):
    return read_log(landing(made[0]))


def landing(root):
    return sorted((root / "landing").glob("events-*"))


def frame(read):
    return pl.from_arrow(read.events)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes_other_seed_others(made, tmp_path):
    root, counts = made
    assert generate(CONFIG, tmp_path / "landing", tmp_path / "truth") == counts
    assert contents(tmp_path) == contents(root)
    generate(dataclasses.replace(CONFIG, seed=4), tmp_path / "b" / "landing", tmp_path / "b" / "truth")
    assert contents(tmp_path / "b") != contents(root)


def test_more_hours_only_add(made, tmp_path):
    generate(dataclasses.replace(CONFIG, hours=2), tmp_path / "landing", tmp_path / "truth")
    two, three = contents(tmp_path / "landing"), contents(made[0] / "landing")
    whole = [path for path in two if path.name < "events-20260105T02"]
    assert len(whole) == 2 and all(two[path] == three[path] for path in whole)


def test_the_counts_are_what_intake_finds(made, read):
    counts = made[1]
    assert counts["rows"] == read.rows and counts["events"] == len(read.events) and counts["repeats"] == read.repeats
    assert counts["broken"] + counts["wrong_clock"] == len(read.quarantine)
    found = dict(frame(read)["action"].value_counts().iter_rows())
    assert found == {action: counts[f"action_{action}"] for action in ACTIONS if f"action_{action}" in counts}
    assert 0.5 < read.rows / (CONFIG.events_per_hour * CONFIG.hours) < 1.5


def test_every_kind_of_trouble_is_in_it(made, read):
    counts, events = made[1], frame(read)
    assert counts["repeats"] and counts["broken"] and counts["wrong_clock"]
    assert len(set(read.quarantine["reason"].to_pylist())) > 10
    newest = events["event_time"].cum_max()
    assert (newest - events["event_time"] > dt.timedelta(minutes=2)).any()  # late
    delay = events["ingest_time"] - events["event_time"]
    assert (delay > dt.timedelta(hours=1)).any() and delay.median() < dt.timedelta(seconds=2)
    assert set(events["channel"]) == {"homefeed", "search", "follow", "nearby"}
    shown = events.filter(pl.col("action") == "impression").sort("event_time")
    again = shown.select(gap=pl.col("event_time").diff().over("user_id", "note_id"))["gap"].drop_nulls()
    assert (again < dt.timedelta(minutes=20)).any() and (again > dt.timedelta(minutes=20)).any()
    clicks = shown.join(events.filter(pl.col("action") == "click"), on=["request_id", "position"], suffix="_click")
    wait = clicks["event_time_click"] - clicks["event_time"]
    assert (wait > dt.timedelta(minutes=18)).any()


def test_rates_are_those_of_a_feed(made):
    counts = made[1]
    clicks = counts["action_click"]
    assert 0.09 < clicks / counts["action_impression"] < 0.17
    assert 0.04 < counts["action_like"] / clicks < 0.15
    assert counts["action_view_end"] / clicks > 0.9


def test_the_truth_fits_the_events(made, read):
    truth = pl.read_parquet(made[0] / "truth" / "*.parquet")
    assert truth.columns == [
        "request_id",
        "position",
        "user_id",
        "note_id",
        "event_time",
        "p_click",
        *(f"p_{h}" for h in HEADS),
    ]
    assert len(truth) == made[1]["displays"] == truth.select("request_id", "position").n_unique()
    events = frame(read)
    clicked = events.filter(pl.col("action") == "click").select("request_id", "position", click=pl.lit(1)).unique()
    joined = truth.join(clicked, on=["request_id", "position"], how="left")["click"].fill_null(0)
    share, expected = joined.mean(), truth["p_click"].mean()
    spread = np.sqrt((truth["p_click"] * (1 - truth["p_click"])).sum()) / len(truth)
    assert abs(share - expected) < 4 * spread + 0.002
    assert 0.72 < auc(truth["p_click"], joined) < 0.82


def test_context_is_that_of_the_contract(read):
    for text in read.events["context"].to_pylist()[:50]:
        assert set(json.loads(text)) == {"device", "app_version", "author_id", "topic"}


def test_parquet_holds_the_same_events(made, read, tmp_path):
    generate(dataclasses.replace(CONFIG, file_format="parquet"), tmp_path / "landing", tmp_path / "truth")
    other = read_log(landing(tmp_path))
    assert frame(other).equals(frame(read).select(frame(other).columns))


@pytest.fixture(scope="module")
def order_stream(made):
    paths = sorted((made[0] / "orders").glob("orders-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_orders_are_a_change_stream_that_can_be_replayed(made, order_stream):
    assert len(order_stream) == made[1]["order_changes"] > 100
    assert [row["ts_us"] for row in order_stream] == sorted(row["ts_us"] for row in order_stream)
    assert [row["source"]["pos"] for row in order_stream] == list(range(1, len(order_stream) + 1))
    (added,) = [at for at, row in enumerate(order_stream) if "ddl" in row]
    names = [column["name"] for column in order_stream[added]["tableChanges"][0]["table"]["columns"]]
    table = {}
    for at, row in enumerate(order_stream):
        if at == added:
            table = {key: value and {**value, "coupon_cents": None} for key, value in table.items()}
            continue
        key = (row["before"] or row["after"])["order_id"]
        assert table.get(key) == row["before"]
        table[key] = row["after"]
        assert row["after"] is None or list(row["after"]) == names[: None if at > added else -1]
    assert {row["op"] for row in order_stream if "op" in row} == {"c", "u", "d"}


def test_orders_name_a_product_that_notes_plant_and_some_are_refunded(made, read, order_stream):
    lines = (made[0] / "orders" / "note_products.jsonl").read_text().splitlines()
    planted = {row["note_id"]: row["product_id"] for row in map(json.loads, lines)}
    assert 0.4 < len(planted) / CONFIG.notes < 0.8 and len(set(planted.values())) < len(planted) / 2
    orders = {row["after"]["order_id"]: row["after"] for row in order_stream if row.get("after")}
    assert {order["product_id"] for order in orders.values()} <= set(planted.values())
    clicks = frame(read).filter(pl.col("action") == "click").select("user_id", "note_id").iter_rows()
    wanted = {(user, planted[note]) for user, note in clicks if note in planted}
    led = sum((order["user_id"], order["product_id"]) in wanted for order in orders.values())
    assert 0.7 < led / len(orders) < 1
    assert any(order["coupon_cents"] for order in orders.values() if "coupon_cents" in order)
    refunds = [order for order in orders.values() if order["refunded_cents"]]
    assert {order["status"] for order in refunds} == {"refunded", "shipped"}
    assert all(order["refunded_cents"] <= order["amount_cents"] for order in refunds)


def test_a_config_that_makes_no_sense_is_refused():
    for change in ({"start": dt.datetime(2026, 1, 1)}, {"users": 1}, {"file_format": "xml"}, {"file_minutes": 7}):
        with pytest.raises(ValueError, match="start|users|file_format|file_minutes"):
            dataclasses.replace(CONFIG, **change)


# --- planted abusers --------------------------------------------------------------------------------------------------

PLANTED = dataclasses.replace(CONFIG, abusers=24)
KINDS = {"click_farm": 12, "rate": 6, "repeater": 6}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return root, generate(PLANTED, root / "landing", root / "truth")


@pytest.fixture(scope="module")
def planted_read(planted):
    return read_log(landing(planted[0]))


def test_abusers_same_seed_same_bytes(planted, tmp_path):
    assert generate(PLANTED, tmp_path / "landing", tmp_path / "truth") == planted[1]
    assert contents(tmp_path) == contents(planted[0])


def test_the_readers_rows_are_the_same_with_and_without_abusers(made, read, planted, planted_read):
    without, with_them = frame(read), frame(planted_read)
    both = with_them.join(without, on="event_id", suffix="_before")
    assert len(both) == len(without), "every row of before is there"
    columns = [name for name in without.columns if name not in ("event_id", "context", "device_id", "row", "source")]
    for name in columns:
        assert both[name].to_list() == both[f"{name}_before"].to_list(), name
    assert [strip_device(text) for text in both["context"]] == both["context_before"].to_list()
    added = with_them.join(without, on="event_id", how="anti")
    chosen = {user for name in ("abusers", "lookalikes") for user in kinds(planted[0], name)}
    assert set(added["user_id"]) <= chosen and len(added) > 500
    assert planted_read.quarantine.num_rows >= read.quarantine.num_rows
    assert made[1]["broken"] == planted[1]["broken"] and made[1]["displays"] == planted[1]["displays"]


def strip_device(text):
    return json.dumps({k: v for k, v in json.loads(text).items() if k != "device_id"}, separators=(",", ":"))


def kinds(root, name):
    return dict(pl.read_parquet(root / "truth" / f"{name}.parquet").iter_rows())


def test_the_truth_says_who_and_of_what_kind(planted, planted_read):
    abusers, alike = kinds(planted[0], "abusers"), kinds(planted[0], "lookalikes")
    assert {kind: list(abusers.values()).count(kind) for kind in KINDS} == KINDS
    assert set(alike.values()) == {"binge", "fan"} and not abusers.keys() & alike.keys()
    assert "planted" in planted[1] and abusers.keys() & set(planted_read.events["user_id"].to_pylist())
    for text in planted_read.events["context"].to_pylist():
        assert "kind" not in text and "planted" not in text


def test_devices_are_shared_by_farms_and_by_families(planted, planted_read):
    rows = frame(planted_read).select("user_id", device=pl.col("context").str.json_path_match("$.device_id"))
    assert rows["device"].null_count() == 0
    assert rows.group_by("user_id").agg(pl.col("device").n_unique())["device"].max() == 2
    farms = {user for user, kind in kinds(planted[0], "abusers").items() if kind == "click_farm"}
    shared = rows.unique().group_by("device").agg("user_id").filter(pl.col("user_id").list.len() > 1)["user_id"].to_list()
    assert any(set(users) <= farms for users in shared) and any(not set(users) & farms for users in shared)


def test_more_abusers_than_a_quarter_are_refused():
    with pytest.raises(ValueError, match="abusers"):
        dataclasses.replace(CONFIG, abusers=101)


@pytest.mark.slow
def test_follow_writes_whole_files_of_the_same_world_at_the_asked_rate(made, read, tmp_path):
    config = dataclasses.replace(CONFIG, events_per_hour=3600 * 2000)
    stop, result = threading.Event(), {}
    thread = threading.Thread(
        target=lambda: result.update(follow(config, tmp_path / "landing", tmp_path / "truth", 0.25, stop))
    )
    began = time.time()
    thread.start()
    time.sleep(2.5)
    stop.set()
    thread.join()
    seconds = time.time() - began
    live = read_log(landing(tmp_path))
    assert len(landing(tmp_path)) > 2 and live.rows == result["rows"]
    # Displays are 0.8 of the events; a request takes seconds to scroll through, so rows come later.
    assert 0.5 < result["displays"] / (0.8 * 2000 * seconds) < 1.5 and 0 < live.rows < result["displays"]
    assert set(live.events["user_id"].to_pylist()) <= set(range(100_000, 100_400))
    newest = max(live.events["ingest_time"].to_pylist())
    assert abs(newest.timestamp() - time.time()) < 60


def test_in_a_world_that_drifts_tastes_turn_and_notes_come_and_go():
    """A quarter turn: what a reader likes after 1 / drift days has nothing to do with before; the truth says so, and the labels follow it."""
    still = dataclasses.replace(CONFIG, hours=30, events_per_hour=8000, drift=0.0)
    found = {}
    for config in (still, dataclasses.replace(still, drift=1.0)):
        hours = list(displays(config))
        assert len(hours) == 30 and hours[0].equals(next(displays(config)))
        both = pl.concat([hours[i].with_columns(part=pl.lit(i < 3)) for i in (0, 1, 2, 24, 25, 26)])
        taste = both.group_by("user_id", "topic", "part").agg(p=(pl.col("p_like") / (1 - pl.col("p_like"))).log().mean())
        pairs = taste.filter(pl.col("part")).join(taste.filter(~pl.col("part")), on=["user_id", "topic"])
        same = set(hours[0]["note_id"]) & set(hours[26]["note_id"])
        found[config.drift] = (pairs.select(pl.corr("p", "p_right")).item(), len(same) / hours[26]["note_id"].n_unique())
        whole = pl.concat(hours)
        assert auc(whole["p_click"], whole["click"]) > 0.68 and whole["like"].sum() <= whole["click"].sum()
        assert abs(whole["p_click"].mean() / whole["click"].mean() - 1) < 0.05
    assert found[1.0][0] < found[0.0][0] - 0.2 and found[1.0][1] < found[0.0][1]
