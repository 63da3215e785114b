"""The demo's traffic: made once, the same after a kill, and nothing of anybody else's is touched."""

import dataclasses
import datetime as dt
import json

import pytest

from assets.attribution.state import Store
from dagster_project import demo
from dagster_project.settings import load

pytestmark = pytest.mark.slow

ASKED = {"hours": 2, "events": 3_000, "seed": 7}


@pytest.fixture
def home(tmp_path):
    return load({"GLASSHOUSE_HOME": str(tmp_path / "home"), "GLASSHOUSE_LANDING": str(tmp_path / "logs")})


def made(home, **asked):
    home.home.mkdir(exist_ok=True)
    said = []
    return demo._traffic(home, *{**ASKED, **asked}.values(), said.append), said


def bodies(home):
    return {path.name: path.read_bytes() for path in home.landing.iterdir()}


def test_it_is_made_once(home):
    window, said = made(home)
    files = bodies(home)
    assert files and "generated" in said[-1]
    again, said = made(home)
    assert again == window and "already" in said[-1] and bodies(home) == files
    with pytest.raises(demo.DemoError, match="other traffic.*remove that folder"):
        made(home, seed=8)


def test_what_lay_in_the_landing_folder_stays(home):
    home.landing.mkdir(parents=True)
    (home.landing / "mine.jsonl").write_text("{}\n")
    home.orders.mkdir()
    (home.orders / "mine.jsonl").write_text("{}\n")
    made(home)
    assert (home.landing / "mine.jsonl").exists() and (home.orders / "mine.jsonl").exists()


def test_a_start_that_was_killed_is_finished_with_its_own_hours(home, monkeypatch):
    from assets.events import generator

    window, _ = made(home)
    files = bodies(home)
    for path in [*home.landing.iterdir(), home.home / demo.MANIFEST]:
        path.unlink()

    def killed(*_):
        raise KeyboardInterrupt

    hour_ago = dt.timedelta(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(generator, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            made(home)
    begun = home.home / demo.BEGUN
    said = json.loads(begun.read_text())
    said.update(start=(window.start - hour_ago).isoformat(), end=(window.end - hour_ago).isoformat())  # killed an hour ago
    begun.write_text(json.dumps(said))
    again, _ = made(home)
    assert (again.start, again.end) == (window.start - hour_ago, window.end - hour_ago)
    assert not begun.exists() and set(bodies(home)) != set(files)
    assert made(home)[0] == again


def test_it_is_not_made_beside_a_live_labeler(home):
    with Store(home.lake).owned(), pytest.raises(demo.DemoError, match="live labeler.*stop it"):
        made(home)
    assert not home.landing.exists()
    assert dataclasses.astuple(made(home)[0])
