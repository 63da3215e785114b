"""Who owns a lake after a takeover, and what counts as the newest when the clock was set back."""

import datetime as dt
import types
from contextlib import ExitStack

import pytest

from assets.attribution.state import LiveError, Store, idle
from assets.ranking import registry


def test_a_third_labeler_is_refused_while_the_one_that_took_over_lives(lake):
    hung, second, third = ExitStack(), ExitStack(), ExitStack()
    hung.enter_context(Store(lake).owned())
    epoch = second.enter_context(Store(lake).owned(take_over=True))
    with pytest.raises(LiveError, match="another live labeler"):
        third.enter_context(Store(lake).owned())
    hung.close()  # the hung one was killed at last: its lock on the lake is free
    with pytest.raises(LiveError, match="another live labeler .process .* start with --take-over"):
        third.enter_context(Store(lake).owned())
    with idle(lake) as free:
        assert not free, "nobody lands files beside it either"
    Store(lake).fence(epoch)
    third.enter_context(Store(lake).owned(take_over=True))
    with pytest.raises(LiveError, match="has taken .* over"):
        Store(lake).fence(epoch)
    second.close()
    third.close()
    with idle(lake) as free:
        assert free
    with Store(lake).owned() as epoch:
        Store(lake).fence(epoch)


@pytest.fixture
def clock(monkeypatch):
    """A clock to set: seconds of difference."""
    off = {"s": 0}

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.now(tz) + dt.timedelta(seconds=off["s"])

    monkeypatch.setattr(registry, "dt", types.SimpleNamespace(datetime=Clock, UTC=dt.UTC, timedelta=dt.timedelta))
    return off


def fill(folder):
    for name in registry.FILES:
        (folder / name).write_text("{}")


def test_the_newest_version_is_the_last_one_though_the_clock_was_set_back(lake, clock):
    first = registry.publish(lake, fill)
    clock["s"] = -400 * 86_400
    second, third = registry.publish(lake, fill), registry.publish(lake, fill)
    assert registry.versions(lake) == [first, second, third] and registry.latest(lake) == third


def test_an_empty_version_folder_is_no_version(lake):
    version = registry.publish(lake, fill)
    for name in ("20990101T000000000000", "20990101T000000000001"):
        (registry.folder(lake) / name).mkdir()
    (registry.folder(lake) / "20990101T000000000001" / "weights.pt").write_text("")
    assert registry.latest(lake) == version and registry.read_metrics(lake) == {}
    assert registry.publish(lake, fill) == registry.latest(lake) > "2099", "and the next is behind them all the same"


@pytest.mark.slow
def test_a_load_is_shown_though_the_clock_was_set_back(tmp_path, monkeypatch):
    from assets.metrics import endpoint, loads
    from assets.metrics.client import connect
    from assets.metrics.schema import migrate

    hour, real = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), loads.time.time_ns
    with endpoint.started(tmp_path / "clickhouse") as url:
        client = connect(url)
        migrate(client)
        loads.publish(client, [hour], 1, 1, "first")
        monkeypatch.setattr(loads, "time", types.SimpleNamespace(time_ns=lambda: real() - 86_400 * 10**9))
        for load in (2, 3):
            loads.publish(client, [hour], load, load, "after the clock was set back")
            assert loads.visible(client)[hour].load == load
