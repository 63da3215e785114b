"""Delta into ClickHouse: a window replaced, an hour emptied, a batch once, and the comparison that finds the rest."""

import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from assets.attribution.tables import IMPRESSION_SESSIONS, LATE_EVENTS
from assets.events.contract import EVENTS
from assets.followers import Follower
from assets.lake import HOUR, Lake, Window, Write
from assets.metrics import endpoint, loader, loads, schema
from assets.metrics.client import connect
from assets.metrics.verify import verify_window
from tests import metrics_lake
from tests.unit.labeling import T0, event, moment, table

pytestmark = pytest.mark.slow
HOURS = 5
HOUR_0 = Window(moment(T0), moment(T0) + dt.timedelta(hours=1))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    return lake, metrics_lake.fill(lake, HOURS, displays=3000)


def test_two_that_begin_on_an_empty_server_run_the_migrations_once(filled, client, url):
    lake, _ = filled
    with ThreadPoolExecutor(2) as two:
        feed, orders = two.map(lambda part: loader.load_missing(lake, connect(f"{url}/{client.database}"), part), (schema.FEED, schema.ORDERS))
    ran = client.query("SELECT file, count() FROM schema_migrations GROUP BY file").result_rows
    assert len(ran) == len(list(schema.FOLDER.glob("*.sql"))) and {times for _, times in ran} == {1}
    assert len(feed) == HOURS and count(client, "events") == lake.read("events").num_rows


def count(client, name):
    return client.query(f"SELECT count() FROM {name}").result_rows[0][0]


def test_an_hour_written_after_the_clock_was_set_back_is_loaded_again(client, tmp_path, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))
    window = metrics_lake.fill(lake, 2, displays=400)
    ahead = loads.fresh_number() + 3_600_000_000
    with monkeypatch.context() as patch:
        patch.setattr(loads, "fresh_number", lambda: ahead)  # the load's clock was an hour ahead
        loader.load_missing(lake, client)
    last = Window(window.hours[1], window.end)
    lake.replace_window(EVENTS, lake.read("events", last).slice(0, 10), last)
    loader.load_hours(lake, client, window.hours, reason="test")
    assert count(client, "events") == lake.read("events").num_rows
    shown = loads.visible(client)
    assert shown[window.hours[0]].load == ahead and shown[window.hours[1]].load != ahead, "only what has changed"
    loader.load_hours(lake, client, window.hours, reason="test")
    assert loads.visible(client) == shown, "once"


def test_hours_loaded_before_a_table_was_there_are_loaded_again_when_it_is(client, tmp_path):
    filled, lake = Lake(str(tmp_path / "filled")), Lake(str(tmp_path / "lake"))
    window = metrics_lake.fill(filled, 2, displays=400)
    lake.replace_window(EVENTS, filled.read("events", window), window)
    loader.load_hours(lake, client, window.hours, reason="test")
    assert count(client, "events") and not count(client, "impression_sessions")
    lake.replace_window(IMPRESSION_SESSIONS, filled.read("impression_sessions", window), window)
    loader.load_hours(lake, client, window.hours, reason="test")
    assert count(client, "impression_sessions") == filled.read("impression_sessions", window).num_rows


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
    assert rows == {table.name: lake.read(table.name).num_rows for table in schema.PARTS[schema.FEED]}
    assert seen[-1] == ("quarantine", HOURS, HOURS)
    assert verify_window(lake, client, window) == []
    assert loader.load_window(lake, client, window) == rows
    assert verify_window(lake, client, window) == []


def test_rows_that_nobody_sees_are_swept_after_a_while(client, filled):
    lake, window = filled
    rows = loader.load_window(lake, client, window)
    loader.load_window(lake, client, window)
    assert count(client, "events_all") == 2 * rows["events"], "the hours before are kept for readers that began with them"
    assert loads.sweep(client) == 0
    assert loads.sweep(client, loads.GRACE * 0) > 0
    assert count(client, "events_all") == count(client, "events") == rows["events"]
    assert verify_window(lake, client, window) == []


def test_a_load_that_is_not_what_delta_has_changes_nothing(client, filled, monkeypatch):
    lake, window = filled
    rows = loader.load_window(lake, client, window)
    monkeypatch.setattr(loader, "_readable_files", lambda *how: {})
    insert = loader._insert
    monkeypatch.setattr(loader, "_insert", lambda client, table, rows, *how: insert(client, table, rows.slice(1), *how))
    with pytest.raises(loader.LoadError, match="nothing has changed"):
        loader.load_window(lake, client, window)
    assert count(client, "events_all") == count(client, "events") == rows["events"]
    assert verify_window(lake, client, window) == []


def test_readers_see_all_hours_of_all_tables_and_aggregates_change_at_one_moment(client, lake):
    """A reader that looks all the time while windows are loaded: the counts of one version of the lake, never of two."""
    both = "SELECT (SELECT max(seq) FROM loads), " + ", ".join(
        f"(SELECT {measure} FROM {name})" for name, measure in (
            ("events", "count()"), ("impression_sessions", "count()"), ("click_sessions", "count()"),
            ("events_by_minute", "sum(events)"), ("displays_by_minute", "sum(displays)"), ("clicks_by_minute", "sum(clicks)"),
        )
    )  # fmt: skip
    wanted, seen, done = set(), [], threading.Event()

    def look():
        while not done.is_set():
            before = client.query("SELECT max(seq) FROM loads").result_rows[0][0]
            row = client.query(both).result_rows[0]
            if before == client.query("SELECT max(seq) FROM loads").result_rows[0][0]:
                seen.append(row[1:])

    window = metrics_lake.fill(lake, HOURS, displays=600, seed=1)
    rows = loader.load_window(lake, client, window)
    reader = threading.Thread(target=look)
    reader.start()
    try:
        for seed in range(2, 6):
            wanted.add(tuple(rows[name] for name in ("events", "impression_sessions", "click_sessions")) * 2)
            metrics_lake.fill(lake, HOURS, displays=600 + seed, seed=seed)
            rows = loader.load_window(lake, client, window)
        wanted.add(tuple(rows[name] for name in ("events", "impression_sessions", "click_sessions")) * 2)
    finally:
        done.set()
        reader.join()
    assert len(set(seen)) > 1 and set(seen) <= wanted


def test_slices_of_an_hour_load_the_same(client, filled, monkeypatch):
    lake, window = filled
    monkeypatch.setattr(loader, "_readable_files", lambda *how: {})  # as with a server on another machine
    monkeypatch.setattr(loader, "SLICE_ROWS", 1)
    monkeypatch.setattr(loader, "BATCH_ROWS", 100)
    loader.load_window(lake, client, window)
    assert verify_window(lake, client, window) == []


def test_what_is_sent_and_what_clickhouse_reads_itself_is_the_same(client, filled, monkeypatch):
    lake, window = filled
    asked = []
    copy_files = loader._copy_files
    monkeypatch.setattr(loader, "_copy_files", lambda *how: asked.append(how[1].name) or copy_files(*how))
    loader.load_window(lake, client, window)
    assert set(asked) == {table.name for table in schema.PARTS[schema.FEED]}, "the embedded engine reads the files"
    found = client.query("SELECT * FROM events ORDER BY event_id").result_rows
    monkeypatch.setattr(loader, "_readable_files", lambda *how: {})
    loader.load_window(lake, client, window)
    assert client.query("SELECT * FROM events ORDER BY event_id").result_rows == found


def test_only_the_window_changes(client, filled):
    lake, window = filled
    hour = dt.timedelta(hours=1)
    part = metrics_lake.window(2, window.start + hour)
    loader.load_window(lake, client, part)
    hours = client.query("SELECT DISTINCT hour FROM events ORDER BY hour").result_columns[0]
    assert [loads.utc(found) for found in hours] == part.hours


def test_an_hour_that_becomes_empty_in_delta_becomes_empty(client, lake):
    window = metrics_lake.fill(lake, HOURS, displays=1000)
    loader.load_window(lake, client, window)
    gone = metrics_lake.window(1, window.start + dt.timedelta(hours=2))
    lake.replace_window(schema.EVENTS, schema.EVENTS.empty(), gone)
    found = verify_window(lake, client, window)
    assert {one.hour for one in found} == set(gone.hours)
    assert {one.table for one in found} == set(schema.fed_by("events"))
    loader.load_window(lake, client, window)
    assert verify_window(lake, client, window) == []
    assert count(client, "events") == lake.read("events").num_rows > 0


def test_a_table_that_the_lake_does_not_have_is_empty(client, lake):
    window = metrics_lake.window(2)
    assert set(loader.load_window(lake, client, window).values()) == {0}
    assert verify_window(lake, client, window) == []


@pytest.mark.parametrize(
    "damage",
    [("events", "DELETE FROM events_all WHERE event_id = 'click-7'"),
     ("quarantine", "INSERT INTO quarantine_all SELECT * FROM quarantine_all LIMIT 1"),
     ("events", "ALTER TABLE events_all UPDATE dwell_ms = 1 WHERE event_id = 'click-7' SETTINGS mutations_sync = 2"),
     ("event_totals", "INSERT INTO feed_totals_all SELECT * FROM feed_totals_all WHERE subject = 'events' LIMIT 1"),
     ("event_totals", "ALTER TABLE feed_totals_all UPDATE newest = newest + INTERVAL 1 SECOND WHERE grain = 3600 AND subject = 'events' "
      "SETTINGS mutations_sync = 2"),
     ("display_totals", "DELETE FROM feed_totals_all WHERE (grain, subject, at, channel, device, band) IN "
      "(SELECT grain, subject, at, channel, device, band FROM feed_totals_all WHERE subject = 'displays' LIMIT 1)"),
     ("click_totals", "ALTER TABLE feed_totals_all UPDATE seconds = map(1, 1) WHERE (grain, subject, at, channel, "
      "device, band) IN (SELECT grain, subject, at, channel, device, band FROM feed_totals_all WHERE subject = 'clicks' LIMIT 1) SETTINGS mutations_sync = 2"),
     ("late_totals", "INSERT INTO feed_totals_all SELECT * FROM feed_totals_all WHERE subject = 'late events' LIMIT 1"),
     ("orphan_totals", "DELETE FROM feed_totals_all WHERE subject = 'orphan actions' AND grain = 60"),
     *(("user_totals", "INSERT INTO user_totals_all SELECT grain, rolled, hour, load, at, channel, device, band, "
        f"bitmapBuild([toUInt64(10000001)]) FROM user_totals_all WHERE {which} LIMIT 1")
       for which in ("grain = 60 AND rolled = 0", "grain = 60 AND rolled = 7", "grain = 3600 AND rolled = 0", "rolled = 5"))],
    ids=["lost", "twice", "changed", "counted-twice", "newest", "minute-lost", "histogram", "late-twice", "orphans-lost", "user-of-a-minute", "user-of-all-of-a-minute",
         "user-of-an-hour", "user-of-a-device"],
)  # fmt: skip
def test_verify_finds_a_row_lost_twice_or_changed(client, filled, damage):
    lake, window = filled
    loader.load_window(lake, client, window)
    name, statement = damage
    client.command(statement)
    found = verify_window(lake, client, window)
    assert {one.table for one in found} == {name}
    assert str(found[0]).startswith(f"{name} 2026-03-01T")
    loader.load_window(lake, client, window)
    assert verify_window(lake, client, window) == []


def test_a_batch_counts_once_however_often_it_is_sent(client, lake):
    schema.migrate(client)
    sent = []
    for number in (0, 1, 1, 0, 2, 1, 2):
        if number == len(live_moments(lake)):
            batch(lake, number)
        sent.append(loader.append_moment(lake, client, live_moments(lake)[number]))
    # The first batch finds an hour that ClickHouse never held: that is loaded whole, and the batch is in it.
    assert [one.get("events") for one in sent] == [0, 5, 5, 0, 5, 5, 5]
    assert verify_window(lake, client, HOUR_0) == []
    assert count(client, "events") == 15
    assert client.query("SELECT sum(events) FROM events_by_minute").result_rows == [(15,)]


def test_an_hour_loaded_while_batches_come_holds_each_of_them_once(client, lake, monkeypatch):
    """A batch that is committed while a window is being loaded, before and after ClickHouse got it."""
    schema.migrate(client)
    for number in range(2):
        batch(lake, number)
        loader.append_moment(lake, client, lake.log.newest())
    copy, meanwhile = loader._copy, iter(range(2, 4))

    def copy_and_meanwhile(lake_then, client, table, *how):
        if table.name == "events" and (number := next(meanwhile, None)) is not None:
            found = copy(lake_then, client, table, *how)
            batch(lake, number)
            if number == 2:
                loader.append_moment(lake, client, lake.log.newest())
            return found
        return copy(lake_then, client, table, *how)

    monkeypatch.setattr(loader, "_copy", copy_and_meanwhile)
    loader.load_window(lake, client, HOUR_0)
    assert count(client, "events") == 15, "the batch that came while the window was read is in it"
    before, last = live_moments(lake)[-2:]
    assert loader.append_moment(lake, client, before)["events"] == 0, "the load holds it"
    assert loader.append_moment(lake, client, last)["events"] == 5, "it came after the load was pinned"
    assert count(client, "events") == 20
    assert verify_window(lake, client, HOUR_0) == []


def test_an_older_lake_is_loaded_by_the_follower_itself(url, tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    window = metrics_lake.fill(lake, HOURS, displays=300)
    batch(lake, 0)
    name = "db_older"
    connect(url).command(f"CREATE DATABASE {name}")
    follower = Follower(lake, "clickhouse", loader.LiveSink(f"{url}/{name}"), by="live")
    while follower.step():
        pass
    client = connect(f"{url}/{name}")
    assert verify_window(lake, client, window) == [] and verify_window(lake, client, HOUR_0) == []
    assert count(client, "events") == lake.read("events").num_rows


def test_verify_waits_for_what_the_live_labeler_has_committed(client, lake):
    schema.migrate(client)
    for number in range(3):
        batch(lake, number)
        if number < 2:
            loader.append_moment(lake, client, lake.log.newest())
    assert verify_window(lake, client, HOUR_0) == []
    assert count(client, "events") == 15


def test_rows_go_after_their_time_and_come_with_no_limit(client, filled):
    lake, window = filled
    loader.load_window(lake, client, window)
    schema.retain(client, rows=1, aggregates=None)
    client.command("OPTIMIZE TABLE events_all FINAL")
    assert count(client, "events") == 0
    assert client.query("SELECT sum(events) FROM events_by_minute").result_rows[0][0] == lake.read("events").num_rows
    schema.retain(client, rows=None, aggregates=None)
    loader.load_window(lake, client, window)
    client.command("OPTIMIZE TABLE events_all FINAL")
    assert verify_window(lake, client, window) == []


def test_clickhouse_follows_the_live_commits_and_catches_up_after_it_was_away(tmp_path):
    lake, said = Lake(str(tmp_path / "lake")), []
    rows = [batch(lake, number) for number in range(3)]
    with endpoint.started(tmp_path / "clickhouse") as url:
        port = urlsplit(url).port
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


def live_moments(lake):
    return [moment for moment in map(lake.log.moment, lake.log.numbers()) if moment.by == "live"]


def batch(lake, number):
    """Commit a batch as the live labeler does; returns its rows."""
    events = table([event(f"{number}-{i}", 10 * number + i, "impression", user=i) for i in range(5)])
    rows = events.append_column(HOUR, pa.array([moment(T0)] * 5, HOUR.type))
    steps = [lake.stage(Write(EVENTS, rows)), lake.stage(Write(LATE_EVENTS, LATE_EVENTS.empty()))]
    lake.commit(steps, by="live", app=("live", number), note={"batch_id": f"live-{number}"})
    return 5
