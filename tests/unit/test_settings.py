"""Settings: the one reader of the environment names what is wrong."""

import datetime as dt

import pytest

from assets.attribution.rules import SHIPPED
from assets.metrics.client import masked
from dagster_project import services, settings


def test_defaults_need_no_environment():
    found = settings.load({})
    assert masked(found.clickhouse) == "http://loader:***@127.0.0.1:8123"
    assert masked(found.pages_clickhouse) == "http://pages:***@127.0.0.1:8123"
    assert found.rules.window == dt.timedelta(minutes=20)
    assert found.lake.root == str(found.home / "lake")


def test_an_unknown_setting_is_named():
    with pytest.raises(settings.SettingsError, match="GLASSHOUSE_HOEM"):
        settings.load({"GLASSHOUSE_HOEM": "x"})


@pytest.mark.parametrize(
    "name, value",
    [("WINDOW", "20"), ("WINDOW", "0s"), ("DELAY", "-1m"), ("CLICKHOUSE_PORT", "http"), ("SPARK_DELTA", "jars"),
     ("FIRST_HOUR", "2026-01-01T00:30"), ("EXECUTOR", "k8s")],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_variable(name, value):
    with pytest.raises(settings.SettingsError, match=f"GLASSHOUSE_{name}='{value}'"):
        settings.load({f"GLASSHOUSE_{name}": value})


def test_rules_come_from_a_file_and_single_settings_override(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SHIPPED.read_text().replace('like = "0s"', 'like = "5s"').replace('version = "default"', 'version = "5 s"'))
    found = settings.load({"GLASSHOUSE_RULES": str(path)}).rules
    assert (found.version, found.like_stay, found.window) == ("5 s", dt.timedelta(seconds=5), dt.timedelta(minutes=20))
    found = settings.load({"GLASSHOUSE_RULES": str(path), "GLASSHOUSE_WINDOW": "5m"}).rules
    assert (found.like_stay, found.window) == (dt.timedelta(seconds=5), dt.timedelta(minutes=5))
    with pytest.raises(settings.SettingsError, match="GLASSHOUSE_RULES.*no such file"):
        settings.load({"GLASSHOUSE_RULES": str(tmp_path / "gone.toml")})
    path.write_text('version = "x"\n[sessions]\nwindow = "soon"\n')
    with pytest.raises(settings.SettingsError, match="mine.toml:3: sessions.window = 'soon'"):
        settings.load({"GLASSHOUSE_RULES": str(path)})


def test_common_names_of_servers_are_honoured():
    found = settings.load({"CLICKHOUSE_URL": "https://a:b@host:8443/feed", "SPARK_MASTER": "spark://host:7077"})
    assert found.clickhouse == "https://a:b@host:8443/feed"
    assert found.spark.master == "spark://host:7077"
    own = settings.load({"CLICKHOUSE_URL": "http://one", "GLASSHOUSE_CLICKHOUSE_URL": "http://two"})
    assert own.clickhouse == "http://two"


def test_every_setting_is_listed_with_its_value():
    rows = {name: value for name, value, _ in settings.listed({"GLASSHOUSE_WINDOW": "5m"})}
    assert rows["GLASSHOUSE_WINDOW"] == "5m"
    assert set(rows) == {settings.PREFIX + name for name in settings.KNOWN}


def test_passwords_and_keys_are_not_listed():
    env = {"GLASSHOUSE_CLICKHOUSE_URL": "https://me:secret@host/db", "GLASSHOUSE_PAGES_CLICKHOUSE_URL": "http://x:secret@host", "GLASSHOUSE_USER_KEY": "secret"}
    rows = {name: value for name, value, _ in settings.listed(env)}
    assert "secret" not in str(rows) and rows["GLASSHOUSE_CLICKHOUSE_URL"] == "https://me:***@host/db"


def test_a_home_with_a_log_of_ones_own_gets_no_generated_traffic(tmp_path):
    found = settings.load({"GLASSHOUSE_HOME": str(tmp_path)})
    assert "traffic" in services.commands(found, tmp_path)
    found.own_log.write_text("log.csv\n")
    assert "traffic" not in services.commands(found, tmp_path)
    assert "live" in services.commands(found, tmp_path)
