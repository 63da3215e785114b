"""The short form of `make chaos-metrics`."""

import pytest

from tests.chaos import metrics


@pytest.mark.slow
def test_killed_at_any_point_clickhouse_comes_to_hold_what_delta_holds(tmp_path):
    report = metrics.run(tmp_path, kills=3, seed=3, say=None)
    assert report.kills == 3 and report.reads > 10
    assert (report.differences, report.backwards) == (0, 0)
