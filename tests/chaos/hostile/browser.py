"""A page in a browser on this machine as the attacker: what it can write, start and read at the ports of `make up`.

Here: pages of a foreign site and of another port of loopback, opened in Chromium; DNS rebinding by --host-resolver-rules.
Not here: what they try (doors.py), clients that are no browser (requests.py).
"""

from __future__ import annotations

import contextlib
import html
import json
import time
from collections.abc import Iterator
from urllib.parse import quote

from tests.browser import CHROMEDRIVER, chromium
from tests.chaos.hostile import doors, wire
from tests.chaos.hostile.attack import Skip, attack
from tests.chaos.hostile.house import House

FOREIGN = "evil.test"  # the attacker's name; resolves to loopback, as a rebinding name does
ORIGINS = (FOREIGN, "127.0.0.1")
PAGE_SECONDS = 15


@contextlib.contextmanager
def browser() -> Iterator:
    if not CHROMEDRIVER.exists():
        raise Skip("needs chromium and chromium-driver (.ci/setup.py --browser)")
    with chromium(800, 600, flags=(f"--host-resolver-rules=MAP *.test 127.0.0.1, MAP {FOREIGN} 127.0.0.1", "--disable-popup-blocking")) as driver:
        driver.set_page_load_timeout(PAGE_SECONDS)
        yield driver


def visit(driver, prey: doors.Prey, origin: str, script: str, body: str = "") -> str:
    """Open a page of the attacker's that runs `script` (async JavaScript, may return a text); returns that text."""
    prey.listener.pages["/page"] = (
        f"<!doctype html><meta charset=utf-8><title>page</title><body>{body}<script>"
        "const nap = ms => new Promise(done => setTimeout(done, ms));"
        f"(async () => {{ {script} }})().then(said => document.title = 'done ' + (said || ''), "
        "why => document.title = 'done failed ' + why)</script>"
    )
    with contextlib.suppress(Exception):  # a page that never finishes loading is no matter: an endpoint may not answer its images
        driver.get(f"http://{origin}:{prey.listener.port}/page")
    end = time.monotonic() + PAGE_SECONDS
    title = ""
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            title = driver.title
            if title.startswith("done"):
                break
        time.sleep(0.1)
    return title.removeprefix("done").strip()


def every_origin(house: House, script_of, body_of=lambda prey: "") -> str | None:
    """Run a page from the foreign site and from another port; what either left."""
    with browser() as driver:
        for origin in ORIGINS:
            with doors.prey(house) as prey:
                said = visit(driver, prey, origin, script_of(prey), body_of(prey))
                seen = prey.verdict()
                if seen or said.startswith("FOUND"):
                    return f"a page of {origin}: {seen or said}"
    return None


def clickhouse_urls(prey: doors.Prey) -> list[str]:
    """Every statement as an address, alone and with the settings that let a GET write."""
    base = f"http://127.0.0.1:{prey.house.ports['clickhouse']}/"
    ways = ({}, {"readonly": "0"}, {"readonly": "0", "user": "default", "password": ""})
    return [base + wire.query(query=sql, **more) for sql in prey.statements().values() for more in ways]


def dagster_urls(prey: doors.Prey) -> list[str]:
    return [f"http://{host}:{prey.house.ports['dagster']}/graphql" + wire.query(query=text)
            for host in ("127.0.0.1", "localhost") for text in doors.MUTATIONS.values()]  # fmt: skip


def images(urls: list[str]) -> str:
    return f"for (const url of {json.dumps(urls)}) {{ new Image().src = url }} await nap(2000)"


# --- ClickHouse -------------------------------------------------------------------------------------------------------


@attack("browser")
def page_images_at_clickhouse(house):
    """<img> sends no Origin: a GET per statement, with readonly=0 in the address."""
    return every_origin(house, lambda prey: images(clickhouse_urls(prey)))


@attack("browser")
def page_frames_scripts_and_styles_at_clickhouse(house):
    """Frames, scripts, styles, prefetch and windows: the other ways to a GET without Origin."""
    def script(prey):
        return (
            f"for (const url of {json.dumps(clickhouse_urls(prey))}) {{"
            " const frame = document.createElement('iframe'); frame.referrerPolicy = 'no-referrer'; frame.src = url; document.body.append(frame);"
            " const code = document.createElement('script'); code.src = url; document.body.append(code);"
            " const style = document.createElement('link'); style.rel = 'stylesheet'; style.href = url; document.head.append(style);"
            " } await nap(2000)"
        )  # fmt: skip

    return every_origin(house, script)


@attack("browser")
def page_window_at_clickhouse(house):
    """A window opened at the address (and a download link): a top-level navigation, Sec-Fetch-Mode navigate."""
    def script(prey):
        urls = [url for url in clickhouse_urls(prey) if "readonly=0" in url]
        return f"for (const url of {json.dumps(urls[:12])}) {{ window.open(url, '_blank', 'noreferrer') }} await nap(2000)"

    return every_origin(house, script)


@attack("browser")
def page_posts_plain_text_to_clickhouse(house):
    """fetch no-cors, sendBeacon and keepalive with a body of plain text: no preflight asks."""
    def script(prey):
        bodies = list(prey.statements().values())
        urls = [f"http://127.0.0.1:{prey.house.ports['clickhouse']}/" + more for more in ("", "?readonly=0", "?add_http_cors_header=1")]
        return (
            f"for (const url of {json.dumps(urls)}) for (const body of {json.dumps(bodies)}) {{"
            " fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body, referrerPolicy: 'no-referrer'}).catch(() => 0);"
            " navigator.sendBeacon(url, body);"
            " } await nap(2000)"
        )  # fmt: skip

    return every_origin(house, script)


@attack("browser")
def page_forms_at_clickhouse(house):
    """Forms of each encoding, into hidden frames; from a sandboxed frame too, whose Origin is null."""
    def body(prey):
        fields = [(enctype, sql) for enctype in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded")
                  for sql in prey.statements().values()]  # fmt: skip
        url = f"http://127.0.0.1:{prey.house.ports['clickhouse']}/?readonly=0"
        forms = "".join(
            f"<iframe name=f{number} hidden></iframe><form method=post action='{url}' enctype='{enctype}' target=f{number}>"
            f"<input name=query value=\"{html.escape(sql)}\"></form>"
            f"<form method=get action='{url}' target=f{number}><input name=query value=\"{html.escape(sql)}\"><input name=readonly value=0></form>"
            for number, (enctype, sql) in enumerate(fields)
        )
        inner = html.escape(f"<body>{forms}<script>for (const form of document.forms) form.submit()</script>")
        return forms + f'<iframe sandbox="allow-scripts allow-forms" srcdoc="{inner}"></iframe>'

    return every_origin(house, lambda prey: "for (const form of document.forms) form.submit(); await nap(2500)", body)


@attack("browser")
def page_reads_clickhouse(house):
    """fetch with CORS: may a foreign page read an answer? Asked politely, and with ClickHouse's own switch for it."""
    def script(prey):
        base = f"http://127.0.0.1:{prey.house.ports['clickhouse']}/"
        urls = [base + wire.query(query="SELECT 41 + 1", **more) for more in ({}, {"add_http_cors_header": "1"})]
        return (
            f"for (const url of {json.dumps(urls)}) for (const method of ['GET', 'POST']) try {{"
            " const text = await (await fetch(url, {method})).text(); if (text.trim() === '42') return 'FOUND read ' + text"
            "} catch (why) {}"
        )  # fmt: skip

    return every_origin(house, script)


@attack("browser")
def rebound_page_at_clickhouse(house):
    """The attacker's name now resolves to loopback: his page is of the endpoint's own origin, and no Origin tells."""
    with browser() as driver, doors.prey(house) as prey:
        return _rebound(driver, house.ports["clickhouse"], [
            ("GET", "/" + wire.query(query="SELECT 41 + 1"), None), ("POST", "/", "SELECT 41 + 1"), ("POST", "/", prey.create),
        ], "42") or prey.verdict()  # fmt: skip


# --- Dagster ----------------------------------------------------------------------------------------------------------


@attack("browser")
def page_images_at_dagster(house):
    """An image whose address is a mutation: launches a job, wipes materializations."""
    doors.events_are_known(house)
    return every_origin(house, lambda prey: images(dagster_urls(prey)))


@attack("browser")
def page_posts_to_dagster(house):
    """Mutations as plain text, as forms, and as multipart, none of which asks first."""
    doors.events_are_known(house)

    def script(prey):
        urls = [f"http://127.0.0.1:{prey.house.ports['dagster']}/{path}" for path in ("graphql", "graphql?")]
        texts = list(doors.MUTATIONS.values())
        return (
            f"for (const url of {json.dumps(urls)}) for (const text of {json.dumps(texts)}) {{"
            " const send = (body, type) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include', body, headers: type ? {'Content-Type': type} : {}}).catch(() => 0);"
            " send(JSON.stringify({query: text}), 'text/plain'); send(text, 'text/plain'); send(new URLSearchParams({query: text}));"
            " const form = new FormData(); form.append('query', text); form.append('operations', JSON.stringify({query: text})); form.append('map', '{}'); send(form);"
            " navigator.sendBeacon(url, JSON.stringify({query: text}));"
            " navigator.sendBeacon(url + (url.endsWith('?') ? '' : '?') + 'query=' + encodeURIComponent(text), '');"
            " } await nap(2000)"
        )  # fmt: skip

    def body(prey):
        url = f"http://127.0.0.1:{prey.house.ports['dagster']}/graphql"
        return "".join(
            f"<iframe name=g{number} hidden></iframe><form id=f{number} method=post enctype='text/plain' action='{url}' target=g{number}>"
            f"<input name='{html.escape(json.dumps(dict(query=text))[:-1], quote=True)},\"x\":\"' value='\"}}'></form>"
            for number, text in enumerate(doors.MUTATIONS.values())
        ) + "<script>setTimeout(() => { for (const form of document.forms) form.submit() }, 200)</script>"

    return every_origin(house, script, body)


@attack("browser")
def page_reads_dagster(house):
    """fetch with CORS of a query: names of jobs, configuration of resources."""
    def script(prey):
        url = f"http://127.0.0.1:{prey.house.ports['dagster']}/graphql"
        return (
            f"for (const options of [{{}}, {{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: {json.dumps(json.dumps({'query': doors.ASK}))}}}]) try {{"
            f" const text = await (await fetch({json.dumps(url)} + (options.method ? '' : '?query={quote(doors.ASK)}'), options)).text();"
            " if (text.includes('version')) return 'FOUND read ' + text.slice(0, 60)"
            "} catch (why) {}"
        )  # fmt: skip

    return every_origin(house, script)


@attack("browser")
def page_websocket_at_dagster(house):
    """A WebSocket asks no one's leave but sends its Origin: mutations and subscriptions by it."""
    def script(prey):
        url = f"ws://127.0.0.1:{prey.house.ports['dagster']}/graphql"
        starts = [json.dumps({"id": str(number), "type": "start", "payload": {"query": text, "variables": {}}})
                  for number, text in enumerate([doors.ASK, *doors.MUTATIONS.values()])]  # fmt: skip
        return (
            "return await new Promise(done => {"
            f" const socket = new WebSocket({json.dumps(url)}, 'graphql-ws'); setTimeout(() => done(''), 4000); socket.onerror = () => done('');"
            " socket.onopen = () => { socket.send(JSON.stringify({type: 'connection_init', payload: {}}));"
            f" for (const one of {json.dumps(starts)}) socket.send(one) }};"
            " socket.onmessage = message => { if (message.data.includes('connection_ack')) done('FOUND a WebSocket is served: ' + message.data.slice(0, 60)) } })"
        )  # fmt: skip

    return every_origin(house, script)


@attack("browser")
def rebound_page_at_dagster(house):
    """By rebinding the attacker's page is of the web server's own origin: queries and mutations in plain JSON."""
    doors.events_are_known(house)
    with browser() as driver, doors.prey(house) as prey:
        tries = [("POST", "/graphql", doors.graphql_body(text).decode()) for text in (doors.ASK, *doors.MUTATIONS.values())]
        return _rebound(driver, house.ports["dagster"], tries, "version") or prey.verdict()


# --- pages ------------------------------------------------------------------------------------------------------------


@attack("browser")
def foreign_page_websocket_at_the_pages(house):
    """Streamlit's numbers come by a WebSocket: a foreign page must not be served one."""
    with browser() as driver, doors.prey(house) as prey:
        said = visit(driver, prey, FOREIGN, _opens(f"ws://127.0.0.1:{house.ports['pages']}/_stcore/stream"))
    return said or None


@attack("browser")
def rebound_page_at_the_pages(house):
    """By rebinding: the pages under the attacker's name."""
    port = house.ports["pages"]
    with browser() as driver, doors.prey(house):
        with contextlib.suppress(Exception):
            driver.get(f"http://{FOREIGN}:{port}/_stcore/health")
        said = _asked(driver, f"return await (async () => {{ {_opens(f'ws://{FOREIGN}:{port}/_stcore/stream')} }})()")
    return said or None


def _opens(url: str) -> str:
    return (
        f"return await new Promise(done => {{ const socket = new WebSocket({json.dumps(url)}, ['streamlit']);"
        " setTimeout(() => done(''), 4000); socket.onerror = () => done('');"
        " socket.onopen = () => done('FOUND the WebSocket opens') })"
    )  # fmt: skip


def _rebound(driver, port: int, tries: list[tuple[str, str, str | None]], secret: str) -> str | None:
    """Ask from a page whose origin is FOREIGN at that very port; what was read, if it holds `secret`."""
    with contextlib.suppress(Exception):
        driver.get(f"http://{FOREIGN}:{port}/ping")
    for method, path, body in tries:
        options = {"method": method} | ({"body": body, "headers": {"Content-Type": "application/json"}} if body else {})
        text = _asked(driver, f"const reply = await fetch({json.dumps(path)}, {json.dumps(options)}); return reply.status + ' ' + await reply.text()")
        if text.startswith("200") and secret in text:
            return f"read under another host name: {text[:80]}"
    return None


def _asked(driver, script: str) -> str:
    """What async JavaScript in the page at hand returns; empty where it fails."""
    driver.set_script_timeout(PAGE_SECONDS)
    whole = f"const done = arguments[0]; (async () => {{ {script} }})().then(done, () => done(''))"
    try:
        return driver.execute_async_script(whole) or ""
    except Exception:  # noqa: BLE001  a page that was refused runs nothing
        return ""


# --- JupyterLab -------------------------------------------------------------------------------------------------------


@attack("browser", verb="notebook")
def page_at_jupyterlab(house):
    """JupyterLab runs code: neither contents nor a kernel for whoever has not its token, nor under another name."""
    port = house.ports["notebook"]
    for host in (f"127.0.0.1:{port}", f"{FOREIGN}:{port}"):
        for method, path in (("GET", "/api/contents"), ("GET", "/api/kernels"), ("POST", "/api/kernels"), ("POST", "/api/terminals")):
            reply = wire.send(port, wire.request(method, path, {"Host": host, "Connection": "close", "Content-Length": "0"}))
            if reply.status in (200, 201):
                return f"{method} {path} with Host {host}: {reply.said}"
    script = _opens(f"ws://127.0.0.1:{port}/terminals/websocket/1")
    with browser() as driver, doors.prey(house) as prey:
        return visit(driver, prey, FOREIGN, script) or None
