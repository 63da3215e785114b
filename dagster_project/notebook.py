"""What a notebook imports: the lake and ClickHouse of the current settings.

    from dagster_project.notebook import lake
    lake.table("impression_sessions", version=3)

`%load_ext dagster_project.notebook` adds the cells `%%sql lake` and `%%sql clickhouse`.
Here: settings handed to assets/notebook/. Not here: anything computed. Nothing is opened before it is used.
"""

from __future__ import annotations

from assets.notebook.files import results
from assets.notebook.sql import ClickHouseSql, LakeSql, register
from assets.notebook.tables import Tables
from dagster_project.settings import load

__all__ = ["clickhouse", "lake", "lake_sql", "results", "rules"]

_settings = load()

lake = Tables(_settings.lake)
rules = _settings.rules  # those in force
lake_sql = LakeSql(_settings.lake, _settings.engines, _settings.rules)
clickhouse = ClickHouseSql(_settings.notebook_clickhouse)


def load_ipython_extension(shell) -> None:
    register(shell, {"lake": lake_sql, "clickhouse": clickhouse})
