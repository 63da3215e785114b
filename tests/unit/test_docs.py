"""README and docs name what exists: files, make verbs, commands, settings."""

import re
from pathlib import Path

import pytest
import typer

from dagster_project import cli, settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = ("assets/", "sql/", "dashboards/", "notebooks/", "dagster_project/", "tests/", "benchmarks/", "docs/", ".ci/")
VERBS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request):
    return request.param


def test_named_files_exist(page):
    text = page.read_text()
    named = {name for name in re.findall(r"`([\w./-]+)`", text) if name.startswith(PLACES)}
    linked = {(page.parent / link).resolve() for link in re.findall(r"\]\((?!http|#)([^)#]+)", text)}
    missing = {name for name in named if not re.search(r"NAME|\bX\b", name) and not (ROOT / name).exists()}
    assert not missing and all(link.exists() for link in linked), (missing, [str(x) for x in linked if not x.exists()])


def test_named_verbs_exist(page):
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    assert named <= VERBS, named - VERBS


def test_named_commands_exist(page):
    commands = set(typer.main.get_command(cli.app).commands)
    named = set(re.findall(r"`(?:\.venv/bin/)?glasshouse ([a-z]+)", page.read_text()))
    assert named <= commands, named - commands


def test_named_settings_exist(page):
    named = set(re.findall(r"GLASSHOUSE_([A-Z_]+)", page.read_text()))
    assert named <= set(settings.KNOWN), named - set(settings.KNOWN)
