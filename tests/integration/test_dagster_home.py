"""A new Dagster home, opened by several processes at once, as `make up` does."""

import multiprocessing
import sqlite3

import pytest

from dagster_project import instance, settings

pytestmark = pytest.mark.slow

PROCESSES = 4
DATABASES = ("schedules/schedules.db", "history/runs.db", "history/runs/index.db")


def opened(home: str, together, answers) -> None:
    import dagster  # noqa: F401  # imported before they meet, which takes longest and not alike

    together.wait()
    try:
        with instance.open_instance(settings.load({"GLASSHOUSE_HOME": home})) as dagster_instance:
            dagster_instance.get_runs()
            answers.put(type(dagster_instance.event_log_storage).__name__)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")


def test_processes_that_open_a_new_home_at_once_find_it_whole(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    together, answers = spawn.Barrier(PROCESSES), spawn.Queue()
    processes = [spawn.Process(target=opened, args=(str(tmp_path), together, answers)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found == ["BatchedSqliteEventLog"] * PROCESSES
    for name in DATABASES:
        stamps = sqlite3.connect(tmp_path / "dagster" / name).execute("SELECT version_num FROM alembic_version").fetchall()
        assert len(stamps) == 1, name


def test_a_dagster_yaml_of_the_users_own_is_kept(tmp_path):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    assert instance.prepare(settings.load({"GLASSHOUSE_HOME": str(tmp_path)})) == str(home)
    assert (home / "dagster.yaml").read_text() == "telemetry:\n  enabled: false\n"
    assert (home / "history" / "runs.db").exists()
