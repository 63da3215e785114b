"""Backfills that can be looked at before, and undone after: plan, apply, undo.

Here: the shadow rows of a plan, the report, the swap in Delta and ClickHouse, and back. Not here: the rules and the fold
(assets/attribution), how rows get into ClickHouse (assets/metrics/loader.py), commands and pages.
"""
