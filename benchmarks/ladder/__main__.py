"""What each kind of model is worth on the same samples: `python -m benchmarks.ladder`, `make ladder`.

    --data generated,kuairand   --models popularity,lightgbm,...   --seeds 3   --cap 1000000
    --hours 48 --scale 1        traffic of one's own size, made under build/bench; without them the demo's, where it is
    --home build/demo           another demo

Here: options, the table on the terminal, build/reports/ladder.json (rows: see assets.ranking.ladder.climb). Not here: the
models and their measures (assets/ranking/ladder), the logs (data.py). docs/ranker_ladder.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from assets.ranking.config import HEADS
from assets.ranking.ladder import climb
from benchmarks.ladder import data
from dagster_project import settings, show

ROOT = Path(__file__).resolve().parents[2]
LOGS = ("generated", "kuairand")
KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand27k_subset.tsv.gz"


def main() -> None:
    options = _options()
    say = show.Steps()
    chosen = climb.Options(models=tuple(options.models.split(",")), seeds=tuple(range(1, options.seeds + 1)), cap=options.cap)
    rows: list[dict] = []
    for name in options.data.split(","):
        if name == "kuairand" and not options.kuairand.exists() and not options.asked:
            say(f"{options.kuairand} is not here: the KuaiRand subset is left out")
            continue
        log = _log(name, options, say)
        rows += climb.climb(log.name, log.lake, log.window, log.truth, chosen, say)
        _write(options.report, rows, options)
    _show(rows, options.all_heads)
    show.console.print(f"all rows: {show.short(options.report)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("--data", help=f"of {', '.join(LOGS)}; default: both, where the KuaiRand subset is at hand")
    parser.add_argument("--models", default=",".join(climb.MODELS), help=f"of {', '.join(climb.MODELS)}; default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each model that has a seed")
    parser.add_argument("--cap", type=int, default=1_000_000, help="training samples of the models before the ranker at most")
    parser.add_argument("--hours", type=int, help="of traffic generated for this")
    parser.add_argument("--scale", type=float, help="its rate, 1 for the demo's (41,667 events an hour)")
    parser.add_argument("--home", type=Path, default=settings.load().home, help="a demo to use where it is there")
    parser.add_argument("--kuairand", type=Path, default=KUAIRAND, help="the KuaiRand subset")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="where logs made for this are kept")
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "reports" / "ladder.json")
    parser.add_argument("--all-heads", action="store_true", help="print every head's table, not click and long view alone")
    options = parser.parse_args()
    options.asked = options.data is not None
    options.data = options.data or ",".join(LOGS)
    if unknown := set(options.data.split(",")) - set(LOGS):
        parser.error(f"no data {', '.join(sorted(unknown))}; there are {', '.join(LOGS)}")
    if options.seeds < 1:
        parser.error("--seeds is at least 1")
    return options


def _log(name: str, options: argparse.Namespace, say: data.Say) -> data.Log:
    if name == "kuairand":
        return data.kuairand(options.folder, options.kuairand, say)
    sized = options.hours is not None or options.scale is not None
    found = None if sized else data.demo(options.home)
    if found:
        say(f"the demo's traffic, {options.home}")
        return found
    return data.generated(options.folder, options.hours or data.HOURS, options.scale or 1.0, data.SEED, say)


def _write(path: Path, rows: list[dict], options: argparse.Namespace) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"seeds": options.seeds, "cap": options.cap, "rows": rows}
    path.write_text(json.dumps(said, indent=1) + "\n")


def _show(rows: list[dict], all_heads: bool) -> None:
    columns = ("model", "AUC", "95 % low", "high", "of", "GAUC", "known", "log loss", "calibration", "fit, s")
    for name in dict.fromkeys(row["data"] for row in rows):
        for head in HEADS if all_heads else ("click", "long_view"):
            of = [row for row in rows if (row["data"], row["head"]) == (name, head)]
            made = [(row["model"], _digits(row["auc"]), _digits(row["auc_low"]), _digits(row["auc_high"]), row["interval"],
                     _digits(row["gauc"]), _share(row["share_known"]), _digits(row["log_loss"]), row["calibration"],
                     round(row["fit_s"], 1)) for row in of]  # fmt: skip
            if of[0]["truth_auc"] is not None:
                truth = of[0]
                made.append(("the truth", _digits(truth["truth_auc"]), None, None, None, _digits(truth["truth_gauc"]), "100 %",
                             _digits(truth["truth_log_loss"]), None, None))  # fmt: skip
            title = f"{name}, {head}: {of[0]['samples']:,} held-out samples, {of[0]['positives']:,} positives"
            show.table(title, made, columns)


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}".replace("%", " %")


if __name__ == "__main__":
    with show.expected_errors():
        sys.exit(main())
