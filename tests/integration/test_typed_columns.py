"""What the context says of device, author and topic: right in lake, SQL jobs and ClickHouse whatever the log's JSON looks like, and in
lakes, live states and stores of a Glasshouse that had no columns for it."""

import datetime as dt
import json
import shutil
from collections import Counter

import pyarrow as pa
import pytest

from assets import upgrade
from assets.attribution import live
from assets.attribution.label import label_window
from assets.attribution.rules import Rules
from assets.attribution.state import Store
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.engines.choice import on_spark
from assets.events.context import retyped
from assets.events.contract import EVENTS, TYPED_NAMES
from assets.lake import Lake, Window
from assets.metrics import loader, loads, schema
from assets.metrics.verify import verify_window
from assets.orders import clicks
from assets.orders.tables import PLANTING_ACTIONS
from assets.samples import sql_job
from assets.tidy import tidy
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER
from tests import metrics_lake, old_lake
from tests.faults.ways import US, by_batch, by_live
from tests.integration.test_label_live import RULES, check, cut, go, shaken
from tests.unit.test_label import big_log

pytestmark = pytest.mark.slow
HOUR = dt.timedelta(hours=1)
JOBS = {job.name: job for job in sql_job.load_jobs(FOLDER, TABLES)}

# A log's spelling of further columns -> the device and the author that it names.
STYLES = {
    "compact": ('"device":"ios","author_id":7', "ios", 7),
    "json.dumps": ('"device": "ios", "author_id": 7', "ios", 7),
    "blanks before colons and commas": ('"device" : "ios" , "author_id" :\t7', "ios", 7),
    "another order": ('"author_id":7,"topic":"x","device":"ios"', "ios", 7),
    "escapes": ('"device":"i\\u006fs","author_id":7', "ios", 7),
    "escaped key": ('"dev\\u0069ce":"ios","author_id":7', "ios", 7),
    "a character": ('"device":"\\u00edos \\ud83d\\ude00","author_id":7', "íos 😀", 7),
    "nested before": ('"utm":{"device":"tv","author_id":1},"device":"ios","author_id":7', "ios", 7),
    "nested only": ('"utm":{"device":"tv","author_id":1}', None, None),
    "in a text": ('"q":"\\"device\\":\\"tv\\"","device":"ios"', "ios", None),
    "twice": ('"device":"tv","author_id":1,"device":"ios","author_id":7', "ios", 7),
    "numbers": ('"device":3,"author_id":7.0', "3", 7),
    "numbers as texts": ('"device":"3","author_id":"7"', "3", 7),
    "nothing": ('"device":"","author_id":null', None, None),
    "true": ('"device":true,"author_id":[7]', None, None),
    "an object": ('"device":{"os":"ios"},"author_id":{"id":7}', None, None),
    "none": ('"a":1', None, None),
    "the word none": ('"device":"none"', "none", None),
    "NaN": ('"device":NaN,"author_id":NaN', None, None),
    "a context": ('"context":{"device": "ios","author_id":7}', "ios", 7),
}  # fmt: skip


def land(home):
    """Each style three times: a display, a click of it and a like; user N for style N."""
    lines = []
    for user, (spelled, _, _) in enumerate(STYLES.values()):
        for place, action in enumerate(("impression", "click", "like")):
            time = US + 1_000_000 * (10 * user + place)
            lines.append(f'{{"event_id":"{action}{user}","user_id":{user},"note_id":5,"action":"{action}","event_time":{time},{spelled}}}\n')
    (home / "landing").mkdir(parents=True)
    (home / "landing" / "log.jsonl").write_text("".join(lines))
    return lines


@pytest.mark.parametrize("way", [by_batch, by_live], ids=["batch", "live"])
def test_every_style_is_right_in_the_lake_and_equal_in_clickhouse(tmp_path, client, way):
    land(tmp_path)
    assert not way(tmp_path).quarantine
    lake = Lake(str(tmp_path / "lake"))
    if way is by_batch:
        label_window(lake, lake.span("events"), Rules())
    want = {user: (device, author) for user, (_, device, author) in enumerate(STYLES.values())}
    tables = [EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS] if way is by_batch else [EVENTS]  # sessions of the last W are open
    for table in tables:
        rows = lake.read(table.name).to_pylist()
        assert {row["user_id"]: (row["device"], row["author_id"]) for row in rows} == want, table.name
        assert len(rows) == len(STYLES) * (3 if table is EVENTS else 1)
    window = lake.span("events")
    loader.load_window(lake, client, window)
    assert verify_window(lake, client, window) == []
    found = dict(client.query("SELECT user_id, any(device) FROM events GROUP BY user_id").result_rows)
    assert found == {user: device or "none" for user, (device, _) in want.items()}
    totals = client.query("SELECT device, sum(events) FROM event_totals WHERE grain = 3600 GROUP BY device").result_rows
    assert dict(totals) == {device: 3 * n for device, n in Counter(found.values()).items()}


def test_a_live_batch_appends_what_a_window_loads(tmp_path, client):
    lines = land(tmp_path)
    lake, moments = Lake(str(tmp_path / "lake")), []
    by_live(tmp_path)
    loader.load_window(lake, client, lake.span("events"))
    again = [line.replace('"event_id":"', '"event_id":"again ') for line in lines]
    (tmp_path / "landing" / "more.jsonl").write_text("".join(again))
    by_live(tmp_path, on_commit=lambda moment, stats: moments.append(moment))
    assert loader.append_moment(lake, client, moments[0])["events"] == len(lines)
    assert verify_window(lake, client, lake.span("events")) == []


# --- of older code ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A lake of today."""
    lake = Lake(str(tmp_path_factory.mktemp("new")))
    return lake, metrics_lake.fill(lake, 4, displays=1500)


@pytest.fixture
def old(tmp_path, new):
    """The same lake by older code: (lake, window)."""
    today, window = new
    lake = Lake(str(tmp_path / "old"))
    for table in schema.PARTS[schema.FEED]:
        old_lake.write(lake, table, today.read(table.name), window)
    assert "device" not in lake.read("events").column_names
    return lake, window


def same(one, other, name):
    first, second = (lake.read(name).select(other.read(name).column_names) for lake in (one, other))
    keys = [(name, "ascending") for name in first.column_names if name in ("event_id", "user_id", "note_id", "session_start")]
    assert first.sort_by(keys).equals(second.sort_by(keys)), name


def test_an_old_lake_is_loaded_as_one_of_today(old, new, client):
    lake, window = old
    loader.load_window(lake, client, window)
    assert verify_window(lake, client, window) == []
    devices = dict(client.query("SELECT device, count() FROM events GROUP BY device").result_rows)
    assert devices == Counter(new[0].read("events")["device"].to_pylist())
    for name in ("events", "impression_sessions", "click_sessions", "late_events"):
        same(lake, new[0], name)


def test_hours_of_an_old_lake_are_given_the_columns_once_and_only_where_they_are_needed(old):
    lake, window = old
    first = Window(window.start, window.start + HOUR)
    assert upgrade.complete(lake, ["events", "quarantine", "no_such_table"], first) == 1
    assert upgrade.complete(lake, ["events"], first) == 0
    rows = lake.read("events")
    inside = rows.filter(pa.compute.less(rows["hour"], pa.scalar(first.end, rows["hour"].type)))
    assert inside["device"].null_count == 0 < rows["device"].null_count
    later = metrics_lake.tables(4, 300, seed=9)[EVENTS]  # a batch of today beside old rows
    lake.append_once(EVENTS, later, "test", 1)
    assert upgrade.complete(lake, ["events"], window) == 3
    rows = lake.read("events")
    assert rows.num_rows == retyped(rows).num_rows and rows.equals(retyped(rows)) and rows["device"].null_count == 0


def test_housekeeping_gives_old_rows_the_columns_before_it_compacts_them(old, new):
    lake, _ = old
    lake.append_once(EVENTS, metrics_lake.tables(4, 300, seed=9)[EVENTS], "test", 1)
    assert tidy(lake, open_hours=0)["events"]["files_after"] == 4
    rows = lake.read("events")
    assert rows["device"].null_count == 0 and rows.equals(retyped(rows))
    same(lake, new[0], "click_sessions")


def test_hours_that_are_written_to_meanwhile_lose_no_row(old, monkeypatch):
    lake, window = old
    rows, more, again = lake.read("events").num_rows, metrics_lake.tables(4, 300, seed=9)[EVENTS], Lake(lake.root)
    stage, appended = Lake.stage, []

    def beside(self, write):
        step = stage(self, write)
        if write.window is not None and not appended:
            appended.append(again.append_once(EVENTS, more, "test", 1))
        return step

    monkeypatch.setattr(Lake, "stage", beside)
    upgrade.complete(lake, ["events"], window)
    found = lake.read("events")
    assert appended == [True] and found.num_rows == rows + more.num_rows and found.equals(retyped(found))


def test_labels_of_old_events_bear_the_columns(old, new):
    lake, window = old
    label_window(lake, window, Rules())
    today = Lake(f"{lake.root}-today")
    for table in (EVENTS, LATE_EVENTS):
        today.replace_window(table, new[0].read(table.name), window)
    label_window(today, window, Rules())
    assert lake.read("impression_sessions")["device"].null_count < lake.read("impression_sessions").num_rows
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS, LATE_EVENTS):
        same(lake, today, table.name)


def test_a_part_of_an_old_lake_labeled_anew_takes_the_sessions_that_are_open_at_its_edge(old, new):
    lake, window = old
    label_window(lake, window, Rules())
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS):
        old_lake.write(lake, table, lake.read(table.name), window)
    lake = Lake(lake.root)
    before = lake.read("click_sessions").drop_columns(list(TYPED_NAMES))
    label_window(lake, Window(window.start + 2 * HOUR, window.end), Rules())
    found = lake.read("click_sessions")
    late = found.filter(pa.compute.greater_equal(found["hour"], pa.scalar(window.start + 2 * HOUR, found["hour"].type)))
    assert found.num_rows == before.num_rows and late.equals(retyped(late)) and late["device"].null_count < late.num_rows


def test_planting_actions_of_old_and_new_files(old):
    lake, window = old
    lake = Lake(lake.root)
    lake.create(EVENTS)
    more = metrics_lake.tables(4, 300, seed=9)[EVENTS]
    lake.append_once(EVENTS, more, "test", 1)
    context = pa.array([json.dumps({"author_id": "12"})] * more.num_rows)
    with_authors = retyped(more.set_column(more.column_names.index("context"), EVENTS.schema.field("context"), context))
    lake.append_once(EVENTS, with_authors, "test", 2)
    first = with_authors.filter(pa.compute.less(with_authors["hour"], pa.scalar(window.start + HOUR, with_authors["hour"].type)))
    old_lake.write(lake, EVENTS, first, Window(window.start, window.start + HOUR))
    lake = Lake(lake.root)
    lake.create(PLANTING_ACTIONS)
    clicks.gather(lake)
    found = Counter(lake.read("planting_actions")["author_id"].to_pylist())
    assert found[12] > 0 and set(found) == {12, None}


def test_sql_jobs_read_an_old_lake_as_one_of_today(old, new, spark):
    lake, window = old
    rows = new[0].read("events")
    said = [json.dumps({"author_id": n % 9, "topic": f"t{n % 3}", "device_id": f"d{n % 5}"}) for n in rows["note_id"].to_pylist()]
    rows = retyped(rows.set_column(rows.column_names.index("context"), EVENTS.schema.field("context"), pa.array(said)))
    old_lake.write(lake, EVENTS, rows, window)
    lake = Lake(lake.root)
    for name in ("account_actions", "user_topic_profiles", "user_histories"):
        sql_job.run_job(JOBS[name], lake, on_spark(spark), window, Rules())
    want = Counter()
    for row in rows.to_pylist():
        if row["action"] != "impression":
            want[row["user_id"], row["note_id"], row["action"], str(row["author_id"]), row["device_id"]] += 1
    found = Counter()
    for row in lake.read("account_actions").to_pylist():
        found[row["user_id"], row["note_id"], row["action"], row["author_id"], row["device_id"]] += row["times"]
    assert found == want
    assert set(lake.read("user_topic_profiles")["topic"].to_pylist()) == {"t0", "t1", "t2"}
    for row in lake.read("user_histories").to_pylist():
        assert row["clicked_authors"] == [note % 9 for note in row["clicked_notes"]]
        assert row["liked_topics"] == [f"t{note % 3}" for note in row["liked_notes"]]


def test_the_live_labeler_goes_on_from_an_old_state(tmp_path, monkeypatch):
    """Segments and tables without the columns, and no snapshot: the sessions that are open have them all the same."""
    monkeypatch.setattr(live, "BATCH_BYTES", 1)
    lake, landing = Lake(str(tmp_path / "lake")), tmp_path / "landing"
    events = shaken(big_log(7, count=900, keys=30, minutes=90), 1, 1)
    cut(landing, events[:600], 150)
    go(lake, landing)
    store = Store(lake)
    for path in sorted((store.root / "segments").glob("*.arrow")):
        store._write_arrow(f"segments/{path.name}", store.segment(int(path.stem)).drop_columns(list(TYPED_NAMES)))
    cut(landing / "later", events[600:], 150)
    go(Lake(lake.root), landing)
    check(Lake(lake.root), events)


OLD_FILES = [f"{number:02d}_" for number in range(1, 20)]


def test_an_old_store_opens_and_its_hours_are_loaded_again(old, client, tmp_path):
    """What ClickHouse of older code held: devices by the first key of that name, no other column."""
    lake, window = old
    for path in schema.FOLDER.glob("*.sql"):
        if path.name.startswith(tuple(OLD_FILES)):
            (tmp_path / "files").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "files")
    schema.migrate(client, tmp_path / "files")
    spaced = [text and text.replace(":", ": ") for text in lake.read("events")["context"].to_pylist()]
    rows = lake.read("events").set_column(lake.read("events").column_names.index("context"), "context", pa.array(spaced, pa.string()))
    old_lake.write(lake, EVENTS, rows, window)
    number = loads.fresh_number()
    for table in schema.PARTS[schema.FEED]:
        loader._insert(client, old_lake.old(table), Lake(lake.root).read(table.name), number, loader._LOAD_SETTINGS)
    loads.publish(client, window.hours, number, 0, "window", schema.FEED)
    assert client.query("SELECT DISTINCT device FROM events").result_rows == [("none",)]
    lake = Lake(lake.root)
    assert loader.load_missing(lake, client) == window.hours
    assert loader.load_missing(lake, client) == []
    assert verify_window(lake, client, window) == []
    assert {device for (device,) in client.query("SELECT DISTINCT device FROM events").result_rows} == {"ios", "android"}
