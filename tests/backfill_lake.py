"""A small lake of generated traffic with labels of the labeler's, for tests of backfills: home, hours, rules to try.

Here: the line up to the labels, without Dagster. Not here: assertions.
"""

import datetime as dt
from pathlib import Path

from assets.attribution.label import label_window
from assets.attribution.rules import Rules
from assets.events import generator, intake
from assets.events.landing import batches
from assets.lake import Lake, Window

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
STRICTER = Rules(like_stay=dt.timedelta(minutes=10), valid_click_dwell=dt.timedelta(seconds=3), version="clicks of 3 s")


def fill(lake: Lake, folder: Path, hours: int = 6, events_per_hour: int = 2_000, seed: int = 3) -> Window:
    """Land, accept and label `hours` hours of traffic; returns their window."""
    window = Window(START, START + hours * HOUR)
    config = generator.TrafficConfig(
        seed=seed, users=200, notes=100, start=START, hours=hours, events_per_hour=events_per_hour, tail=False
    )
    generator.generate(config, folder / "landing", folder / "truth")
    for batch in batches(folder / "landing"):
        intake.land(lake, batch.paths, batch.mapping)
    intake.accept(lake, window, Rules())
    label_window(lake, window, Rules())
    return window
