"""A client that is no browser: odd hosts, no token, statements made to fool, bombs, slow and greedy readers.

Here: raw requests at ClickHouse's and Dagster's ports, of anybody and of one who has the reader's token. Not here: pages (browser.py).
Load stays bounded: some hundred connections, bodies that unfold to 512 MiB at most.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import threading
import time

from tests.chaos.hostile import doors, wire
from tests.chaos.hostile.attack import Skip, attack
from tests.chaos.hostile.house import House

BOMB_BYTES = 1 << 29
BOMB_GROWTH = 300 << 20  # what a refused bomb may take meanwhile
READERS_GROWTH = 1 << 30
IN_TIME = 15  # seconds within which a page's query is answered whatever others do

CLICKHOUSE = "clickhouse"
PAGE_SQL = "SELECT count() FROM (SELECT arrayJoin(range(1000)) AS n)"  # needs no table: an endpoint alone can be asked, too
SLOW = (
    "SELECT max(sleepEachRow(1)) FROM numbers(25) SETTINGS max_block_size = 1, max_threads = 1",
    "SELECT count() FROM (SELECT arrayJoin(range(1000000)) AS a) AS x CROSS JOIN (SELECT arrayJoin(range(1000000)) AS b) AS y",
)


def target(sql: str, **more: str) -> str:
    return "/" + wire.query(query=sql, **more)


def everyone(house: House) -> list[tuple[str, dict[str, str]]]:
    """Who attacks: nobody known, and one with the reader's password where the tree has one."""
    found: list[tuple[str, dict[str, str]]] = [("nobody", {})]
    return found + ([("a reader", house.credentials("reader"))] if house.password("reader") else [])


def page_asks(house: House, within_s: float = IN_TIME) -> str | None:
    """A page's kind of query, asked again where it is told to wait: None once it is answered in time."""
    end = time.monotonic() + within_s
    reply = None
    while time.monotonic() < end:
        reply = house.ask(PAGE_SQL, timeout_s=max(0.1, end - time.monotonic()))
        if reply.status == 200:
            return None
        time.sleep(0.3)
    return f"a page's query is not answered within {within_s:g} s ({reply.said if reply else ''})"


def growth(house: House, work, role: str = CLICKHOUSE) -> int:
    """By how many bytes a role's process grew at its most while `work()` ran, and one second after."""
    process = house.roles()[role]
    before = most = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            try:
                most = max(most, process.memory_info().rss)
            except Exception:  # noqa: BLE001  it has died: others tell
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
        time.sleep(1)
    finally:
        done.set()
        watcher.join()
    return most - before


# --- who asks -----------------------------------------------------------------------------------------------------------


@attack("request")
def reads_without_token(house):
    """Rows of users are for whoever has the home's token: other users of this machine reach the port, too."""
    for sql in ("SELECT count() FROM events", "SHOW TABLES", "SELECT 1"):
        for reply in (wire.get(house.ports[CLICKHOUSE], target(sql)), wire.post(house.ports[CLICKHOUSE], "/", sql.encode())):
            if reply.status == 200:
                return f"{sql}: {reply.said}"
    return None


@attack("request")
def wrong_tokens(house):
    """Wrong, empty, huge and odd credentials, in every place where ClickHouse's protocol has one."""
    port, sql = house.ports[CLICKHOUSE], b"SELECT 1"
    odd = ["", "x", "x" * 60_000, "\xff\xfe", "' OR 1", "0" * 64, "null", "Bearer"]
    for word in odd:
        for headers in ({"X-ClickHouse-User": "reader", "X-ClickHouse-Key": word}, {"Authorization": f"Basic {word}"},
                        {"Authorization": f"Bearer {word}"}, {"X-ClickHouse-User": word, "X-ClickHouse-Key": word}):  # fmt: skip
            reply = wire.post(port, "/", sql, headers)
            if reply.status == 200:
                return f"{str(headers)[:60]}: {reply.said}"
            if not reply.ended:
                return f"{str(headers)[:60]}: no answer"
        if wire.get(port, target("SELECT 1", user="reader", password=word[:2000])).status == 200:
            return f"password {word[:20]!r} in the address is taken"
    return None


@attack("request")
def writes_without_or_with_readers_token(house):
    """Every statement that writes or calls out, by GET and POST, with what settings may come in the address."""
    port = house.ports[CLICKHOUSE]
    ways = ({}, {"readonly": "0"}, {"readonly": "0", "allow_ddl": "1", "allow_introspection_functions": "1"}, {"READONLY": "0"},
            {"readonly": "0", "profile": "default", "role": "admin"})  # fmt: skip
    for who, headers in everyone(house):
        with doors.prey(house) as prey:
            for sql in prey.statements().values():
                for more in ways:
                    wire.get(port, target(sql, **more), headers, 5)
                    wire.post(port, "/" + wire.query(**more), sql.encode(), headers, 5)
                if prey.effects(0):  # enough is seen
                    break
            if seen := prey.verdict():
                return f"{who}: {seen}"
    return None


@attack("request")
def other_methods_and_paths(house):
    """PUT, PATCH, DELETE, OPTIONS, TRACE, a method of one's own, and paths beside `/`."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        with doors.prey(house) as prey:
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MKCOL", "get", "POST "):
                body = prey.create.encode()
                head = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), "Connection": "close"} | headers
                wire.send(port, wire.request(method, target(prey.create, readonly="0"), head, body), 5)
            for path in ("//", "/?", "/;", "/ping", "/replicas_status", "/play", "/%2e%2e/", "/query", "/?query=SELECT%201#"):
                wire.post(port, path, prey.create.encode(), headers, 5)
            if seen := prey.verdict():
                return f"{who}: {seen}"
    return None


# --- hosts --------------------------------------------------------------------------------------------------------------

ODD_HOSTS = (
    "a{b.", "evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test#@127.0.0.1", "127.0.0.1@evil.test", "evil.test@127.0.0.1",
    "user:password@127.0.0.1", "127.0.0.1, evil.test", "127.0.0.1 evil.test", "evil.test:80@localhost", "[evil.test]", "[::1", "::1]", "", " ", ".",
    "evil.test\\127.0.0.1", "evil.test/127.0.0.1", "evil.test?127.0.0.1", "localhost.", "LOCALHOST.evil.test", "\xe9vil", "127.0.0.1:evil", "a" * 5000,
    "0", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "localhost\t", "evil.test:{port}",
)  # fmt: skip
# Names of this very machine by which no page can come: a browser knows no public name for them.
OWN = {"localhost.", "localhost\t", "[::ffff:127.0.0.1]"}


def _hosts(house: House, role: str, ask) -> str | None:
    """Whether a host name that is not loopback's is answered. ask: (headers as a list) -> reply, whose status 200 is a fault."""
    port = house.ports[role]
    cases: list[list[tuple[str, str]]] = [[("Host", host.replace("{port}", str(port)))] for host in ODD_HOSTS if host not in OWN]
    cases += [
        [],
        [("Host", f"127.0.0.1:{port}"), ("Host", "evil.test")],
        [("Host", "evil.test"), ("Host", f"127.0.0.1:{port}")],
        [("Host", "evil.test"), ("X-Forwarded-Host", "127.0.0.1"), ("Forwarded", "host=127.0.0.1")],
        [("Host", f"127.0.0.1:{port}"), ("Origin", "http://evil.test")],
        [("Host", f"127.0.0.1:{port}"), ("Origin", "null")],
        [("Host", f"127.0.0.1:{port}"), ("Sec-Fetch-Site", "cross-site")],
        [("Host", f"127.0.0.1:{port}"), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "no-cors")],
    ]
    for headers in cases:
        reply = ask(headers)
        if reply.status == 200:
            return f"answered with {str(headers)[:80]}: {reply.said}"
        if not reply.ended:
            return f"no answer with {str(headers)[:80]}"
    return None


@attack("request")
def odd_hosts_at_clickhouse(house):
    """Host names that a URL parser gives up on, two of them, none, with userinfo: by these a rebound page comes."""
    port, reader = house.ports[CLICKHOUSE], list(house.credentials("reader").items())

    def ask(headers):
        return wire.send(port, wire.request("GET", target("SELECT 1"), [*headers, ("Connection", "close"), *reader]))

    return _hosts(house, CLICKHOUSE, ask)


@attack("request")
def odd_hosts_at_dagster(house):
    """The same at Dagster's web server, with a mutation by GET and by POST."""
    port = house.ports["dagster"]
    body = doors.graphql_body(doors.ASK)

    def ask(headers):
        more = [("Connection", "close"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        return wire.send(port, wire.request("POST", "/graphql", [*headers, *more], body))

    with doors.prey(house) as prey:
        return _hosts(house, "dagster", ask) or prey.verdict()


@attack("request")
def mutations_by_get_at_dagster(house):
    """A mutation in an address, on every path that may serve GraphQL, and with a name that says it is a query."""
    doors.events_are_known(house)
    port = house.ports["dagster"]
    with doors.prey(house) as prey:
        for text in doors.MUTATIONS.values():
            disguised = f"query A {{ version }} {text.replace('mutation', 'mutation B', 1)}"
            for path in ("/graphql", "/graphql/", "//graphql", "/graphql;", "/x/../graphql"):
                wire.get(port, path + wire.query(query=text))
                wire.get(port, path + wire.query(query=disguised, operationName="B"))
                wire.get(port, path + wire.query(query="# a\n, \ufeff" + text))
            wire.send(port, wire.request("GET", "/graphql", {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json",
                "Content-Length": str(len(doors.graphql_body(text))), "Connection": "close"}, doors.graphql_body(text)))  # fmt: skip
        return prey.verdict()


@attack("request")
def secrets_in_dagster(house):
    """No password or token in what Dagster's web server shows of resources and their configuration."""
    port = house.ports["dagster"]
    text = "{ repositoriesOrError { ... on RepositoryConnection { nodes { allTopLevelResourceDetails { name configuredValues { key value } } } } } }"
    reply = wire.post(port, "/graphql", doors.graphql_body(text), {"Content-Type": "application/json"})
    secret = house.password("writer")
    if not secret:
        raise Skip("this tree has no password of its own")
    return f"the writer's password is shown: {reply.said}" if secret.encode() in reply.body else None


@attack("request")
def absolute_form_and_smuggling(house):
    """A target with a host of its own, and a body whose length is told twice: the second request inside must not run."""
    port = house.ports[CLICKHOUSE]
    with doors.prey(house) as prey:
        hidden = wire.request("GET", target(prey.create, readonly="0"), {"Host": f"127.0.0.1:{port}"})
        for data in (
            wire.request("GET", f"http://127.0.0.1{target(prey.create, readonly='0')}", {"Host": "evil.test", "Connection": "close"}),
            wire.request("GET", f"http://evil.test{target(prey.create, readonly='0')}", {"Host": f"127.0.0.1:{port}", "Connection": "close"}),
            wire.request("POST", "/", [("Host", f"127.0.0.1:{port}"), ("Content-Length", "6"), ("Transfer-Encoding", "chunked")], b"0\r\n\r\n" + hidden),
            wire.request("POST", "/", [("Host", f"127.0.0.1:{port}"), ("Content-Length", "3"), ("Content-Length", "300")], b"abc" + hidden),
            wire.request("GET", "/ping", [("Host", f"127.0.0.1:{port}"), ("X", "a\r\n b")]) + hidden,
        ):
            wire.send(port, data, 5)
        return prey.verdict()


# --- statements -----------------------------------------------------------------------------------------------------------


@attack("request")
def settings_in_the_statement(house):
    """SET, SETTINGS and the address try to lift what a reader may not."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        with doors.prey(house) as prey:
            file, hook = prey.file, f"http://127.0.0.1:{prey.listener.port}"
            for sql in (
                "SET readonly = 0", f"SET readonly = 0; {prey.create}", f"SELECT 1 SETTINGS readonly = 0; {prey.create}",
                f"{prey.create} SETTINGS readonly = 0", f"SELECT 1 INTO OUTFILE '{file}' TRUNCATE FORMAT TSV SETTINGS readonly = 0",
                f"SELECT * FROM url('{hook}/a', 'TSV', 'a Int32') SETTINGS readonly = 0, max_execution_time = 0",
                f"INSERT INTO FUNCTION url('{hook}/b', 'TSV', 'a Int32') SETTINGS readonly = 0 SELECT 1",
                f"SELECT 1 INTO OUTFILE '{file}' AND STDOUT APPEND", f"SELECT 1 INTO OUTFILE '{file}' COMPRESSION 'gzip'",
                f"EXPLAIN AST SELECT * FROM url('{hook}/c', 'TSV', 'a Int32')", f"DESCRIBE url('{hook}/d', 'CSV')",
                f"SELECT * FROM (SELECT * FROM url('{hook}/e', 'TSV', 'a Int32'))",
                f"WITH x AS (SELECT * FROM url('{hook}/f', 'TSV', 'a Int32')) SELECT * FROM x",
                f"SELECT 1 WHERE 1 IN (SELECT * FROM url('{hook}/g', 'TSV', 'a Int32'))",
                f"SELECT 1 WHERE 1 IN url('{hook}/h', 'TSV', 'a Int32')", f"SELECT * FROM `url`('{hook}/i', 'TSV', 'a Int32')",
                f"SELECT * FROM \"url\"('{hook}/j', 'TSV', 'a Int32')", f"SELECT * FROM urlCluster('x', '{hook}/k', 'TSV', 'a Int32')",
                f"SELECT * FROM merge(REGEXP('.*'), url('{hook}/l', 'TSV', 'a Int32'))", f"FROM url('{hook}/m', 'TSV', 'a Int32') SELECT *",
                f"SELECT * FROM view(SELECT * FROM url('{hook}/n', 'TSV', 'a Int32'))", f"TABLE url('{hook}/o', 'TSV', 'a Int32')",
                f"EXPLAIN ESTIMATE SELECT * FROM url('{hook}/p', 'CSV')", f"SELECT * FROM loop(url('{hook}/q', 'TSV', 'a Int32')) LIMIT 1",
                f"SELECT * FROM '{file}'", f"CREATE TEMPORARY TABLE t AS SELECT * FROM url('{hook}/r', 'TSV', 'a Int32')",
                f"SELECT * FROM iceberg('{hook}/s', 'k', 's')", f"SELECT * FROM gcs('{hook}/t', 'TSV', 'a Int32')",
                f"SELECT * FROM mysql('127.0.0.1:{prey.listener.port}', 'd', 't', 'u', 'p')", f"SELECT * FROM redis('127.0.0.1:{prey.listener.port}', 'k', 'k Int32')",
                f"SELECT 1 PARALLEL WITH SELECT * FROM url('{hook}/u', 'TSV', 'a Int32')", f"SELECT * FROM url('{hook}/v', headers('a'='b'), 'TSV', 'a Int32')",
                f"EXECUTE AS default {prey.create}", f"ATTACH TABLE {prey.table} (a Int32) ENGINE = Memory",
                f"CREATE FUNCTION {prey.table} AS (x) -> x", f"CREATE USER {prey.table}", "SYSTEM SHUTDOWN", "SYSTEM KILL", "KILL QUERY WHERE 1 ASYNC",
            ):  # fmt: skip
                wire.get(port, target(sql), headers, 5)
                wire.get(port, target(sql, readonly="0"), headers, 5)
                wire.post(port, "/?readonly=0", sql.encode(), headers, 5)
                if prey.effects(0):
                    break
            if seen := prey.verdict():
                return f"{who}: {seen}"
    return None


@attack("request")
def statements_that_fool_a_tokenizer(house):
    """Comments, nested ones, heredocs, odd blanks and quotes around a statement that writes."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        with doors.prey(house) as prey:
            writes = [prey.create, f"SELECT 1 INTO OUTFILE '{prey.file}'", prey.statements()["select_url"], prey.statements()["insert_url"]]
            frames = (
                "/**/{}", "/* /* */ */ {}", "-- SELECT 1\n{}", "# SELECT 1\n{}", "#! x\n{}", "SELECT 1; {}", "SELECT 1 ;;; {}", "\ufeff{}", "\xa0{}", "\u3000{}",
                "SELECT '\\''; {} --'", "SELECT $a$ ' $a$; {}", "SELECT $$;$$; {}", "(({}))", "EXPLAIN {}", "\0{}", "{}\0", "\x0b\x0c{}", "SELECT 1 FORMAT Null; {}",
                "SELECT 1 --\r{}", "SELECT 1 /*\n*/ ; {}", "SELECT `\\`; {} --`", "SELECT \"a\\\"; {} --\"", "SELECT ''''; {}", "\u2212- x\n{}", "SELECT 1//**/;{}",
            )  # fmt: skip
            for frame in frames:
                for sql in writes:
                    text = frame.replace("{}", sql)
                    wire.get(port, target(text), headers, 5)
                    wire.post(port, "/", text.encode(), headers, 5)
                if prey.effects(0):
                    break
            for name in ("url", "Url", "/**/url", "url/**/", "`url`", "\"url\"", "\"u\\x72l\"", "`u\\x72l`", "u\u200brl", "${t:Identifier}", "{t:Identifier}"):
                sql = f"SELECT * FROM {name} ('http://127.0.0.1:{prey.listener.port}/n', 'TSV', 'a Int32')"
                wire.get(port, target(sql, param_t="url"), headers, 5)
                wire.post(port, "/?param_t=url", sql.encode(), headers, 5)
            wire.get(port, target("SELECT * FROM {t:Identifier}", param_t=f"url('http://127.0.0.1:{prey.listener.port}/p','TSV','a Int32')"), headers, 5)
            if seen := prey.verdict():
                return f"{who}: {seen}"
    return None


@attack("request")
def reads_files_of_this_machine(house):
    """file(), executable and their like would show the token, the keys and everything else that the process may read."""
    secret = house.folder / "secret.txt"
    secret.write_text("sesame-open-17\n")
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        for sql in (
            f"SELECT * FROM file('{secret}', 'LineAsString', 'a String')", f"SELECT file('{secret}')", f"SELECT * FROM file('{secret}', LineAsString)",
            f"SELECT * FROM fileCluster('x', '{secret}', 'LineAsString', 'a String')", f"SELECT * FROM executable('cat {secret}', 'LineAsString', 'a String')",
            f"SELECT * FROM url('file://{secret}', 'LineAsString', 'a String')", f"DESCRIBE file('{secret}')",
            f"SELECT * FROM python('{secret}')", f"SELECT * FROM sqlite('{secret}', 'a')", f"SELECT load_file('{secret}')",
            f"SELECT * FROM filesystem('{secret.parent}')", f"SELECT content FROM filesystem('{secret.parent}')",
            f"SELECT * FROM input('a String') FORMAT LineAsString\nINFILE '{secret}'", f"INSERT INTO FUNCTION null('a String') FROM INFILE '{secret}' FORMAT LineAsString",
            f"SELECT * FROM s3('file://{secret}', 'LineAsString', 'a String')",
        ):  # fmt: skip
            for reply in (wire.get(port, target(sql, readonly="0"), headers, 5), wire.post(port, "/", sql.encode(), headers, 5)):
                if b"sesame-open-17" in reply.body or (secret.name.encode() in reply.body and reply.status == 200):
                    return f"{who}: {sql[:60]}: {reply.said}"
    return None


@attack("request")
def odd_query_ids(house):
    """A query_id goes into an answer's header: not Latin-1, line ends, huge, empty, twice."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        for word in ("\u4f60\u597d", "\U0001f600", "a\r\nX-Evil: 1", "a\nb", "\0", "x" * 30_000, "", "\ud83d".encode("utf-8", "surrogatepass").decode("latin-1")):
            for reply in (wire.get(port, target("SELECT 1", query_id=word), headers, 5),
                          wire.post(port, "/" + wire.query(query_id=word), b"SELECT 1", headers, 5)):  # fmt: skip
                if not reply.ended:
                    return f"{who}: no end of the answer to query_id {word[:12]!r}"
                if b"x-evil" in reply.head.lower():
                    return f"{who}: a header of the attacker's came back"
        if seen := page_asks(house):
            return f"{who}: {seen}"
    return None


@attack("request")
def twenty_five_comments(house):
    """A statement of comments must not cost more than its length."""
    return _comments(house, 25)


@attack("request")
def thousand_comments(house):
    """The same forty times as long: exponential effort would hang for good."""
    return _comments(house, 1000)


def _comments(house: House, count: int) -> str | None:
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        for piece in ("/* */ ", "-- \n", "/**/", "# \n", "/* -- */ \n", "("):
            sql = (piece * count + "x").encode()
            reply = wire.post(port, "/", sql, headers, 8)
            if not reply.ended:
                return f"{who}: {count} times {piece!r} is not answered within 8 s"
        if seen := page_asks(house, 8):
            return f"{who}: {seen}"
    return None


@attack("request")
def odd_requests(house):
    """Bytes that are no HTTP, half of them, bodies shorter and longer than told, odd encodings and parameters."""
    port = house.ports[CLICKHOUSE]
    host = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
    for _who, headers in everyone(house):
        head = host | headers
        odd = (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\r\n\r\n", b"\r\n" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"\0" * 4096, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            wire.request("GET", "/" + "a" * 200_000, head), wire.request("GET", "/", head | {f"X-{n}": "v" for n in range(2000)}),
            wire.request("POST", "/", head | {"Content-Length": "-5"}, b"SELECT 1"), wire.request("POST", "/", head | {"Content-Length": "9" * 30}, b"SELECT 1"),
            wire.request("POST", "/", head | {"Transfer-Encoding": "chunked"}, b"zzz\r\nSELECT 1\r\n0\r\n\r\n"),
            wire.request("POST", "/", head | {"Transfer-Encoding": "chunked"}, b"ffffffffffffffff\r\nSELECT"),
            wire.request("POST", "/", head | {"Content-Length": "8", "Content-Encoding": "br"}, b"SELECT 1"),
            wire.request("POST", "/", head | {"Content-Length": "8", "Content-Encoding": "zstd, gzip"}, b"SELECT 1"),
            wire.request("POST", "/", head | {"Content-Length": "4", "Content-Type": "multipart/form-data"}, b"--\r\n"),
            wire.request("POST", "/", head | {"Content-Length": "8", "Content-Type": "multipart/form-data; boundary=" + "x" * 5000}, b"SELECT 1"),
            wire.request("POST", "/?param_=1&param_a[]=2&=3&query=SELECT+{a:Int32}", head | {"Content-Length": "0"}),
            wire.request("GET", b"/?query=SELECT%20'\xff\xfe'", head), wire.request("GET", "/?query=SELECT%20'%ff%00'&database=%ff&default_format=%0d%0a", head),
            wire.request("GET", target("SELECT 1", database="`; DROP TABLE events"), head), wire.request("GET", target("SELECT 1", default_format="Nope\r\nX: y"), head),
        )  # fmt: skip
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda data: wire.send(port, data, 3), odd))
    return page_asks(house)


# --- load -----------------------------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """By Content-Encoding: bodies that unfold to BOMB_BYTES of blanks after a statement."""
    import lz4.frame
    from backports import zstd

    piece, count = b" " * (1 << 20), BOMB_BYTES >> 20
    press = zstd.ZstdCompressor()
    zipped = b"".join(press.compress(piece) for _ in range(count)) + press.flush()
    packer = lz4.frame.LZ4FrameCompressor()
    packed = packer.begin() + b"".join(packer.compress(piece) for _ in range(count)) + packer.flush()
    return {"zstd": b"" + zipped, "gzip": gzip.compress(piece * (count // 4), 6), "lz4": packed}


@attack("request")
def decompression_bombs(house):
    """Small bodies that unfold to 512 MiB: zstd, gzip, lz4, as a statement and as the rows of an INSERT."""
    port = house.ports[CLICKHOUSE]
    for encoding, body in bombs().items():
        for who, headers in everyone(house):
            for path in ("/", "/" + wire.query(query="INSERT INTO events_all FORMAT TSV")):
                grown = growth(house, lambda: wire.post(port, path, body, headers | {"Content-Encoding": encoding}, 30))  # noqa: B023
                if grown > BOMB_GROWTH:
                    return f"{who}: a body of {len(body):,} bytes ({encoding}) took {grown >> 20:,} MB"
    return page_asks(house)


@attack("request")
def slow_queries(house):
    """45 queries that take 25 s each: a page's query is answered meanwhile."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        for sql in SLOW:
            head = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(sql))} | headers
            with wire.held_open(port, 45, wire.request("POST", "/", head, sql.encode())):
                time.sleep(1)
                if seen := page_asks(house):
                    return f"{who}: {seen} while 45 slow ones run"
    return None


@attack("request")
def readers_that_do_not_read(house):
    """60 clients ask for 32 MB each and read nothing."""
    port = house.ports[CLICKHOUSE]
    for who, headers in everyone(house):
        for sql in (b"SELECT repeat('x', 1000) FROM (SELECT arrayJoin(range(32000)))", b"SELECT repeat('x', 1000) FROM (SELECT arrayJoin(range(32000))) FORMAT JSON"):
            head = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(sql))} | headers
            answered: list[str | None] = []

            def work() -> None:
                with wire.held_open(port, 60, wire.request("POST", "/", head, sql), receive=4096):  # noqa: B023
                    time.sleep(4)
                    answered.append(page_asks(house))  # noqa: B023

            grown = growth(house, work)
            if grown > READERS_GROWTH:
                return f"{who}: 60 readers that do not read took {grown >> 20:,} MB"
            if answered[0]:
                return f"{who}: {answered[0]} while 60 readers do not read"
    return None


@attack("request")
def slow_loris(house):
    """150 clients that send a byte a second, of the head and of the body; every service answers meanwhile."""
    for role in ("clickhouse", "dagster", "pages"):
        port = house.ports[role]
        head = wire.request("POST", "/", {"Host": f"127.0.0.1:{port}", "Content-Length": "100000"} | house.credentials("reader"))
        with wire.held_open(port, 75, head[:20]) as first, wire.held_open(port, 75, head) as second:
            for _ in range(3):
                for sock in (*first, *second):
                    with contextlib.suppress(OSError):
                        sock.send(b"S")
                time.sleep(1)
            if not house.answers(role, 10):
                return f"{role} does not answer"
    return None


@attack("request")
def idle_connections(house):
    """200 connections that say nothing, at each port."""
    for role in ("clickhouse", "dagster", "pages"):
        with wire.held_open(house.ports[role], 200):
            time.sleep(1)
            if not house.answers(role, 10):
                return f"{role} does not answer"
    return None


@attack("request")
def clients_that_leave(house):
    """200 clients that close in the middle of a request or of an answer: no handle stays taken."""
    port = house.ports[CLICKHOUSE]
    sql = b"SELECT number, repeat('x', 100) FROM (SELECT arrayJoin(range(300000)) AS number)"
    for who, headers in everyone(house):
        whole = wire.request("POST", "/", {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(sql))} | headers, sql)

        def leave(number: int, whole: bytes = whole) -> None:
            with wire.held_open(port, 1, whole if number % 2 else whole[:-5]):
                time.sleep(0.02)

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(leave, range(200)))
        if seen := page_asks(house):
            return f"{who}: {seen}"
    return None
