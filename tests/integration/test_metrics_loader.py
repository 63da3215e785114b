"""Delta into ClickHouse: a window replaced, an hour emptied, a batch once, and the comparison that finds the rest."""

import datetime as dt
import time

import pyarrow as pa
import pytest

from assets.attribution.tables import LATE_EVENTS
from assets.events.contract import EVENTS
from assets.followers import Follower
from assets.lake import HOUR, Lake, Write
from assets.metrics import endpoint, loader, schema
from assets.metrics.client import connect
from tests import metrics_lake
from tests.unit.labeling import T0, event, moment, table

pytestmark = pytest.mark.slow
HOURS = 5


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def client(url, request):
    name = f"db_{abs(hash(request.node.name)) % 10**9}"
    connect(url).command(f"CREATE DATABASE {name}")
    return connect(f"{url}/{name}")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    return lake, metrics_lake.fill(lake, HOURS, displays=3000)


def count(client, name):
    return client.query(f"SELECT count() FROM {name}").result_rows[0][0]


def test_migrations_run_once_in_order_and_refuse_an_edit(client, tmp_path):
    (tmp_path / "02_b.sql").write_text("CREATE TABLE IF NOT EXISTS b AS a;\nCREATE TABLE IF NOT EXISTS c AS a;")
    (tmp_path / "01_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x Int8) ENGINE = MergeTree ORDER BY x;")
    assert schema.migrate(client, tmp_path) == ["01_a.sql", "02_b.sql"]
    assert schema.migrate(client, tmp_path) == []
    (tmp_path / "03_d.sql").write_text("ALTER TABLE a ADD COLUMN IF NOT EXISTS y Int8;")
    assert schema.migrate(client, tmp_path) == ["03_d.sql"]
    (tmp_path / "01_a.sql").write_text("CREATE TABLE IF NOT EXISTS a (x Int16) ENGINE = MergeTree ORDER BY x;")
    with pytest.raises(schema.SchemaError, match="01_a.sql was edited"):
        schema.migrate(client, tmp_path)
    (tmp_path / "01_a.sql").unlink()
    with pytest.raises(schema.SchemaError, match="01_a.sql ran on this database and is gone"):
        schema.migrate(client, tmp_path)


def test_a_window_loads_as_delta_has_it_and_again_the_same(client, filled):
    lake, window = filled
    seen = []
    rows = loader.load_window(lake, client, window, lambda *step: seen.append(step))
    assert rows == {table.name: lake.read(table.name).num_rows for table in schema.TABLES}
    assert seen[-1] == ("quarantine", HOURS, HOURS)
    assert loader.verify_window(lake, client, window) == []
    assert loader.load_window(lake, client, window) == rows
    assert loader.verify_window(lake, client, window) == []
    left = client.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'staging%'")
    assert left.result_rows == []


def test_slices_of_an_hour_load_the_same(client, filled, monkeypatch):
    lake, window = filled
    monkeypatch.setattr(loader, "SLICE_ROWS", 1)
    monkeypatch.setattr(loader, "BATCH_ROWS", 100)
    monkeypatch.setattr(loader, "SWAPS", 2)
    loader.load_window(lake, client, window)
    assert loader.verify_window(lake, client, window) == []


def test_only_the_window_changes(client, filled):
    lake, window = filled
    hour = dt.timedelta(hours=1)
    part = metrics_lake.window(2, window.start + hour)
    loader.load_window(lake, client, part)
    hours = client.query("SELECT DISTINCT hour FROM events ORDER BY hour").result_columns[0]
    assert [loader._utc(found) for found in hours] == part.hours


def test_an_hour_that_becomes_empty_in_delta_becomes_empty(client, lake):
    window = metrics_lake.fill(lake, HOURS, displays=1000)
    loader.load_window(lake, client, window)
    gone = metrics_lake.window(1, window.start + dt.timedelta(hours=2))
    lake.replace_window(schema.EVENTS, schema.EVENTS.empty(), gone)
    assert [found.hour for found in loader.verify_window(lake, client, window)] == gone.hours
    loader.load_window(lake, client, window)
    assert loader.verify_window(lake, client, window) == []
    assert count(client, "events") == lake.read("events").num_rows > 0


def test_a_table_that_the_lake_does_not_have_is_empty(client, lake):
    window = metrics_lake.window(2)
    assert set(loader.load_window(lake, client, window).values()) == {0}
    assert loader.verify_window(lake, client, window) == []


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM events WHERE event_id = 'click-7'",
     "INSERT INTO events SELECT * FROM events WHERE event_id = 'click-7'",
     "ALTER TABLE events UPDATE dwell_ms = 1 WHERE event_id = 'click-7' SETTINGS mutations_sync = 2"],
    ids=["lost", "twice", "changed"],
)  # fmt: skip
def test_verify_finds_a_row_lost_twice_or_changed(client, filled, damage):
    lake, window = filled
    loader.load_window(lake, client, window)
    client.command(damage)
    found = loader.verify_window(lake, client, window)
    assert len(found) == 1 and found[0].table == "events"
    assert str(found[0]).startswith("events 2026-03-01T")
    loader.load_window(lake, client, window)
    assert loader.verify_window(lake, client, window) == []


def test_a_batch_counts_once_however_often_it_is_sent(url, client, filled):
    lake, _ = filled
    schema.migrate(client)
    tables = {name: lake.read(name) for name in ("events", "click_sessions")} | {"late_events": schema.EVENTS.empty()}
    for batch in ("live-1", "live-1", "live-2", "live-1"):
        sent = loader.append_batch(client, tables, batch)
    assert sent["events"] == tables["events"].num_rows and sent["late_events"] == 0
    assert count(client, "events") == 2 * tables["events"].num_rows
    assert count(client, "click_sessions") == 2 * tables["click_sessions"].num_rows
    with pytest.raises(loader.LoadError, match="no table nothing"):
        loader.append_batch(client, {"nothing": tables["events"]}, "live-3")


def test_clickhouse_follows_the_live_commits_and_catches_up_after_it_was_away(tmp_path):
    lake, said = Lake(str(tmp_path / "lake")), []
    rows = [batch(lake, number) for number in range(3)]
    with endpoint.started(tmp_path / "clickhouse") as url:
        port = int(url.rsplit(":", 1)[1])
        follower = Follower(lake, "clickhouse", loader.LiveSink(url), by="live", say=said.append)
        while follower.step():
            pass
        assert count(connect(url), "events") == sum(rows)
    rows += [batch(lake, number) for number in range(3, 5)]
    follower.start()
    while not said:
        time.sleep(0.1)
    assert "trying again" in said[0] and follower.waiting() > 0
    with endpoint.started(tmp_path / "clickhouse", port=port) as url:
        follower.stop(patience_s=30)
        assert follower.waiting() == 0
        assert count(connect(url), "events") == sum(rows)
        # A crash after the insert and before the cursor moved: the moment comes again, and changes nothing.
        follower.path.unlink()
        again = Follower(lake, "clickhouse", loader.LiveSink(url), by="live")
        while again.step():
            pass
        assert count(connect(url), "events") == sum(rows)


def batch(lake, number):
    """Commit a batch as the live labeler does; returns its rows."""
    events = table([event(f"{number}-{i}", 10 * number + i, "impression", user=i) for i in range(5)])
    rows = events.append_column(HOUR, pa.array([moment(T0)] * 5, HOUR.type))
    steps = [lake.stage(Write(EVENTS, rows)), lake.stage(Write(LATE_EVENTS, LATE_EVENTS.empty()))]
    lake.commit(steps, by="live", app=("live", number), note={"batch_id": f"live-{number}"})
    return 5
