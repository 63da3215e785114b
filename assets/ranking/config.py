"""What decides a training run: table sizes, network, optimizers, batches, processes, checkpoints.

Here: numbers with their defaults and their checks, and the named configurations of models/*.toml. Not here: which columns
exist (features.py), the environment.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from assets.rules_file import at

# The order of the model's probabilities. click is over all displays, the others are given a click.
HEADS = ("click", "like", "fav", "comment", "share", "follow", "hide", "profile_enter", "long_view")

# The tenth output, a regression given a click: log1p of the reading time in seconds.
DWELL = "dwell"
OUTPUTS = (*HEADS, DWELL)

# Features made of two columns: what a reader makes of a topic is more than the sum of both.
CROSSES = {"user_topic": ("user_id", "topic")}

# Lists of what the reader did last: list -> its columns of training_samples and the table each looks its ids up in.
SEQUENCES = {
    "clicked": {"clicked_notes": "note_id", "clicked_topics": "topic", "clicked_authors": "author_id"},
    "liked": {"liked_notes": "note_id", "liked_topics": "topic", "liked_authors": "author_id"},
}
SEQUENCE_LENGTH = 20  # entries of a list that are read

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

# Of position there is no table of the network's own: it is a bias that serving leaves out (model.py).
BIASES = ("position",)

NETWORKS = ("shared_bottom", "mmoe", "ple", "wide_deep")
SPACES = ("click", "entire")
COLLISIONS = ("hash", "managed")
EVICT = ("distance_lfu", "lfu", "lru")
MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = "shared_bottom"


class RankerError(Exception):
    """A training or scoring that cannot go on; the message says what to do next."""


@dataclass(frozen=True)
class RankerConfig:
    """tables: rows by feature. dim: floats an embedding, a multiple of 4. init: embeddings start uniform in [-init, init].

    network: "shared_bottom"; "mmoe" (`experts` experts); "ple" (`experts` shared ones and `own_experts` a head, one layer
    an entry of hidden); "wide_deep". hidden: widths of the shared layers or of an expert's. tower: width of each head's own
    layer. sequences: the lists that are read (SEQUENCES), attended to by the candidate; none: ().
    space: "click" learns behaviours on clicked displays; "entire" learns p(click) p(behaviour | click) on all (ESMM).
    collisions: "hash": ids share rows by chance; "managed": each id of collisions.MANAGED has a row alone, or row 0. admit_after: displays
    from which on an id may have one. evict: which owner loses its row first where none is free (collisions.py).

    dwell_weight: of the reading time's Huber loss beside the heads' log losses.

    holdout: share of the window's samples, the newest, that are only evaluated; 0 trains on all and evaluates nothing.
    batch: samples a step and process, halved for small logs until an epoch has `min_steps` steps. shuffle_rows: samples
    held in the shuffle buffer. eval_rows: held-out samples evaluated at most (an even sample by row number beyond that).
    lr_final: share of lr_dense that the linear decay ends at.

    sharding: TorchRec sharding type by feature ("row_wise", "column_wise", "table_wise"); the planner decides the
    others. processes: 1 trains in this one; 0: one a GPU, without one two on the CPU (gloo), where it has two cores.
    device: "auto", "cpu" or "cuda". threads: of torch, a process; 0 shares the cores out,
    less one a process for reading.

    checkpoint_s: seconds from one checkpoint to the next; 0: none by time. checkpoint_steps: one after each so many
    steps as well; 0: none by steps.
    """

    tables: dict[str, int] = field(default_factory=lambda: dict(TABLES))
    dim: int = 16
    network: str = "shared_bottom"
    hidden: tuple[int, ...] = (128, 64)
    experts: int = 4
    own_experts: int = 1
    tower: int = 16
    init: float = 0.05
    sequences: tuple[str, ...] = tuple(SEQUENCES)
    space: str = "click"
    collisions: str = "hash"
    admit_after: int = 2
    evict: str = "distance_lfu"
    dwell_weight: float = 0.1
    epochs: int = 1
    batch: int = 1024
    min_steps: int = 200
    lr_dense: float = 2e-3
    lr_final: float = 0.05
    lr_embedding: float = 0.1
    seed: int = 7
    holdout: float = 0.2
    shuffle_rows: int = 131_072
    eval_rows: int = 2_000_000
    processes: int = 1
    sharding: dict[str, str] = field(default_factory=dict)
    device: str = "auto"
    threads: int = 0
    checkpoint_s: float = 30.0
    checkpoint_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "sequences"):  # a list where it comes from JSON or TOML
            object.__setattr__(self, name, tuple(getattr(self, name)))
        sharded = [name for name in TABLES if name not in BIASES]
        self._check(set(self.tables) == set(TABLES), f"tables names exactly: {', '.join(TABLES)}")
        self._check(all(rows >= 2 for rows in self.tables.values()), "a table has at least 2 rows")
        self._check(self.dim >= 4 and self.dim % 4 == 0, "dim is a multiple of 4 (the fused kernels need it)")
        self._check(self.network in NETWORKS, f"network is one of {', '.join(NETWORKS)}")
        self._check(bool(self.hidden) and all(w >= 1 for w in self.hidden), "hidden holds at least one width, each 1 or more")
        self._check(set(self.sequences) <= set(SEQUENCES), f"sequences are of: {', '.join(SEQUENCES)}")
        self._check(self.space in SPACES, f"space is one of {', '.join(SPACES)}")
        self._check(self.collisions in COLLISIONS, f"collisions is one of {', '.join(COLLISIONS)}")
        self._check(self.evict in EVICT, f"evict is one of {', '.join(EVICT)}")
        self._check(0 <= self.holdout < 1, "holdout lies between 0 and 1, 1 not included")
        self._check(0 < self.lr_final <= 1, "lr_final lies between 0 and 1, 0 not included")
        self._check(self.device in ("auto", "cpu", "cuda"), "device is auto, cpu or cuda")
        self._check(set(self.sharding) <= set(sharded), f"sharding names features: {', '.join(sharded)}")
        self._check(set(self.sharding.values()) <= {"table_wise", "row_wise", "column_wise"}, "unknown sharding type")
        for name in ("epochs", "batch", "min_steps", "shuffle_rows", "eval_rows", "tower", "experts", "own_experts", "admit_after"):
            self._check(getattr(self, name) >= 1, f"{name} is at least 1")
        for name in ("checkpoint_s", "checkpoint_steps", "dwell_weight", "processes", "threads"):
            self._check(getattr(self, name) >= 0, f"{name} is at least 0")

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
        return cls(**values)


def models() -> list[str]:
    """Names of the configurations in models/."""
    return sorted(path.stem for path in MODELS.glob("*.toml"))


def load(model: str | Path, **changes) -> RankerConfig:
    """The configuration of models/NAME.toml, or of a file of one's own (a path that ends in .toml), with `changes`.

    Raises RankerError naming file, line and key for an unknown key or a value that cannot be, and the names there are for
    an unknown model.
    """
    path = Path(model) if str(model).endswith(".toml") else MODELS / f"{model}.toml"
    if not path.is_file():
        raise RankerError(f"no ranker model {model}; there are {', '.join(models())}, or a path to a .toml of your own")
    text = path.read_text(encoding="utf-8")
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RankerError(f"{path}: not TOML: {error}") from error
    known = {f.name: f for f in fields(RankerConfig)}
    for key, value in given.items():
        where = f"{at(str(path), text, key)}: {key}"
        if key not in known:
            raise RankerError(f"{where}: unknown key; known are: {', '.join(known)}")
        if key == "tables":
            given[key] = value = {**TABLES, **value} if isinstance(value, dict) else value
        if not isinstance(value, _kind(known[key].type)) or isinstance(value, bool):
            raise RankerError(f"{where} = {value!r} is not {known[key].type}")
        try:
            RankerConfig(**{key: value})
        except RankerError as error:
            raise RankerError(f"{where}: {error}") from None
    return RankerConfig(**{**given, **changes})


def _kind(annotation: str) -> tuple[type, ...]:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "dict": (dict,), "tuple": (list,)}
    return kinds[annotation.split("[")[0]]


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
