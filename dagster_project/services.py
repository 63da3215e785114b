"""The long-running processes: which there are, what each is started by, how it is known to be well.

Here: commands, ports, heartbeats' places. Not here: restarts and signals (supervisor.py), who runs in a home (processes.py), what the
processes do (assets/), the batch line (demo.py, jobs.py).
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from assets.metrics.client import masked
from dagster_project import heartbeats, instance, processes
from dagster_project.processes import CLICKHOUSE, STOP_SECONDS
from dagster_project.settings import ROOT, Settings

if TYPE_CHECKING:
    from dagster_project.supervisor import Service

BIN = Path(sys.executable).parent
TRAFFIC_SEED = 7  # the demo's: the same users and notes go on
ABUSERS = 60  # of the generator's 20,000 users
WATCH = "watch"  # the process that asks the others for signs of life
CODE_SOCKET, CODE_WORKSPACE = "code.sock", "workspace.yaml"  # in the folder where Dagster's processes meet
LONGEST_SOCKET = 100  # of 107 characters; Dagster's are put beside ours
# JupyterLab's own defaults, said here so that no configuration of the user's opens them: a token, no other names or origins.
NOTEBOOK_DOORS = (
    "--ServerApp.allow_remote_access=False", "--ServerApp.allow_origin=", "--ServerApp.allow_origin_pat=",
    "--ServerApp.disable_check_xsrf=False", "--ServerApp.allow_unauthenticated_access=False",
    "--ServerApp.allow_credentials=False",
)  # fmt: skip


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
        str(BIN / "streamlit"), "run", str(ROOT / "dashboards" / "server.py"),
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
            sys.executable, "-m", "dagster_project.code_server", str(socket_path), "-m", location["module_name"], "--location-name", name,
            "--use-python-environment-entry-point", "--log-level", "warning",
        ],
        "dagster": [
            *wait, sys.executable, "-m", "dagster_project.webserver", "-p", str(settings.dagster_port), "-w", str(workspace),
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
        "ClickHouse": masked(settings.clickhouse),
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


def up(settings: Settings) -> int:
    """Keep every service up until Ctrl-C, SIGTERM or SIGHUP; returns the exit status.

    Raises ProcessError where the home is up already, ServiceError where a port is taken.
    """
    with processes.only_up(settings.home):
        for one in processes.sweep(lambda: processes.leftovers(settings.home), STOP_SECONDS):
            print(f"{one} was left by an earlier run: ended", flush=True)
        _check_ports(settings)
        with tempfile.TemporaryDirectory(prefix="glasshouse-", dir=_short_folder(), ignore_cleanup_errors=True) as meeting:
            return _run_all(settings, Path(meeting))


def _short_folder() -> str:
    """Where the folder lies in which the processes meet: the system's for such, unless a socket's name gets too long there."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(f"{usual}/glasshouse-xxxxxxxx/{CODE_SOCKET}")) <= LONGEST_SOCKET else "/tmp"


def _run_all(settings: Settings, meeting: Path) -> int:
    from dagster_project import show
    from dagster_project.supervisor import Supervisor

    # To be looked at, not to be thrifty: a batch a minute would look like a standstill.
    often = {"GLASSHOUSE_LIVE_INTERVAL": "5s", **environment(settings)}
    supervisor = Supervisor(services(settings, meeting), settings.home, often, ROOT, meeting)
    show.addresses(addresses(settings), "Starting. Ctrl-C stops everything.")
    if settings.own_log.exists():
        show.console.print(f"This home holds a log of your own: no traffic is generated; what lands in {settings.landing} goes live.")
    supervisor.run()
    return 0


def services(settings: Settings, meeting: Path) -> list[Service]:
    """The services of `up` as the supervisor wants them: with their heartbeats, which lie in `meeting`."""
    from dagster_project.supervisor import Service

    hang, beats = settings.hang_after.total_seconds(), meeting / "beats"
    beats.mkdir()
    asked = questions(settings, meeting)
    found = []
    for name, command in commands(settings, meeting).items():
        path = beats / name
        if name in OWN_BEAT:
            found.append(Service(name, [*command, "--heartbeat", str(path)], path, hang, works=True))
        elif name in asked:
            # The daemons' own beats are that far apart.
            limit = max(hang, 3 * heartbeats.DAEMON_SECONDS) if name == "daemon" else hang
            found.append(Service(name, command, path, limit, watched_by=WATCH, last=name == CLICKHOUSE))
        else:
            found.append(Service(name, command))
    watch = [sys.executable, "-m", "dagster_project.heartbeats", str(beats / WATCH)]
    for name, questioned in asked.items():
        for kind, where in questioned:
            watch += ["--ask", str(beats / name), kind, where]
    return [*found, Service(WATCH, watch, beats / WATCH, hang)]


OWN_BEAT = ("traffic", "live", "orders")  # their loops touch the file themselves


def questions(settings: Settings, meeting: Path) -> dict[str, list[tuple[str, str]]]:
    """What `watch` asks of whom: kind and place, see heartbeats.PROBES."""
    asked = {
        "code": [("code", str(meeting / CODE_SOCKET))],
        "dagster": [("http", f"http://127.0.0.1:{settings.dagster_port}/server_info")],
        "pages": [("http", f"http://127.0.0.1:{settings.streamlit_port}/_stcore/health")],
    }
    if not settings.clickhouse_url:
        asked[CLICKHOUSE] = [("http", f"http://127.0.0.1:{settings.clickhouse_port}/ping"), ("query", "")]
    if database := instance.run_database(settings):
        asked["daemon"] = [("daemon", str(database))]
    return asked


def stop_on_signals(heartbeat: Path | None = None) -> heartbeats.BeatingStop:
    """An event that SIGTERM, SIGHUP and Ctrl-C set, for loops that finish what they have in hand.

    heartbeat: a file that is touched whenever the loop looks at the event.
    """
    stop = heartbeats.BeatingStop(heartbeats.Beat(heartbeat))
    for number in filter(processes.heard, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        signal.signal(number, lambda *_: stop.set())
    return stop


def traffic(settings: Settings, heartbeat: Path | None = None) -> None:
    from assets.events import generator

    start = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    config = generator.TrafficConfig(
        seed=TRAFFIC_SEED, start=start, events_per_hour=settings.traffic_rate * 3600, abusers=ABUSERS
    )
    interval = min(5.0, settings.live_interval.total_seconds())
    generator.follow(config, settings.landing, settings.truth, interval_s=interval, stop=stop_on_signals(heartbeat))


def live(
    settings: Settings, take_over: bool = False, reset_watermark: bool = False, heartbeat: Path | None = None
) -> None:
    """Label what lands until stopped; ClickHouse and Dagster follow the commits in threads of their own."""
    from assets.attribution import live as labeler
    from assets.followers import Follower
    from assets.metrics import loader
    from dagster_project import live_reports

    stop = stop_on_signals(heartbeat)
    following = [
        Follower(settings.lake, "clickhouse", loader.LiveSink(settings.clickhouse, *settings.clickhouse_days, folder=settings.embedded_folder), by=labeler.APP),
        Follower(settings.lake, "dagster", live_reports.Reporter(settings), by=labeler.APP),
    ]
    for follower in following:
        follower.start()
    try:
        labeler.run(
            settings.lake, settings.landing, settings.rules, interval_s=settings.live_interval.total_seconds(), stop=stop,
            take_over=take_over, batch_bytes=settings.live_batch_bytes, memory_bytes=settings.live_memory_bytes,
            sessions=_on_spark(settings), reset_watermark=reset_watermark, probe=stop.beat, settle_s=settings.settle.total_seconds(),
        )  # fmt: skip
    finally:
        for follower in following:
            follower.stop()


def orders(settings: Settings, heartbeat: Path | None = None) -> None:
    """Take the shop's changes as they land, until stopped; Dagster and ClickHouse follow in threads of their own."""
    from assets.followers import Follower
    from assets.lake import LakeError
    from assets.metrics import loader
    from assets.orders import rules, take
    from dagster_project import live_reports

    stop = stop_on_signals(heartbeat)
    chosen = rules.load_rules(settings.order_rules)  # a wrong file stops the start, not the night
    following = [
        Follower(settings.lake, "dagster_orders", live_reports.OrdersReporter(settings, chosen), by=take.APP),
        Follower(settings.lake, "clickhouse_orders", loader.OrderSink(settings.clickhouse, folder=settings.embedded_folder), by=take.APP),
    ]
    for follower in following:
        follower.start()
    try:
        while not stop.is_set():
            try:
                take.take(settings.lake, settings.orders, chosen, say=print, probe=stop.beat, stopped=stop.is_set)
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
    from dagster_project.supervisor import die_with_parent

    command = [
        str(BIN / "jupyter"), "lab", "--notebook-dir", str(ROOT / "notebooks"), "--ip=127.0.0.1",
        f"--port={settings.notebook_port}", "--ServerApp.open_browser=False", *NOTEBOOK_DOORS,
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]  # fmt: skip
    # That folder switches off JupyterLab's news, update checks and extension catalogue, which call home.
    quiet = {"JUPYTER_CONFIG_PATH": str(ROOT / "notebooks" / ".jupyter")}
    lab = subprocess.Popen(command, env={**environment(settings), **quiet}, cwd=ROOT, preexec_fn=die_with_parent)
    for number in filter(processes.heard, (signal.SIGTERM, signal.SIGHUP)):
        signal.signal(number, lambda *_: lab.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches JupyterLab too, which asks
    return lab.wait()
