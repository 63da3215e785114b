"""Who must hear of every commit: a follower reads the commit log from where it stopped, and hands each moment on.

Here: the cursor, the thread, the patience. Not here: what is done with a moment (ClickHouse: assets/metrics/loader.py;
Dagster's plots: dagster_project/live_reports.py).

A moment is handed on at least once, in order: the cursor moves after the handler has returned, so what the handler does must
bear a repeat. What the handler raises is told and tried again until it works: nothing is skipped, and the commit log keeps
what nobody has fetched (tidy.py). Cursors lie in _commits/followers/NAME.json.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from assets.commits import Moment, write_durably
from assets.lake import Lake

POLL_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between two tries of a handler that fails
FOLDER = "followers"

Handler = Callable[[Lake, Moment], None]


class Follower:
    """Hands moments written by `by` to `handler`, in a thread of its own between start() and stop()."""

    def __init__(self, lake: Lake, name: str, handler: Handler, by: str, say: Callable[[str], None] = print):
        self.lake, self.name, self.handler, self.by, self.say = lake, name, handler, by, say
        self.path = _folder(lake) / f"{name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follower {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 10.0) -> None:
        """Hand on what is there, for so long at most; the rest is handed on by the next start."""
        end = time.monotonic() + patience_s
        while self.waiting() and time.monotonic() < end and self._thread.is_alive():
            time.sleep(POLL_S / 4)
        self._stop.set()
        self._thread.join(timeout=max(1.0, end - time.monotonic()))

    def waiting(self) -> int:
        """Moments that have not been looked at yet."""
        cursor = read_cursor(self.path)
        return sum(number > cursor for number in self.lake.log.numbers())

    def _run(self) -> None:
        wait = FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                moved = self.step()
                wait = FIRST_WAIT_S
                if not moved:
                    self._stop.wait(POLL_S)
            except Exception as error:  # whatever it is, the moment stays and is tried again
                self.say(f"{self.name}: {type(error).__name__}: {str(error)[:300]}; trying again in {wait:g} s")
                self._stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)

    def step(self) -> bool:
        """Hand on the next moment; False where there is none."""
        cursor = read_cursor(self.path)
        number = next((number for number in self.lake.log.numbers() if number > cursor), None)
        if number is None:
            return False
        moment = self.lake.log.moment(number)
        if moment.by == self.by:
            self.handler(self.lake, moment)
        write_durably(self.path, json.dumps({"moment": number}).encode())
        return True


def read_cursor(path: Path) -> int:
    try:
        return json.loads(path.read_text())["moment"]
    except FileNotFoundError:
        return -1


def least_cursor(lake: Lake) -> int | None:
    """The moment up to which every follower has come, None where there are no followers."""
    cursors = [read_cursor(path) for path in _folder(lake).glob("*.json")]
    return min(cursors, default=None)


def _folder(lake: Lake) -> Path:
    return lake.log.root / FOLDER
