"""Who must hear of every commit: a follower reads the commit log from where it stopped, and hands each moment on.

Here: the cursor, the thread, the patience. Not here: what is done with a moment (ClickHouse: assets/metrics/loader.py;
Dagster's plots: dagster_project/live_reports.py).

A moment is handed on at least once, in order: the cursor moves after the handler has returned, so what the handler does must
bear a repeat. What the handler raises is told and tried again until it works: nothing is skipped, and the commit log keeps
what nobody has fetched (tidy.py). Cursors lie in _commits/followers/NAME.json; one that is damaged is taken for one that has seen
nothing, which repeats moments and is told. A moment missing between two others is an error: what it added would never be handed on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from assets import durable
from assets.commits import CommitError, Moment
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
        durable.make_folder(self.path.parent)
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
        numbers = self.lake.log.numbers()
        number = next((number for number in numbers if number > cursor), None)
        if number is None:
            return False
        if number > cursor + 1 and numbers[0] <= cursor:  # forgotten are only the oldest, and none that was not fetched
            raise CommitError(
                f"moments {cursor + 1} to {number - 1} are gone from {self.lake.log.root} and were not handed on; put their files back "
                f"from a copy, or write {{\"moment\": {number - 1}}} into {self.path} and load the hours since anew"
            )
        moment = self.lake.log.moment(number)
        if moment.by == self.by:
            self.handler(self.lake, moment)
        durable.write_durably(self.path, durable.sealed(f"{FOLDER}/{self.path.name}", {"moment": number}))
        return True


def read_cursor(path: Path) -> int:
    """The last moment that was handed on; -1 for none, and where the file is damaged, which is set aside and told."""
    try:
        return int(durable.unsealed(path, f"{FOLDER}/{path.name}")["moment"])
    except FileNotFoundError:
        return -1
    except (durable.DamagedError, TypeError, KeyError, ValueError) as error:
        with contextlib.suppress(FileNotFoundError):  # by another reader
            durable.set_aside(path, getattr(error, "why", "is damaged"), "every moment that is kept is handed on again")
            durable.write_durably(path, durable.sealed(f"{FOLDER}/{path.name}", {"moment": -1}))
        return -1


def least_cursor(lake: Lake) -> int | None:
    """The moment up to which every follower has come, None where there are no followers."""
    cursors = [read_cursor(path) for path in _folder(lake).glob("*.json")]
    return min(cursors, default=None)


def _folder(lake: Lake) -> Path:
    return lake.log.root / FOLDER
