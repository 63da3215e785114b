"""Dagster's code location. Here: one name. Not here: anything else (build.py)."""

from dagster_project.build import build_defs

defs = build_defs()
