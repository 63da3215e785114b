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

from assets import upgrade
from assets.lake import Lake, Table, Window
from assets.metrics import loader, loads
from assets.metrics.loads import utc
from assets.metrics.schema import FEED, PARTS, fed_by

if TYPE_CHECKING:
    import polars as pl
    from clickhouse_connect.driver.client import Client

BEHAVIOURS = {"like": "likes", "fav": "favs", "comment": "comments", "share": "shares", "follow": "follows",
              "hide": "hides", "profile_enter": "profile_enters"}  # fmt: skip
_DIMENSIONS = ("channel", "device", "band")
_RANGE = "hour >= {start:DateTime('UTC')} AND hour < {end:DateTime('UTC')}"

# aggregate -> its sums, its keys beside hour, grain and at, its histogram.
_SUMS = {"display_totals": ("displays", "impressions", "clicks", "dwell_ms", *BEHAVIOURS.values()),
         "click_totals": ("clicks", "dwell_ms", *BEHAVIOURS.values()), "event_totals": ("events", "dwell_ms"),
         "late_totals": ("events",), "orphan_totals": ("events",)}  # fmt: skip
_KEYS = {
    "event_totals": (*_DIMENSIONS, "action"),
    "user_totals": ("rolled", *_DIMENSIONS),
    "display_totals": _DIMENSIONS,
    "click_totals": (*_DIMENSIONS, "attributed"),
    "late_totals": ("action",),
    "orphan_totals": ("action",),
}
_HISTOGRAMS = {"display_totals": "click_seconds", "click_totals": "dwell_seconds"}
_TIMES = ("hour", "at")
# Seconds of a row of an aggregate -> which dimensions it leaves out: 4 for the channel, 2 the device, 1 the band, added up.
_ROLLED = {60: (0, 7), 3600: tuple(range(8))}


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
    upgrade.complete(lake, [table.name for table in PARTS[part]], window)
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
            yield from _compare(table.name, _checksums(_mirrored(_frame(rows))), _checksums(_frame(_fetch(client, table, hours))))
            for name in fed_by(table.name)[1:]:
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


def _mirrored(rows: pl.DataFrame) -> pl.DataFrame:
    """Delta's rows as ClickHouse has them: the filters of the pages take `none` for no device."""
    import polars as pl

    return rows.with_columns(pl.col("device").fill_null("none")) if "device" in rows.columns else rows


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

    keys = ("hour", "grain", "at", *_KEYS[name])
    if name in _SUMS:
        measures = [f"sum({one}) AS {one}_" for one in _SUMS[name]]
    else:
        # A checksum of the ids themselves: as many users are not yet the same users.
        ids = "groupBitmapMergeState(users)"
        measures = [f"toUInt64(bitmapCardinality({ids})) AS users_", f"arraySum(bitmapToArray({ids})) AS ids_"]
    if name in _HISTOGRAMS:
        measures.append(f"toString(sumMap({_HISTOGRAMS[name]})) AS histogram_")
    if name == "event_totals":
        measures += [f"toUInt64(toUnixTimestamp64Micro({time})) AS {column}_" for column, time in
                     (("first", "min(first)"), ("newest", "max(newest)"))]  # fmt: skip
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
    kinds = {**dict.fromkeys(_TIMES, pl.Datetime("us")), "rolled": pl.Int64, "grain": pl.Int64, "attributed": pl.Boolean, "histogram_": pl.String}
    kinds |= {one: pl.UInt64 for one in measures if one != "histogram_"}
    return frame.select(pl.col(one).cast(kinds.get(one, pl.String)) for one in (*keys, *measures))


def _expected(name: str, rows: pa.Table) -> pl.DataFrame:
    """What the aggregate must hold for these rows of its source."""
    import polars as pl

    frame = pl.from_arrow(rows)
    if frame.is_empty():
        return frame
    frame = frame.with_columns(hour=pl.col("hour").dt.replace_time_zone(None), time=_time_of(name).dt.replace_time_zone(None))
    if set(_KEYS[name]) & set(_DIMENSIONS):
        frame = _with_dimensions(frame)
    keys = ("hour", "grain", "at", *_KEYS[name])
    return _shaped(pl.concat(part.group_by(keys).agg(_measures(name)) for part in _grains(name, frame)), keys)


def _with_dimensions(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    position = pl.col("position")
    bands = (("0", 1), ("1-2", 3), ("3-5", 6), ("6-9", 10))
    band = pl.when(position.is_null()).then(pl.lit("none"))
    for label, below in bands:
        band = band.when(position < below).then(pl.lit(label))
    return _mirrored(frame).with_columns(channel=pl.col("channel").fill_null("none"), band=band.otherwise(pl.lit("10+")))


def _grains(name: str, frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """All rows once for each grain and, of users, once more for each set of dimensions that is left out."""
    import polars as pl

    for grain in (60, 3600) if name == "user_totals" else (60, 900, 3600):
        part = frame.with_columns(pl.lit(grain).alias("grain"), pl.col("time").dt.truncate(f"{grain}s").alias("at"))
        if name != "user_totals":
            yield part
            continue
        for rolled in _ROLLED[grain]:
            out = [pl.lit("").alias(one) for one, bit in zip(_DIMENSIONS, (4, 2, 1), strict=True) if rolled & bit]
            yield part.with_columns(pl.lit(rolled).alias("rolled"), *out)


def _time_of(name: str) -> pl.Expr:
    import polars as pl

    if name == "display_totals":
        return pl.col("session_start")
    if name == "click_totals":
        return pl.when("attributed").then("impression_session_start").otherwise("session_start")
    return pl.col("event_time")


def _measures(name: str) -> list[pl.Expr]:
    import polars as pl

    if name == "user_totals":
        ids = pl.col("user_id").unique()
        # As numbers without a sign, whose sum goes round: what arraySum does.
        return [ids.len().alias("users_"), ids.reinterpret(signed=False).sum().alias("ids_")]
    if name in ("late_totals", "orphan_totals"):
        return [pl.len().alias("events_")]
    dwell = pl.col("dwell_ms").fill_null(0).clip(0).cast(pl.UInt64)
    found = [dwell.sum().alias("dwell_ms_")]
    if name == "event_totals":
        times = pl.col("event_time").dt.epoch("us")
        return [pl.len().alias("events_"), times.min().alias("first_"), times.max().alias("newest_"), *found]
    found += [pl.col(flag).sum().alias(f"{plural}_") for flag, plural in BEHAVIOURS.items()]
    if name == "click_totals":
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
