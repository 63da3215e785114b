"""Whether ClickHouse holds what Delta holds: every row of every table, and every aggregate computed anew from Delta's rows.

Here: the comparison, per hour. Not here: mending (loader.load_window does it), who asks (dagster_project/checks.py).

The aggregates are computed by polars from Delta, by ClickHouse's views from what was inserted: two ways, one result.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from assets.lake import Lake, Table, Window
from assets.metrics import loader, loads
from assets.metrics.loads import utc
from assets.metrics.schema import AGGREGATES, FEED, PARTS

if TYPE_CHECKING:
    import polars as pl
    from clickhouse_connect.driver.client import Client

BEHAVIOURS = {"like": "likes", "fav": "favs", "comment": "comments", "share": "shares", "follow": "follows",
              "hide": "hides", "profile_enter": "profile_enters"}  # fmt: skip
_DIMENSIONS = ("channel", "device", "band")
_RANGE = "hour >= {start:DateTime('UTC')} AND hour < {end:DateTime('UTC')}"

# aggregate -> (its keys beside hour, its measures as ClickHouse says them so that rows can be compared)
_SUMS = {"displays": ("displays", "impressions", "clicks", "dwell_ms", *BEHAVIOURS.values()),
         "clicks": ("clicks", "dwell_ms", *BEHAVIOURS.values()), "events": ("events", "dwell_ms")}  # fmt: skip
_KEYS = {
    "events_by_minute": ("minute", *_DIMENSIONS, "action"),
    "events_by_hour": (*_DIMENSIONS, "action"),
    "users_by_minute": ("minute", *_DIMENSIONS),
    "users_by_hour": _DIMENSIONS,
    "displays_by_minute": ("minute", *_DIMENSIONS),
    "displays_by_hour": _DIMENSIONS,
    "clicks_by_minute": ("minute", *_DIMENSIONS, "attributed"),
    "clicks_by_hour": ("display_hour", *_DIMENSIONS, "attributed"),
}
_HISTOGRAMS = {"displays": "click_seconds", "clicks": "dwell_seconds"}
_TIMES = ("hour", "minute", "display_hour")


def _kind(name: str) -> str:
    """What an aggregate is about: events, users, displays or clicks."""
    return name.split("_")[0]


@dataclass(frozen=True)
class Difference:
    """An hour of a table or aggregate in which ClickHouse and Delta disagree. rows_*: counts; equal: other contents."""

    table: str
    hour: dt.datetime
    rows_delta: int
    rows_clickhouse: int

    def __str__(self) -> str:
        what = "the same count, other rows" if self.rows_delta == self.rows_clickhouse else (
            f"{self.rows_delta} rows in Delta, {self.rows_clickhouse} in ClickHouse"
        )  # fmt: skip
        return f"{self.table} {self.hour:%Y-%m-%dT%H:%M}Z: {what}"


def verify_window(
    lake: Lake, client: Client, window: Window, part: str = FEED, days: int | None = None
) -> list[Difference]:  # fmt: skip
    """Where ClickHouse differs from Delta in the window, table by table and aggregate by aggregate, per hour.

    An empty list means: the same rows. What the live labeler has committed and ClickHouse has not taken yet is no
    difference: hours that differ are looked at again after its batches were appended, while nobody else writes. days: hours
    that are older are not compared, ClickHouse may forget them (schema.retain).
    """
    if days is not None:
        oldest = (dt.datetime.now(dt.UTC) - dt.timedelta(days=days - 1)).replace(minute=0, second=0, microsecond=0)
        if oldest >= window.end:
            return []
        window = Window(max(oldest, window.start), window.end)
    found = list(_differences(loader.latest(lake), client, window, part))
    if not found:
        return []
    with loads.alone(lake):
        _take_what_is_owed(lake, client)
        again = [list(_differences(loader.latest(lake), client, Window(hour, hour + loader.ONE_HOUR), part))
                 for hour in sorted({one.hour for one in found})]  # fmt: skip
    return [one for hour in again for one in hour]


def _take_what_is_owed(lake: Lake, client: Client) -> None:
    """Append the live batches that ClickHouse has not got yet; the follower's own append changes nothing then."""
    if lake.log is None:
        return
    last = client.query("SELECT maxOrNull(moment) FROM batches").result_rows[0][0]
    for number in lake.log.numbers():
        if last is not None and number > last and (moment := lake.log.moment(number)).note.get("batch_id"):
            loader.append_owed(lake, client, moment)


def _differences(lake: Lake, client: Client, window: Window, part: str) -> Iterator[Difference]:
    for table in PARTS[part]:
        version = lake.version(table.name) if lake.exists(table.name) else None
        for hours, rows in loader.slices(lake, table, window, version):
            yield from _compare(table.name, _checksums(_frame(rows)), _checksums(_frame(_fetch(client, table, hours))))
            for name in (name for name, source in AGGREGATES.items() if source == table.name):
                ours, theirs = _expected(name, rows), _aggregate(client, name, hours)
                yield from _compare(name, _checksums(ours), _checksums(theirs))


def _compare(name: str, ours: dict, theirs: dict) -> Iterator[Difference]:
    for hour in sorted(ours.keys() | theirs.keys()):
        if ours.get(hour) != theirs.get(hour):
            yield Difference(name, hour, ours.get(hour, (0, 0))[0], theirs.get(hour, (0, 0))[0])


def _checksums(frame: pl.DataFrame) -> dict[dt.datetime, tuple[int, int]]:
    """Per hour: rows, and a sum over row hashes, which does not depend on the order of rows."""
    import polars as pl

    if frame.is_empty():
        return {}
    hashes = frame.hash_rows(seed=1) // 2**24  # 2^24 rows of an hour fit before the sum would leave 64 bits
    summed = pl.DataFrame({"hour": frame["hour"], "hash": hashes}).group_by("hour").agg(pl.len(), pl.col("hash").sum())
    return {utc(hour): (count, checksum) for hour, count, checksum in summed.iter_rows()}


def _frame(rows: pa.Table) -> pl.DataFrame:
    import polars as pl

    return pl.from_arrow(rows)


def _fetch(client: Client, table: Table, part: Window) -> pa.Table:
    rows = _query(client, f"SELECT {', '.join(table.schema.names)} FROM {table.name} WHERE {_RANGE}", part)
    columns = [_cast(rows.column(field.name), field.type) for field in table.schema]
    return pa.Table.from_arrays(columns, schema=table.schema.remove_metadata())


def _query(client: Client, sql: str, part: Window) -> pa.Table:
    return client.query_arrow(
        sql, parameters={"start": part.start, "end": part.end},
        settings={"output_format_arrow_low_cardinality_as_dictionary": 0, "output_format_arrow_string_as_string": 0},
    )  # fmt: skip


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(kind) and not pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64()).cast(pa.timestamp("s", "UTC"))  # DateTime comes as seconds
    return column.cast(kind)


# --- aggregates -------------------------------------------------------------------------------------------------------


def _aggregate(client: Client, name: str, part: Window) -> pl.DataFrame:
    """An aggregate as ClickHouse has it, in the columns of `_expected`."""
    import polars as pl

    keys, kind = ("hour", *_KEYS[name]), _kind(name)
    if kind in _SUMS:
        measures = [f"sum({one}) AS {one}_" for one in _SUMS[kind]]
        if kind in _HISTOGRAMS:
            measures.append(f"toString(sumMap({_HISTOGRAMS[kind]})) AS histogram_")
    else:
        # A checksum of the ids themselves: as many users are not yet the same users.
        ids = "groupBitmapMergeState(users)"
        measures = [f"toUInt64(bitmapCardinality({ids})) AS users_", f"arraySum(bitmapToArray({ids})) AS ids_"]
    rows = _query(client, f"SELECT {', '.join([*keys, *measures])} FROM {name} WHERE {_RANGE} GROUP BY {', '.join(keys)}", part)
    frame = pl.from_arrow(rows)
    if frame.is_empty():
        return frame
    times = [one for one in _TIMES if one in frame.columns]
    text = [one for one in frame.columns if frame.schema[one] == pl.Binary]
    return _shaped(frame.with_columns(
        *(pl.from_epoch(pl.col(one).cast(pl.Int64), time_unit="s").alias(one) for one in times),
        *(pl.col(one).cast(pl.String) for one in text),
    ), keys)  # fmt: skip


def _shaped(frame: pl.DataFrame, keys: tuple[str, ...]) -> pl.DataFrame:
    """The same types and order of columns on both sides, without which equal rows have other hashes."""
    import polars as pl

    measures = sorted(set(frame.columns) - set(keys))
    kinds = {**dict.fromkeys(_TIMES, pl.Datetime("us")), "attributed": pl.Boolean, "histogram_": pl.String}
    kinds |= {one: pl.UInt64 for one in measures if one != "histogram_"}
    return frame.select(pl.col(one).cast(kinds.get(one, pl.String)) for one in (*keys, *measures))


def _expected(name: str, rows: pa.Table) -> pl.DataFrame:
    """What the aggregate must hold for these rows of its source."""
    import polars as pl

    frame = pl.from_arrow(rows)
    if frame.is_empty():
        return frame
    position = pl.col("position")
    bands = (("0", 1), ("1-2", 3), ("3-5", 6), ("6-9", 10))
    band = pl.when(position.is_null()).then(pl.lit("none"))
    for label, below in bands:
        band = band.when(position < below).then(pl.lit(label))
    device = pl.col("context").str.json_path_match("$.device").fill_null("none").replace("", "none")
    frame = frame.with_columns(
        hour=pl.col("hour").dt.replace_time_zone(None), channel=pl.col("channel").fill_null("none"), device=device,
        band=band.otherwise(pl.lit("10+")),
        minute=_time_of(name).dt.replace_time_zone(None).dt.truncate("1m"),
        display_hour=_time_of(name).dt.replace_time_zone(None).dt.truncate("1h"),
    )  # fmt: skip
    keys = ("hour", *_KEYS[name])
    return _shaped(frame.group_by(keys).agg(_measures(name)), keys)


def _time_of(name: str) -> pl.Expr:
    import polars as pl

    if _kind(name) == "displays":
        return pl.col("session_start")
    if _kind(name) == "clicks":
        return pl.when("attributed").then("impression_session_start").otherwise("session_start")
    return pl.col("event_time")


def _measures(name: str) -> list[pl.Expr]:
    import polars as pl

    if _kind(name) == "users":
        ids = pl.col("user_id").unique()
        # As numbers without a sign, whose sum goes round: what arraySum does.
        return [ids.len().alias("users_"), ids.reinterpret(signed=False).sum().alias("ids_")]
    dwell = pl.col("dwell_ms").fill_null(0).clip(0).cast(pl.UInt64)
    found = [dwell.sum().alias("dwell_ms_")]
    if _kind(name) == "events":
        return [pl.len().alias("events_"), *found]
    found += [pl.col(flag).sum().alias(f"{plural}_") for flag, plural in BEHAVIOURS.items()]
    if _kind(name) == "clicks":
        seconds = (dwell // 1000).clip(0, 65535)
        return [pl.len().alias("clicks_"), *found, _histogram(seconds)]
    gone = (pl.col("first_click_time") - pl.col("session_start")).dt.total_microseconds()
    milliseconds = (pl.col("first_click_time").dt.epoch("us") // 1000) - (pl.col("session_start").dt.epoch("us") // 1000)
    seconds = ((milliseconds + 999) // 1000).clip(0, 65535).filter(pl.col("clicked") & gone.is_not_null())
    return [
        pl.len().alias("displays_"), pl.col("impressions").sum().alias("impressions_"),
        pl.col("clicked").sum().alias("clicks_"), *found, _histogram(seconds),
    ]  # fmt: skip


def _histogram(seconds: pl.Expr) -> pl.Expr:
    """{1:2,5:1}: how often each value is there, as ClickHouse writes a map."""
    import polars as pl

    def text(values: pl.Series) -> str:
        counts = values.value_counts().sort(values.name)
        return "{" + ",".join(f"{value}:{count}" for value, count in counts.iter_rows()) + "}"

    return seconds.map_batches(lambda values: pl.Series([text(values)]), returns_scalar=True, return_dtype=pl.String).alias(
        "histogram_"
    )
