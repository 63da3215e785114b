"""Dagster's own storage: where it lies and how it is configured.

Here: DAGSTER_HOME below the home folder, with its dagster.yaml. Not here: jobs, assets.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from dagster_project.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# One run at a time: two runs would start two Spark sessions on two cores, and could replace the same window.
DAGSTER_YAML = """\
nux:
  enabled: false
telemetry:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 1
run_monitoring:
  enabled: true
# One run over hundreds of partitions writes thousands of asset events; Dagster's own class commits each of them twice.
event_log_storage:
  module: dagster_project.event_log
  class: BatchedSqliteEventLog
  config:
    base_dir: {events}
"""


def prepare(settings: Settings) -> str:
    """Make the Dagster home, with a dagster.yaml unless there is one; returns its path."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(DAGSTER_YAML.format(events=json.dumps(str(home / "history" / "runs"))))
    return str(home)


def open_instance(settings: Settings) -> DagsterInstance:
    """The instance that the UI shows too; runs that the command line starts are kept there."""
    from dagster import DagsterInstance

    os.environ["DAGSTER_HOME"] = prepare(settings)  # Dagster's own setting, read by the processes it starts
    return DagsterInstance.get()
