"""The short form of `make chaos`: every point once, a few random kills, every other fault."""

import pytest

from tests.chaos import live


@pytest.mark.slow
def test_killed_at_every_point_nothing_is_lost_or_doubled_and_no_half_state_is_seen(tmp_path):
    report = live.run(tmp_path, kills=len(live.POINTS) + 3, say=None, random_every=6)
    assert report.kills == len(live.POINTS) + 3 and report.restarts > report.kills
    assert (report.lost, report.doubled, report.half_states) == (0, 0, 0)
    assert report.reads > 100 and report.batches > 20
    assert set(report.by_point) >= {"intent", "events", "published", "random"}


@pytest.mark.slow
@pytest.mark.parametrize("name", live.FAULTS)
def test_other_faults(tmp_path, name):
    said = live.FAULTS[name](tmp_path, 2)
    assert "exact" in said and "NOT" not in said and "False" not in said and "LOST" not in said, said
