"""The one reader of the environment: every GLASSHOUSE_* variable, its default and its check.

Here: names, defaults, errors. Not here: what a setting does. No other module reads os.environ.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, replace
from pathlib import Path

from assets.attribution.rules import SHIPPED, Rules, RulesError, load_rules, parse_duration
from assets.lake import Lake
from assets.metrics import access
from assets.spark import SparkSettings

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "GLASSHOUSE_"

# name -> (default, what it does); also printed by `glasshouse settings` and checked against what is set.
KNOWN = {
    "HOME": ("build/demo", "folder of everything that is written: lake, landing, ClickHouse, Dagster's storage"),
    "LAKE": ("", "root of the Delta tables, a path or a URI; default HOME/lake"),
    "LANDING": ("", "folder in which logs land; default HOME/landing"),
    "FIRST_HOUR": ("", "first hourly partition, like 2026-01-31T05:00; default: the first hour of the lake's events"),
    "RULES": ("", "the labeler's rules file (TOML); default assets/attribution/rules.toml"),
    "WINDOW": ("", "length of a session window, in place of the rules file's (20m)"),
    "DELAY": ("", "how far the watermark lies behind the newest event, in place of the rules file's (2m)"),
    "LONG_VIEW": ("", "dwell from which a view counts as long, in place of the rules file's (10s)"),
    "SPARK_MASTER": ("local[2]", "Spark master URL"),
    "SPARK_DELTA": ("jar", "where Delta's classes come from: jar, maven or provided"),
    "SPARK_MEMORY": ("3g", "heap of the Spark driver"),
    "CLICKHOUSE_URL": ("", "a ClickHouse server, http(s)://user:password@host:port/database; default: the embedded endpoint"),
    "PAGES_CLICKHOUSE_URL": ("", "the same server with a read-only user, for the pages; default: CLICKHOUSE_URL"),
    "USER_KEY": ("", "key of the codes that stand for users on the pages; default: drawn once, in HOME/user_key"),
    "SHOW_USER_IDS": ("0", "1: the pages show users' ids beside their codes"),
    "CLICKHOUSE_PORT": ("8123", "port of the embedded endpoint, on loopback"),
    "CLICKHOUSE_ROW_DAYS": ("", "days after which ClickHouse forgets rows; the lake keeps them. Default: never"),
    "CLICKHOUSE_AGGREGATE_DAYS": ("", "days after which ClickHouse forgets minute and hour aggregates. Default: never"),
    "DAGSTER_PORT": ("3000", "port of the Dagster UI, on loopback"),
    "STREAMLIT_PORT": ("8501", "port of the Streamlit pages, on loopback"),
    "NOTEBOOK_PORT": ("8888", "port of JupyterLab, on loopback"),
    "TRAFFIC_RATE": ("300", "events a second that `make up` lets flow"),
    "LIVE_INTERVAL": ("60s", "length of a live micro-batch; 5s works, `make up` takes it"),
    "LIVE_BATCH_MB": ("64", "MB of landing files a live batch at most: bounds its memory when the labeler is behind"),
    "LIVE_MEMORY_MB": ("4096", "MB the live labeler may take: state beyond it lies in files, batches get smaller"),
    "LIVE_BUCKETS": ("0", "buckets of open sessions on Spark (SPARK_MASTER), a task each; 0: in the labeler's own memory"),
    "ORDERS_INTERVAL": ("60s", "how often `make up` takes the shop's new orders"),
    "ORDER_RULES": ("", "rules file of orders (TOML); default assets/orders/rules.toml"),
    "KEEP_DAYS": ("7", "days for which old files, moments and plans are kept: how far back a version can be read, a backfill undone"),
    "EXECUTOR": ("in_process", "Dagster executor: in_process (one Spark session a run) or multiprocess"),
    "RANKER_PROCESSES": ("0", "processes that train the ranker together; 0: one a GPU, without one two on the CPU"),
    "RANKER_EPOCHS": ("1", "passes over the training samples"),
    "RANKER_LIMITS": ("", "limits of the ranker's gate (TOML); default assets/ranking/promotion.toml"),
    "RANKER_VALUE": ("", "weights of the heads in a display's value (TOML); default assets/ranking/value.toml"),
}


class SettingsError(Exception):
    """An environment variable that cannot be used; the message names it and what would be right."""


@dataclass(frozen=True)
class Settings:
    home: Path
    lake: Lake
    landing: Path
    first_hour: dt.datetime | None
    rules: Rules
    spark: SparkSettings
    clickhouse_url: str | None
    pages_clickhouse_url: str | None
    user_key: str
    show_user_ids: bool
    clickhouse_port: int
    clickhouse_row_days: int | None
    clickhouse_aggregate_days: int | None
    dagster_port: int
    streamlit_port: int
    notebook_port: int
    traffic_rate: int
    live_interval: dt.timedelta
    live_batch_bytes: int
    live_memory_bytes: int
    live_buckets: int
    orders_interval: dt.timedelta
    order_rules: Path
    keep: dt.timedelta
    executor: str
    ranker_processes: int
    ranker_epochs: int
    ranker_limits: Path
    ranker_value: Path

    @property
    def clickhouse(self) -> str:
        """URL of the ClickHouse in use: the server where one is set, else the embedded endpoint. It holds a password: print it masked."""
        return self.clickhouse_url or self.embedded_clickhouse("loader")

    @property
    def pages_clickhouse(self) -> str:
        """URL by which the pages ask: that of a read-only user where one is set."""
        return self.pages_clickhouse_url or self.clickhouse_url or self.embedded_clickhouse("pages")

    @property
    def notebook_clickhouse(self) -> str:
        """URL by which notebooks ask; the embedded endpoint lets them read only."""
        return self.clickhouse_url or self.embedded_clickhouse("notebook")

    @property
    def embedded_folder(self) -> Path | None:
        """The folder of the embedded endpoint, None where a server is in use."""
        return None if self.clickhouse_url else self.clickhouse_folder

    def embedded_clickhouse(self, user: str) -> str:
        """URL of the embedded endpoint with the password of a user of this home (access.USERS); draws the home's key at first use."""
        return access.signed(f"http://127.0.0.1:{self.clickhouse_port}", self.clickhouse_folder, user)

    @property
    def clickhouse_days(self) -> tuple[int | None, int | None]:
        """For how many days ClickHouse keeps rows and aggregates; None for ever."""
        return self.clickhouse_row_days, self.clickhouse_aggregate_days

    @property
    def clickhouse_folder(self) -> Path:
        return self.home / "clickhouse"

    @property
    def truth(self) -> Path:
        """Where the traffic generator keeps the true probabilities, apart from what any model reads."""
        return self.home / "truth"

    @property
    def orders(self) -> Path:
        """The folder into which the shop's changes and catalogue land, beside the logs."""
        return self.landing.parent / "orders"

    @property
    def own_log(self) -> Path:
        """The note that `make demo LOG=...` leaves: which log, not generated by us, this home is about."""
        return self.home / "own_log.txt"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


def listed(env: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Every setting as (variable, value in force, what it does); passwords and keys as ***."""
    env = dict(os.environ) if env is None else env
    shown = {"USER_KEY": lambda value: value and "***"} | dict.fromkeys(("CLICKHOUSE_URL", "PAGES_CLICKHOUSE_URL"), access.masked)
    given = [(name, env.get(PREFIX + name) or default, what) for name, (default, what) in KNOWN.items()]
    return [(PREFIX + name, shown.get(name, str)(value), what) for name, value, what in given]


def load(env: dict[str, str] | None = None) -> Settings:
    """Read the settings. Raises SettingsError for an unknown name or a value that does not parse, naming both."""
    env = dict(os.environ) if env is None else env
    given = {key.removeprefix(PREFIX): value for key, value in env.items() if key.startswith(PREFIX) and value}
    if unknown := sorted(set(given) - set(KNOWN)):
        names = ", ".join(PREFIX + name for name in unknown)
        raise SettingsError(f"unknown setting {names}; `glasshouse settings` lists those that exist")
    # CLICKHOUSE_URL and SPARK_MASTER are honoured under their common names too.
    for name in ("CLICKHOUSE_URL", "SPARK_MASTER"):
        if env.get(name):
            given.setdefault(name, env[name])
    value = {name: given.get(name, default) for name, (default, _) in KNOWN.items()}

    def parsed(name, parse, what):
        try:
            return parse(value[name])
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{PREFIX}{name}={value[name]!r} is not {what}") from error

    def choice(name, allowed):
        if value[name] not in allowed:
            raise SettingsError(f"{PREFIX}{name}={value[name]!r} is not one of: {', '.join(allowed)}")
        return value[name]

    home = (ROOT / value["HOME"]).resolve()
    return Settings(
        home=home,
        lake=Lake(value["LAKE"] or str(home / "lake")),
        landing=Path(value["LANDING"] or home / "landing"),
        first_hour=parsed("FIRST_HOUR", parse_hour, "an hour like 2026-01-31T05:00 (UTC)") if value["FIRST_HOUR"] else None,
        rules=_rules(Path(value["RULES"] or SHIPPED), {
            name.lower(): parsed(name, parse_duration, f"a duration like {like}")
            for name, like in (("WINDOW", "20m"), ("DELAY", "2m"), ("LONG_VIEW", "10s")) if value[name]
        }),
        spark=SparkSettings(
            master=value["SPARK_MASTER"],
            delta=choice("SPARK_DELTA", ("jar", "maven", "provided")),
            memory=value["SPARK_MEMORY"],
        ),
        clickhouse_url=value["CLICKHOUSE_URL"] or None,
        pages_clickhouse_url=value["PAGES_CLICKHOUSE_URL"] or None,
        user_key=value["USER_KEY"],
        show_user_ids=choice("SHOW_USER_IDS", ("0", "1")) == "1",
        clickhouse_port=parsed("CLICKHOUSE_PORT", int, "a port number"),
        clickhouse_row_days=parsed("CLICKHOUSE_ROW_DAYS", _days, "a whole number of days"),
        clickhouse_aggregate_days=parsed("CLICKHOUSE_AGGREGATE_DAYS", _days, "a whole number of days"),
        dagster_port=parsed("DAGSTER_PORT", int, "a port number"),
        streamlit_port=parsed("STREAMLIT_PORT", int, "a port number"),
        notebook_port=parsed("NOTEBOOK_PORT", int, "a port number"),
        traffic_rate=parsed("TRAFFIC_RATE", int, "a whole number"),
        live_interval=parsed("LIVE_INTERVAL", parse_duration, "a duration like 10s"),
        live_batch_bytes=parsed("LIVE_BATCH_MB", int, "a whole number of MB") * 2**20,
        live_memory_bytes=parsed("LIVE_MEMORY_MB", int, "a whole number of MB") * 2**20,
        live_buckets=parsed("LIVE_BUCKETS", int, "a whole number"),
        orders_interval=parsed("ORDERS_INTERVAL", parse_duration, "a duration like 60s"),
        order_rules=Path(value["ORDER_RULES"] or ROOT / "assets" / "orders" / "rules.toml"),
        keep=dt.timedelta(days=parsed("KEEP_DAYS", float, "a number of days")),
        executor=choice("EXECUTOR", ("in_process", "multiprocess")),
        ranker_processes=parsed("RANKER_PROCESSES", int, "a whole number"),
        ranker_epochs=parsed("RANKER_EPOCHS", int, "a whole number"),
        ranker_limits=Path(value["RANKER_LIMITS"] or ROOT / "assets" / "ranking" / "promotion.toml"),
        ranker_value=Path(value["RANKER_VALUE"] or ROOT / "assets" / "ranking" / "value.toml"),
    )


def _rules(path: Path, over: dict[str, dt.timedelta]) -> Rules:
    """The file's rules with single settings over them; their name says so."""
    try:
        rules = load_rules(path)
        if not over:
            return rules
        named = ", ".join(f"{PREFIX}{name.upper()}" for name in over)
        return replace(rules, **over, version=f"{rules.version} with {named}")
    except FileNotFoundError:
        raise SettingsError(f"{PREFIX}RULES={str(path)!r}: there is no such file") from None
    except RulesError as error:
        raise SettingsError(f"{PREFIX}RULES: {error}") from error


def _days(text: str) -> int | None:
    if text and int(text) < 1:
        raise ValueError(text)
    return int(text) if text else None


def parse_hour(text: str) -> dt.datetime:
    """An hour like 2026-01-31T05:00, UTC where it names no zone. Raises ValueError for any other text."""
    time = dt.datetime.fromisoformat(text)
    time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    if time.minute or time.second or time.microsecond:
        raise ValueError(text)
    return time
