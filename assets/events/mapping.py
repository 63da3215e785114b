"""Mappings: what the columns of a log of another form mean, written as a small TOML file.

Here: reading and checking a mapping, and turning a log's columns into typed events by it. Not here: how files are read
(sources.py), what an event may hold (contract.py). docs/bring_your_own_log.md explains how to write one.

A log has one of three forms: a row an event ([action]), a row a display with behaviours as columns ([display]), or a
row a feed request with a list of items ([request]).
"""

from __future__ import annotations

import datetime as dt
import re
import tomllib
import zoneinfo
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from assets.attribution.rules import parse_duration
from assets.events import values
from assets.events.contract import ACTIONS, EVENT_FIELDS
from assets.events.json_lines import elements, spans
from assets.events.json_lines import read as read_objects
from assets.events.scan import NESTED, NOT_FINITE
from assets.events.sources import CONTEXT, Layout, SourceError, layout_of

Odd = dict[str, pl.Series]  # see sources.Block
SHIPPED = Path(__file__).parent / "mappings"
MILLISECOND = 1_000
ORDER = {action: place for place, action in enumerate(ACTIONS)}


class MappingError(SourceError):
    """A mapping that cannot be used; the message names the file, the key and what is allowed."""


@dataclass(frozen=True)
class TimeColumn:
    """column; integers count unit (s, ms, us, ns); text is RFC 3339 or has the strptime form; zone if it names none."""

    column: str
    unit: str = "us"
    zone: str | None = None
    form: str | None = None

    def read(self, columns: pl.DataFrame, name: str, odd: Odd) -> tuple[pl.Series, pl.Series]:
        return values.as_time(columns[self.column], name, self.unit, self.zone, self.form, odd.get(self.column))


@dataclass(frozen=True)
class IdColumn:
    """column; string: its values are texts that become int64 keys (xxhash64), else integers that stay as they are."""

    column: str
    string: bool = False


@dataclass(frozen=True)
class Action:
    """A row an event: `column` holds the action's name, `names` translates it to the contract's."""

    column: str
    names: Dict[str, str]


@dataclass(frozen=True)
class Display:
    """A row a display. behaviours: column -> action, or column -> {value: action}. dwell: column of the ms looked at.

    within: all events of a display lie in [time, time + within).
    """

    behaviours: Dict[str, str | Dict[str, str]]
    dwell: str | None
    within: dt.timedelta


@dataclass(frozen=True)
class Request:
    """A row a feed request: `items` lists what it displayed, in order; `mark` stands between an item and 0 or 1.

    A list is a JSON array (of Parquet a list), or a text with `separator` between its items. Where no mark tells what was clicked,
    a second list does: `clicked_items` of the items clicked, or `flags` of a 0 or 1 for each item. id_key, flag_key: of items that
    are objects, the keys of the item's id and of its 0 or 1.
    """

    items: str
    separator: str
    mark: str
    click_after: dt.timedelta
    clicked_items: str | None = None
    flags: str | None = None
    id_key: str | None = None
    flag_key: str | None = None


@dataclass(frozen=True)
class Mapping:
    """A checked mapping. `wanted`: the columns that it reads; all others ride along in the events' context."""

    file: str
    text: str
    form: Action | Display | Request
    user: IdColumn
    item: IdColumn
    time: TimeColumn
    ingest_time: TimeColumn | None = None
    event_id: str | None = None
    columns: Dict[str, str] = field(default_factory=dict)
    constants: Dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    separator: str | None = None
    quote: str = '"'
    header: tuple[str, ...] | None = None

    @property
    def required(self) -> tuple[str, ...]:
        names = [self.user.column, self.item.column, self.time.column, *self.columns.values()]
        if isinstance(self.form, Action):
            names.append(self.form.column)
        elif isinstance(self.form, Display):
            names += [*self.form.behaviours, *([self.form.dwell] if self.form.dwell else [])]
        else:
            names += [name for name in (self.form.clicked_items, self.form.flags) if name]
        if self.ingest_time:
            names.append(self.ingest_time.column)
        if self.event_id:
            names.append(self.event_id)
        return tuple(dict.fromkeys(names))

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.required, *self.drop)))

    def layout(self, path: Path) -> Layout:
        return layout_of(path, self.header, self.separator, self.quote)

    def check_columns(self, path: Path, names: list[str] | None) -> None:
        """Raises MappingError where the log has not the columns that the mapping names."""
        missing = [] if names is None else [name for name in self.required if name not in names]
        if missing:
            raise MappingError(
                f"{self.file}: column {missing[0]!r} is not in {path.name}, which has: {', '.join(names)}"
            )

    def convert(
        self, columns: pl.DataFrame, odd: Odd
    ) -> tuple[pl.DataFrame, pl.Series, pl.DataFrame, pl.DataFrame]:
        """To (typed events with `index` of their row, reason a row, clock a row, id keys)."""
        base, reasons = self._base(columns, odd)
        if isinstance(self.form, Action):
            events, wrong, item = _one_event(self, columns, base, odd)
        elif isinstance(self.form, Display):
            events, wrong, item = _displays(self, columns, base, odd)
        else:
            events, wrong, item = _requests(self, columns, base, odd)
        reason = pl.DataFrame([s.rename(str(i)) for i, s in enumerate([*reasons, *wrong])]).select(
            reason=pl.coalesce(pl.all())
        )["reason"]
        user_key, user_text = _keys(columns[self.user.column], self.user, odd.get(self.user.column))
        keys = pl.concat([_key_rows("user", self.user, user_key, user_text), _key_rows("note", self.item, *item)])
        clock = base.select("event_time", "ingest_time")
        events = events.with_columns(ingest_time=pl.coalesce("ingest_time", "event_time"))
        return events.select("index", *(field.name for field in EVENT_FIELDS)), reason, clock, keys

    def _base(self, columns: pl.DataFrame, odd: Odd) -> tuple[pl.DataFrame, list[pl.Series]]:
        """What all events of a row share, and the reasons of what could not be read."""
        rows = columns.height
        user, wrong_user = _id(columns[self.user.column], self.user, "user_id", odd.get(self.user.column))
        time, wrong_time = self.time.read(columns, "event_time", odd)
        ingest, wrong_ingest = (
            self.ingest_time.read(columns, "ingest_time", odd) if self.ingest_time else (_nothing(rows, values.UTC_US), None)
        )
        base = {"user_id": user, "event_time": time, "ingest_time": ingest, "context": columns[CONTEXT]}
        reasons = [wrong_user, wrong_time] + ([wrong_ingest] if wrong_ingest is not None else [])
        for name in ("request_id", "channel", "position", "dwell_ms"):
            read = values.as_int if name in ("position", "dwell_ms") else values.as_text
            if name in self.columns:
                base[name], wrong = read(columns[self.columns[name]], name, odd=odd.get(self.columns[name]))
                reasons.append(wrong)
            elif name in self.constants:
                base[name] = pl.Series([self.constants[name]]).new_from_index(0, rows)
            else:
                base[name] = _nothing(rows, pl.Int64 if name in ("position", "dwell_ms") else pl.String)
        base["given_id"], wrong = (
            values.as_text(columns[self.event_id], "event_id", odd=odd.get(self.event_id)) if self.event_id else (_nothing(rows, pl.String), None)
        )
        reasons += [wrong] if wrong is not None else []
        return pl.DataFrame(base).with_row_index("index"), reasons


# --- the three forms --------------------------------------------------------------------------------------------------


def _one_event(mapping: Mapping, columns: pl.DataFrame, base: pl.DataFrame, odd: Odd):
    strange = odd.get(mapping.item.column)
    note, wrong_note = _id(columns[mapping.item.column], mapping.item, "note_id", strange)
    spelled, wrong_action = values.as_text(columns[mapping.form.column], "action", odd=odd.get(mapping.form.column))
    action = spelled.replace_strict(mapping.form.names, default=None, return_dtype=pl.String)
    unknown = action.is_null() & spelled.is_not_null()
    wrong_value = _because(unknown, f"action: a value of {mapping.form.column} that the mapping does not name")
    events = base.with_columns(note_id=note, action=action).with_columns(
        dwell_ms=pl.when(pl.col("action") == "view_end").then("dwell_ms"), row_time=pl.col("event_time")
    )
    item = _keys(columns[mapping.item.column], mapping.item, strange)
    return _with_ids(events), [wrong_note, wrong_action, wrong_value], item


def _displays(mapping: Mapping, columns: pl.DataFrame, base: pl.DataFrame, odd: Odd):
    """impression, a millisecond later the click, then the others, last view_end after the time looked at."""
    form = mapping.form
    strange = odd.get(mapping.item.column)
    note, wrong_note = _id(columns[mapping.item.column], mapping.item, "note_id", strange)
    base = base.with_columns(note_id=note)
    reasons = [wrong_note]
    dwell = _nothing(columns.height, pl.Int64)
    if form.dwell:
        dwell, wrong = values.as_int(columns[form.dwell], "dwell_ms", odd=odd.get(form.dwell))
        reasons.append(wrong)
    did: dict[str, list[pl.Series]] = {}
    for column, meaning in form.behaviours.items():
        happened, wrong = _behaviours(columns[column], column, meaning)
        reasons.append(wrong)
        for action, rows in happened.items():
            did.setdefault(action, []).append(rows)
    parts = [base.with_columns(action=pl.lit("impression"), offset=pl.lit(0, pl.Int64), dwell_ms=_null_int())]
    others = sorted((a for a in did if a not in ("impression", "view_end")), key=ORDER.get)
    for place, action in enumerate(others, start=1):
        rows = pl.DataFrame(did[action]).select(pl.any_horizontal(pl.all()))[did[action][0].name]
        parts.append(
            base.filter(rows).with_columns(
                action=pl.lit(action), offset=pl.lit(place * MILLISECOND, pl.Int64), dwell_ms=_null_int()
            )
        )
    looked = (dwell != 0).fill_null(False)
    last = int(form.within / dt.timedelta(microseconds=1)) - MILLISECOND
    after = (dwell.clip(0, last // 1000) * 1000).clip((len(others) + 1) * MILLISECOND, last)
    parts.append(base.with_columns(action=pl.lit("view_end"), offset=after, dwell_ms=dwell).filter(looked))
    # A display's events stand together, in their order.
    events = pl.concat([part.select(parts[0].columns) for part in parts]).sort("index", "offset", maintain_order=True)
    events = events.with_columns(
        row_time=pl.col("event_time"), event_time=pl.col("event_time") + pl.duration(microseconds=pl.col("offset"))
    )
    return _with_ids(events), reasons, _keys(columns[mapping.item.column], mapping.item, strange)


def _behaviours(column: pl.Series, name: str, meaning) -> tuple[dict[str, pl.Series], pl.Series]:
    """Which rows did which action, and the reason where a value means nothing. Null: did nothing."""
    text = column.cast(pl.String).str.to_lowercase() if column.dtype == pl.Boolean else column.cast(pl.String)
    text = text.str.replace(r"\.0$", "")  # pandas writes a 0/1 column with nulls as floats
    if isinstance(meaning, str):
        allowed, happened = ["0", "1", "true", "false"], {meaning: text.is_in(["1", "true"])}
    else:
        allowed = list(meaning)
        happened = {}
        for value, action in meaning.items():
            rows = text == value
            happened[action] = happened[action] | rows if action in happened else rows
        happened.pop("", None)
    wrong = text.is_not_null() & ~text.is_in(allowed)
    shown = "0 or 1" if isinstance(meaning, str) else "a value that the mapping names"
    return {a: rows.fill_null(False) for a, rows in happened.items()}, _because(wrong, f"{name}: not {shown}")


def _requests(mapping: Mapping, columns: pl.DataFrame, base: pl.DataFrame, odd: Odd):
    """Each item an impression at its place in the list; the clicked ones a click, `click_after` later."""
    form, rows = mapping.form, columns.height
    items, wrong_list = _listed(columns[form.items], "items", form.separator, odd.get(form.items))
    reasons = [wrong_list, _because(_lengths(items, rows) == 0, "items: missing")]
    if form.id_key:
        items, wrong = _inside(items, form, rows)
        reasons.append(wrong)
    elif form.mark:
        pattern = rf"^(.+){re.escape(form.mark)}([01])$"
        items = items.with_columns(
            clicked=pl.col("item").str.extract(pattern, 2) == "1", item=pl.col("item").str.extract(pattern, 1)
        )
    shape = f"items: not like N123{form.mark}1" if form.mark else "items: an empty item"
    reasons.append(_first_of(items, pl.col("nested"), "items: an item that is a list or an object", rows))
    items = items.with_columns(item=pl.when(~pl.col("nested")).then("item"))
    reasons.append(_first_of(items, pl.col("item").is_null() | (pl.col("item") == ""), shape, rows))
    note, wrong_note = _id(items["item"], mapping.item, "note_id", None)
    reasons.append(_scattered(items["index"], wrong_note, rows))
    items = items.with_columns(note_id=note)
    if form.flags:
        items, wrong = _flagged(items, columns, form, odd, rows)
        reasons += wrong
    elif form.clicked_items:
        items, wrong = _clicked(items, columns, mapping, odd, rows)
        reasons += wrong
    position = pl.int_range(pl.len()).over("index")
    items = items.with_columns(position=position).join(base.drop("position"), on="index", how="left", maintain_order="left")
    items = items.with_columns(row_time=pl.col("event_time"))
    shown = items.with_columns(action=pl.lit("impression"), late=pl.lit(0))
    after = items.filter(pl.col("clicked").fill_null(False)).with_columns(
        action=pl.lit("click"), late=pl.lit(1), event_time=pl.col("event_time") + form.click_after
    )
    events = pl.concat([shown, after]).sort("index", "late", maintain_order=True)
    return _with_ids(events), reasons, _keys(items["item"], mapping.item, None)


def _listed(column: pl.Series, name: str, separator: str, odd: pl.Series | None) -> tuple[pl.DataFrame, pl.Series]:
    """A column of lists as (a row an item: index of its row, item as text, nested, clicked: false; why a row has none).

    A list is a JSON array; of texts that are none, what stands between the separators.
    """
    text = column.cast(pl.String).str.strip_chars()
    no_text = np.zeros(len(text), bool) if odd is None else odd.to_numpy()
    arrays = text.str.starts_with("[").fill_null(False).to_numpy().copy()
    parts = []
    if arrays.any():
        found, of, kind, broken = elements(text.set(pl.Series(~arrays), None))
        arrays &= ~broken
        found = found.set(found.is_in(["NaN", "Infinity", "-Infinity"]) & pl.Series(kind == NOT_FINITE), None)
        parts.append(pl.DataFrame({"index": pl.Series(of, dtype=pl.UInt32), "item": found, "nested": pl.Series(kind == NESTED)}))
    if not arrays.all():
        plain = pl.DataFrame({"item": text.set(text == "", None)}).with_row_index("index")
        plain = plain.filter(pl.Series(~arrays & ~no_text) & pl.col("item").is_not_null()).with_columns(pl.col("item").str.split(separator))
        parts.append(plain.explode("item").with_columns(nested=pl.lit(False)))
    items = pl.concat(parts) if len(parts) == 1 else pl.concat(parts).sort("index", maintain_order=True)
    wrong = _because(text.is_not_null() & pl.Series(no_text & ~arrays), f"{name}: not a list")
    return items.with_columns(clicked=pl.lit(False)), wrong


def _lengths(items: pl.DataFrame, rows: int) -> pl.Series:
    return pl.Series(np.bincount(items["index"].to_numpy(), minlength=rows))


def _first_of(items: pl.DataFrame, broken: pl.Expr, reason: str, rows: int) -> pl.Series:
    """The reason for each row of which an item is broken."""
    some = items.filter(broken)["index"]
    return _scattered(some, pl.Series([reason]).new_from_index(0, len(some)), rows)


def _scattered(index: pl.Series, why: pl.Series, rows: int) -> pl.Series:
    """Reasons of items as those of their rows, the first of each."""
    if why.null_count() == len(why):
        return _nothing(rows, pl.String)
    first = pl.DataFrame({"index": index, "why": why}).drop_nulls().unique("index", keep="first", maintain_order=True)
    return _nothing(rows, pl.String).scatter(first["index"], first["why"])


def _inside(items: pl.DataFrame, form: Request, rows: int) -> tuple[pl.DataFrame, pl.Series]:
    """Items that are objects, as their ids and whether they were clicked."""
    wanted = (form.id_key, *([form.flag_key] if form.flag_key else []))
    found, wrong, strange, _ = read_objects(*spans(items["item"].fill_null("").cast(pl.Binary)), wanted)
    why = _because(wrong.is_not_null(), f"items: an item that is not an object with the key {form.id_key!r}")
    items = items.with_columns(item=found[form.id_key], nested=strange.get(form.id_key, pl.Series([False]).new_from_index(0, len(items))))
    if form.flag_key:
        clicked, bad = _flags(found[form.flag_key], form.flag_key)
        items, why = items.with_columns(clicked=clicked), why.zip_with(why.is_not_null(), bad)
    return items, _scattered(items["index"], why, rows)


def _flags(texts: pl.Series, name: str) -> tuple[pl.Series, pl.Series]:
    """Whether each is a 1, and the reason where it is neither 1 nor 0. Null: it is none."""
    happened, wrong = _behaviours(texts, name, "click")
    return happened["click"], wrong


def _flagged(items: pl.DataFrame, columns: pl.DataFrame, form: Request, odd: Odd, rows: int):
    flags, wrong_list = _listed(columns[form.flags], form.flags, form.separator, odd.get(form.flags))
    clicked, bad = _flags(flags["item"], form.flags)
    unlike = _lengths(flags, rows) != _lengths(items, rows)
    reasons = [wrong_list, _because(unlike, f"{form.flags}: not one for each of {form.items}"), _scattered(flags["index"], bad, rows)]
    if not unlike.any():
        return items.with_columns(clicked=clicked), reasons
    # Of the others each flag stands beside its item.
    good, beside = ~unlike.to_numpy(), np.zeros(len(items), bool)
    beside[good[items["index"].to_numpy()]] = clicked.to_numpy()[good[flags["index"].to_numpy()]]
    return items.with_columns(clicked=pl.Series(beside)), reasons


def _clicked(items: pl.DataFrame, columns: pl.DataFrame, mapping: Mapping, odd: Odd, rows: int):
    name = mapping.form.clicked_items
    chosen, wrong_list = _listed(columns[name], name, mapping.form.separator, odd.get(name))
    note, wrong_note = _id(chosen["item"], mapping.item, name, None)
    chosen = chosen.select("index", note_id=note, missing=pl.col("item").is_null() | pl.col("nested"))
    shown = items.select("index", "note_id").unique()
    stray = chosen.join(shown, on=["index", "note_id"], how="anti").filter(~pl.col("missing"))
    reasons = [
        wrong_list, _scattered(chosen["index"], wrong_note, rows), _first_of(chosen, pl.col("missing"), f"{name}: not an item", rows),
        _first_of(stray, pl.lit(True), f"{name}: an item that is not among {mapping.form.items}", rows),
    ]  # fmt: skip
    both = items.join(chosen.select("index", "note_id", hit=pl.lit(True)).unique(), on=["index", "note_id"], how="left", maintain_order="left")
    return both.with_columns(clicked=pl.col("hit").fill_null(False)).drop("hit"), reasons


def _with_ids(events: pl.DataFrame) -> pl.DataFrame:
    """event_id: the log's own, or a hash of (user, item, row's time, action): an exact duplicate repeats it."""
    if events["given_id"].null_count() == 0 and len(events):
        many = events["index"].is_duplicated().any()
        own = pl.col("given_id") + ("/" + pl.col("action") + "/" + pl.col("note_id").cast(pl.String) if many else "")
        return events.with_columns(event_id=own)
    parts = pl.concat_str(
        "user_id", "note_id", pl.col("row_time").dt.epoch("us"), "action", separator=" ", ignore_nulls=True
    )
    hashed = [xxhash.xxh3_128_hexdigest(text) for text in events.select(parts.alias("parts"))["parts"]]
    return events.with_columns(event_id=pl.coalesce("given_id", pl.Series(hashed, dtype=pl.String)))


# --- ids --------------------------------------------------------------------------------------------------------------


def _id(column: pl.Series, spec: IdColumn, name: str, odd: pl.Series | None) -> tuple[pl.Series, pl.Series]:
    if not spec.string:
        typed, wrong = values.as_int(column, name, odd=odd)
        hint = f'{name}: not an integer of 64 bits (ids = "string" in the mapping takes any text)'
        return typed, _because(wrong.is_not_null(), hint)
    return _keys(column, spec, odd)[0], values.as_text(column, name, odd=odd)[1]


def _keys(column: pl.Series, spec: IdColumn, odd: pl.Series | None) -> tuple[pl.Series, pl.Series]:
    """String ids as (stable int64 key, original); an empty text is no id."""
    if not spec.string:
        return _nothing(0, pl.Int64), _nothing(0, pl.String)
    text = values.as_text(column, "id", odd=odd)[0]
    text = text.set(text == "", None)
    distinct = text.drop_nulls().unique()
    hashed = np.array([xxhash.xxh64_intdigest(value) for value in distinct], np.uint64).view(np.int64)
    if not len(distinct):
        return _nothing(len(text), pl.Int64), text
    return text.replace_strict(distinct, pl.Series(hashed), default=None, return_dtype=pl.Int64), text


def _key_rows(kind: str, spec: IdColumn, key: pl.Series, text: pl.Series) -> pl.DataFrame:
    rows = pl.DataFrame({"kind": pl.Series([kind] * len(key), dtype=pl.String), "key": key, "original": text})
    return rows.drop_nulls().unique(maintain_order=True)


def _because(wrong: pl.Series, reason: str) -> pl.Series:
    nothing = _nothing(len(wrong), pl.String)
    return nothing.set(wrong.fill_null(False), reason) if wrong.any() else nothing


def _nothing(rows: int, kind) -> pl.Series:
    return pl.Series([None], dtype=kind).new_from_index(0, rows)


def _null_int() -> pl.Expr:
    return pl.lit(None, pl.Int64)


# --- reading a mapping ------------------------------------------------------------------------------------------------


def load_mapping(path: Path | str) -> Mapping:
    """Read a mapping file, or one of the shipped ones by its bare name (kuairand, deskdrop, mind, ebnerd).

    Raises MappingError, with file and key, for a file that is not there or is not a mapping.
    """
    file = Path(path)
    shipped = SHIPPED / f"{path}.toml"
    if not file.exists() and shipped.exists():
        file = shipped
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise MappingError(f"{path}: cannot be read ({error}); shipped mappings: {names}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, file: str) -> Mapping:
    """Check the text of a mapping; `file` is what errors call it."""
    try:
        top = _Section(file, "", tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # no TOML; an integer of thousands of digits; nested without end
        raise MappingError(f"{file}: not TOML: {error}") from error
    top.take("name", str, "")
    layout = top.section("file")
    user, item, time = (top.section(name, required=name != "item") for name in ("user", "item", "time"))
    form = _form_of(top)
    mapping = Mapping(
        file=file,
        text=text,
        form=form,
        user=_id_column(user),
        item=_item_column(item, form),
        time=_time_column(time),
        ingest_time=_time_column(section) if (section := top.section("ingest_time")).given else None,
        event_id=section.take("column", str) if (section := top.section("event_id")).given else None,
        columns=_optional_columns(top, form),
        constants=top.section("constants").texts({"channel", "request_id"}),
        drop=tuple(top.section("context").strings("drop")),
        separator=layout.take("separator", str, None),
        quote=layout.take("quote", str, '"'),
        header=tuple(layout.strings("columns")) or None,
    )
    top.finish()
    return mapping


def _form_of(top: _Section) -> Action | Display | Request:
    given = [name for name in ("action", "display", "request") if name in top.left]
    if len(given) != 1:
        raise MappingError(
            f"{top.file}: has {given or 'none'} of [action], [display], [request]; exactly one says what a row is"
        )
    section = top.section(given[0])
    if given[0] == "action":
        names = section.section("values", required=True).texts()
        for spelled, action in names.items():
            section.action(f"values.{spelled}", action)
        return Action(section.take("column", str), names)
    if given[0] == "display":
        behaviours = section.section("behaviours", required=True)
        meanings = {}
        for column in list(behaviours.left):
            meaning = behaviours.take(column, (str, dict))
            for action in [meaning] if isinstance(meaning, str) else meaning.values():
                behaviours.action(column, action)
            meanings[column] = meaning
        return Display(meanings, section.take("dwell_ms", str, None), section.duration("within", "10m"))
    return _request_of(section)


def _request_of(section: _Section) -> Request:
    ways = ("clicked", "clicked_items", "flags", "flag_key")
    given = [name for name in ways if section.left.get(name)]
    if len(given) > 1:
        raise section.error(given[1], f"beside {given[0]}: one of {', '.join(ways)} says what was clicked")
    keys = {name: section.take(name, str, None) for name in ("clicked_items", "flags", "id_key", "flag_key")}
    if keys["flag_key"] and not keys["id_key"]:
        raise section.error("id_key", "missing beside flag_key: items are objects then, and it is the key of their ids")
    mark = section.take("clicked", str, "" if any(keys.values()) else "-")
    if keys["id_key"] and mark:
        raise section.error("clicked", "beside id_key: items that are objects have no mark")
    return Request(section.take("items", str), section.take("separator", str, " "), mark, section.duration("click_after", "5s"), **keys)


def _id_column(section: _Section) -> IdColumn:
    return IdColumn(section.take("column", str), section.choice("ids", ("integer", "string"), "integer") == "string")


def _item_column(section: _Section, form) -> IdColumn:
    if not isinstance(form, Request):
        return _id_column(section)
    if "column" in section.left:
        raise MappingError(f"{section.file}: item.column: not used with [request]; its `items` names the column")
    return IdColumn(form.items, section.choice("ids", ("integer", "string"), "integer") == "string")


def _time_column(section: _Section) -> TimeColumn:
    zone = section.take("zone", str, None)
    if zone is not None:
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise MappingError(
                f"{section.file}: {section.name}.zone: {zone!r} is not an IANA time zone like Asia/Shanghai"
            ) from error
    return TimeColumn(
        section.take("column", str),
        section.choice("unit", tuple(values.UNITS), "us"),
        zone,
        section.take("format", str, None),
    )


def _optional_columns(top: _Section, form) -> dict[str, str]:
    allowed = {"request_id", "channel", "position"} | ({"dwell_ms"} if isinstance(form, Action) else set())
    if isinstance(form, Request):
        allowed.discard("position")
    return top.section("columns").texts(allowed)


class _Section:
    """A TOML table whose keys are taken one by one; what is left over at the end was misspelled."""

    def __init__(self, file: str, name: str, table: dict, given: bool = True) -> None:
        self.file, self.name, self.left, self.given = file, name, dict(table), given
        self.known: list[str] = []
        self.inner: list[_Section] = []

    def _key(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def error(self, key: str, what: str) -> MappingError:
        return MappingError(f"{self.file}: {self._key(key)}: {what}")

    def take(self, key: str, kind, default=...):
        self.known.append(key)
        if key not in self.left:
            if default is ...:
                raise self.error(key, "missing")
            return default
        value = self.left.pop(key)
        if not isinstance(value, kind):
            names = " or ".join(
                {str: "a text", dict: "a table", list: "a list"}[k]
                for k in (kind if isinstance(kind, tuple) else (kind,))
            )
            raise self.error(key, f"{value!r} is not {names}")
        return value

    def section(self, key: str, required: bool = False) -> _Section:
        given = key in self.left
        inner = _Section(self.file, self._key(key), self.take(key, dict, ... if required else {}), given)
        self.inner.append(inner)
        return inner

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.take(key, str, default)
        if value not in allowed:
            raise self.error(key, f"{value!r} is not one of: {', '.join(allowed)}")
        return value

    def action(self, key: str, value: str) -> None:
        if value not in ACTIONS:
            raise self.error(key, f"{value!r} is not one of: {', '.join(ACTIONS)}")

    def duration(self, key: str, default: str) -> dt.timedelta:
        try:
            return parse_duration(self.take(key, str, default))
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def strings(self, key: str) -> list[str]:
        value = self.take(key, list, [])
        if not all(isinstance(one, str) for one in value):
            raise self.error(key, "is not a list of texts")
        return value

    def texts(self, allowed: set[str] | None = None) -> dict[str, str]:
        """All of the table: text to text. allowed: the keys, where not any."""
        if allowed is not None:
            self.known += sorted(allowed)
            for key in self.left:
                if key not in allowed:
                    raise self.error(key, f"unknown; allowed: {', '.join(sorted(allowed))}")
        return {key: self.take(key, str) for key in list(self.left)}

    def finish(self) -> None:
        for key in self.left:
            raise self.error(key, f"unknown; allowed: {', '.join(dict.fromkeys(self.known))}")
        for inner in self.inner:
            inner.finish()
