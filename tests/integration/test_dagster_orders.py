"""Orders through Dagster and the command line: the job, its check that passes and fails, the process of `make up`."""

import dagster as dg
import pytest
from typer.testing import CliRunner

from assets.events.contract import EVENTS
from assets.followers import Follower
from assets.lake import Window
from assets.orders.tables import ORDER_ATTRIBUTIONS
from assets.orders.take import APP, take
from dagster_project import cli, instance, jobs, live_reports, settings
from dagster_project.build import build_defs
from dagster_project.order_assets import KEYS
from tests.orders import RULES, T0, attributed, catalogue, click, debezium, events, row, write
from tests.integration.test_orders import HOUR

pytestmark = pytest.mark.slow
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path / "home"))
    found = settings.load()
    found.lake.append_once(EVENTS, events([click("c1", 0)]), "test", 1)
    catalogue(found.orders, (5, 70))
    write(found.orders, "1.jsonl", debezium("c", row("a", 5), 5), debezium("c", row("b", 65, user_id=2), 66), "{broken")
    return found


def run(home, dagster, *selection):
    keys = [dg.AssetKey(name) for name in selection] or None
    job = build_defs(home).resolve_job_def(jobs.ORDERS)
    return job.execute_in_process(instance=dagster, run_config=QUIET, raise_on_error=False, asset_selection=keys)


def test_the_job_takes_orders_and_its_check_finds_a_cent(home):
    with dg.DagsterInstance.ephemeral() as dagster:
        done = run(home, dagster)
        assert done.success
        assert {key.to_user_string() for key in dagster.get_asset_keys()} >= set(KEYS)
        checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
        assert checks["equals_delta"].passed, "ClickHouse holds the same orders"
        check = checks["orders_reconcile"]
        assert check.passed and check.metadata["orders"].value["gross_cents"] == 2000
        found = dagster.get_latest_materialization_event(dg.AssetKey("orders")).asset_materialization.metadata
        assert (found["dagster/row_count"].value, found["changes"].value, found["quarantined"].value) == (2, 2, 1)
        held = home.lake.read(ORDER_ATTRIBUTIONS.name, Window(T0, T0 + HOUR))
        home.lake.replace_window(ORDER_ATTRIBUTIONS, held.slice(1), Window(T0, T0 + HOUR))
        again = run(home, dagster)
        (check,) = again.get_asset_check_evaluations()  # it blocks: nothing of that goes on to ClickHouse
        assert check.check_name == "orders_reconcile" and not check.passed and check.metadata["wrong_hours"].value == [T0.isoformat()]


def test_the_process_of_make_up_tells_dagster_of_batches_and_totals(home):
    take(home.lake, home.orders, RULES)
    follower = Follower(home.lake, "dagster_orders", live_reports.OrdersReporter(home, RULES), by=APP)
    while follower.step():
        pass
    with instance.open_instance(home) as dagster:
        (one,) = dagster.fetch_materializations(dg.AssetKey("order_attributions"), limit=9).records
        assert (one.asset_materialization.metadata["batch"].value, one.asset_materialization.metadata["orders"].value) == (0, 2)
        key = dg.AssetCheckKey(dg.AssetKey("order_attributions"), "orders_reconcile")
        status = dagster.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert status.status.value == "SUCCEEDED"


def test_the_command_takes_what_landed_and_prints_the_totals(home):
    printed = CliRunner().invoke(cli.app, ["orders"])
    assert printed.exit_code == 0, printed.output
    assert attributed(home.lake)["a"][0] == 5
    from dagster_project import show

    with show.console.capture() as caught:
        show.orders(*_found(home))
    text = caught.get()
    for line in ("20.00", "50.00%", "yes", "lines quarantined"):
        assert line in text, text


def _found(home):
    from assets.orders import reconcile

    return reconcile.summary(home.lake), reconcile.reconcile(home.lake, RULES), take(home.lake, home.orders, RULES)
