"""The long-running processes: which there are, how they start and stop together.

Here: commands, ports, signals. Not here: what the processes do (assets/), the batch line (demo.py, jobs.py).
"""

from __future__ import annotations

import datetime as dt
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from dagster_project import instance
from dagster_project.settings import ROOT, Settings

BIN = Path(sys.executable).parent
TRAFFIC_SEED = 7  # the demo's: the same users and notes go on
ABUSERS = 60  # of the generator's 20,000 users
CLICKHOUSE = "clickhouse"  # a process of `make up`
CODE_SOCKET, CODE_WORKSPACE = "code.sock", "workspace.yaml"  # in the folder where Dagster's processes meet
STOP_SECONDS = 20  # the live labeler finishes the batch in hand


class ServiceError(Exception):
    """A service that cannot start; the message says what to do."""


def environment(settings: Settings) -> dict[str, str]:
    """What every service inherits: the same home, Dagster's home, and no calls home."""
    return {
        **os.environ,
        "GLASSHOUSE_HOME": str(settings.home),
        "DAGSTER_HOME": instance.prepare(settings),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }


def streamlit_command(settings: Settings) -> list[str]:
    return [
        str(BIN / "streamlit"), "run", str(ROOT / "dashboards" / "app.py"),
        "--server.address=127.0.0.1", f"--server.port={settings.streamlit_port}", "--server.headless=true",
        "--browser.gatherUsageStats=false", "--server.fileWatcherType=none",
    ]  # fmt: skip


def dagster_commands(settings: Settings, meeting: Path) -> dict[str, list[str]]:
    """Dagster's three processes, which meet in a folder: one serves the code location, two ask it.

    Without the first, web server and daemon load the definitions each, the daemon anew every minute. The folder is to have
    a short path: a socket's has at most 107 characters.
    """
    import yaml

    location = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    name, socket_path, workspace = location["location_name"], meeting / CODE_SOCKET, meeting / CODE_WORKSPACE
    server = {"socket": str(socket_path), "location_name": name}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    # They start when there is somebody to ask; asked too early, Dagster prints a traceback and tries again after 10 s.
    wait = ["sh", "-c", 'until [ -S "$0" ]; do sleep 0.2; done; exec "$@"', str(socket_path)]
    return {
        "code": [
            str(BIN / "dagster"), "code-server", "start", "-m", location["module_name"], "-s", str(socket_path),
            "--location-name", name, "--use-python-environment-entry-point", "--log-level", "warning",
        ],
        "dagster": [
            *wait, str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(settings.dagster_port), "-w", str(workspace),
        ],
        "daemon": [*wait, str(BIN / "dagster-daemon"), "run", "-w", str(workspace)],
    }  # fmt: skip


def commands(settings: Settings, meeting: Path) -> dict[str, list[str]]:
    """Name and command line of each process of `make up`, in starting order; Dagster's meet in the folder `meeting`."""
    glasshouse = str(BIN / "glasshouse")
    found = {
        CLICKHOUSE: [glasshouse, "clickhouse"],
        "traffic": [glasshouse, "traffic"],
        "live": [glasshouse, "live"],
        "orders": [glasshouse, "orders", "--follow"],
        **dagster_commands(settings, meeting),
        "pages": streamlit_command(settings),
    }
    if settings.clickhouse_url:
        del found[CLICKHOUSE]
    if settings.own_log.exists():  # generated readers have no business among real ones
        del found["traffic"]
    return found


def addresses(settings: Settings) -> dict[str, str]:
    return {
        "Dagster": f"http://127.0.0.1:{settings.dagster_port}",
        "Pages": f"http://127.0.0.1:{settings.streamlit_port}",
        "ClickHouse": settings.clickhouse,
    }


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _check_ports(settings: Settings) -> None:
    wanted = {"DAGSTER_PORT": settings.dagster_port, "STREAMLIT_PORT": settings.streamlit_port}
    if not settings.clickhouse_url:
        wanted["CLICKHOUSE_PORT"] = settings.clickhouse_port
    for name, port in wanted.items():
        if not port_is_free(port):
            raise ServiceError(
                f"port {port} is taken, perhaps by another `make up`; stop that, or set GLASSHOUSE_{name} to a free one"
            )


def _manager() -> Any:
    """A manager of honcho's that stops ClickHouse last: the others hand on to it what they have in hand."""
    import honcho.manager

    class Manager(honcho.manager.Manager):
        def terminate(self) -> None:
            if self._terminating:
                return
            last = self._processes.pop(CLICKHOUSE, None)
            super().terminate()
            if last is not None:
                self._processes[CLICKHOUSE] = last
                threading.Thread(target=self._stop_last, args=(last,), daemon=True).start()

        def _stop_last(self, last: dict) -> None:
            others = [process for process in self._processes.values() if process is not last]
            while any(process.get("returncode") is None for process in others):
                time.sleep(0.05)
            if "returncode" not in last:
                self._procmgr.terminate(last["pid"])

    honcho.manager.KILL_WAIT = STOP_SECONDS
    return Manager()


def up(settings: Settings) -> int:
    """Run every service until Ctrl-C, SIGTERM or the first one that dies; returns the exit status."""
    _check_ports(settings)
    with tempfile.TemporaryDirectory(prefix="glasshouse-") as meeting:
        return _run_all(settings, commands(settings, Path(meeting)))


def _run_all(settings: Settings, processes: dict[str, list[str]]) -> int:
    manager = _manager()
    # To be looked at, not to be thrifty: a batch a minute would look like a standstill.
    often = {"GLASSHOUSE_LIVE_INTERVAL": "5s", **environment(settings)}
    for name, command in processes.items():
        # exec: the shell that honcho starts would die of the signal before its child has finished
        manager.add_process(name, f"exec {shlex.join(command)}", env=often, cwd=str(ROOT))
    from dagster_project import show

    show.addresses(addresses(settings), "Starting. Ctrl-C stops everything.")
    if settings.own_log.exists():
        show.console.print(f"This home holds a log of your own: no traffic is generated; what lands in {settings.landing} goes live.")
    manager.loop()
    stopped_by_hand = manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    return 0 if stopped_by_hand else manager.returncode or 0


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set, for loops that finish what they have in hand."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def traffic(settings: Settings) -> None:
    from assets.events import generator

    start = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    config = generator.TrafficConfig(
        seed=TRAFFIC_SEED, start=start, events_per_hour=settings.traffic_rate * 3600, abusers=ABUSERS
    )
    interval = min(5.0, settings.live_interval.total_seconds())
    generator.follow(config, settings.landing, settings.truth, interval_s=interval, stop=stop_on_signals())


def live(settings: Settings, take_over: bool = False, reset_watermark: bool = False) -> None:
    """Label what lands until stopped; ClickHouse and Dagster follow the commits in threads of their own."""
    from assets.attribution import live as labeler
    from assets.followers import Follower
    from assets.metrics import loader
    from dagster_project import live_reports

    stop = stop_on_signals()
    following = [
        Follower(settings.lake, "clickhouse", loader.LiveSink(settings.clickhouse, *settings.clickhouse_days), by=labeler.APP),
        Follower(settings.lake, "dagster", live_reports.Reporter(settings), by=labeler.APP),
    ]
    for follower in following:
        follower.start()
    try:
        labeler.run(
            settings.lake, settings.landing, settings.rules, interval_s=settings.live_interval.total_seconds(), stop=stop,
            take_over=take_over, batch_bytes=settings.live_batch_bytes, memory_bytes=settings.live_memory_bytes,
            sessions=_on_spark(settings), reset_watermark=reset_watermark,
        )  # fmt: skip
    finally:
        for follower in following:
            follower.stop()


def orders(settings: Settings) -> None:
    """Take the shop's changes as they land, until stopped; Dagster and ClickHouse follow in threads of their own."""
    from assets.followers import Follower
    from assets.lake import LakeError
    from assets.metrics import loader
    from assets.orders import rules, take
    from dagster_project import live_reports

    stop = stop_on_signals()
    chosen = rules.load_rules(settings.order_rules)  # a wrong file stops the start, not the night
    following = [
        Follower(settings.lake, "dagster_orders", live_reports.OrdersReporter(settings, chosen), by=take.APP),
        Follower(settings.lake, "clickhouse_orders", loader.OrderSink(settings.clickhouse), by=take.APP),
    ]
    for follower in following:
        follower.start()
    try:
        while not stop.is_set():
            try:
                take.take(settings.lake, settings.orders, chosen, say=print, stopped=stop.is_set)
            except LakeError as error:  # another writer held the lock for long, or tidied just then: the next time
                print(f"orders: {error}")
            stop.wait(settings.orders_interval.total_seconds())
    finally:
        for follower in following:
            follower.stop()


def _on_spark(settings: Settings):
    """Open sessions on Spark's executors, where buckets are set; else None."""
    if not settings.live_buckets:
        return None
    from assets.attribution.cluster import ClusterSessions
    from assets.spark import get_spark

    return ClusterSessions(get_spark(settings.spark), settings.home / "live_buckets", settings.live_buckets, settings.rules)


def notebook(settings: Settings) -> int:
    command = [
        str(BIN / "jupyter"), "lab", "--notebook-dir", str(ROOT / "notebooks"), "--ip=127.0.0.1",
        f"--port={settings.notebook_port}", "--ServerApp.open_browser=False",
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    # That folder switches off JupyterLab's news, update checks and extension catalogue, which call home.
    quiet = {"JUPYTER_CONFIG_PATH": str(ROOT / "notebooks" / ".jupyter")}
    return subprocess.call(command, env={**environment(settings), **quiet}, cwd=ROOT)
