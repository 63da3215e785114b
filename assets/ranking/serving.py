"""Scoring a feed request: the features of a user and of notes as of now, all heads, and one value with each head's share.

Here: the feature store in memory, the rows of a request, the value by a weights file. Not here: the network and its forward
pass (registry.Ranker, model.py), how columns become arrays (features.py), which version serves (registry.py), a server.

A request is scored as its rows of `training_samples` would be, through training's own encoding. What a column is made of is read
from sql/lake/training_samples.sql (its lineage): user_ctr is `ctr` of the user's newest profile. A feature that is added
there is served without a change here, and a test compares store and table row by row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from assets.lake import Lake, LakeError, Window
from assets.ranking import features, registry
from assets.ranking.config import CROSSES, DWELL, OUTPUTS, RankerError
from assets.rules_file import Schema, read

SHIPPED = Path(__file__).with_name("value.toml")
SAMPLES = "training_samples"
JOBS = Path(__file__).resolve().parents[2] / "sql" / "lake"
LOOKBACK = dt.timedelta(days=7)  # as the head of training_samples.sql has it (a test compares)
# Columns of a sample that come from the display itself: what the request says, and what the note is.
REQUEST = ("channel", "device", "position", "hour_of_day")
NOTE = ("author_id", "topic")
CONTEXT = ("channel", "device", "time")
HOUR = dt.timedelta(hours=1)
ENCODE_ROWS = 65_536
CONTEXTS = 10_000  # contexts (channel, device, position, hour) whose encoding is kept


# --- the value --------------------------------------------------------------------------------------------------------


def load_weights(path: Path | str = SHIPPED) -> dict[str, float]:
    """Weight of each head. Raises RulesError, naming file and line, for a file that is wrong, FileNotFoundError for none."""
    return parse_weights(Path(path).read_text(), str(path))


def parse_weights(text: str, name: str) -> dict[str, float]:
    schema: Schema = {"weights": {head: (_weight, "a number, 0 to leave the head out") for head in OUTPUTS}}
    return read(text, name, schema)["weights"]


def _weight(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(value)
    return float(value)


def shares(scores: np.ndarray, heads: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """What each head adds to a display's value, float64 [n, heads]; their sum is the value.

    scores: [n, heads] as a version gives them: p(click), and the others (dwell: seconds) given a click.
    """
    expected = scores.astype(np.float64)
    click = list(heads).index("click")
    others = [i for i in range(len(heads)) if i != click]
    expected[:, others] *= expected[:, [click]]
    return expected * np.array([weights[head] for head in heads])


# --- the feature store ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """Rows found by a key. names: its columns, in a request's rows. hashes: ascending, one a row. codes: of key columns that
    are texts, text to number."""

    names: tuple[str, ...]
    hashes: np.ndarray
    codes: dict[str, dict[str, int]]

    def find(self, wanted: Mapping[str, pa.Array]) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers by key, and which of them are right (a key that is null is never there)."""
        parts, known = [], True
        for name in self.names:
            values, valid = _numbers(wanted[name], self.codes.get(name))
            parts.append(values)
            known = known & valid
        hashes = _hashed(parts)
        if not len(self.hashes):
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), bool)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return at, known & (self.hashes[at] == hashes)


def _key(frame: pl.DataFrame, names: Sequence[str]) -> tuple[Key, pl.DataFrame]:
    """The key of a frame with one row a key, and the frame in its order."""
    frame = frame.drop_nulls(list(names))
    codes = {name: {text: i for i, text in enumerate(frame[name].unique().to_list())} for name in names if frame[name].dtype == pl.String}
    hashes = _hashed([_numbers(frame[name].to_arrow(), codes.get(name))[0] for name in names])
    order = np.argsort(hashes)
    return Key(tuple(names), hashes[order], codes), frame[order]


def _numbers(values: pa.Array, codes: Mapping[str, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers that stand for the values, int64 [n], and which of them are known."""
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    if codes is None:
        return values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), valid
    found = values.dictionary_encode()
    coded = np.array([codes.get(text, -1) for text in found.dictionary.to_pylist()] or [-1], dtype=np.int64)
    numbers = coded[found.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    return numbers, (numbers >= 0) & valid


def _hashed(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One uint64 a row from its key's numbers; among a million keys two are mixed up with a chance of 1 in 40 million."""
    hashes = features.splitmix64(parts[0])
    for part in parts[1:]:
        hashes = features.paired(hashes, features.splitmix64(part))
    return hashes


@dataclass(frozen=True)
class Part:
    """A table's newest rows, encoded as a version reads them. encoded: array of Encoded (by its place) -> the columns that the
    table decides, and their values [rows, columns]."""

    key: Key
    encoded: dict[int, tuple[np.ndarray, np.ndarray]]

    def put(self, arrays: list[np.ndarray], at: np.ndarray, known: np.ndarray, common: set[tuple[int, int]]) -> None:
        """Write the rows found into a request's arrays, each [n, columns]. at, known: [n], or [1] for a key of the user alone."""
        if not known.any():
            return
        every = known.all()
        for place, (columns, values) in self.encoded.items():
            target = arrays[place]
            picked = values[at if every else at[known]]
            if shared := [i for i, column in enumerate(columns) if (place, int(column)) in common] if common else []:
                # A "no profile" flag of several tables: what one of them knows is known.
                rows = target if every else target[known]
                picked = np.array(np.broadcast_to(picked, (len(rows), len(columns))))
                picked[:, shared] = np.minimum(picked[:, shared], rows[:, columns[shared]])
            if every:
                target[:, columns] = picked
            else:
                target[np.ix_(known, columns)] = picked


class FeatureStore:
    """Features as of the start of `hour`, encoded for one version: of each key the newest row of an earlier hour, LOOKBACK old at
    most. versions: Delta version of each table read.

    Encoding works row by row, and each column comes from one side: so a row is put together from parts that were encoded when
    the store was loaded (profiles) or once a context (channel, device, hour), and only the crosses are made a request.
    """

    def __init__(
        self, schema: features.FeatureSchema, hour: dt.datetime, kinds: dict[str, pa.DataType], versions: dict[str, int]
    ) -> None:
        self.schema, self.hour, self.kinds, self.versions = schema, hour, kinds, versions
        self.place = {name: i for i, name in enumerate(schema.tables)}
        self.parts: dict[str, Part] = {}
        self.common: set[tuple[int, int]] = set()
        self.known_contexts: dict[tuple, list[np.ndarray]] = {}
        self.nothing = self._encoded({}, 1)
        self.note_key = self.notes = None

    @classmethod
    def load(cls, lake: Lake, schema: features.FeatureSchema, now: dt.datetime) -> FeatureStore:
        """Read what a version's columns need. Raises RankerError for a column that training_samples.sql does not make, and for a
        table that is not there."""
        lake = lake.pinned()
        hour = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
        before = Window(hour - LOOKBACK, hour)
        try:
            kinds = {field.name: field.type for field in pa.schema(lake.dataset(SAMPLES).schema)}
            if missing := [name for name in schema.columns if name not in kinds]:
                raise RankerError(f"`{SAMPLES}` lacks {', '.join(missing)}, which this version reads; materialize it anew")
            store = cls(schema, hour, kinds, {SAMPLES: lake.version(SAMPLES)})
            # What a note is does not change: displays of the running hour say it too.
            store._take_notes(_newest(lake, SAMPLES, Window(before.start, hour + HOUR), ["note_id"], NOTE))
            for table, (keys, wanted) in sources(schema.columns).items():
                store._take(table, _newest(lake, table, before, keys, wanted.values()), keys, wanted)
                store.versions[table] = lake.version(table)
        except LakeError as error:
            raise RankerError(str(error)) from error
        return store

    def _take_notes(self, frame: pl.DataFrame) -> None:
        self.note_key, ordered = _key(frame, ["note_id"])
        table = ordered.select([pl.col(name) for name in NOTE]).to_arrow()
        self.notes = {name: _plain(table.column(name).cast(self.kinds[name])) for name in NOTE}
        self.note_ids = {name: self.schema.rows(name, self.notes[name])
                         for name in NOTE if name in self.place}  # fmt: skip

    def _take(self, table: str, frame: pl.DataFrame, keys: Sequence[str], columns: Mapping[str, str]) -> None:
        """columns: name in `training_samples` -> name in the table."""
        key, ordered = _key(frame, keys)
        found = ordered.select([pl.col(source).alias(name) for name, source in columns.items()]).to_arrow()
        given = {name: _plain(found.column(name).cast(self.kinds[name])) for name in columns}
        encoded = self._decided(given, found.num_rows)
        for other in self.parts.values():
            for place, (decided, _) in encoded.items():
                both = np.intersect1d(decided, other.encoded.get(place, (np.array([], int),))[0])
                self.common |= {(place, int(column)) for column in both}
        self.parts[table] = Part(key, encoded)

    def _decided(self, given: Mapping[str, pa.Array], count: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """By array of Encoded: the columns that differ from those of a row of which nothing is known, and their values."""
        chunks = []
        for start in range(0, count, ENCODE_ROWS):
            rows = {name: column.slice(start, ENCODE_ROWS) for name, column in given.items()}
            arrays = self._encoded(rows, min(ENCODE_ROWS, count - start))
            columns = [np.flatnonzero((array != nothing).any(axis=0)) for array, nothing in zip(arrays, self.nothing, strict=True)]
            chunks.append([(where, array[:, where]) for where, array in zip(columns, arrays, strict=True)])
        found = {}
        for place, nothing in enumerate(self.nothing):
            if len(decided := np.unique(np.concatenate([chunk[place][0] for chunk in chunks] or [[]])).astype(np.int64)):
                whole = np.tile(nothing[:, decided], (count, 1))
                for i, chunk in enumerate(chunks):
                    where, values = chunk[place]
                    rows = slice(i * ENCODE_ROWS, i * ENCODE_ROWS + len(values))
                    whole[rows, np.searchsorted(decided, where)] = values
                found[place] = (decided, whole)
        return found

    def _encoded(self, given: Mapping[str, pa.Array], count: int) -> list[np.ndarray]:
        """Training's own encoding of rows of which only the given columns are known; each array as [count, columns]."""
        columns = self.schema.columns
        names = columns if "hour_of_day" in columns else [*columns, "hour_of_day"]
        rows = pa.table({name: given[name] if name in given else pa.nulls(count, self.kinds[name]) for name in names})
        encoded = features.encode(rows, self.schema, labelled=False)
        self.shapes = [array.shape[1:] for array in encoded]
        return [array.reshape(count, -1) for array in encoded]

    def _context(self, request: Mapping[str, object]) -> list[np.ndarray]:
        """One row with what the request says, and nothing of user and note."""
        key = tuple(request[name] for name in REQUEST)
        if key not in self.known_contexts:
            if len(self.known_contexts) >= CONTEXTS:
                self.known_contexts = {}
            try:
                given = {name: pa.array([request[name]], self.kinds[name]) for name in REQUEST}
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                raise RankerError(f"the context cannot be read: {error}") from None
            self.known_contexts[key] = self._encoded(given, 1)
        return self.known_contexts[key]

    def encode(
        self, user: int | None, notes: pa.Table, request: Mapping[str, object]
    ) -> tuple[features.Encoded, dict[str, np.ndarray]]:
        """What `features.encode` gives for the request's rows in `training_samples`; and by table which rows it had, [n] or [1].

        request: REQUEST's values, None where not known.
        """
        count = notes.num_rows
        arrays = [np.repeat(one, count, axis=0) for one in self._context(request)]
        values = {"user_id": pa.array([user], pa.int64()), "note_id": _plain(notes.column("note_id")).cast(pa.int64())}
        at, known = self.note_key.find(values)
        ids = arrays[0]
        for name in NOTE:
            given = name in notes.column_names
            values[name] = _plain(notes.column(name)).cast(self.kinds[name]) if given else self.notes[name].take(pa.array(at, mask=~known))
            if name in self.place:
                told = self.schema.rows(name, values[name]) if given else self._of_notes(name, at, known)
                ids[:, self.place[name]] = told
        for name in ("user_id", "note_id"):
            if name in self.place:
                ids[:, self.place[name]] = self.schema.rows(name, values[name])
        wide = {name: pa.repeat(column[0], count) if len(column) == 1 else column for name, column in values.items()}
        for name in self.schema.tables:
            if name in CROSSES:
                ids[:, self.place[name]] = self.schema.rows(name, *(wide[one] for one in CROSSES[name]))
        found = {}
        for table, part in self.parts.items():
            alone = part.key.names == ("user_id",)
            where, found[table] = part.key.find(values if alone else wide)
            part.put(arrays, where, found[table], self.common)
        return features.Encoded(*(array.reshape(count, *shape) for array, shape in zip(arrays, self.shapes, strict=True))), found

    def _of_notes(self, name: str, at: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known, self.note_ids[name][at], 0) if len(self.note_ids[name]) else np.zeros(len(at), np.int64)


def sources(columns: Sequence[str]) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    """Source table -> (its key but for the hour, name in `training_samples` -> name in the table), by the SQL jobs' lineage.

    Raises RankerError for a column that training_samples.sql does not make of one column of one keyed table.
    """
    from assets.notebook.promote import LINE_TABLES
    from assets.samples.sql_job import load_sound_jobs

    sound, broken = load_sound_jobs(JOBS, LINE_TABLES)
    jobs = {job.name: job for job in sound}
    if SAMPLES not in jobs or not jobs[SAMPLES].columns:
        raise RankerError(f"{SAMPLES} cannot be served as it is now: {'; '.join(map(str, broken.values()))}")
    made = {column.name: column.sources for column in jobs[SAMPLES].columns}
    found: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {}
    for name in columns:
        if name in (*REQUEST, *NOTE, "user_id", "note_id"):
            continue
        if name not in made:
            raise RankerError(f"this version reads {name}, which sql/lake/{SAMPLES}.sql does not make any more; train a new one")
        tables = {table for table, _ in made[name]}
        if len(made[name]) != 1 or not tables <= set(jobs):
            raise RankerError(f"{name} cannot be served: {SAMPLES}.sql makes it of {made[name]}, not of one column of a profile")
        ((table, column),) = made[name]
        keys = tuple(key for key in jobs[table].head.grain if key != "hour")
        found.setdefault(table, (keys, {}))[1][name] = column
    return found


def _newest(lake: Lake, table: str, window: Window, keys: Sequence[str], columns) -> pl.DataFrame:
    """Of each key the row of the window's newest hour."""
    names = list(dict.fromkeys(["hour", *keys, *columns]))
    frame = pl.from_arrow(lake.read(table, window, names))
    return frame.lazy().sort("hour").unique(list(keys), keep="last").collect()


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


# --- a version that serves --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """A request's notes in the order they were given in, n of them.

    heads: names. p: float32 [n, heads], p(click) and the others given a click (dwell: seconds given a click). value: float64
    [n]. shares: float64 [n, heads], what each head adds to the value. known_user: whether the user has a profile. known_notes:
    bool [n], which notes have one.
    """

    notes: np.ndarray
    heads: tuple[str, ...]
    p: np.ndarray
    value: np.ndarray
    shares: np.ndarray
    known_user: bool
    known_notes: np.ndarray

    @property
    def order(self) -> np.ndarray:
        """Places of the notes, the most valuable first."""
        return np.argsort(-self.value, kind="stable")

    def table(self) -> pa.Table:
        """note_id, value, p_<head> ..., dwell_s, share_<head> ..., known_note; rows as given."""
        columns = {"note_id": self.notes, "value": self.value}
        columns |= {f"{DWELL}_s" if head == DWELL else f"p_{head}": self.p[:, i] for i, head in enumerate(self.heads)}
        columns |= {f"share_{head}": self.shares[:, i] for i, head in enumerate(self.heads)}
        return pa.table({**columns, "known_note": self.known_notes})


class Ranker:
    """A version with its features in memory.

        ranker = Ranker.load(lake)
        scores = ranker.score(user=17, notes=[4, 8, 15], context={"channel": "homefeed", "device": "ios"})

    It stays at the hour it was loaded for; `refresh` brings it to the newest, best from a thread of its own, for a new
    Ranker is returned and this one goes on. Scoring changes nothing and may be called from several threads.
    """

    def __init__(self, model: registry.Ranker, store: FeatureStore, weights: Mapping[str, float], lake: Lake) -> None:
        self.model, self.store, self.weights, self.lake = model, store, dict(weights), lake
        self.heads = OUTPUTS

    @classmethod
    def load(
        cls, lake: Lake, version: str | None = registry.SERVING, *, now: dt.datetime | None = None,
        weights: Path | str | Mapping[str, float] = SHIPPED,
    ) -> Ranker:  # fmt: skip
        """A version ("serving", None for the newest, or a name) and the features as of the hour of `now`, this one by default.

        weights: a file like value.toml, or by head. Raises RankerError where no such version is there, or a table is missing.
        """
        model = registry.load(lake, version)
        chosen = weights if isinstance(weights, Mapping) else load_weights(weights)
        if missing := [head for head in OUTPUTS if head not in chosen]:
            raise RankerError(f"the weights say nothing of {', '.join(missing)}; 0 leaves a head out")
        store = FeatureStore.load(lake, model.schema, now or dt.datetime.now(dt.UTC))
        return cls(model, store, chosen, lake)

    @property
    def version(self) -> str:
        return self.model.version

    def refresh(self, now: dt.datetime | None = None) -> Ranker:
        """The same version with the features as of `now`."""
        store = FeatureStore.load(self.lake, self.model.schema, now or dt.datetime.now(dt.UTC))
        return Ranker(self.model, store, self.weights, self.lake)

    def score(
        self, user: int | None, notes: Sequence[int] | np.ndarray | pa.Table, context: Mapping[str, object] | None = None
    ) -> Scores:
        """All heads and the value of each note for a user.

        notes: ids; or a table with note_id and, for notes that were never displayed, author_id and topic (they go before what
        the store knows). context: channel, device and time (datetime, now by default: gives the hour of the day); what is not
        given is "not known". Position has no part in it: the model's bias of positions is left out.
        A user or a note without a profile is scored as training saw such: by what is known of the other side, and by the
        flag "no profile". An id that training never saw has a row of the table that it may share with others.
        Raises RankerError for a context or notes that cannot be read.
        """
        table = _notes(notes)
        rows, found = self.store.encode(user, table, _request(context or {}))
        scores = self.model.score_encoded(rows)
        parts = shares(scores, self.heads, self.weights)
        return Scores(
            notes=_plain(table.column("note_id")).to_numpy(zero_copy_only=False), heads=self.heads, p=scores,
            value=parts.sum(axis=1), shares=parts, known_user=bool(found.get("user_profiles", np.zeros(1)).any()),
            known_notes=found.get("note_profiles", np.zeros(len(scores), dtype=bool)),
        )  # fmt: skip


def _notes(notes: Sequence[int] | np.ndarray | pa.Table) -> pa.Table:
    if isinstance(notes, pa.Table):
        if "note_id" not in notes.column_names:
            raise RankerError(f"notes are ids or a table with note_id, author_id and topic, not one with {notes.column_names}")
        return notes
    try:
        return pa.table({"note_id": pa.array(notes, pa.int64())})
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise RankerError(f"notes are whole numbers (int64): {error}") from None


def _request(context: Mapping[str, object]) -> dict[str, object]:
    if unknown := sorted(set(context) - set(CONTEXT)):
        raise RankerError(f"the context names {', '.join(unknown)}; known are {', '.join(CONTEXT)}")
    time = context.get("time") or dt.datetime.now(dt.UTC)
    if not isinstance(time, dt.datetime) or time.tzinfo is None:
        raise RankerError(f"context time is a datetime with a zone, not {time!r}")
    return {
        "channel": context.get("channel"), "device": context.get("device"), "position": None,
        "hour_of_day": time.astimezone(dt.UTC).hour,
    }  # fmt: skip
