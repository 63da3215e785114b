"""The short form of `make chaos-backfill`."""

import pytest

from tests.chaos import backfill


@pytest.mark.slow
def test_killed_anywhere_readers_see_the_old_rows_or_the_new_ones(tmp_path):
    report = backfill.run(tmp_path, kills=3, seed=3, say=None)
    assert report.kills >= 2 and report.reads_delta > 10 and report.reads_clickhouse > 10 and report.states_seen == 2
    assert (report.half_states, report.mismatches) == (0, 0)
