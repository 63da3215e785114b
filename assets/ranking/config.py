"""What decides a training run: table sizes, network, optimizers, batches, processes.

Here: numbers with their defaults and their checks. Not here: which columns exist (features.py), the environment.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

# The order of the model's outputs. click is over all displays, the others are given a click.
HEADS = ("click", "like", "fav", "comment", "share", "follow", "hide", "profile_enter", "long_view")

# Features made of two columns: what a reader makes of a topic is more than the sum of both.
CROSSES = {"user_topic": ("user_id", "topic")}

# Rows of each embedding table. Row 0 means "not known". position and hour_of_day are not hashed: the value is the row.
TABLES = {
    "user_id": 200_003,
    "note_id": 200_003,
    "author_id": 50_021,
    "topic": 4_099,
    "channel": 1_009,
    "device": 4_099,
    "position": 202,
    "hour_of_day": 25,
    "user_topic": 500_009,
}


class RankerError(Exception):
    """A training or scoring that cannot go on; the message says what to do next."""


@dataclass(frozen=True)
class RankerConfig:
    """tables: rows by feature. dim: floats an embedding, a multiple of 4. hidden: widths of the shared bottom.
    tower: width of each head's own layer. init: embeddings start uniform in [-init, init].

    holdout: share of the window's samples, the newest, that are only evaluated. batch: samples a step and process,
    halved for small logs until an epoch has `min_steps` steps. shuffle_rows: samples held in the shuffle buffer.
    eval_rows: held-out samples evaluated at most (an even sample by row number beyond that).

    sharding: TorchRec sharding type by feature ("row_wise", "column_wise", "table_wise"); the planner decides the
    others. device: "auto", "cpu" or "cuda". threads: of torch, a process; 0 shares the cores out,
    less one a process for reading.
    """

    tables: dict[str, int] = field(default_factory=lambda: dict(TABLES))
    dim: int = 16
    hidden: tuple[int, ...] = (128, 64)
    tower: int = 16
    init: float = 0.05
    epochs: int = 1
    batch: int = 1024
    min_steps: int = 200
    lr_dense: float = 2e-3
    lr_embedding: float = 0.1
    seed: int = 7
    holdout: float = 0.2
    shuffle_rows: int = 262_144
    eval_rows: int = 2_000_000
    processes: int = 1
    sharding: dict[str, str] = field(default_factory=dict)
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        self._check(set(self.tables) == set(TABLES), f"tables names exactly: {', '.join(TABLES)}")
        self._check(all(rows >= 2 for rows in self.tables.values()), "a table has at least 2 rows")
        self._check(self.dim >= 4 and self.dim % 4 == 0, "dim is a multiple of 4 (the fused kernels need it)")
        self._check(0 < self.holdout < 1, "holdout lies between 0 and 1")
        self._check(self.device in ("auto", "cpu", "cuda"), "device is auto, cpu or cuda")
        self._check(set(self.sharding) <= set(self.tables), f"sharding names features: {', '.join(TABLES)}")
        self._check(set(self.sharding.values()) <= {"table_wise", "row_wise", "column_wise"}, "unknown sharding type")
        for name in ("epochs", "batch", "min_steps", "shuffle_rows", "eval_rows", "processes", "tower"):
            self._check(getattr(self, name) >= 1, f"{name} is at least 1")

    def _check(self, good: bool, what: str) -> None:
        if not good:
            raise RankerError(f"ranker configuration: {what}")

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> RankerConfig:
        """The configuration of a saved version. Raises RankerError for a name that this code does not know."""
        if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
            raise RankerError(f"ranker configuration: unknown {', '.join(unknown)}; written by a newer version?")
        return cls(**{**values, "hidden": tuple(values.get("hidden", cls.hidden))})
