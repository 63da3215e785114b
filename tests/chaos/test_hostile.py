"""The short form of `make chaos-hostile`: some attacks on ClickHouse's endpoint, on a labeler and on the shop's taker, without Chromium."""

import tempfile
from pathlib import Path

import pytest

from tests.chaos.hostile import attack, files, requests
from tests.chaos.hostile.__main__ import ROOT, load
from tests.chaos.hostile.house import House, Tree

TREE = Tree(ROOT, "today")
AT_THE_ENDPOINT = (
    requests.wrong_tokens, requests.odd_hosts_at_clickhouse, requests.other_methods_and_paths, requests.absolute_form_and_smuggling,
    requests.reads_files_of_this_machine, requests.settings_in_the_statement, requests.twenty_five_comments, requests.odd_query_ids,
)  # fmt: skip
AT_THE_LABELER = (files.half_an_emoji, files.json_nested_100000_deep, files.csv_header_with_an_open_quote, files.names_that_are_odd)
AT_THE_SHOP = (files.orders_half_an_emoji, files.orders_with_ddl_that_is_none)


@pytest.fixture(scope="module")
def house():
    """One house a verb, started when it is first wanted."""
    made: dict[str, House] = {}
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:

        def started(verb: str) -> House:
            if verb not in made:
                made[verb] = House(TREE, Path(folder) / verb.split()[0], tuple(verb.split()))
                made[verb].start()
            return made[verb]

        yield started
        for one in made.values():
            one.end()


@pytest.mark.slow
@pytest.mark.parametrize("run", AT_THE_ENDPOINT, ids=lambda run: run.__name__)
def test_clickhouse_holds_against(house, run):
    _holds(house("clickhouse"), run)


@pytest.mark.slow
@pytest.mark.parametrize("run", AT_THE_LABELER, ids=lambda run: run.__name__)
def test_the_labeler_holds_against(house, run):
    _holds(house("live"), run)


@pytest.mark.slow
@pytest.mark.parametrize("run", AT_THE_SHOP, ids=lambda run: run.__name__)
def test_the_shop_holds_against(house, run):
    _holds(house("orders --follow"), run)


def _holds(house: House, run) -> None:
    before = house.pids()
    assert run(house) is None
    assert house.missing() == []
    assert house.pids() == before


def test_every_attack_says_what_it_is_and_has_a_name_of_its_own():
    attacks = load()
    assert len({one.name for one in attacks}) == len(attacks)
    assert all(one.run.__doc__ for one in attacks)


def test_a_fault_is_a_fault_and_what_breaks_is_one():
    def breaks(house):
        raise ValueError("nothing there")

    bad = attack.Attack("bad", "test", lambda house: "seen", (), False, attack.SAME, False, {})
    found = attack.run(TREE, [bad, attack.Attack("broken", "test", breaks, (), False, attack.SAME, False, {})], lambda line: None)
    assert found["bad"].result == attack.FAULT and found["bad"].seen == "seen"
    assert found["broken"].result == attack.FAULT and "nothing there" in found["broken"].seen
