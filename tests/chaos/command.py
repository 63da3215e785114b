"""What the chaos runs have in common as commands: arguments, the table, the report.

Here: main of `python -m tests.chaos.NAME`. Not here: what is killed and what is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(doc: str, title: str, report: str, run: Callable[[Path, int, int], object], wrong: tuple[str, ...], kills: int = 100) -> int:
    """Run, print a table, write build/reports/`report`; 1 where a figure named in `wrong` is not zero, else 0.

    run: called with a folder of its own, how many kills, the seed; returns a dataclass of figures.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("build/reports") / report)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.kills, options.seed).__dict__
    table = Table("", "", title=title, title_justify="left")
    for name, value in found.items():
        for one, figure in value.items() if isinstance(value, dict) else {name: value}.items():
            table.add_row(f"killed: {one}" if name == "by_point" else one.replace("_", " "), str(figure))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(found[name] for name in wrong))
