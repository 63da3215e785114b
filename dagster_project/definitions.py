"""Dagster's code location. Here: one name. Not here: anything else (build.py)."""

import warnings

import dagster as dg

from dagster_project.build import build_defs

# Dagster warns of what it does itself when it copies a sensor, once it reads these.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"dagster\.")

defs = build_defs()
