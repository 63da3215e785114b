"""Which rules and which code made a label: an hour of `labeled_hours` bears two fingerprints, `rule_versions` the rules' text.

Here: the fingerprints, the tables that hold them, looking them up. Not here: the rules themselves (rules.py), labels.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow as pa

from assets.attribution.convert import LabelError
from assets.attribution.rules import Rules, parse_rules
from assets.attribution.tables import LABELED_HOURS, RULE_VERSIONS
from assets.lake import Lake, LakeError

# The files of this folder whose text decides a label.
DECIDE = ("convert.py", "fold.py", "label.py", "live.py", "resident.py", "rules.py", "tables.py")


@cache
def code_version() -> str:
    """12 hex digits (sha256) of the source files that decide a label."""
    digest = hashlib.sha256()
    for name in DECIDE:
        digest.update(name.encode() + b"\0" + (Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def register(lake: Lake, rules: Rules) -> str:
    """Keep the rules' text in the lake, once; make `labeled_hours` able to name it. Returns the fingerprint."""
    lake.create(LABELED_HOURS)
    if lake.log is not None:
        lake.add_columns(LABELED_HOURS.name, [LABELED_HOURS.schema.field(name) for name in ("rules", "code")], by="rules")
    row = {"rules": rules.fingerprint, "version": rules.version, "text": rules.to_toml(), "first_used_at": dt.datetime.now(dt.UTC)}
    lake.append_once(RULE_VERSIONS, pa.Table.from_pylist([row], RULE_VERSIONS.schema), f"rules/{rules.fingerprint}", 1)
    return rules.fingerprint


def booked(hours: Iterable[dt.datetime], window_us: int, events_version: int | None, by: str, rules) -> pa.Table:
    """Rows of `labeled_hours`. rules: a fingerprint, or called with an hour."""
    named = rules if callable(rules) else lambda hour: rules
    rows = [
        {"hour": hour, "window_us": window_us, "events_version": events_version, "labeled_by": by, "rules": named(hour),
         "code": code_version()}
        for hour in hours
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, LABELED_HOURS.schema)


def known(lake: Lake) -> dict[str, Rules]:
    """Every rules that the lake has labels of, or had: fingerprint -> rules."""
    if not lake.exists(RULE_VERSIONS.name):
        return {}
    rows = lake.read(RULE_VERSIONS.name).to_pylist()
    return {row["rules"]: parse_rules(row["text"], f"rule_versions/{row['rules']}") for row in rows}


def made_by(lake: Lake, hour: dt.datetime) -> dict:
    """What made the label rows of an hour: rules (fingerprints), versions and texts of these, code, labeled_by, window_us,
    events_version. Raises LabelError where the hour is not labeled."""
    from assets.lake import Window

    try:
        found = lake.read(LABELED_HOURS.name, Window(hour, hour + dt.timedelta(hours=1))).to_pylist()
    except LakeError as error:
        raise LabelError(str(error)) from error
    if not found:
        raise LabelError(f"the hour {hour.isoformat()} is not labeled; materialize `label` for it")
    fingerprints = (found[-1].get("rules") or "").split(",") if found[-1].get("rules") else []
    texts = {row["rules"]: row for row in lake.read(RULE_VERSIONS.name).to_pylist()} if fingerprints else {}
    return {
        **{name: found[-1].get(name) for name in ("labeled_by", "window_us", "events_version", "code")},
        "rules": fingerprints,
        "versions": [texts[one]["version"] for one in fingerprints if one in texts],
        "texts": [texts[one]["text"] for one in fingerprints if one in texts],
    }
