"""Each notebook of notebooks/ becomes an asset: its window from the partition, its executed copy shown in the UI.

Here: wiring. Not here: reading and running notebook files (assets/notebook/files.py), what a notebook computes.

Why the run is papermill's and not `dagstermill.define_dagstermill_asset` (0.29.27, tried): that one replaces the
parameters cell with a Dagster context, so the window would have to be dug out of run tags and the notebook would no
longer run by itself; it takes no BackfillPolicy and its IO manager refuses a range of partitions, so a backfill could
not be one run; and it refuses jobs that cannot be imported by name, such as `materialize` in tests. papermill is what
dagstermill runs notebooks with; what makes the Dagster UI show one, `MetadataValue.notebook` and the tags
`notebook_path` and kind `ipynb`, is set here as dagstermill sets it.
"""

from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from assets.lake import utc_text
from assets.notebook import files
from assets.samples.sql_job import files_of
from dagster_project.partitions import window_of
from dagster_project.settings import Settings

GROUP = "notebooks"
FOLDER = "notebooks"  # below the home folder: the executed notebooks, NAME/WINDOW.ipynb


def notebook_assets(
    folder: Path, partitions: dg.TimeWindowPartitionsDefinition, known: Iterable[str] | None = None
) -> tuple[list[dg.AssetsDefinition], dict[Path, Exception]]:
    """An asset for each *.ipynb of a folder, and why the other files are none.

    known: all other assets, as `name` or `prefix/name`; where given, a notebook that reads something else, or that is
    named like one of them, is no job.
    """
    made: list[dg.AssetsDefinition] = []
    broken: dict[Path, Exception] = {}
    for path in files_of(folder, "ipynb"):
        try:
            notebook = files.load(path)
            if known is not None:
                _check_names(notebook, set(known))
            made.append(_asset(notebook, partitions))
        except Exception as error:  # whatever is wrong with one notebook, the others are jobs
            broken[path] = error
    return made, broken


def _check_names(notebook: files.Notebook, known: set[str]) -> None:
    if notebook.name in known:
        raise files.NotebookError(f"{notebook.path}: `{notebook.name}` is already an asset; rename the file")
    if unknown := sorted(set(notebook.deps) - known):
        names = ", ".join(sorted(known))
        raise files.NotebookError(f"{notebook.path}: reads {', '.join(unknown)}, which no asset writes; known are: {names}")


def _asset(notebook: files.Notebook, partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        name=notebook.name,
        deps=[dg.AssetKey.from_user_string(name) for name in notebook.deps],
        group_name=GROUP,
        description=notebook.description,
        owners=[notebook.owner] if notebook.owner else None,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        op_tags={"notebook_path": str(notebook.path), "kind": "ipynb"},
        metadata={"notebook": dg.MetadataValue.path(str(notebook.path))},
    )
    def run_notebook(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        clickhouse: dg.ResourceParam[object],
    ) -> dg.MaterializeResult:
        window = window_of(context)
        start, end = utc_text(window.start), utc_text(window.end)
        output = settings.home / FOLDER / notebook.name / f"{start}_{end}.ipynb".replace(":", "")
        environment = {"GLASSHOUSE_HOME": str(settings.home), "GLASSHOUSE_LAKE": settings.lake.root}
        if notebook.reads_clickhouse:
            environment["GLASSHOUSE_CLICKHOUSE_URL"] = clickhouse.address("notebook")
        shown = {"Executed notebook": dg.MetadataValue.notebook(str(output)), "window": f"{start} to {end}"}
        try:
            found = files.run(notebook.path, output, {"window_start": start, "window_end": end}, environment)
        except files.NotebookError as error:
            raise dg.Failure(str(error), metadata=shown) from error
        return dg.MaterializeResult(metadata={**shown, **found})

    return run_notebook
