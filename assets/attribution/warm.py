"""Compile all that labeling a log can need into numba's cache on disk, once: `python -m assets.attribution.warm`, which set-up runs.

Here: one call of each kind. Not here: what is compiled (fold.py, resident.py, repeats.py, assets/events/scan.py). A rule that is not asked for
is compiled out, so each mix of rules is compiled by itself; what is missing here is compiled when it is first called.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from itertools import product
from pathlib import Path

from assets.attribution import repeats, resident
from assets.attribution.fold import NEVER, Columns, fold, no_sessions
from assets.attribution.label import label_files
from assets.attribution.rules import Rules

NONE, SOME = dt.timedelta(0), dt.timedelta(seconds=1)
LOGS = {
    "log.jsonl": '{"event_id":"a","user_id":1,"note_id":1,"action":"impression","event_time":1767607400000000,"device":"ios"}\n',
    "log.csv": "event_id,user_id,note_id,action,event_time\na,1,1,impression,1767607400000000\n",
}


def warm_up() -> None:
    for dwell, stay in product((NONE, SOME), repeat=2):
        rules = Rules(valid_click_dwell=dwell, like_stay=stay)
        fold(Columns.empty(), no_sessions(rules), no_sessions(rules), rules, NEVER)
        if dwell == NONE:
            resident.Resident(rules=rules).fold(Columns.empty(), rules, 0)
    resident.warm_up()
    repeats.warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in LOGS.items():
            path = Path(folder, name)
            path.write_text(text)
            label_files([path], Path(folder, f"{path.stem}_{path.suffix[1:]}"), None, Rules())


if __name__ == "__main__":
    warm_up()
