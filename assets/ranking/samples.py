"""Delta to batches without a JVM: which rows train, which are held out, and streams of both in bounded memory.

Here: the split by time, reading by table version, shuffling by seed, the share of each process, prefetching.
Not here: what a column means (features.py).

The order is a function of (seed, epoch): files in a drawn order, their rows cut into as many stretches as there are processes, each
stretch cut into chunks, each chunk mixed by (seed, epoch, chunk). So a process decodes its own stretch and nothing else, and a training
that is resumed at a step opens the file that the step's chunk begins in and reads on from there.

Memory of all processes together: a decoded record batch each, and three chunks (in use, ready, being made), whatever the table's size.
"""

from __future__ import annotations

import datetime as dt
import itertools
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from assets.lake import Lake, LakeError, Window
from assets.ranking import collisions, features
from assets.ranking.config import RankerConfig, RankerError

TABLE = "training_samples"
READ_ROWS = 65_536  # rows decoded at once
FIT_ROWS = 1_000_000  # training rows from which means and deviations are taken
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Split:
    """One version of `training_samples`, a window of it, and the moment that parts training from held-out samples.

    since: training samples begin no earlier; None: with the window.
    """

    lake: Lake
    version: int
    window: Window
    cutoff: dt.datetime
    train_rows: int
    holdout_rows: int
    since: dt.datetime | None = None

    def rows(self, part: str) -> int:
        return self.train_rows if part == "train" else self.holdout_rows

    def filter(self, part: str) -> pc.Expression:
        cutoff = pa.scalar(self.cutoff, pa.timestamp("us", "UTC"))
        # The bound on `hour` lets whole files be skipped.
        if part == "train":
            inside = (pc.field("hour") <= cutoff) & (pc.field("session_start") < cutoff)
            if self.since is not None:
                inside = inside & (pc.field("session_start") >= pa.scalar(self.since, pa.timestamp("us", "UTC")))
        else:
            inside = pc.field("session_start") >= cutoff
        return _inside(self.window) & inside

    def fragments(self, part: str) -> list[pds.Fragment]:
        """The files that hold rows of the part, in time order."""
        wanted = _inside(self.window)
        if part == "train":
            wanted = wanted & (pc.field("hour") <= pa.scalar(self.cutoff, pa.timestamp("us", "UTC")))
        else:
            wanted = wanted & (pc.field("hour") >= pa.scalar(_hour(self.cutoff), pa.timestamp("us", "UTC")))
        found = _dataset(self.lake, self.version).get_fragments(filter=wanted)
        return sorted(found, key=lambda f: (str(f.partition_expression), f.path))


def _dataset(lake: Lake, version: int | None) -> pds.Dataset:
    return lake.dataset(TABLE, version)


def _inside(window: Window) -> pc.Expression:
    start, end = (pa.scalar(bound, pa.timestamp("us", "UTC")) for bound in (window.start, window.end))
    return (pc.field("hour") >= start) & (pc.field("hour") < end)


def _hour(time: dt.datetime) -> dt.datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def split(lake: Lake, window: Window, config: RankerConfig, version: int | None = None) -> Split:
    """Find the minute that leaves the newest `config.holdout` of the window's samples to evaluation.

    Raises RankerError where the table is missing or empty in the window, lacks a column, or cannot be split.
    """
    try:
        version = lake.version(TABLE) if version is None else version
        data = _dataset(lake, version)
    except LakeError as error:
        raise RankerError(str(error)) from error
    features.check_columns(data.schema, config)
    if not config.holdout:
        rows = data.count_rows(filter=_inside(window))
        if not rows:
            raise RankerError(_nothing(version, window))
        return Split(lake, version, window, window.end, rows, 0)
    minutes: Counter[int] = Counter()
    for batch in data.to_batches(columns=["session_start"], filter=_inside(window), batch_size=READ_ROWS):
        times = batch.column(0).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
        minutes.update(dict(zip(*(a.tolist() for a in np.unique(times // MINUTE_US, return_counts=True)))))
    span = _span(window)
    if not minutes:
        raise RankerError(_nothing(version, window))
    if len(minutes) == 1:
        raise RankerError(f"all samples of {span} lie within one minute: nothing to hold out by time; widen the window")
    ordered = sorted(minutes)
    before = np.cumsum([minutes[m] for m in ordered])
    # A border has rows on both sides; take the one nearest to the share asked for.
    border = int(np.abs(before[:-1] - (1 - config.holdout) * before[-1]).argmin())
    cutoff = dt.datetime.fromtimestamp(ordered[border + 1] * 60, dt.UTC)
    return Split(lake, version, window, cutoff, int(before[border]), int(before[-1] - before[border]))


def between(lake: Lake, start: dt.datetime, end: dt.datetime, version: int) -> Split:
    """The samples that began in [start, end), all for training; perhaps none."""
    window = Window(_hour(start), _hour(end - dt.timedelta(microseconds=1)) + dt.timedelta(hours=1))
    where = Split(lake, version, window, end, 0, 0, start)
    return replace(where, train_rows=_dataset(lake, version).count_rows(filter=where.filter("train")))


def tables(where: Split, columns: list[str]) -> Iterator[pa.Table]:
    """The training rows in time order, `columns` only."""
    for batch in _record_batches("train", where, columns, where.fragments("train")):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _span(window: Window) -> str:
    return f"[{window.start.isoformat()}, {window.end.isoformat()})"


def _nothing(version: int, window: Window) -> str:
    return f"`{TABLE}` version {version} has no rows in {_span(window)}; materialize it for these hours first"


def _record_batches(
    part: str, where: Split, columns: list[str], fragments: list[pds.Fragment]
) -> Iterator[pa.RecordBatch]:
    schema = _dataset(where.lake, where.version).schema
    for fragment in fragments:
        yield from fragment.to_batches(
            schema=schema, columns=columns, filter=where.filter(part), batch_size=READ_ROWS,
            batch_readahead=1, fragment_readahead=1, use_threads=False,
        )  # fmt: skip


def fit_schema(where: Split, config: RankerConfig) -> tuple[features.FeatureSchema, tuple[float, ...]]:
    """Transforms, and the mean label by output, of up to FIT_ROWS training rows from files across the window."""
    names = features.dense_columns(_dataset(where.lake, where.version).schema)
    fragments = where.fragments("train")
    np.random.default_rng(config.seed).shuffle(fragments)
    kept, rows = [], 0
    for batch in _record_batches("train", where, [*names, *features.TARGETS], fragments):
        kept.append(batch)
        rows += batch.num_rows
        if rows >= FIT_ROWS:
            break
    sample = pa.Table.from_batches(kept)
    return features.fit(sample, config), features.positive_rates(sample)


def batch_size(rows: int, config: RankerConfig) -> int:
    """config.batch, halved for small logs until an epoch has config.min_steps steps (but at least 64)."""
    size = config.batch
    while size > 64 and rows < size * config.processes * config.min_steps:
        size //= 2
    return size


def steps(rows: int, batch: int, processes: int) -> int:
    """Steps of an epoch: the same in every process, since each step is a collective one."""
    return -(-(-(-rows // processes)) // batch)


def training_batches(
    where: Split, schema: features.FeatureSchema, config: RankerConfig, epoch: int = 0, rank: int = 0, start: int = 0
) -> Iterator[features.Encoded]:
    """The epoch's batches of one process from step `start` on: of `steps(...)` in all, each of `batch_size(...)` rows.

    Files are read in an order drawn by seed and epoch. Process r takes the r-th of `processes` equal stretches of that order, cut into
    chunks of config.shuffle_rows over all processes, each of them mixed. The last batch is filled up with rows of weight 0.
    The next chunk is read and encoded while this one is used.
    """
    return (batch for batch, _ in training_steps(where, schema, config, epoch, rank, start))


@dataclass(frozen=True)
class Moved:
    """From this step on ids lie where `ids` says; the rows `changed` (by feature) have another owner than before.

    seed: what their new weights are drawn from, the same in every process.
    """

    ids: collisions.IdMaps
    changed: dict[str, np.ndarray]
    seed: tuple[int, int, int]


def training_steps(
    where: Split, schema: features.FeatureSchema, config: RankerConfig, epoch: int = 0, rank: int = 0, start: int = 0,
    ids: collisions.IdMaps | None = None,
) -> Iterator[tuple[features.Encoded, Moved | None]]:  # fmt: skip
    """training_batches, each with what moved before it (None: nothing; hashed ids never move).

    ids: the maps to go on with, changed here; empty ones by default where the configuration has maps.
    """
    if config.collisions == "managed":
        schema = replace(schema, ids=collisions.IdMaps.empty(config) if ids is None else ids)
    size = batch_size(where.train_rows, config)
    total = steps(where.train_rows, size, config.processes)
    per_chunk = max(1, config.shuffle_rows // (size * config.processes))
    done, moved = start, None
    chunks = prefetched(_chunks(where, schema, config, epoch, rank, start // per_chunk, per_chunk * size), ahead=1)
    for chunk, order, moved in chunks:
        for begin in range(done % per_chunk * size, len(order), size):
            yield _filled(chunk.rows(order[begin : begin + size]), size), moved
            moved = None
            done += 1
    if done < total:  # fewer rows than processes: this one has none of the last step
        columns = [*schema.columns, *features.TARGETS]
        yield _filled(features.encode(_no_rows(where, columns), schema), size), moved


def _chunks(
    where: Split, schema: features.FeatureSchema, config: RankerConfig, epoch: int, rank: int, first: int, rows: int
) -> Iterator[tuple[features.Encoded, np.ndarray, Moved | None]]:
    """The process's chunks from number `first` on, each with the order to take its rows in; `rows` of its rows each, the last one fewer.

    Maps are moved by the same chunk of all processes before any of its ids is looked up.
    """
    fragments = where.fragments("train")
    np.random.default_rng((config.seed, epoch)).shuffle(fragments)
    bounds = [where.train_rows * process // config.processes for process in range(config.processes + 1)]

    def stretch(process: int, columns: list[str]) -> Iterator[list[pa.RecordBatch]]:
        begin, end = bounds[process], bounds[process + 1]
        return _gathered(_between(where, columns, fragments, begin + first * rows, end), rows)

    columns = [*schema.columns, *features.TARGETS]
    of_keys = [] if schema.ids is None else features.key_columns(collisions.observed(schema.tables))
    others = {process: stretch(process, of_keys) for process in range(config.processes if of_keys else 0) if process != rank}
    mine = stretch(rank, columns)
    for number in range(first, -(-steps(where.train_rows, 1, config.processes) // rows)):
        parts, moved = next(mine, []), None
        if schema.ids is not None:
            seen = [parts if process == rank else next(others[process], []) for process in range(config.processes)]
            moved = _move(schema, list(itertools.chain(*seen)), config, epoch, number)
        encoded = features.encode(pa.Table.from_batches(parts) if parts else _no_rows(where, columns), schema)
        yield encoded, np.random.default_rng((config.seed, epoch, number)).permutation(len(encoded.ids)), moved


def _move(
    schema: features.FeatureSchema, parts: list[pa.RecordBatch], config: RankerConfig, epoch: int, number: int
) -> Moved | None:
    """Move the maps on by a chunk, once: a resumed training finds those of its checkpoint moved already."""
    if schema.ids.mark == (epoch, number):
        return None
    of = [features.observed_keys(part, collisions.observed(schema.tables)) for part in parts]
    changed = schema.ids.observe({name: np.concatenate([one[name] for one in of]) for name in of[0]}, (epoch, number))
    return Moved(schema.ids.copy(), changed, (config.seed, epoch, number))


def _count(where: Split, fragment: pds.Fragment) -> int:
    schema = _dataset(where.lake, where.version).schema
    return fragment.scanner(schema=schema, columns=[], filter=where.filter("train")).count_rows()


def _between(where: Split, columns: list[str], fragments: list[pds.Fragment], begin: int, end: int) -> Iterator[pa.RecordBatch]:
    """Rows [begin, end) of the training rows of the files, in their order; files before are counted, not read."""
    left, skipped = max(0, end - begin), 0
    while left and (held := _count(where, fragments[skipped])) <= begin:
        begin, skipped = begin - held, skipped + 1
    for batch in _record_batches("train", where, columns, fragments[skipped:]) if left else ():
        found = batch.slice(begin, left)
        begin, left = max(0, begin - batch.num_rows), left - found.num_rows
        if found.num_rows:
            yield found
        if not left:
            return


def _gathered(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Record batches put together and cut to `rows` each; the last has what is left."""
    held: list[pa.RecordBatch] = []
    free = rows
    for batch in batches:
        while batch.num_rows >= free:
            yield [*held, batch.slice(0, free)]
            batch, held, free = batch.slice(free), [], rows
        if batch.num_rows:
            held.append(batch)
            free -= batch.num_rows
    if held:
        yield held


def _no_rows(where: Split, columns: list[str]) -> pa.Table:
    schema = _dataset(where.lake, where.version).schema
    return pa.schema([schema.field(name) for name in columns]).empty_table()


def _share(batches: Iterable[pa.RecordBatch], rank: int, processes: int) -> Iterator[pa.RecordBatch]:
    seen = 0
    for batch in batches:
        first = (rank - seen) % processes
        seen += batch.num_rows
        mine = batch if processes == 1 else batch.take(pa.array(np.arange(first, batch.num_rows, processes)))
        if mine.num_rows:
            yield mine


def _filled(batch: features.Encoded, size: int) -> features.Encoded:
    missing = size - batch.ids.shape[0]
    if not missing:
        return batch
    return features.Encoded(*(np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) for a in batch))


def held_out(where: Split, columns: list[str], limit: int) -> Iterator[pa.Table]:
    """The held-out rows in time order, `columns` only; every k-th row where there are more than `limit`."""
    every = max(1, -(-where.holdout_rows // limit))
    for batch in _share(_record_batches("holdout", where, columns, where.fragments("holdout")), 0, every):
        yield pa.Table.from_batches([batch])


def prefetched(items: Iterator, ahead: int = 8) -> Iterator:
    """The same items, made in a thread of their own, at most `ahead` in advance. An error there is raised here."""
    ready: queue.Queue = queue.Queue(ahead)
    stop = threading.Event()
    done = object()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as error:  # handed over, not swallowed: the reader raises it
            put((done, error))

    thread = threading.Thread(target=work, name="samples", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        stop.set()
        thread.join()
