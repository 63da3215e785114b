"""The one reader of the environment: every GLASSHOUSE_* variable, its default and its check.

Here: names, defaults, errors. Not here: what a setting does. No other module reads os.environ.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from assets.attribution.rules import SHIPPED, Rules, RulesError, load_rules, parse_duration
from assets.engines.choice import NAMES, Engines
from assets.engines.embedded import EmbeddedSettings
from assets.lake import Lake
from assets.metrics import access
from assets.metrics.client import HIDDEN, masked
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
    "SQL_ENGINE": ("auto", "what runs the SQL jobs: duckdb (in this process), spark, or auto: duckdb for what fits one machine, Spark above it and on a cluster"),
    "SQL_MEMORY_MB": ("3072", "MB that the embedded SQL engine may hold; what is more goes to disk, in HOME/sql_spill"),
    "SQL_EMBEDDED_ROWS": ("500000000", "rows of a job's input up to which auto takes the embedded engine"),
    "SQL_EMBEDDED_MB": ("50000", "MB of a job's input, in its files, up to which auto takes the embedded engine"),
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
    "ORIGINS": ("", "addresses under which a reverse proxy of yours shows Dagster or the pages, like https://boards.example.org, with commas"),
    "NOTEBOOK_PORT": ("8888", "port of JupyterLab, on loopback"),
    "TRAFFIC_RATE": ("300", "events a second that `make up` lets flow"),
    "LIVE_INTERVAL": ("60s", "length of a live micro-batch; 5s works, `make up` takes it"),
    "LIVE_BATCH_MB": ("64", "MB of landing files a live batch at most: bounds its memory when the labeler is behind"),
    "LIVE_MEMORY_MB": ("4096", "MB the live labeler may take: state beyond it lies in files, batches get smaller"),
    "SETTLE": ("1s", "a landing file is taken once it was not written to for so long; one that is renamed into place at once"),
    "LIVE_BUCKETS": ("0", "buckets of open sessions on Spark (SPARK_MASTER), a task each; 0: in the labeler's own memory"),
    "HANG_AFTER": ("2m", "silence after which `make up` takes a process for hung and starts it again"),
    "ORDERS_INTERVAL": ("60s", "how often `make up` takes the shop's new orders"),
    "ORDER_RULES": ("", "rules file of orders (TOML); default assets/orders/rules.toml"),
    "KEEP_DAYS": ("7", "days for which old files, moments and plans are kept: how far back a version can be read, a backfill undone"),
    "EXECUTOR": ("in_process", "Dagster executor: in_process (one Spark session a run) or multiprocess"),
    "RANKER_PROCESSES": ("0", "processes that train the ranker together; 0: one a GPU, without one two on the CPU"),
    "RANKER_EPOCHS": ("1", "passes over the training samples"),
    "RANKER_LIMITS": ("", "limits of the ranker's gate (TOML); default assets/ranking/promotion.toml"),
    "RANKER_VALUE": ("", "weights of the heads in a display's value (TOML); default assets/ranking/value.toml"),
}


COMMON = ("CLICKHOUSE_URL", "SPARK_MASTER")  # honoured under their common names too
KEY_LENGTH = 16  # of a user key: a shorter one can be guessed, and then ids can be counted
SECRET = ("USER_KEY",)  # never printed
URLS = ("LAKE", "CLICKHOUSE_URL", "PAGES_CLICKHOUSE_URL")  # printed without their passwords


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
    sql_engine: str
    sql_memory_mb: int
    sql_embedded_rows: int
    sql_embedded_bytes: int
    clickhouse_url: str | None = field(repr=False)
    pages_clickhouse_url: str | None = field(repr=False)
    user_key: str = field(repr=False)
    show_user_ids: bool
    clickhouse_port: int
    clickhouse_row_days: int | None
    clickhouse_aggregate_days: int | None
    dagster_port: int
    streamlit_port: int
    origins: tuple[str, ...]
    notebook_port: int
    traffic_rate: int
    live_interval: dt.timedelta
    live_batch_bytes: int
    live_memory_bytes: int
    settle: dt.timedelta
    live_buckets: int
    hang_after: dt.timedelta
    orders_interval: dt.timedelta
    order_rules: Path
    keep: dt.timedelta
    executor: str
    ranker_processes: int
    ranker_epochs: int
    ranker_limits: Path
    ranker_value: Path

    @property
    def engines(self) -> Engines:
        """What SQL jobs may run on; Spark is started once one needs it."""

        def session():
            from assets.spark import get_spark

            return get_spark(self.spark)

        return Engines(
            spark=session, wanted=self.sql_engine, local=self.spark.master.startswith("local"), most_rows=self.sql_embedded_rows,
            most_bytes=self.sql_embedded_bytes, embedded=EmbeddedSettings(self.sql_memory_mb, spill=self.home / "sql_spill"),
        )  # fmt: skip

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
    """Every setting as (variable, value in force, what it does); secrets are masked."""
    env = dict(os.environ) if env is None else env
    given = {name: env.get(PREFIX + name) or (env.get(name) if name in COMMON else "") for name in KNOWN}
    return [(PREFIX + name, shown(name, given[name] or default), what) for name, (default, what) in KNOWN.items()]


def shown(name: str, value: str) -> str:
    """A setting's value as it may be printed. name: without GLASSHOUSE_."""
    if name in SECRET and value:
        return HIDDEN
    return masked(value) if name in URLS else value


def load(env: dict[str, str] | None = None) -> Settings:
    """Read the settings. Raises SettingsError for an unknown name or a value that does not parse, naming both."""
    env = dict(os.environ) if env is None else env
    given = {key.removeprefix(PREFIX): value for key, value in env.items() if key.startswith(PREFIX) and value}
    if unknown := sorted(set(given) - set(KNOWN)):
        names = ", ".join(PREFIX + name for name in unknown)
        raise SettingsError(f"unknown setting {names}; `glasshouse settings` lists those that exist")
    for name in COMMON:
        if env.get(name):
            given.setdefault(name, env[name])
    value = {name: given.get(name, default) for name, (default, _) in KNOWN.items()}

    def parsed(name, parse, what):
        try:
            return parse(value[name])
        except (ValueError, TypeError, OverflowError, OSError, RuntimeError) as error:
            why = f": {error}" if isinstance(error, NotADirectoryError) else ""
            raise SettingsError(f"{PREFIX}{name}={shown(name, value[name])!r} is not {what}{why}") from error

    def choice(name, allowed):
        if value[name] not in allowed:
            raise SettingsError(f"{PREFIX}{name}={shown(name, value[name])!r} is not one of: {', '.join(allowed)}")
        return value[name]

    for name in given:
        _check_text(name, value[name])
    home = parsed("HOME", _home, FOLDER_WANTED)
    found = Settings(
        home=home,
        lake=Lake(parsed("LAKE", _lake, "a folder, or a URI like s3://bucket/lake") if value["LAKE"] else str(home / "lake")),
        landing=parsed("LANDING", _folder, FOLDER_WANTED) if value["LANDING"] else home / "landing",
        first_hour=parsed("FIRST_HOUR", _first_hour, "an hour from 2000 to 2100, like 2026-01-31T05:00 (UTC)") if value["FIRST_HOUR"] else None,
        rules=_rules(Path(value["RULES"] or SHIPPED), {
            name.lower(): parsed(name, _span(MICROSECOND, LONGEST), f"a duration above zero and up to 720h, like {like}")
            for name, like in (("WINDOW", "20m"), ("DELAY", "2m"), ("LONG_VIEW", "10s")) if value[name]
        }),
        spark=SparkSettings(
            master=parsed("SPARK_MASTER", _master, "a Spark master: local, local[N], local[*], spark://host:port, yarn or k8s://..."),
            delta=choice("SPARK_DELTA", ("jar", "maven", "provided")),
            memory=parsed("SPARK_MEMORY", _heap, "a heap for a JVM from 512m to 16384g, like 3g"),
        ),
        sql_engine=choice("SQL_ENGINE", NAMES),
        sql_memory_mb=parsed("SQL_MEMORY_MB", _whole(LEAST_SQL_MB, MOST_MB), f"a whole number of MB from {LEAST_SQL_MB} to {MOST_MB}"),
        sql_embedded_rows=parsed("SQL_EMBEDDED_ROWS", _whole(0, 999_999_999), "a whole number from 0 to 999999999"),
        sql_embedded_bytes=parsed("SQL_EMBEDDED_MB", _whole(0, MOST_MB), f"a whole number of MB from 0 to {MOST_MB}") * 10**6,
        clickhouse_url=_url("CLICKHOUSE_URL", value["CLICKHOUSE_URL"]),
        pages_clickhouse_url=_url("PAGES_CLICKHOUSE_URL", value["PAGES_CLICKHOUSE_URL"]),
        user_key=parsed("USER_KEY", _key, f"a key: {KEY_LENGTH} characters at least") if value["USER_KEY"] else "",
        show_user_ids=choice("SHOW_USER_IDS", ("0", "1")) == "1",
        clickhouse_port=parsed("CLICKHOUSE_PORT", _whole(1, 65_535), "a port: a whole number from 1 to 65535"),
        clickhouse_row_days=parsed("CLICKHOUSE_ROW_DAYS", _days, f"a whole number of days from 1 to {MOST_DAYS}, or empty: never"),
        clickhouse_aggregate_days=parsed("CLICKHOUSE_AGGREGATE_DAYS", _days, f"a whole number of days from 1 to {MOST_DAYS}, or empty: never"),
        dagster_port=parsed("DAGSTER_PORT", _whole(1, 65_535), "a port: a whole number from 1 to 65535"),
        streamlit_port=parsed("STREAMLIT_PORT", _whole(1, 65_535), "a port: a whole number from 1 to 65535"),
        origins=parsed("ORIGINS", _origins, "a list of addresses like https://boards.example.org"),
        notebook_port=parsed("NOTEBOOK_PORT", _whole(1, 65_535), "a port: a whole number from 1 to 65535"),
        traffic_rate=parsed("TRAFFIC_RATE", _whole(1, 100_000), "a whole number from 1 to 100000"),
        live_interval=parsed("LIVE_INTERVAL", _span(SHORTEST, DAY), "a duration from 100ms to 24h, like 10s"),
        live_batch_bytes=parsed("LIVE_BATCH_MB", _whole(1, MOST_MB), f"a whole number of MB from 1 to {MOST_MB}") * 2**20,
        live_memory_bytes=parsed("LIVE_MEMORY_MB", _whole(1, MOST_MB), f"a whole number of MB from 1 to {MOST_MB}") * 2**20,
        settle=parsed("SETTLE", _span(MILLISECOND, dt.timedelta(hours=1)), "a duration from 1ms to 1h, like 2s"),
        live_buckets=parsed("LIVE_BUCKETS", _whole(0, 10_000), "a whole number from 0 to 10000"),
        hang_after=parsed("HANG_AFTER", _span(10 * SECOND, DAY), "a duration from 10s to 24h, like 2m"),
        orders_interval=parsed("ORDERS_INTERVAL", _span(SHORTEST, DAY), "a duration from 100ms to 24h, like 60s"),
        order_rules=parsed("ORDER_RULES", _file, "a file that exists") if value["ORDER_RULES"] else ROOT / "assets" / "orders" / "rules.toml",
        keep=parsed(
            "KEEP_DAYS", _keep, f"a number of days from 0.042 (an hour: files of writers that are at work are kept so long) to {MOST_DAYS}"
        ),
        executor=choice("EXECUTOR", ("in_process", "multiprocess")),
        ranker_processes=parsed("RANKER_PROCESSES", _whole(0, 1024), "a whole number from 0 to 1024"),
        ranker_epochs=parsed("RANKER_EPOCHS", _whole(1, 1000), "a whole number from 1 to 1000"),
        ranker_limits=parsed("RANKER_LIMITS", _file, "a file that exists") if value["RANKER_LIMITS"] else ROOT / "assets" / "ranking" / "promotion.toml",
        ranker_value=parsed("RANKER_VALUE", _file, "a file that exists") if value["RANKER_VALUE"] else ROOT / "assets" / "ranking" / "value.toml",
    )
    _check_ports(found, set(given))
    return found


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
    except (OSError, ValueError) as error:
        raise SettingsError(f"{PREFIX}RULES={str(path)!r} cannot be read: {error}") from error


# --- checks of single values: a ValueError (or what Python raises) for one that cannot be used -------------------------------

MICROSECOND, MILLISECOND = dt.timedelta(microseconds=1), dt.timedelta(milliseconds=1)
SECOND, DAY = dt.timedelta(seconds=1), dt.timedelta(days=1)
SHORTEST, LONGEST = dt.timedelta(milliseconds=100), 30 * DAY
LEAST_KEPT = dt.timedelta(hours=1)  # tidy.py's floor
MOST_DAYS, MOST_MB = 36_500, 2**20
LEAST_SQL_MB = 128  # below it DuckDB cannot sort a wide row
FOLDER_WANTED = "a folder, or a name for one in a folder that exists and may be written to"
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def _check_text(name: str, value: str) -> None:
    """Of any setting: blanks around a value, and characters that no name or number has, are mistakes."""
    if value != value.strip():
        raise SettingsError(f"{PREFIX}{name} has blanks around its value; write it without")
    if not value.isprintable():  # control characters, bytes that are no UTF-8
        raise SettingsError(f"{PREFIX}{name} holds characters that cannot be printed, at place {_unprintable(value)}; write it anew")


def _unprintable(value: str) -> int:
    return next(place for place, one in enumerate(value, 1) if not one.isprintable())


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:  # int() takes digits of other scripts too
            raise ValueError(text)
        return int(text)

    return parse


def _span(least: dt.timedelta, most: dt.timedelta) -> Callable[[str], dt.timedelta]:
    def parse(text: str) -> dt.timedelta:
        if not text.isascii() or not least <= (found := parse_duration(text)) <= most:
            raise ValueError(text)
        return found

    return parse


def _origins(text: str) -> tuple[str, ...]:
    from dagster_project.guard import origin

    return tuple(origin(one) for one in text.split(",") if one.strip())


def _key(text: str) -> str:
    if len(text.strip()) < KEY_LENGTH:
        raise ValueError
    return text.strip()


def _days(text: str) -> int | None:
    return _whole(1, MOST_DAYS)(text) if text else None


def _keep(text: str) -> dt.timedelta:
    if not _AMOUNT.fullmatch(text) or not 0.0416 <= float(text) <= MOST_DAYS:  # 0.0417 is as near an hour as people write
        raise ValueError(text)
    return max(LEAST_KEPT, dt.timedelta(days=float(text)))


def _heap(text: str) -> str:
    found = re.fullmatch(r"([0-9]{1,9})([mg])b?", text, re.ASCII | re.IGNORECASE)
    if not found or not 512 <= int(found[1]) * (1024 if found[2] in "gG" else 1) <= 2**24:
        raise ValueError(text)
    return text


def _master(text: str) -> str:
    """The forms that Spark knows; what only a cluster can tell, it tells."""
    local = re.fullmatch(r"local(\[(\*|[0-9]{1,4})(,[0-9]{1,4})?\])?", text, re.ASCII)
    if local and (local[2] is None or local[2] == "*" or int(local[2])):
        return text
    if re.fullmatch(r"local-cluster\[[0-9]+,[0-9]+,[0-9]+\]|yarn|k8s://\S+|spark://[^\s:,]+:[0-9]{1,5}(,[^\s:,]+:[0-9]{1,5})*", text, re.ASCII):
        return text
    raise ValueError(text)


def _url(name: str, text: str) -> str | None:
    """A server's address. The message leaves the value out: there may be a password in it."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", text)
    except ValueError:  # a port that is none, a bracket that is not closed
        good = False
    if not good:
        raise SettingsError(f"{PREFIX}{name} is not a ClickHouse URL: http(s)://user:password@host:port/database")
    return text


def _home(text: str) -> Path:
    found = _folder(str(ROOT / text)).resolve()
    _check_path("HOME", str(found))
    return found


# delta-rs and SQLite take a path for a URL, Dagster looks for (and wipes) its files by a pattern.
_UNFIT = re.compile(r"[?\\*\[\]]|%[0-9A-Fa-f]{2}")


def _check_path(name: str, path: str) -> None:
    if not path.isprintable():
        raise SettingsError(f"{PREFIX}{name}={path!r} holds characters that cannot be printed; choose a folder without")
    if found := _UNFIT.search(path):
        raise SettingsError(
            f"{PREFIX}{name}={path!r} holds {found[0]!r}, which one of Delta, SQLite and Dagster takes for something else in a path; "
            "choose a folder without"
        )


def _folder(text: str) -> Path:
    """A folder, or what can become one: the nearest that exists above it is a folder."""
    found = Path(text).resolve()
    nearest = next(one for one in (found, *found.parents) if one.exists())  # or what Python raises, for a name that is too long
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file where a folder is expected")
    return Path(text)


def _lake(text: str) -> str:
    if "://" not in text:
        _check_path("LAKE", str(_folder(text).resolve()))
        return text
    parts = urlsplit(text)
    if not re.fullmatch("[a-z][a-z0-9+.-]*", parts.scheme) or not (parts.netloc or parts.path.strip("/")):
        raise ValueError(text)
    return text


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError(text)
    return Path(text)


def _check_ports(found: Settings, given: set[str]) -> None:
    """Two services cannot have one port; JupyterLab's counts where it was set, for it may never be started."""
    ports = {"DAGSTER_PORT": found.dagster_port, "STREAMLIT_PORT": found.streamlit_port}
    if not found.clickhouse_url:
        ports["CLICKHOUSE_PORT"] = found.clickhouse_port
    if "NOTEBOOK_PORT" in given:
        ports["NOTEBOOK_PORT"] = found.notebook_port
    names: dict[int, str] = {}
    for name, port in ports.items():
        if port in names:
            raise SettingsError(f"{PREFIX}{names[port]} and {PREFIX}{name} are both {port}: give each service a port of its own")
        names[port] = name


def _first_hour(text: str) -> dt.datetime:
    found = parse_hour(text)
    if not 2000 <= found.year <= 2100:
        raise ValueError(text)
    return found


def parse_hour(text: str) -> dt.datetime:
    """An hour like 2026-01-31T05:00, UTC where it names no zone. Raises ValueError for any other text."""
    time = dt.datetime.fromisoformat(text)
    try:
        time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    except OverflowError:  # the first or last day there is
        raise ValueError(text) from None
    if time.minute or time.second or time.microsecond:
        raise ValueError(text)
    return time
