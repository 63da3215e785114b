"""Absurd settings: each is refused by its name with what would be right, before anything is written."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.attribution.rules import RulesError, parse_duration, parse_rules
from dagster_project.settings import KNOWN, PREFIX, SettingsError, load

PORTS = ("CLICKHOUSE_PORT", "DAGSTER_PORT", "STREAMLIT_PORT", "NOTEBOOK_PORT")
SPANS = ("WINDOW", "DELAY", "LONG_VIEW", "LIVE_INTERVAL", "ORDERS_INTERVAL", "HANG_AFTER", "SETTLE")
ABSURD = [
    *((name, value) for name in PORTS for value in ("99999", "0", "-1", "65536", "1e3", "٨١٢٣", "8123.0", "+80", "9" * 5000)),
    *((name, value) for name in SPANS for value in ("0s", "-5s", "99999999999h", "9" * 500 + "s", "nan", "inf", "1d", "0.0001ms", "٢٠m")),
    *((name, value) for name in ("LIVE_BATCH_MB", "LIVE_MEMORY_MB") for value in ("0", "-64", "99999999999999999999", "64.5", "nan")),
    *((name, value) for name in ("CLICKHOUSE_ROW_DAYS", "CLICKHOUSE_AGGREGATE_DAYS") for value in ("0", "-1", "1000000", "1.5")),
    *(("KEEP_DAYS", value) for value in ("nan", "inf", "-1", "0", "0.01", "1e400", "99999999", "1e-3", "٧")),
    *(("TRAFFIC_RATE", value) for value in ("0", "-300", "nan", "1000000000000")),
    *(("SPARK_MEMORY", value) for value in ("3", "3 g", "-3g", "lots", "1k", "64m", "999999999g", "0g")),
    *(("SPARK_MASTER", value) for value in ("locale[2]", "local[-1]", "local[0]", "spark://", "spark://host", "http://host")),
    *((name, value) for name in ("CLICKHOUSE_URL", "PAGES_CLICKHOUSE_URL") for value in ("host:8123", "http://", "http://h:99999", "ftp://h", "http://[::1", "http://a b")),
    *(("FIRST_HOUR", value) for value in ("0001-01-01T00:00", "9999-12-31T23:00-05:00", "1899-01-01T00:00", "tomorrow", "2026-01-31T05:30")),
    *(("RANKER_PROCESSES", value) for value in ("-1", "100000")),
    *(("RANKER_EPOCHS", value) for value in ("0", "-1", "nan")),
    *(("LIVE_BUCKETS", value) for value in ("-1", "1e9")),
    *((name, value) for name in ("SHOW_USER_IDS", "SPARK_DELTA", "EXECUTOR") for value in ("yes", "JAR", "-")),
    *((name, "/nowhere/at/all.toml") for name in ("RULES", "ORDER_RULES", "RANKER_LIMITS", "RANKER_VALUE")),
    *((name, "x" * 5000) for name in ("HOME", "LAKE", "LANDING", "RULES")),
    *((name, " 1 ") for name in KNOWN),
    *((name, "a\x1b[2Jb") for name in KNOWN),
]  # fmt: skip


@pytest.mark.parametrize("name, value", ABSURD, ids=lambda one: one[:24].encode("unicode_escape").decode())
def test_an_absurd_value_is_refused_by_name(name, value):
    with pytest.raises(SettingsError, match=PREFIX + name):
        load({PREFIX + name: value})


def test_two_services_on_one_port_are_named_both():
    with pytest.raises(SettingsError, match="GLASSHOUSE_DAGSTER_PORT and GLASSHOUSE_CLICKHOUSE_PORT are both 3000"):
        load({"GLASSHOUSE_CLICKHOUSE_PORT": "3000"})
    with pytest.raises(SettingsError, match="GLASSHOUSE_NOTEBOOK_PORT"):
        load({"GLASSHOUSE_NOTEBOOK_PORT": "8501"})
    assert load({"GLASSHOUSE_STREAMLIT_PORT": "8888"}), "JupyterLab may never be started there"


@pytest.mark.parametrize("name", ["HOME", "LAKE", "LANDING"])
@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_file_where_a_folder_is_expected(tmp_path, name, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=f"GLASSHOUSE_{name}.*file is a file where a folder is expected"):
        load({PREFIX + name: f"{tmp_path}/file{below}"})


@pytest.mark.parametrize("name", ["RULES", "ORDER_RULES", "RANKER_LIMITS", "RANKER_VALUE"])
def test_a_folder_where_a_file_is_expected(tmp_path, name):
    with pytest.raises(SettingsError, match=PREFIX + name):
        load({PREFIX + name: str(tmp_path)})


def test_a_password_is_in_no_message():
    for name in ("CLICKHOUSE_URL", "PAGES_CLICKHOUSE_URL"):
        with pytest.raises(SettingsError) as caught:
            load({PREFIX + name: "http://user:geheim@host:99999"})
        assert "geheim" not in str(caught.value)


def test_what_was_right_stays_right():
    found = load({f"GLASSHOUSE_{name}": value for name, value in {
        "CLICKHOUSE_PORT": "1024", "WINDOW": "90s", "DELAY": "1ms", "KEEP_DAYS": "0.5", "LIVE_INTERVAL": "500ms", "SPARK_MEMORY": "2048M",
        "SPARK_MASTER": "local-cluster[2,1,1024]", "FIRST_HOUR": "2026-01-31T05:00+00:00", "CLICKHOUSE_URL": "https://a:b@[::1]:8443/feed",
        "CLICKHOUSE_ROW_DAYS": "30", "LAKE": "s3://bucket/lake",
    }.items()})  # fmt: skip
    assert found.keep == dt.timedelta(hours=12) and found.lake.root == "s3://bucket/lake" and found.clickhouse_row_days == 30
    assert load({"GLASSHOUSE_KEEP_DAYS": "0.0417"}).keep >= dt.timedelta(hours=1)


@pytest.mark.slow
@given(st.sampled_from(sorted(KNOWN)), st.one_of(
    st.text(max_size=40), st.text("0123456789.-+eE_ smhdgMGx/:[],*", max_size=12),
    st.integers().map(str), st.floats().map(str), st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
))  # fmt: skip
@settings(max_examples=800, deadline=None)
def test_any_text_loads_or_is_refused_by_name(name, value):
    try:
        load({PREFIX + name: value})
    except SettingsError as error:
        assert PREFIX + name in str(error)
        assert "\n" not in str(error) and str(error).isprintable()


@given(st.text("0123456789.smh ٢", max_size=30))
@settings(max_examples=500, deadline=None)
def test_a_rules_file_holds_no_absurd_span(text):
    try:
        assert dt.timedelta(0) < parse_duration(text) <= dt.timedelta(days=30)
    except ValueError:
        with pytest.raises(RulesError, match="sessions.window"):
            parse_rules(f'version = "x"\n[sessions]\nwindow = "{text}"\n', "rules.toml")
