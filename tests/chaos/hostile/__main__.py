"""Attacks on what `make up` starts: `python -m tests.chaos.hostile [--root PATH] [--base PATH] [--only WORD]`, `make chaos-hostile`.

Here: arguments, both trees in turn, the table and build/reports/hostile.json. Not here: attacks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.hostile import attack
from tests.chaos.hostile.attack import FAULT, HELD, SKIPPED, Result
from tests.chaos.hostile.house import Tree

ROOT = Path(__file__).resolve().parents[3]
BASE = "82b1db2"  # the commit whose faults these attacks were made from


def load() -> list[attack.Attack]:
    """Every attack, in the order in which they are made: spoiling ones last."""
    from tests.chaos.hostile import browser, requests, files, clocks, state, processes  # noqa: F401, I001

    return attack.ATTACKS


@contextlib.contextmanager
def base_tree(path: Path | None) -> Iterator[Path | None]:
    """A checkout of BASE: the given one, or one made for the time of a `with`; None where git's history lacks it."""
    if path:
        yield path.resolve()
        return
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "cat-file", "-e", f"{BASE}^{{commit}}"], capture_output=True).returncode:
        print(f"this checkout's history lacks {BASE}: the attacks are made on today's code only (or give --base PATH)")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="hostile-base-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "worktree", "add", "--detach", "--quiet", str(tree), BASE], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def report(attacks: list[attack.Attack], today: dict[str, Result], base: dict[str, Result], seconds: float) -> dict:
    """The figures of hostile.json, and a row an attack."""
    rows = []
    for one in attacks:
        here, there = today.get(one.name), base.get(one.name)
        rows.append({
            "name": one.name, "kind": one.kind, "result": here.result if here else None, "result_on_base": there.result if there else None,
            "seen": here.seen if here else "", "seen_on_base": there.seen if there else "", "seconds": here.seconds if here else None,
            "about": " ".join((one.run.__doc__ or "").split()),
        })  # fmt: skip
    results = [one.result for one in today.values()]
    return {
        "attacks": len(rows), "held": results.count(HELD), "faults": results.count(FAULT), "skipped": results.count(SKIPPED),
        "faults_on_base": sum(one.result == FAULT for one in base.values()) if base else None, "seconds": round(seconds), "rows": rows,
    }  # fmt: skip


def known(path: Path) -> tuple[dict[str, Result], dict[str, Result]]:
    """The results of a report, of this tree and of the base, by attack; none where there is no report."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    today = {row["name"]: Result(row["result"], row["seen"], row["seconds"]) for row in rows if row["result"]}
    return today, {row["name"]: Result(row["result_on_base"], row["seen_on_base"], None) for row in rows if row["result_on_base"]}


def show(found: dict) -> None:
    table = Table("kind", "attack", "today", "base", "seen", title="Attacks on what `make up` starts", title_justify="left")
    for row in found["rows"]:
        table.add_row(row["kind"], row["name"].replace("_", " "), row["result"] or "–", row["result_on_base"] or "–", row["seen"] or row["seen_on_base"])
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table, markup=False)
    console.print(", ".join(f"{found[name]} {name.replace('_', ' ')}" for name in ("attacks", "held", "faults", "skipped", "faults_on_base")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="tree under test; default: this checkout")
    parser.add_argument("--base", type=Path, help=f"a checkout of {BASE}; default: one is made")
    parser.add_argument("--no-base", action="store_true", help="attack the tree under test only")
    parser.add_argument("--no-today", action="store_true", help="attack the base only")
    parser.add_argument("--only", action="append", help="attacks whose name or kind holds this word; may be repeated")
    parser.add_argument("--update", action="store_true", help="keep what the report says of attacks and trees that are not run now")
    parser.add_argument("--report", type=Path, default=Path("build/reports/hostile.json"))
    given = parser.parse_args()
    attacks = [one for one in load() if not given.only or any(word in one.name or word in one.kind for word in given.only)]
    for number in (signal.SIGTERM, signal.SIGHUP):  # what was started is to be stopped, too
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    begun = time.monotonic()
    today = {} if given.no_today else attack.run(Tree(given.root.resolve(), "today"), attacks)
    base: dict[str, Result] = {}
    if not given.no_base:
        with base_tree(given.base) as tree:
            base = attack.run(Tree(tree, "base"), attacks) if tree else {}
    if given.update:
        before, base_before = known(given.report)
        today, base = before | today, base_before | base
        attacks = [one for one in load() if one.name in today or one.name in base]
    found = report(attacks, today, base, time.monotonic() - begun)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    show(found)
    return int(bool(found["faults"]))


if __name__ == "__main__":
    sys.exit(main())
