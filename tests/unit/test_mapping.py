"""Mappings: the three forms on real and written logs, and every mistake in a mapping named with file and key."""

import datetime as dt
import gzip
import json
import random

import polars as pl
import pytest

from assets.attribution.rules import Rules
from assets.events.contract import EVENTS
from assets.events.intake import accept, check_collisions, land, read_log
from assets.events.mapping import SHIPPED, MappingError, load_mapping, parse_mapping
from assets.events.sources import SourceError
from assets.lake import Window

HEAD = '[user]\ncolumn = "u"\n[item]\ncolumn = "i"\n[time]\ncolumn = "t"\n'
ACTION = '[action]\ncolumn = "a"\n[action.values]\nVIEW = "click"\n'
DISPLAY = '[display]\ndwell_ms = "ms"\n[display.behaviours]\nc = "click"\nl = "like"\nx = { 1 = "fav", 0 = "hide" }\n'


def log(tmp_path, text, name="log.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def events(read):
    return pl.from_arrow(read.events)


# --- the real logs ----------------------------------------------------------------------------------------------------

BEHAVIOURS = {
    "is_click": "click",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_forward": "share",
    "is_profile_enter": "profile_enter",
}


def test_kuairand_every_behaviour_of_every_display_is_an_event(kuairand, tmp_path):
    """Shuffled and with a fifth of its rows twice; compared display by display with the columns as published."""
    header, *rows = gzip.decompress(kuairand.read_bytes()).decode().splitlines()
    shuffled = rows + random.Random(1).sample(rows, len(rows) // 5)
    random.Random(2).shuffle(shuffled)
    read = read_log([log(tmp_path, "\n".join([header, *shuffled]) + "\n", "k.tsv")], load_mapping("kuairand"))
    assert read.rows == len(shuffled) and not len(read.quarantine)

    table = pl.read_csv("\n".join([header, *rows]).encode(), separator="\t")
    key = ["user_id", "video_id", "time_ms"]
    shown = table.group_by(key).agg(
        *(pl.col(column).max().cast(pl.Boolean).alias(action) for column, action in BEHAVIOURS.items()),
        like=(pl.col("label") == 1).any(), hide=(pl.col("label") == 0).any(), dwell=pl.col("play_time_ms").unique(),
    )  # fmt: skip
    # An event belongs to the last display of its key at or before it: behaviours follow within `within`.
    found = events(read).rename({"note_id": "video_id"}).sort("event_time")
    displays = shown.with_columns(
        pl.from_epoch("time_ms", time_unit="ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("shown")
    ).sort("shown")
    joined = found.join_asof(
        displays, left_on="event_time", right_on="shown", by=["user_id", "video_id"], check_sortedness=False
    )
    assert joined["shown"].null_count() == 0
    assert joined.select((pl.col("event_time") - pl.col("shown")).max()).item() < Rules().window
    # A display that begins while the one before it is still open takes over its last events: compare sums of those.
    crowded = displays.sort("shown").with_columns(
        gap=pl.col("shown").diff().over("user_id", "video_id"),
        next=-pl.col("shown").diff(-1).over("user_id", "video_id"),
    )
    alone = crowded.filter(
        (pl.col("gap").is_null() | (pl.col("gap") > pl.duration(minutes=10)))
        & (pl.col("next").is_null() | (pl.col("next") > pl.duration(minutes=10)))
    )
    assert len(alone) > 0.98 * len(displays)
    did = joined.group_by(key).agg(pl.col("action"), dwell_ms=pl.col("dwell_ms").sum())
    compared = alone.join(did, on=key, how="left")
    for action in [*BEHAVIOURS.values(), "like", "hide"]:
        assert compared.select((pl.col("action").list.contains(action) == pl.col(action)).all()).item(), action
    single = compared.filter(pl.col("dwell").list.len() == 1)
    assert single.select((pl.col("dwell").list.first() == pl.col("dwell_ms")).all()).item()
    assert len(found.filter(pl.col("action") == "impression")) == len(shown)


def test_deskdrop_exact_duplicates_are_the_repeats(deskdrop):
    read = read_log([deskdrop], load_mapping("deskdrop"))
    rows = pl.read_csv(gzip.decompress(deskdrop.read_bytes()), infer_schema=False)
    assert read.rows == len(rows) and not len(read.quarantine)
    distinct = rows.unique(["timestamp", "eventType", "contentId", "personId"])
    assert len(read.events) == len(distinct) and read.repeats == len(rows) - len(distinct)
    assert read.repeats >= 2284
    assert events(read)["user_id"].min() < 0 and set(events(read)["action"]) == {
        "click",
        "like",
        "fav",
        "comment",
        "follow",
    }
    context = json.loads(events(read)["context"][1])
    assert context == {"userCountry": "US"}


# --- forms on written logs --------------------------------------------------------------------------------------------


def test_a_display_becomes_events_in_a_believable_order(tmp_path):
    path = log(
        tmp_path,
        "u,i,t,c,l,x,ms,age\n1,2,1767600000000000,1,1,1,3000,x\n"
        "1,3,1767600000000000,0,,0,0,y\n1,4,1767600000000000,0,0,,99999999,z\n",
    )
    found = events(read_log([path], parse_mapping(HEAD + DISPLAY, "m")))
    by_note = {note: group["action"].to_list() for (note,), group in found.group_by("note_id", maintain_order=True)}
    assert by_note == {
        2: ["impression", "click", "like", "fav", "view_end"],
        3: ["impression", "hide"],
        4: ["impression", "view_end"],
    }
    times = found.filter(pl.col("note_id") == 2)["event_time"].to_list()
    assert times == sorted(times) and times[-1] - times[0] == dt.timedelta(seconds=3)
    end = found.filter(pl.col("note_id") == 4)["event_time"].to_list()
    assert dt.timedelta(minutes=9) < end[-1] - end[0] < dt.timedelta(minutes=10)
    assert found["dwell_ms"].drop_nulls().to_list() == [3000, 99999999]
    assert json.loads(found["context"][0]) == {"age": "x"}


def test_mind_requests_have_positions_clicks_and_string_ids(tmp_path):
    lines = [
        "1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN123-1 N456-0",
        "2\tU2\t11/12/2019 6:11:30 PM\t\tN-9-0 N8-1",
        "3\tU3\tnever\tN1\tN1-0",
        "4\tU3\t11/12/2019 6:11:30 PM\tN1\tN1-0 N2",
        "5\tU3\t11/12/2019 6:11:30 PM\tN1",
        "6\tU3\t11/12/2019 6:11:30 PM\tN1\t",
        "7\t\t11/12/2019 6:11:30 PM\tN1\tN1-1",
    ]
    read = read_log([log(tmp_path, "\n".join(lines) + "\n", "behaviors.tsv")], load_mapping("mind"))
    names = {row["key"]: row["original"] for row in read.id_keys.to_pylist()}
    rows = [
        (names[e["user_id"]], names[e["note_id"]], e["action"], e["position"], e["request_id"], e["event_time"].second)
        for e in read.events.to_pylist()
    ]
    assert rows == [
        ("U1", "N123", "impression", 0, "1", 58), ("U1", "N456", "impression", 1, "1", 58),
        ("U1", "N123", "click", 0, "1", 3),
        ("U2", "N-9", "impression", 0, "2", 30), ("U2", "N8", "impression", 1, "2", 30),
        ("U2", "N8", "click", 1, "2", 35),
    ]  # fmt: skip
    assert read.events["context"].null_count == 6
    assert read.quarantine["reason"].to_pylist() == [
        "event_time: not a time", "items: not like N123-1", "line: not 5 fields", "items: missing", "user_id: missing"
    ]  # fmt: skip
    assert read.quarantine["body"].to_pylist() == [line.encode() for line in lines[2:]]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("1,2,5000000000,SCROLL", "action: a value of a that the mapping does not name"),
        ("1,2,5000000000,", "action: missing"),
        ("x,2,5000000000,VIEW", 'user_id: not an integer of 64 bits (ids = "string" in the mapping takes any text)'),
        (",2,5000000000,VIEW", "user_id: missing"),
        ("1,2,soon,VIEW", "event_time: not a time"),
        ("1,2,1,VIEW", "event_time: outside of 2000 to 2100 (integers count microseconds)"),
        ("1,2,99999999999999999,VIEW", "event_time: outside of 2000 to 2100 (integers count microseconds)"),
        ("1,2", "line: not 4 fields"),
    ],
)
def test_broken_rows_of_a_mapped_log(tmp_path, row, why):
    mapping = parse_mapping(HEAD + 'unit = "s"\n' + ACTION, "m")
    read = read_log(
        [log(tmp_path, f"u,i,t,a\n1,2,1767600000,VIEW\n{row.replace('5000000000', '1767600001')}\n")], mapping
    )
    assert len(read.events) == 1
    assert [(q["row"], q["reason"]) for q in read.quarantine.to_pylist()] == [(3, why)]


@pytest.mark.parametrize(("cell", "why"), [("2", "c: not 0 or 1"), ("yes", "c: not 0 or 1")])
def test_a_behaviour_that_is_neither_0_nor_1(tmp_path, cell, why):
    read = read_log(
        [log(tmp_path, f"u,i,t,c,l,x,ms\n1,2,1767600000000000,{cell},1,1,5\n")], parse_mapping(HEAD + DISPLAY, "m")
    )
    assert read.quarantine["reason"].to_pylist() == [why] and not len(read.events)


def test_local_times_and_json_lines(tmp_path):
    mapping = parse_mapping(HEAD + 'zone = "Asia/Shanghai"\n' + ACTION, "m")
    rows = [
        {"u": 1, "i": 2, "t": text, "a": "VIEW", "n": k}
        for k, text in enumerate(["2026-01-05T18:00:00", "2026-01-05 10:00:00Z"])
    ]
    found = events(read_log([log(tmp_path, "\n".join(map(json.dumps, rows)), "log.jsonl")], mapping))
    assert [time.hour for time in found["event_time"]] == [10] and found["context"].to_list() == ['{"n": 0}']


def test_string_ids_are_stable_across_logs_and_kept(lake, tmp_path):
    head = (
        HEAD.replace('"u"\n', '"u"\nids = "string"\n').replace('"i"\n', '"i"\nids = "string"\n')
        + 'unit = "s"\n'
        + ACTION
    )
    mapping = parse_mapping(head, "m")
    paths = [
        log(tmp_path, f"u,i,t,a\nann,n1,{second},VIEW\nbob,n1,{second},VIEW\n", f"{second}.csv")
        for second in (1767600000, 1767700000)
    ]
    landed = land(lake, paths, mapping)
    keys = lake.read("id_keys").to_pylist()
    assert sorted((row["kind"], row["original"]) for row in keys) == [("note", "n1"), ("user", "ann"), ("user", "bob")]
    counts = accept(lake, Window(landed.hours[0], landed.hours[-1] + dt.timedelta(hours=1))).counts
    assert counts["events"] == 4
    users = set(lake.read(EVENTS.name)["user_id"].to_pylist())
    assert users == {row["key"] for row in keys if row["kind"] == "user"}


def test_a_display_that_spills_into_the_next_hour_comes_back_from_the_lake(lake, tmp_path):
    path = log(tmp_path, "u,i,t,c,l,x,ms\n1,2,1767603590000000,1,1,1,60000\n")  # ten seconds before the full hour
    mapping = parse_mapping(HEAD + DISPLAY, "m")
    landed = land(lake, [path], mapping)
    assert len(landed.hours) == 2
    for hour in landed.hours:
        accept(lake, Window(hour, hour + dt.timedelta(hours=1)))
    kept = pl.from_arrow(lake.read(EVENTS.name)).drop("hour").sort("event_id")
    assert kept.equals(events(read_log([path], mapping)).sort("event_id")) and len(kept) == 5


def test_two_ids_with_one_key_are_an_error():
    keys = pl.DataFrame({"kind": ["user", "user", "note"], "key": [5, 5, 5], "original": ["ann", "bob", "n"]})
    with pytest.raises(SourceError, match="two user ids .* 5: .*ann.*bob"):
        check_collisions(keys)
    check_collisions(keys[1:])


# --- mistakes in a mapping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = [", "not TOML"),
        (HEAD, r"none of \[action\], \[display\], \[request\]"),
        (HEAD + ACTION + DISPLAY, "exactly one"),
        (ACTION, "user: missing"),
        (HEAD.replace('column = "u"', "") + ACTION, "user.column: missing"),
        (HEAD.replace('"u"', "5") + ACTION, "user.column: 5 is not a text"),
        (HEAD + 'unit = "h"\n' + ACTION, "time.unit: 'h' is not one of: s, ms, us, ns"),
        (HEAD + 'zone = "Mars"\n' + ACTION, "time.zone: 'Mars' is not an IANA"),
        (HEAD + 'zoen = "UTC"\n' + ACTION, "time.zoen: unknown; allowed: zone, column, unit, format"),
        (HEAD + ACTION + "[fiel]\n", "fiel: unknown; allowed: name, file, user"),
        (HEAD + ACTION + 'LIKE = "liked"\n', "action.values.LIKE: 'liked' is not one of: impression, click"),
        (HEAD + DISPLAY + 'z = "clik"\n', "display.behaviours.z: 'clik' is not one of"),
        (HEAD + DISPLAY.replace("[display]\n", '[display]\nwithin = "ten"\n'), "display.within: not a duration"),
        (HEAD + '[request]\nitems = "x"\n', "item.column: not used with"),
        (HEAD + ACTION + '[columns]\nchanel = "x"\n', "columns.chanel: unknown; allowed: channel"),
    ],
)
def test_a_wrong_mapping_names_file_and_key(text, says):
    with pytest.raises(MappingError, match=f"my.toml: .*{says}"):
        parse_mapping(text, "my.toml")


def test_a_column_that_the_log_has_not_is_named(tmp_path):
    with pytest.raises(MappingError, match="my.toml: column 'a' is not in log.csv, which has: u, i, t"):
        read_log([log(tmp_path, "u,i,t\n1,2,3\n")], parse_mapping(HEAD + ACTION, "my.toml"))


def test_a_mapping_that_is_not_there_names_the_shipped_ones(tmp_path):
    with pytest.raises(MappingError, match="shipped mappings: deskdrop, ebnerd, kuairand, mind"):
        load_mapping(tmp_path / "none.toml")
    assert {load_mapping(path).file for path in SHIPPED.glob("*.toml")} == {
        str(path) for path in SHIPPED.glob("*.toml")
    }
