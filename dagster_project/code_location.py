"""Which files of sql/lake/ and notebooks/ could not be loaded, and why: an asset whose check fails until they are mended.

Here: what is said of a file that is left out. Not here: reading the files (assets/samples/sql_job.py, assets/notebook/files.py), which
of them become assets (sql_jobs.py, notebook_jobs.py). A file that is being written must not take everything else down with it.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dagster_project.settings import ROOT

NAME, CHECK = "code_location", "every_file_loads"
LOOK_S = 60
LONGEST = 600  # characters of a reason
SCRATCH = "no job, as its metadata has no `glasshouse` (docs/notebooks.md); say so there, or keep it in another folder"


@dataclass(frozen=True)
class LeftOut:
    """A file that is no asset now. file, why: as text that can be shown. scratch: a notebook that does not ask to be one."""

    file: str
    why: str
    scratch: bool = False


def left_out(broken: Mapping[Path, Exception], scratch: Iterable[Path] = ()) -> list[LeftOut]:
    """What can be said of the files; a reason that names its file says so once."""
    sheets = set(scratch)
    return [
        LeftOut(_shown(path), SCRATCH if path in sheets else _reason(path, error), path in sheets)
        for path, error in sorted(broken.items())
    ]


def _shown(path: Path) -> str:
    path = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    # A name that is not UTF-8 could not be sent to Dagster.
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _reason(path: Path, error: Exception) -> str:
    text = str(error) or type(error).__name__
    if text.startswith(str(path)):
        text = re.sub(r"\A(?=\d+: )", "line ", text.removeprefix(str(path)).lstrip(": ,"))
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())[:LONGEST]


def tell(found: Iterable[LeftOut]) -> None:
    """A line on stderr for each: what `glasshouse up` prints, and what is in the log of a run."""
    for one in found:
        print(f"code location: {one.file} is left out: {one.why}", file=sys.stderr, flush=True)


def code_location(found: list[LeftOut]) -> dg.AssetsDefinition:
    @dg.asset(
        name=NAME,
        group_name="house",
        description="What Dagster has loaded of sql/lake/ and notebooks/. Reload the code location after a file was mended.",
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[dg.AssetCheckSpec(CHECK, asset=NAME, description="No file of sql/lake/ or notebooks/ is left out.")],
    )
    def look(context: dg.AssetExecutionContext):
        return dg.MaterializeResult(metadata={"files left out": len(found)}, check_results=[verdict(found)])

    return look


def verdict(found: list[LeftOut]) -> dg.AssetCheckResult:
    """Fails while a file is left out; a warning where all of them are notebooks that do not ask to be jobs."""
    severe = any(not one.scratch for one in found)
    records = [dg.TableRecord({"file": one.file, "why": one.why}) for one in found]
    schema = dg.TableSchema(columns=[dg.TableColumn("file", "string"), dg.TableColumn("why", "string")])
    shown: dict[str, object] = {"left out": len(found)}
    if found:
        shown["files"] = dg.MetadataValue.table(records, schema)
    return dg.AssetCheckResult(
        passed=not found, asset_key=NAME, check_name=CHECK, metadata=shown,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{one.file}: {one.why}" for one in found)[: 4 * LONGEST] or "Every file was loaded.",
    )  # fmt: skip


def sensor(found: list[LeftOut]) -> dg.SensorDefinition:
    """Reports the check when what is left out has changed: nobody would materialize the asset to find out."""
    state = json.dumps([[one.file, one.why] for one in found])

    @dg.sensor(
        name="files_left_out",
        minimum_interval_seconds=LOOK_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Says at `{NAME}` which files could not be loaded.",
    )
    def files_left_out(context: dg.SensorEvaluationContext):
        if context.cursor == state:
            return dg.SkipReason("nothing new")
        result = verdict(found)
        said = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(NAME), check_name=CHECK, passed=bool(result.passed), metadata=result.metadata,
            severity=result.severity, description=result.description,
        )  # fmt: skip
        return dg.SensorResult(asset_events=[said], cursor=state)

    return files_left_out
