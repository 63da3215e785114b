"""Files to events: what is read, what is refused and why, and that nothing is lost on the way."""

import datetime as dt
import gzip
import json

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.events import intake
from assets.events.contract import ACTIONS, EVENT_SCHEMA, EVENTS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.events.intake import accept, land, read_log
from assets.events.sources import SourceError
from assets.lake import Lake, Window

T0 = dt.datetime(2026, 1, 5, 10, tzinfo=dt.UTC)
US = int(T0.timestamp()) * 1_000_000
HOUR = dt.timedelta(hours=1)


def event(number=0, **changes):
    row = {"event_id": f"e{number}", "user_id": 1, "note_id": 2, "action": "impression", "event_time": US + number}
    return row | changes


def write(path, *lines):
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def reasons(read):
    return dict(zip(read.quarantine["row"].to_pylist(), read.quarantine["reason"].to_pylist(), strict=True))


def test_a_plain_log(tmp_path):
    full = event(1, ingest_time=US + 5, action="view_end", dwell_ms=7, request_id="r", channel="search", position=3)
    read = read_log([write(tmp_path / "a.jsonl.gz", event(), full | {"device": "ios", "n": [1, {"a": None}]})])
    assert read.events.schema == EVENT_SCHEMA
    first, second = read.events.to_pylist()
    assert first["ingest_time"] == first["event_time"] == T0 and first["context"] is None and first["position"] is None
    assert second["dwell_ms"] == 7 and second["channel"] == "search" and second["position"] == 3
    assert second["ingest_time"] == T0 + dt.timedelta(microseconds=5)
    assert json.loads(second["context"]) == {"device": "ios", "n": [1, {"a": None}]}
    assert (read.rows, read.repeats, len(read.quarantine)) == (2, 0, 0)


BROKEN = [
    (b"not json", "line: not a JSON object"),
    (b'{"event_id":"x","user_id":1', "line: not a JSON object"),
    (b'{"event_id":"x"}}', "line: not a JSON object"),
    (b"{'event_id':'x'}", "line: not a JSON object"),
    (b"[1,2]", "line: not a JSON object"),
    (b'"text"', "line: not a JSON object"),
    (b"\xff\xfe{}", "line: not UTF-8"),
    (b'{"event_id":"\xff"}', "line: not UTF-8"),
    (b"{}", "event_id: missing"),
    (event(9, user_id=None), "user_id: missing"),
    (event(9, user_id="u-17"), "user_id: not an integer of 64 bits"),
    (event(9, user_id=1.5), "user_id: not an integer of 64 bits"),
    (event(9, user_id=True), "user_id: not an integer of 64 bits"),
    (event(9, user_id=2**63), "user_id: not an integer of 64 bits"),
    (event(9, note_id=[1]), "note_id: not an integer of 64 bits"),
    (event(9, action="clik"), "action: not an action of the contract"),
    (event(9, action=5), "action: not an action of the contract"),
    (event(9, event_time="yesterday"), "event_time: not a time"),
    (event(9, event_time="2026-13-01T00:00:00Z"), "event_time: not a time"),
    (event(9, event_time="2026-01-05T10:00:00"), "event_time: a time without a zone"),
    (event(9, event_time=US // 1_000_000), "event_time: outside of 2000 to 2100 (integers count microseconds)"),
    (event(9, event_time=US * 1000), "event_time: outside of 2000 to 2100 (integers count microseconds)"),
    (event(9, ingest_time={}), "ingest_time: not a time"),
    (event(9, ingest_time=US - 300_000_000), "event_time: more than 5 minutes ahead of ingest_time (wrong clock)"),
    (event(9, dwell_ms=3), "dwell_ms: only view_end has one"),
    (event(9, position="first"), "position: not an integer of 64 bits"),
]


@pytest.mark.parametrize(("line", "why"), BROKEN)
def test_a_broken_row_is_quarantined_with_reason_and_bytes_and_the_others_go_on(tmp_path, line, why):
    path = write(tmp_path / "a.jsonl", event(0), line, event(1))
    read = read_log([path])
    assert read.quarantine.to_pylist() == [
        {"source": "a.jsonl", "row": 2, "body": path.read_bytes().split(b"\n")[1], "reason": why}
    ]
    assert read.events["event_id"].to_pylist() == ["e0", "e1"]


def test_all_broken_rows_at_once_among_many_good(tmp_path):
    lines = [event(number) for number in range(3000)]
    for place, (line, _) in enumerate(BROKEN):
        lines.insert(100 * place + 7, line)
    read = read_log([write(tmp_path / "a.jsonl", *lines)])
    assert read.events["event_id"].to_pylist() == [f"e{number}" for number in range(3000)]
    assert list(reasons(read).values()) == [why for _, why in BROKEN]
    assert list(reasons(read)) == [100 * place + 8 for place in range(len(BROKEN))]


@pytest.mark.parametrize(
    "text",
    ["2026-01-05T10:00:00Z", "2026-01-05 18:00:00+08:00", "2026-01-05T10:00:00.000000999Z", US, str(US), float(US)],
)
def test_times_are_rfc_3339_or_microseconds(tmp_path, text):
    read = read_log([write(tmp_path / "a.jsonl", event(event_time=text))])
    assert read.events["event_time"].to_pylist() == [T0]


@pytest.mark.parametrize(
    ("further", "kept"),
    [
        ({"a": "x,}"}, None),
        ({"a": 'quo"te\\'}, None),
        ({"a": "\u00e9\U0001f600"}, None),
        ({"a": {"user_id": 5, "b": [1, "}"]}}, None),
        ({"a": '"user_id":7,'}, None),
        ({"context": {"device": "ios"}, "b": 1}, {"device": "ios", "b": 1}),
        ({"context": '{"device":"ios"}'}, {"device": "ios"}),
        ({"a": 1e300, "b": True, "c": None}, None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_further_columns_ride_along_untouched_wherever_they_stand(tmp_path, further, kept, first):
    row = (further | event()) if first else (event() | further)
    middle = {"event_id": "m", **further, **{k: v for k, v in event(1).items() if k != "event_id"}}
    read = read_log([write(tmp_path / "a.jsonl", row, middle)])
    assert [json.loads(text) for text in read.events["context"].to_pylist()] == [kept or further] * 2
    assert read.events["user_id"].to_pylist() == [1, 1]


def test_of_two_rows_with_one_id_the_first_to_arrive_counts(tmp_path):
    one = write(tmp_path / "b.jsonl", event(0, user_id=5), event(0, user_id=6))
    two = write(tmp_path / "a.jsonl", event(0, user_id=7), event(1))
    read = read_log([one, two])
    assert read.events["user_id"].to_pylist() == [5, 1] and read.repeats == 2 and read.rows == 4


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
ANY_ROW = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.sampled_from(["a", "b", "c"]) | JSON_VALUE,
        "user_id": st.integers(-(2**63), 2**63 - 1) | JSON_VALUE,
        "note_id": st.integers(-(2**63), 2**63 - 1) | JSON_VALUE,
        "action": st.sampled_from(ACTIONS) | JSON_VALUE,
        "event_time": st.integers(US, US + 10**9) | JSON_VALUE,
        "ingest_time": st.integers(US, US + 10**9) | JSON_VALUE,
        "position": st.integers(0, 9) | JSON_VALUE,
        "device": JSON_VALUE,
    },
)
ANY_LINE = st.one_of(
    ANY_ROW.map(lambda row: json.dumps(row).encode()),
    st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")),
    st.integers(0, 5).map(lambda number: json.dumps(event(number)).encode()),
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(ANY_LINE, max_size=12))
def test_no_row_is_ever_lost(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    read = read_log([path])
    assert read.rows == len(read.events) + len(read.quarantine) + read.repeats
    lines[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in lines[:1]]  # a byte order mark is no part of the first line
    blank = sum(1 for line in lines if line in (b"", b"\r"))
    assert len(lines) - blank == read.rows
    for row, body in zip(read.quarantine["row"].to_pylist(), read.quarantine["body"].to_pylist(), strict=True):
        assert body == lines[row - 1]


# --- CSV and Parquet --------------------------------------------------------------------------------------------------


def test_csv_with_quotes_line_feeds_and_broken_lines(tmp_path):
    path = tmp_path / "a.csv"
    head = "event_id,user_id,note_id,action,event_time,title"
    good = [
        f'a,-1,2,click,{US},"say ""hi"", now"',
        'b,1,2,like,2026-01-05T10:00:00Z,"two\nlines"',
        f"c,1,2,like,{US},",
    ]
    broken = [f"x,1,2,like,{US}", f"x,,2,like,{US},t", f'x,1,2,like,{US},"open', f'x,1,2,like,{US},"a"b']
    path.write_text("\r\n".join([head, good[0], broken[0], good[1], broken[1], "", broken[2], good[2]]) + "\r\n")
    read = read_log([path])
    titles = [json.loads(text)["title"] for text in read.events["context"].to_pylist()]
    assert read.events["event_id"].to_pylist() == ["a", "b", "c"] and titles == ['say "hi", now', "two\nlines", None]
    assert reasons(read) == {
        3: "line: not 6 fields", 6: "user_id: missing", 8: "line: a quote that does not close, or text after one"
    }  # fmt: skip
    assert read.quarantine["body"].to_pylist()[0] == broken[0].encode() + b"\r"


def parquet(path, **columns):
    base = {
        "event_id": ["a", "b"],
        "user_id": [1, 2],
        "note_id": [3, 4],
        "action": ["click", "clik"],
        "event_time": [T0, T0],
    }
    pl.DataFrame(base | columns).write_parquet(path)
    return path


def test_parquet_with_its_own_types(tmp_path):
    path = parquet(tmp_path / "a.parquet", position=[2.0, None], device=["ios", "web"], seen=[T0, T0])
    read = read_log([path])
    row = read.events.to_pylist()[0]
    assert row["event_time"] == T0 and row["position"] == 2
    assert json.loads(row["context"])["device"] == "ios"
    (refused,) = read.quarantine.to_pylist()
    assert refused["row"] == 2 and json.loads(refused["body"])["action"] == "clik"


def test_parquet_time_without_a_zone_is_refused(tmp_path):
    naive = T0.replace(tzinfo=None)
    read = read_log([parquet(tmp_path / "a.parquet", event_time=[naive, naive])])
    assert reasons(read)[1] == "event_time: a time without a zone"


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path):
    with pytest.raises(SourceError, match="a.txt: unknown suffix"):
        read_log([write(tmp_path / "a.txt", event())])
    whole = write(tmp_path / "a.jsonl.gz", *(event(n) for n in range(1000))).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="cut.jsonl.gz ends within its gzip stream"):
        read_log([tmp_path / "cut.jsonl.gz"])
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(SourceError, match="b.parquet is not a Parquet file"):
        read_log([tmp_path / "b.parquet"])
    (tmp_path / "c.csv").write_text("event_id,user_id\n1,2\n")
    with pytest.raises(SourceError, match="c.csv has no column note_id.*mapping"):
        read_log([tmp_path / "c.csv"])


# --- the lake ---------------------------------------------------------------------------------------------------------


def everything(read_or_lake):
    if isinstance(read_or_lake, intake.Intake):
        return pl.from_arrow(read_or_lake.events).sort("event_id")
    return pl.from_arrow(read_or_lake.read(EVENTS.name)).drop("hour").sort("event_id")


@pytest.fixture
def traffic(tmp_path):
    """Three files over five hours: good rows, repeats across hours, broken rows and wrong clocks."""
    hour = 3_600_000_000
    one = [event(n, event_time=US + n * hour // 10, ingest_time=US + n * hour // 10) for n in range(50)]
    two = [event(3, event_time=US + hour), event(77, event_time=US + 9 * hour, ingest_time=US + hour), b"garbage"]
    three = [event(n, event_time=US + n * hour // 10, user_id=99) for n in range(0, 50, 7)] + [event(80, action="x")]
    return [
        write(tmp_path / "1.jsonl.gz", *one), write(tmp_path / "2.jsonl", *two), write(tmp_path / "3.jsonl", *three)
    ]  # fmt: skip


def test_landed_and_accepted_is_what_read_log_reads(lake, traffic):
    landed = land(lake, traffic)
    read = read_log(traffic)
    window = Window(landed.hours[0], landed.hours[-1] + HOUR)
    counts = accept(lake, window).counts
    assert counts == {
        "raw": read.rows, "events": len(read.events), "quarantine": len(read.quarantine), "repeats": read.repeats
    }  # fmt: skip
    assert everything(lake).equals(everything(read))
    again = pl.from_arrow(lake.read(QUARANTINE.name)).sort("reason")
    assert again.select("body", "reason").equals(pl.from_arrow(read.quarantine).sort("reason").select("body", "reason"))


def test_hour_by_hour_is_the_same_as_all_at_once_and_repeatable(lake, traffic):
    landed = land(lake, traffic)
    for hour in [*reversed(landed.hours), *landed.hours]:
        accept(lake, Window(hour, hour + HOUR))
    assert everything(lake).equals(everything(read_log(traffic)))


def test_landing_again_writes_nothing_whatever_the_name(lake, traffic, tmp_path):
    first = land(lake, traffic[:2])
    assert (first.files_new, first.files_seen, first.rows) == (2, 0, 53)
    version = lake.version(RAW_EVENTS.name)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(traffic[1].read_bytes())
    second = land(lake, [*traffic[:2], copy])
    assert (second.files_new, second.files_seen, second.rows, second.hours) == (0, 3, 0, [])
    assert lake.version(RAW_EVENTS.name) == version


def test_a_landing_that_was_cut_off_leaves_nothing_of_the_file_and_is_completed(lake, traffic, monkeypatch):
    commit = Lake.commit

    def cut(self, steps, **named):
        if any(step["table"] == SOURCES.name for step in steps):
            raise KeyboardInterrupt
        return commit(self, steps, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "commit", cut)
        with pytest.raises(KeyboardInterrupt):
            land(lake, traffic[:1])
    assert lake.read(RAW_EVENTS.name).num_rows == 0
    assert land(lake, traffic).files_new == 3
    assert lake.read(RAW_EVENTS.name).num_rows == read_log(traffic).rows


def test_rows_of_a_file_that_an_older_version_landed_by_half_are_completed_without_doubling(lake, traffic):
    land(lake, traffic[:1])
    half = lake.read(RAW_EVENTS.name)
    source = lake.read(SOURCES.name)["source"][0].as_py()
    other = Lake(f"{lake.root}-older")
    other.append_once(RAW_EVENTS, half, f"land:{source}", 0)
    with pytest.raises(SourceError, match="not landed whole.*materialize"):
        accept(other_with_sources(other), Window(T0, T0 + HOUR))
    assert land(other, traffic).files_new == 3
    assert other.read(RAW_EVENTS.name).num_rows == read_log(traffic).rows


def other_with_sources(lake):
    lake.create(SOURCES)
    return lake


def arriving(lake, monkeypatch, files, times):
    """Let one of `files` land between the reading and the commit of a piece of `accept`, `times` times."""
    staged, left = Lake.stage, iter(files[:times])

    def stage(self, write):
        if write.table is EVENTS and (path := next(left, None)):
            land(Lake(lake.root), [path])
        return staged(self, write)

    monkeypatch.setattr(Lake, "stage", stage)


def test_what_lands_while_hours_are_accepted_is_in_them(lake, traffic, monkeypatch):
    hours = land(lake, traffic[:1]).hours
    window = Window(hours[0], hours[-1] + HOUR)
    arriving(lake, monkeypatch, traffic[1:], 2)
    accepted = accept(lake, window)
    read = read_log(traffic)
    assert accepted.counts == {
        "raw": read.rows, "events": len(read.events), "quarantine": len(read.quarantine), "repeats": read.repeats
    }  # fmt: skip
    assert everything(lake).equals(everything(read))


@pytest.mark.slow
def test_hours_that_are_written_to_all_the_time_are_not_accepted(lake, traffic, tmp_path, monkeypatch):
    hours = land(lake, traffic).hours
    more = [write(tmp_path / f"more{n}.jsonl", event(1000 + n, event_time=US, ingest_time=US)) for n in range(9)]
    arriving(lake, monkeypatch, more, 9)
    with pytest.raises(SourceError, match="written to 5 times while.*stop it first"):
        accept(lake, Window(hours[0], hours[-1] + HOUR))
    assert not lake.exists(EVENTS.name) or lake.read(EVENTS.name).num_rows == 0


def test_events_and_quarantine_change_at_one_moment(lake, traffic):
    hours = land(lake, traffic).hours
    accepted = accept(lake, Window(hours[0], hours[-1] + HOUR))
    ((window, moment),) = accepted.parts
    assert window == Window(hours[0], hours[-1] + HOUR)
    before, then = lake.pinned(moment - 1), lake.pinned(moment)
    assert [before.read(table.name).num_rows for table in (EVENTS, QUARANTINE)] == [0, 0]
    assert [then.read(table.name).num_rows for table in (EVENTS, QUARANTINE)] == [
        accepted.counts["events"], accepted.counts["quarantine"]
    ]  # fmt: skip


def test_no_partition_in_the_future_and_none_for_garbage(lake, traffic):
    hours = land(lake, traffic).hours
    assert hours == [T0 + n * HOUR for n in range(5)]
    raw = lake.read(RAW_EVENTS.name).to_pylist()
    found = {row["body"][:20]: row["hour"] for row in raw}
    assert found[b"garbage"] == T0 + HOUR
    ahead = next(row for row in raw if b'"e77"' in row["body"])
    assert ahead["hour"] == T0 + HOUR


def test_the_landing_files_may_go(lake, traffic):
    landed = land(lake, traffic)
    expected = everything(read_log(traffic))
    for path in traffic:
        path.unlink()
    accept(lake, Window(landed.hours[0], landed.hours[-1] + HOUR))
    assert everything(lake).equals(expected)


def test_csv_and_parquet_come_back_from_the_lake_as_they_were_read(lake, tmp_path):
    text = tmp_path / "a.csv"
    text.write_text(f'event_id,user_id,note_id,action,event_time,title\nx,1,2,like,{US},"a ""b""\nc"\ny,1,2,like,,t\n')
    typed = parquet(tmp_path / "a.parquet", position=[2.0, None], seen=[T0, T0])
    landed = land(lake, [text, typed])
    counts = accept(lake, Window(landed.hours[0], landed.hours[-1] + HOUR)).counts
    assert counts == {"raw": 4, "events": 2, "quarantine": 2, "repeats": 0}
    assert everything(lake).equals(everything(read_log([text, typed])))


def test_arrow_types_are_those_of_the_tables(lake, traffic):
    land(lake, traffic)
    accept(lake, Window(T0, T0 + HOUR))
    assert lake.read(EVENTS.name).schema.field("event_time").type == pa.timestamp("us", "UTC")
