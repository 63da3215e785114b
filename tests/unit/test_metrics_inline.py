"""A query's views with parameters, written out."""

import re

import pytest

from assets.metrics.inline import VIEWS, inlined
from dashboards import data

QUERIES = [path for path in sorted(data.QUERIES.glob("*.sql")) if any(f"{view}(" in path.read_text() for view in VIEWS)]


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_no_view_is_left_and_no_parameter_is_new(path):
    text = path.read_text()
    found = inlined(text)
    assert not any(f"{view}(" in found for view in VIEWS)
    assert "_totals_all" in found and found.count("(") == found.count(")")
    assert set(re.findall(r"\{(\w+):", found)) == set(re.findall(r"\{(\w+):", text))


def test_values_take_the_place_of_parameters():
    given = "start = {a:DateTime('UTC')}, end = {b:DateTime('UTC')}, hours_start = {b:DateTime('UTC')}, hours_end = {b:DateTime('UTC')}"
    found = inlined(f"SELECT 1 FROM users_in({given}, left_out = 7, channels = ['x', 'y'], devices = [], bands = []) WHERE at > 0")
    assert found.startswith("SELECT 1 FROM (SELECT at,") and found.endswith(") WHERE at > 0")
    assert "at >= {a:DateTime('UTC')} AND at < {b:DateTime('UTC')}" in found
    assert "rolled = 7" in found and "empty(['x', 'y']) OR channel IN ['x', 'y']" in found


def test_what_names_no_view_stays():
    assert inlined("SELECT 1 FROM events") == "SELECT 1 FROM events"


@pytest.mark.parametrize(("text", "why"), [("users_in(start = 1)", "not given its parameter"), ("users_in(1, 2)", "NAME = VALUE"), ("users_in(start = 1", "NAME = VALUE")])
def test_what_cannot_be_read_says_so(text, why):
    with pytest.raises(ValueError, match=why):
        inlined(text)
