"""Who may ask Dagster's web server and the pages, and what they must not show: secrets, other people's texts as anything but text."""

import asyncio
import base64
import contextlib
import csv
import http.server
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse

import pandas as pd
import pytest

from dagster_project import services
from dagster_project import settings as environment
from tests import browser, pages

SECRET = "hunter2-the-secret"
EVIL = "http://evil.example"
BEACON = services.free_port()  # where no page may ask
slow = pytest.mark.slow


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(port, head, body=b"", timeout=60):
    """Bytes over a socket, as no library would send them; returns (status, headers and body as text)."""
    lines = [*head, f"Content-Length: {len(body)}"] if body else head
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as talk:
        talk.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        answer = b""
        while chunk := talk.recv(65536):
            answer += chunk
    return int(answer.split(b" ", 2)[1]), answer.decode("latin-1")


def get(port, path, *more, host=None):
    return ask(port, [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *more])


def post(port, query, *more, host=None, kind="application/json"):
    body = json.dumps({"query": query}).encode()
    return ask(port, ["POST /graphql HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", f"Content-Type: {kind}", *more], body)


def upgrade(port, path, *more, host=None, timeout=60):
    """The status of a websocket's handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = [
        f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *more,
    ]  # fmt: skip
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as talk:
        talk.sendall("\r\n".join([*head, "", ""]).encode("latin-1"))
        return int(talk.recv(200).split(b" ", 2)[1])


def odd_hosts(port):
    return [
        f"evil.example:{port}", "evil.example", "127.0.0.1", f"127.0.0.1:{port + 1}", f"a{{b.:{port}", f"127.0.0.1:{port}.", f"localhost.:{port}",
        f"127.0.0.1.nip.io:{port}", f"127.0.0.1@evil.example:{port}", f"0.0.0.0:{port}", f"[::]:{port}", f"127.1:{port}", f"2130706433:{port}",
        f"localhost:{port}, evil.example", f"localhost:{port}#", f"localhost:0{port}", f"loc\xe4lhost:{port}",
    ]  # fmt: skip


# --- a real Dagster behind its command of `make up` --------------------------------------------------------------------

CODE = """
import dagster as dg

@dg.asset
def kept(): ...

defs = dg.Definitions([kept])
"""
REPORT = 'mutation { reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: "kept"}}) { __typename } }'
COUNT = '{ assetOrError(assetKey: {path: "kept"}) { ... on Asset { assetMaterializations { timestamp } } } }'
SUBSCRIBE = {"type": "start", "id": "1", "payload": {"query": "subscription { locationStateChangeEvents { event { message } } }"}}


@contextlib.contextmanager
def running(command, env, log, answers, timeout_s=240):
    """A process of its own group until the block ends; answers(): whether it is ready."""
    with open(log, "wb") as said:
        process = subprocess.Popen(command, env=env, cwd=services.ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        end = time.monotonic() + timeout_s
        while not answers():
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port):
    def answers():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return answers


@pytest.fixture(scope="module")
def dagster(tmp_path_factory):
    """The port of a Dagster whose code location is one asset, started as `make up` starts it."""
    home, port = tmp_path_factory.mktemp("home"), services.free_port()
    meeting = tmp_path_factory.mktemp("m")
    settings = environment.load({"GLASSHOUSE_HOME": str(home), "GLASSHOUSE_DAGSTER_PORT": str(port)})
    commands = services.dagster_commands(settings, meeting)
    code, place = commands["code"], commands["code"].index("-m", 2)  # the first -m is Python's own
    (home / "one.py").write_text(CODE)
    code[place : place + 2] = ["-f", str(home / "one.py")]
    env = {**services.environment(settings), "TMPDIR": str(home)}
    with running(code, env, home / "code.log", (meeting / services.CODE_SOCKET).exists), \
            running(commands["dagster"], env, home / "web.log", listens(port)):  # fmt: skip
        yield port


def materializations(port):
    status, answer = post(port, COUNT)
    assert status == 200, answer
    found = json.loads(answer.partition("\r\n\r\n")[2])["data"]["assetOrError"]
    return len(found.get("assetMaterializations", ()))


@slow
def test_a_mutation_is_taken_from_the_own_page_and_from_programs_and_from_nobody_else(dagster):
    port, own = dagster, f"Origin: http://127.0.0.1:{dagster}"
    encoded = urllib.parse.quote(REPORT)
    before = materializations(port)
    asked = [
        get(port, f"/graphql?query={encoded}"),  # what an image asks
        get(port, f"/graphql?query={encoded}", "Accept: */*", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
        get(port, f"/graphql/?query={encoded}", "Accept: image/*"),
        get(port, f"/graphql?query={encoded}", "Accept: text/html", "Accept: */*"),
        *(post(port, REPORT, kind=kind) for kind in ("text/plain", "application/x-www-form-urlencoded", "application/graphql", "text/plain; application/json")),
        post(port, REPORT, f"Origin: {EVIL}"), post(port, REPORT, "Origin: null"), post(port, REPORT, f"Origin: http://127.0.0.1:{port + 1}"),
        post(port, REPORT, f"Origin: http://localhost:{port}"), post(port, REPORT, own, f"Origin: {EVIL}"),
        post(port, REPORT, "Sec-Fetch-Site: same-site"), post(port, REPORT, own, "Sec-Fetch-Site: cross-site"),
        ask(port, [f"OPTIONS /graphql HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: {EVIL}", "Access-Control-Request-Method: POST"]),
        *(post(port, REPORT, host=host) for host in odd_hosts(port)),
        ask(port, ["POST /graphql HTTP/1.1", f"Host: 127.0.0.1:{port}", "Host: evil.example", "Content-Type: application/json"], b"{}"),
    ]  # fmt: skip
    assert [status for status, _ in asked if not 400 <= status < 500] == []
    assert not any("access-control-allow" in answer.lower() for _, answer in asked)
    assert materializations(port) == before
    for more, host in (((), None), ((own, "Sec-Fetch-Site: same-origin"), None), ((f"Origin: http://localhost:{port}",), f"localhost:{port}")):
        status, answer = post(port, REPORT, *more, host=host)
        assert status == 200 and "ReportRunlessAssetEventsSuccess" in answer
    assert materializations(port) == before + 3


@slow
def test_the_uis_pages_open_and_cannot_be_framed_by_others(dagster):
    for path in ("/", "/assets", "/graphql"):
        status, answer = get(dagster, path, "Accept: text/html", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
        assert status == 200
        assert "x-frame-options: sameorigin" in answer.lower() and "frame-ancestors 'self'" in answer
        status, _ = get(dagster, path, "Accept: text/html", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe")
        assert status == 403


@slow
def test_websockets_are_for_the_own_page(dagster):
    port, own = dagster, f"Origin: http://127.0.0.1:{dagster}"
    talk = "Sec-WebSocket-Protocol: graphql-ws"
    assert upgrade(port, "/graphql", own, talk) == 101
    for more in ((), (f"Origin: {EVIL}",), ("Origin: null",), (f"Origin: http://127.0.0.1:{port + 1}",), (own, "Sec-Fetch-Site: cross-site")):
        assert upgrade(port, "/graphql", talk, *more) in (400, 403)
    assert all(upgrade(port, "/graphql", own, talk, host=host) in (400, 403) for host in odd_hosts(port))


@slow
def test_an_executed_notebook_has_no_origin_of_dagsters(dagster):
    _, answer = get(dagster, "/notebook?path=/nowhere.ipynb&repoLocName=glasshouse", "Accept: text/html")
    assert "sandbox" in re.search(r"(?im)^content-security-policy: (.*)$", answer)[1]


# --- an attacker's page in a browser -----------------------------------------------------------------------------------

ATTACK = """<!doctype html><title>evil</title><body><script>
const port = "PORT", query = encodeURIComponent(`MUTATION`), body = JSON.stringify({query: `MUTATION`});
const tell = text => document.body.append(text + ";");
const done = [];
for (const host of ["127.0.0.1", "localhost"]) {
  const url = `http://${host}:${port}/graphql`;
  const image = new Image(); done.push(new Promise(next => image.onload = image.onerror = next)); image.src = `${url}?query=${query}`;
  for (const headers of [{"Content-Type": "text/plain"}, {"Content-Type": "application/json"}])
    for (const mode of ["cors", "no-cors"]) done.push(fetch(url, {method: "POST", mode, body, headers, credentials: "include"}).catch(() => 0));
  const frame = document.createElement("iframe"); frame.name = "f" + host.length; document.body.append(frame);
  const form = document.createElement("form"); form.method = "post"; form.action = `${url}?query=${query}`; form.target = frame.name;
  form.enctype = "text/plain"; document.body.append(form); form.submit();
  done.push(new Promise(next => { const ws = new WebSocket(`ws://${host}:${port}/graphql`, "graphql-ws");
    ws.onopen = () => { tell("OPENED"); next(); }; ws.onerror = ws.onclose = next; }));
}
Promise.all(done).then(() => setTimeout(() => tell("DONE"), 2000));
</script>"""


@contextlib.contextmanager
def serving(text, seen=None):
    """The port of a web server of one page; seen: paths that were asked for."""
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


@slow
@browser.NEEDED
def test_a_page_open_in_a_browser_does_nothing_to_dagster(dagster):
    before = materializations(dagster)
    with serving(ATTACK.replace("PORT", str(dagster)).replace("MUTATION", REPORT)) as port, browser.chromium(800, 600) as driver:
        driver.get(f"http://127.0.0.1:{port}/")
        end = time.monotonic() + 60
        while "DONE" not in driver.find_element("css selector", "body").text:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert "OPENED" not in driver.find_element("css selector", "body").text
        assert materializations(dagster) == before
        driver.get(f"http://127.0.0.1:{dagster}/assets/kept")  # and a person's own look still works
        while "kept" not in driver.find_element("css selector", "body").text:
            assert time.monotonic() < end + 60
            time.sleep(0.2)


# --- the guard by itself: every mark of a foreign page -----------------------------------------------------------------


def passes(more=(), method="GET", kind="http", host=b"127.0.0.1:8000", origins=(), path="/"):
    from dagster_project.guard import Guard

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})

    sent = []

    async def send(message):
        sent.append(message)

    headers = [*([(b"host", host)] if host is not None else []), *more]
    scope = {"type": kind, "method": method, "path": path, "headers": headers, "server": ("127.0.0.1", 8000)}
    asyncio.run(Guard(app, origins)(scope, None, send))
    assert not any(b"access-control" in key for key, _ in sent[0].get("headers", ()))
    return sent[0].get("status") == 200


@pytest.mark.parametrize("host", [b"127.0.0.1:8000", b"localhost:8000", b"[::1]:8000", b"LOCALHOST:8000"])
def test_the_guard_knows_its_own_address(host):
    assert passes(host=host)


@pytest.mark.parametrize("host", [None, b"", *(host.encode("latin-1") for host in odd_hosts(8000)), b"localhost:8000\x00", b" localhost:8000"])
def test_the_guard_knows_no_other(host):
    assert not passes(host=host) and not passes([(b"origin", b"http://" + (host or b""))], host=host)


def test_a_reverse_proxys_address_is_one_that_was_named():
    origins = environment.load({"GLASSHOUSE_ORIGINS": "https://boards.example.org, http://[fd00::1]:80/"}).origins
    assert origins == ("https://boards.example.org", "http://[fd00::1]")
    own = [(b"origin", b"https://boards.example.org"), (b"sec-fetch-site", b"same-origin")]
    assert passes(own, "POST", host=b"boards.example.org", origins=origins)
    for wrong in (b"http://boards.example.org", b"https://boards.example.org:444", b"http://127.0.0.1:8000"):
        assert not passes([(b"origin", wrong)], "POST", host=b"boards.example.org", origins=origins)
    assert not passes(own, "POST", origins=origins), "the proxy's page may not ask at the loopback address"
    for wrong in ("boards.example.org", "https://*", "https://a/b", "https://u@h", "*"):
        with pytest.raises(environment.SettingsError, match="GLASSHOUSE_ORIGINS"):
            environment.load({"GLASSHOUSE_ORIGINS": wrong})


# --- the pages' server -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streamlit(tmp_path_factory):
    home, port = tmp_path_factory.mktemp("home"), services.free_port()
    variables = {"GLASSHOUSE_HOME": str(home), "GLASSHOUSE_STREAMLIT_PORT": str(port), "CLICKHOUSE_URL": "http://127.0.0.1:9"}
    settings = environment.load(variables)
    env = {**services.environment(settings), **variables}
    with running(services.streamlit_command(settings), env, home / "pages.log", listens(port)):
        yield port


@slow
def test_the_pages_answer_their_own_address_and_their_own_page(streamlit):
    port, own = streamlit, f"Origin: http://127.0.0.1:{streamlit}"
    assert get(port, "/")[0] == 200 and upgrade(port, "/_stcore/stream", own) == 101
    assert "frame-ancestors 'self'" in get(port, "/")[1] and "img-src 'self' data: blob:" in get(port, "/")[1]
    assert all(400 <= get(port, "/", host=host)[0] < 500 for host in odd_hosts(port))
    # Streamlit by itself lets in a page of any other port of this machine.
    for more in ((), (f"Origin: {EVIL}",), ("Origin: null",), ("Origin: http://localhost:9999",), (own, "Sec-Fetch-Site: same-site")):
        assert upgrade(port, "/_stcore/stream", *more) in (400, 403)
    assert all(upgrade(port, "/_stcore/stream", f"Origin: http://{host}", host=host) in (400, 403) for host in odd_hosts(port))


def test_jupyterlab_asks_for_a_token_and_knows_no_other_names():
    assert {"--ServerApp.allow_remote_access=False", "--ServerApp.allow_origin=", "--ServerApp.disable_check_xsrf=False"} <= set(services.NOTEBOOK_DOORS)


# --- secrets -----------------------------------------------------------------------------------------------------------

URL = f"http://sneaky:{SECRET}@127.0.0.1:9/glass?token={SECRET}"
VARIABLES = {"GLASSHOUSE_CLICKHOUSE_URL": URL, "GLASSHOUSE_PAGES_CLICKHOUSE_URL": URL, "GLASSHOUSE_USER_KEY": SECRET}


@pytest.mark.slow
def test_nothing_that_dagster_shows_of_the_code_location_holds_a_secret(tmp_path):
    from dagster import serialize_value
    from dagster._core.remote_representation.external_data import RepositorySnap

    from dagster_project.build import build_defs

    settings = environment.load({**VARIABLES, "GLASSHOUSE_HOME": str(tmp_path)})
    repository = build_defs(settings).get_repository_def()
    assert SECRET not in serialize_value(RepositorySnap.from_def(repository))
    assert all(SECRET not in serialize_value(job.get_job_snapshot()) for job in repository.get_all_jobs())


def test_neither_do_settings_addresses_and_errors(tmp_path, capsys):
    from dagster_project import show
    from dagster_project.resources import ClickHouse

    settings = environment.load({**VARIABLES, "GLASSHOUSE_HOME": str(tmp_path)})
    assert settings.clickhouse == URL, "who connects gets it whole"
    shown = [repr(settings), repr(environment.listed(VARIABLES)), repr(services.addresses(settings)), repr(ClickHouse(URL))]
    with pytest.raises(SystemExit), show.expected_errors():
        raise environment.SettingsError(f"nothing answers at {URL}")
    assert not any(SECRET in text for text in [*shown, *capsys.readouterr()])
    assert ("GLASSHOUSE_CLICKHOUSE_URL", "http://sneaky:***@127.0.0.1:9/glass?token=***") in [one[:2] for one in environment.listed(VARIABLES)]


@pytest.mark.parametrize(
    "url",
    [
        "https://u:{}@h:1/d", "http://u:a@b{}@h", "http://u:p/{}@h", "http://:{}@h", "http://h/?password={}", "http://h/?a=1&token={}", "see http://u:{}@h, then",
        "http://u:with blank {}@h/x", "http://h#k={}", "http://u:{}%40@h",
    ],
)  # fmt: skip
def test_a_masked_url_keeps_its_host_and_loses_what_is_secret(url):
    from assets.metrics.client import masked

    assert SECRET not in masked(url.format(SECRET)) and "h" in masked(url.format(SECRET))


# --- the key of the codes that stand for users --------------------------------------------------------------------------


def key_of(folder, given=""):
    from dashboards import data

    data._user_key.cache_clear()
    return data._user_key(given, str(folder))


@pytest.mark.parametrize("left", [b"", b" \n", b"\0" * 32])
def test_a_key_of_nothing_is_drawn_anew_and_kept(tmp_path, left):
    (tmp_path / "user_key").write_bytes(left)
    key = key_of(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{32}", key) and key_of(tmp_path) == key
    assert (tmp_path / "user_key").stat().st_mode & 0o077 == 0 and os.listdir(tmp_path) == ["user_key"]


@pytest.mark.parametrize("left", [b"abc", b"\xff\xfe" * 16])
def test_a_key_that_could_be_guessed_or_read_wrong_is_an_error_that_names_the_file(tmp_path, left):
    (tmp_path / "user_key").write_bytes(left)
    with pytest.raises(environment.SettingsError, match="user_key"):
        key_of(tmp_path)
    assert (tmp_path / "user_key").read_bytes() == left


@pytest.mark.parametrize("key", ["x", "   ", "123456789012345"])
def test_a_short_key_of_the_environment_is_refused_by_name(key):
    with pytest.raises(environment.SettingsError, match="GLASSHOUSE_USER_KEY") as error:
        environment.load({"GLASSHOUSE_USER_KEY": key})
    assert key not in str(error.value).replace("GLASSHOUSE_USER_KEY", "")


@slow
def test_a_full_disk_leaves_no_key_of_nothing(tmp_path):
    program = f"""
        import resource, signal
        from dashboards import data
        from dagster_project.settings import SettingsError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for _ in range(2):
            try:
                print("KEY", repr(data._user_key("", {str(tmp_path)!r})))
            except (SettingsError, OSError) as error:
                print("ERROR", type(error).__name__)
    """
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, env=env, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith(("KEY", "ERROR"))] == ["ERROR SettingsError"] * 2, done.stderr
    assert len(key_of(tmp_path)) == 32
    assert resource  # the limit was the child's


# --- the login ----------------------------------------------------------------------------------------------------------

GOOD = """[auth]
redirect_uri = "https://boards.example.org/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "a"
client_secret = "b"
server_metadata_url = "https://idp.example.org/.well-known/openid-configuration"
"""
BROKEN = {
    "no TOML": "[auth\n", "half": GOOD[:40], "not UTF-8": b'[auth]\nclient_id = "\xe9"\n', "other case": GOOD.replace("[auth]", "[Auth]"),
    "upper case": GOOD.replace("[auth]", "[AUTH]"), "misspelt": GOOD.replace("[auth]", "[auht]"), "other word": GOOD.replace("[auth]", "[oauth]"),
    "quoted blank": GOOD.replace("[auth]", '["auth "]'), "empty": "[auth]\n", "a list": GOOD.replace("[auth]", "[[auth]]"), "a text": 'auth = "yes"\n',
    "zero": "auth = 0\n", "no section": GOOD.removeprefix("[auth]\n"), "nested": GOOD.replace("[auth]", "[pages.auth]"),
    "no secret": GOOD.replace("0123456789abcdef0123456789abcdef", ""), "short secret": GOOD.replace("0123456789abcdef0123456789abcdef", "short"),
    "no provider": GOOD[: GOOD.index("server_metadata")], "empty file": "", "a number": GOOD.replace('"a"', "5"), "byte order mark": "\ufeff" + GOOD,
}  # fmt: skip


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """Writes the pages' secrets file, in a folder of its own."""
    import streamlit as st
    from streamlit import config
    from streamlit.runtime.secrets import secrets_singleton

    from dashboards import entrance

    path = tmp_path / "secrets.toml"
    monkeypatch.setattr(entrance, "OWN", path, raising=False)
    monkeypatch.setattr(entrance, "_asked", False, raising=False)
    before = config.get_option("secrets.files")
    config.set_option("secrets.files", [str(path)])
    monkeypatch.setenv("CLICKHOUSE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path / "home"))

    def write(content):
        st.secrets._reset()
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    yield write
    config.set_option("secrets.files", before)
    secrets_singleton._reset()


def entered():
    """Whether a page lets one in, and what stands on it."""
    app = pages.run(pages.DASHBOARDS / "app.py", {})
    return any(title.value == "Overview" for title in app.title), " ".join(one.value for one in [*app.error, *app.caption])


@slow
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_login_that_is_broken_lets_nobody_in_and_says_why(secrets, content):
    secrets(content)
    inside, words = entered()
    assert not inside
    assert "nobody may come in" in words


@slow
def test_a_secrets_file_that_cannot_be_read_lets_nobody_in(secrets):
    path = secrets(None)
    path.symlink_to("/nowhere/at/all")
    assert not entered()[0]
    path.unlink()
    path.mkdir()
    assert not entered()[0]
    path.rmdir()
    os.mkfifo(path)
    assert not entered()[0]


@slow
def test_without_a_secrets_file_nobody_is_asked_and_with_one_everybody_even_when_it_is_gone(secrets, monkeypatch):
    path = secrets(None)
    assert entered()[0]
    secrets("auth = false\n")
    assert entered()[0], "said in so many words"
    import importlib.util

    from dashboards import entrance

    real = importlib.util.find_spec
    monkeypatch.setattr(entrance.importlib.util, "find_spec", lambda name: True if name == "authlib" else real(name))
    secrets(GOOD)
    inside, words = entered()
    assert not inside and "known here" in words
    assert entrance.origins() == ("https://boards.example.org",)
    path.unlink()
    secrets(None)
    assert not entered()[0], "a file that vanishes takes no door away"


# --- texts of data and of addresses --------------------------------------------------------------------------------------

HOSTILE = [
    "![x](http://127.0.0.1:9/a.png)", "<img src=http://127.0.0.1:9/a.png onerror=alert(1)>", "[click](javascript:alert(1))", "http://127.0.0.1:9/x",
    "www.evil.example", "a@evil.example", ":smile:", ":material/home:", ":material_home:", ":red[x]", ":red-badge[x]", "$x^2$", "$$y$$", "`code`", "**bold**",
    "# head", "1. list", "- list", "> quote", "~~gone~~", "&lt;b&gt;", "\\*", ":streamlit:", "a -> b", "a -- b", "a >= b", "|a|b|", "[^1]", "\u202egnp.exe", "a\nb\n\n# c",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plain_text_has_no_mark_left_that_markdown_or_streamlit_knows(text):
    from dashboards import design

    shown = design.plain(text)
    assert not re.search(r"[`*{}\[\]<>#!|$~&^@]|:\S|(?:^|\s)[-+=_]|[-+=_](?:\s|$)", re.sub(r"\\.", "", shown))
    assert "\n" not in shown and "\u202e" not in shown
    unmarked = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown)
    for looked_for in (r":[\w+-]+:", r":material_\w+:", r"(^|\s)(<->|->|<-|--|>=|<=|~=)(\s|$)", r"https?://", r"www\.", r"@[\w-]+\."):
        assert not re.search(looked_for, unmarked), "what is looked for once Markdown was read"
    assert unmarked.replace(design.JOINER, "") == " ".join(text.split()).replace("\u202e", "\ufffd")


@slow
@pytest.mark.parametrize(
    ("view", "query"),
    [
        ("attribution.py", {"note": "X"}), ("attribution.py", {"user": "X"}), ("overview.py", {"zone": "X"}), ("overview.py", {"channel": "X", "device": "X"}),
        ("overview.py", {"position": "X"}), ("models.py", {"version": "X"}), ("backfills.py", {"plan": "X"}),
    ],
)  # fmt: skip
def test_what_an_address_says_is_text_on_the_page(view, query, served, monkeypatch):
    lake, url = served
    for name, value in {"GLASSHOUSE_LAKE": str(lake.root), "CLICKHOUSE_URL": url}.items():
        monkeypatch.setenv(name, value)
    evil = "![MARK](http://127.0.0.1:9/a.png) :red[MARK] $MARK$"
    app = pages.run(pages.VIEWS / view, {name: evil for name in query})
    found = [element.value for kind in ("markdown", "caption", "warning", "info", "error", "title", "subheader", "header") for element in getattr(app, kind)]
    assert not any(re.search(r"(?<!\\)!\[MARK|(?<!\\):red\[MARK|(?<!\\)\$MARK", text) for text in found), found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A lake whose texts are hostile, and the ClickHouse that holds it."""
    import polars as pl
    import pyarrow as pa

    from assets.attribution.tables import IMPRESSION_SESSIONS
    from assets.events.contract import EVENTS, QUARANTINE
    from assets.lake import Lake
    from assets.metrics import endpoint, loader
    from assets.metrics.client import connect
    from tests import metrics_lake

    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    window = metrics_lake.fill(lake, hours=3, displays=300)
    for table in (EVENTS, IMPRESSION_SESSIONS):
        image = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit(f"![MARK](http://127.0.0.1:{BEACON}/channel.png)"))
        rows = pl.from_arrow(lake.read(table.name)).with_columns(channel=image.otherwise(pl.lit("=1+1;=2")))
        lake.replace_window(table, rows.select(table.schema.names).to_arrow().cast(table.schema), window)
    refused = {"hour": window.start, "source": "![MARK](x).csv", "row": 1, "body": b'{"uid":"alice@example.org"}', "reason": "user: 'alice@example.org' is no id"}
    lake.replace_window(QUARANTINE, pa.Table.from_pylist([refused], QUARANTINE.schema), window)
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        loader.load_window(lake, connect(url), window)
        yield lake, url


@slow
@pytest.mark.parametrize("shown", ["0", "1"])
def test_ids_of_refused_rows_are_hidden_like_all_others(served, monkeypatch, shown):
    lake, url = served
    for name, value in {"GLASSHOUSE_LAKE": str(lake.root), "CLICKHOUSE_URL": url, "GLASSHOUSE_SHOW_USER_IDS": shown}.items():
        monkeypatch.setenv(name, value)
    texts = ""
    for view in ("quality.py", "funnel.py"):
        texts += " ".join(table.value.to_string() for table in pages.run(pages.VIEWS / view, {"range": "all"}).dataframe)
    assert ("alice" in texts) == (shown == "1"), texts
    assert "is no id" in texts


@slow
@browser.NEEDED
def test_no_request_leaves_for_an_image_and_texts_stand_as_they_are(served, tmp_path):
    lake, url = served
    port, seen = services.free_port(), []
    variables = {"GLASSHOUSE_HOME": str(tmp_path), "GLASSHOUSE_LAKE": str(lake.root), "GLASSHOUSE_STREAMLIT_PORT": str(port), "CLICKHOUSE_URL": url}
    settings = environment.load(variables)
    evil = f"![MARK](http://127.0.0.1:{BEACON}/address.png) :red[MARK] $MARK$ :smile: <b>MARK</b>"
    beacon = http.server.ThreadingHTTPServer(("127.0.0.1", BEACON), _listener(seen))
    threading.Thread(target=beacon.serve_forever, daemon=True).start()
    env = {**services.environment(settings), **variables}
    try:
        with running(services.streamlit_command(settings), env, tmp_path / "pages.log", listens(port)), browser.chromium(1280, 1400) as driver:
            for path in (f"attribution?{urllib.parse.urlencode({'note': evil, 'range': 'all'})}", f"?{urllib.parse.urlencode({'channel': evil, 'zone': evil, 'range': 'all'})}",
                         "funnel?range=all", "quality?range=all"):  # fmt: skip
                driver.get(f"http://127.0.0.1:{port}/{path}")
                end = time.monotonic() + 90
                while not (text := driver.find_element("css selector", "body").text) or ("MARK" not in text and "?" in path and "funnel" not in path and "quality" not in path):
                    assert time.monotonic() < end, text
                    time.sleep(0.3)
                time.sleep(3)
                browser.picture(driver, f"faults_{path.split('?')[0] or 'overview'}")
                if "MARK" in urllib.parse.unquote(path):
                    assert evil.split(" ")[0] in text.replace("\u2060", ""), text
                foreign = [one for one in driver.find_elements("css selector", "img") if str(BEACON) in (one.get_attribute("src") or "")]
                assert not foreign
    finally:
        beacon.shutdown()
    assert seen == []


def _listener(seen):
    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    return Listener


# --- downloads -----------------------------------------------------------------------------------------------------------


def test_a_cell_of_text_is_never_a_formula_and_numbers_stay_numbers():
    from dashboards import frame

    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "a;=cmd()", "a\n=1", "\uff1d1", "ok", "a-b", "", None, '"=1"']
    table = pd.DataFrame({"=name": texts, "n": [-float(n) for n in range(len(texts))], "t": pd.Timestamp("2026-01-01", tz="UTC"), "whole": -1})
    rows = list(csv.DictReader(io.StringIO(frame.csv(table), newline="")))
    cells = [list(row.values())[0] for row in rows]
    assert not any(re.match(r"\s*[=+\-@\uff1d]", cell) for cell in [*cells, *rows[0]])
    assert not any(re.search(r"[;\t\r\n]\s*[=+@]", cell) for cell in cells)
    assert [cells[place] for place in (10, 11, 12, 13)] == ["ok", "a-b", "", ""]
    assert [float(row["n"]) for row in rows] == list(table["n"]) and {row["whole"] for row in rows} == {"-1"}


@slow
def test_every_download_goes_that_way(served, monkeypatch):
    lake, url = served
    from dashboards import frame

    for name, value in {"GLASSHOUSE_LAKE": str(lake.root), "CLICKHOUSE_URL": url}.items():
        monkeypatch.setenv(name, value)
    made = []
    real = frame.st.download_button
    monkeypatch.setattr(frame.st, "download_button", lambda label, data, *more, **named: (made.append(data), real(label, data, *more, **named))[1])
    for view in ("funnel.py", "quality.py"):
        pages.run(pages.VIEWS / view, {"range": "all"})
    assert len(made) > 5 and any("1+1" in text for text in made)
    assert not any(re.search(r"(?m)(^|,|;)\"?=1?", text) for text in made)
    assert re.search(r"(?m)^disableDataExport = true$", (pages.DASHBOARDS / ".streamlit" / "config.toml").read_text()), "a table's own download"
