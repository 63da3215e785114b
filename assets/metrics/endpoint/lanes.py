"""Places at the engine: each user has its own, so that nobody's slow statements keep others out.

Here: who may run at once, who waits, for how long. Not here: what a statement may do (guard.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from assets.metrics.endpoint.errors import QueryError

WAIT_S = 20.0
WAITING = 64  # statements of a user that may wait for a place

RUNNING = {"default": 8, "writer": 8, "loader": 8, "pages": 8, "reader": 4, "notebook": 4}


class Lane:
    """The places of one user."""

    def __init__(self, user: str, running: int, waiting: int = WAITING, wait_s: float = WAIT_S):
        import anyio

        self.user, self.running, self.wait_s = user, running, wait_s
        self._waiting_limit, self._waiting = waiting, 0
        self._places = anyio.Semaphore(running)

    async def enter(self) -> Place:
        """Take a place, once there is one. Raises QueryError where too many wait, or for too long."""
        import anyio

        if self._waiting >= self._waiting_limit:
            raise self._full(f"{self._waiting} more are waiting")
        self._waiting += 1
        try:
            with anyio.fail_after(self.wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise self._full(f"this one waited {self.wait_s:g} s") from None
        finally:
            self._waiting -= 1
        return Place(self)

    def _full(self, why: str) -> QueryError:
        return QueryError(
            f"Too many simultaneous queries of user {self.user}: {self.running} are running and {why}; try again, or end one of them. "
            "(TOO_MANY_SIMULTANEOUS_QUERIES)", 202,
        )  # fmt: skip

    def leave(self) -> None:
        self._places.release()


@dataclass
class Place:
    """A place that was taken; given back once."""

    lane: Lane | None

    def leave(self) -> None:
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.leave()
