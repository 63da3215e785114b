"""ClickHouse's endpoint as someone meets it who should not get in, or who would stop it: every kind of issue 17, doors, against a real one."""

import base64
import contextlib
import gzip
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

import pytest

from assets.metrics import endpoint
from assets.metrics.client import connect

pytestmark = pytest.mark.slow
HANG_S = 60  # no answer within this is a hang


class Door:
    """An endpoint, asked without any client's help. `canary` counts who calls on the network."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.parts = urllib.parse.urlsplit(url)
        self.secret = folder.parent / "secret.csv"
        self.secret.write_text("top,secret\n")
        self.out = folder.parent / "out"
        self.out.mkdir(exist_ok=True)

    def password(self, user="writer"):
        if not self.parts.password:  # before there were users
            return ""
        from assets.metrics import access

        return access.keys(self.folder).password(user)

    def credentials(self, user="writer"):
        return {"X-ClickHouse-User": user, "X-ClickHouse-Key": self.password(user)} if self.parts.password else {}

    def ask(self, sql="", method="POST", user="writer", headers=None, body=None, **query):
        """Status, headers and body. user: None sends no credentials."""
        if method == "GET":
            query["query"] = sql
        elif body is None:
            body = sql.encode()
        head = (self.credentials(user) if user else {}) | (headers or {})
        return self.raw(method, "/?" + urllib.parse.urlencode(query), head, body)

    def raw(self, method, target, headers, body=None):
        connection = http.client.HTTPConnection(self.parts.hostname, self.parts.port, timeout=HANG_S)
        with contextlib.closing(connection):
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def socket(self):
        return socket.create_connection((self.parts.hostname, self.parts.port), timeout=HANG_S)

    def pid(self):
        return int((self.folder / endpoint.LOCK).read_text().split()[0].removeprefix("process-"))

    def open_files(self):
        """But for those that the engine's pool has open of each of its threads."""
        found = []
        for one in os.listdir(f"/proc/{self.pid()}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{self.pid()}/fd/{one}"))
        return [one for one in found if not one.startswith("/proc/")]

    def resident(self):
        """MiB of the endpoint's process."""
        with open(f"/proc/{self.pid()}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

    def tables(self):
        return sorted(self.ask("SHOW TABLES")[2].decode().split())


@pytest.fixture(scope="module")
def canary():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.calls += 1
            self.send_response(200)
            self.end_headers()

        do_POST = do_PUT = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.calls = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home") / "clickhouse"
    with endpoint.started(folder) as url:
        door = Door(folder, url)
        connect(url).command("CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a")
        connect(url).command("INSERT INTO kept SELECT 7")
        yield door


# --- what a statement may do ----------------------------------------------------------------------------------------

# {s}: a file to read, {o}: a folder to write into, {u}: an address to call
READ_FILE = [
    "SELECT * FROM file('{s}', 'CSV', 'a String, b String')",
    "SELECT * FROM file('{s}')",
    "SELECT file('{s}')",
    "SELECT FILE('{s}'), 1",
    "SELECT * FROM '{s}'",
    "SELECT * FROM `{s}`",
    'SELECT * FROM "{s}"',
    "SELECT * FROM default.`{s}`",
    "SELECT * FROM \u2018{s}\u2019",
    "SELECT * FROM \u201c{s}\u201d",
    "DESCRIBE '{s}'",
    "DESCRIBE TABLE file('{s}')",
    "SELECT * FROM /* FROM t */ file /* ( */ ('{s}')",
    "SELECT * FROM /* /* */ file('{s}') -- */",
    "SELECT 1 -- '\nUNION ALL SELECT length(file('{s}')) -- '",
    "SELECT '\\'' , file('{s}') , '\\''",
    "SELECT '''' , file('{s}') , ''''",
    "SELECT $$'$$, file('{s}'), $$'$$",
    "SELECT $a$ /* $a$, file('{s}') /* $a$ */",
    "SELECT `a``b`, file('{s}') FROM (SELECT 1 AS `a``b`)",
    "SELECT `file`('{s}')",
    'SELECT "file"(\'{s}\')',
    "SELECT `fi\\x6ce`('{s}')",
    "SELECT `\\x66ile`('{s}')",
    "SELECT \u00a0file\u00a0('{s}')",
    "SELECT\u3000file('{s}')",
    "SELECT 1 #! x\n, file('{s}')",
    "SELECT 1 # '\n, file('{s}') # '",
    "WITH f AS (SELECT file('{s}') AS x) SELECT x FROM f",
    "WITH x -> file(x) AS f SELECT f('{s}')",
    "SELECT arrayMap(x -> file(x), ['{s}'])",
    "SELECT x.* APPLY file FROM (SELECT '{s}' AS p) AS x",
    "SELECT * APPLY(file) FROM (SELECT '{s}' AS p)",
    "SELECT COLUMNS('p') APPLY (x -> file(x)) FROM (SELECT '{s}' AS p)",
    "SELECT 1 IN (SELECT file('{s}'))",
    "SELECT 1 WHERE file('{s}') != ''",
    "SELECT 1 ORDER BY file('{s}')",
    "SELECT (SELECT a FROM file('{s}', 'CSV', 'a String, b String'))",
    "SELECT * FROM view(SELECT * FROM file('{s}'))",
    "SELECT * FROM (SELECT 1) AS a, file('{s}') AS b",
    "SELECT * FROM numbers(1) AS a JOIN file('{s}') AS b ON 1 = 1",
    "SELECT 1 UNION ALL SELECT * FROM file('{s}', 'CSV', 'a UInt8')",
    "(SELECT * FROM file('{s}'))",
    "FROM file('{s}') SELECT *",
    "EXPLAIN SELECT * FROM file('{s}')",
    "EXPLAIN QUERY TREE SELECT * FROM file('{s}')",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM file('{s}')))",
    "SELECT * FROM eval('SELECT * FROM file(\\'{s}\\')')",
    "SELECT * FROM fileCluster('default', '{s}', 'CSV')",
    "SELECT * FROM merge(REGEXP('.*'), '{s}') UNION ALL SELECT * FROM `{s}`",
    "SELECT * FROM loop(`{s}`)",
    "SELECT * FROM sqlite('{s}', 't')",
    "SELECT * FROM filesystem('{o}')",
    "SELECT * FROM dictionary('{s}')",
    "SELECT * FROM format(CSV, file('{s}'))",
    "SELECT 1 SETTINGS additional_result_filter = 'file(\\'{s}\\') = \\'\\''",
    "SELECT * FROM kept SETTINGS additional_table_filters = {{'kept': 'length(file(\\'{s}\\')) > 0'}}",
    "SELECT 1 AS x FORMAT Template SETTINGS format_template_row = '{s}', format_template_resultset = '{s}'",
    "SELECT 1; SELECT * FROM file('{s}')",
    "SELECT 1\0; SELECT * FROM file('{s}')",
    "SELECT * FROM deltaLakeLocal('{o}')",
    "SELECT * FROM icebergLocal('{o}')",
    "SELECT * FROM paimonLocal('{o}')",
    "SELECT addressToLine(1)",
    "SELECT * FROM arrowstream('{s}')",
    "SELECT * FROM {{p:Identifier}}",
    "SELECT x FROM (SELECT 1 AS x) WHERE x IN `{s}`",
    "file('{s}')",
    "SELECT * FROM `{{.,a}}{{.,b}}/{{.,a}}{{.,b}}/endpoint.key`",
    "SELECT * FROM '{{.,a}}{{.,b}}/{{.,a}}{{.,b}}/endpoint.k?y'",
    "SELECT * FROM default.`{{.,a}}{{.,b}}/{{.,a}}{{.,b}}/*`",
    "SELECT * FROM `x{s}`",
    "DESCRIBE `{{.,a}}{{.,b}}/x`",
    "EXISTS TABLE `a*`",
    "SELECT 1 IN `{{.,a}}{{.,b}}/x`",
    "SELECT * FROM kept AS k JOIN `{{.,a}}{{.,b}}/x` AS `a/b` ON 1 = 1",
    "SELECT * FROM {{q:Identifier}}",
    "SELECT * FROM {{r:Identifier}} SETTINGS param_r = '{s}'",
    "SELECT joinGet('{s}', 'a', 1)",
    "SELECT joinGetOrNull('{{.,a}}{{.,b}}/x', 'a', 1)",
]
CALL = [
    "SELECT * FROM url('{u}/x', 'CSV', 'a String')",
    "SELECT * FROM URL('{u}/x', 'CSV', 'a String')",
    "SELECT * FROM `{u}/x.csv`",
    "SELECT * FROM '{u}/x.csv'",
    "SELECT * FROM urlCluster('default', '{u}/x', 'CSV', 'a String')",
    "SELECT * FROM s3('{u}/b/x.csv')",
    "SELECT * FROM gcs('{u}/b/x.csv')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x', 'CSV', 'a String')",
    "SELECT * FROM azureBlobStorage('{u}', 'c', 'x')",
    "SELECT * FROM deltaLake('{u}/b/x')",
    "SELECT * FROM iceberg('{u}/b/x')",
    "SELECT * FROM hudi('{u}/b/x')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'a UInt8')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String, v String')",
    "SELECT * FROM odbc('DSN=x', 'd', 't')",
    "SELECT * FROM jdbc('jdbc:x', 'd', 't')",
    "SELECT * FROM remote('127.0.0.1:1', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1:1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM clusterAllReplicas('default', system.one)",
    "SELECT * FROM ytsaurus('{u}', '//x', 't', 'a String')",
    "SELECT * FROM bigquery('p', 'd', 't')",
    "SELECT * FROM executable('sh', 'CSV', 'a String', (SELECT 'id'))",
    "SELECT * FROM python('os')",
    "SELECT * FROM Python(os)",
    "SELECT hasColumnInTable('127.0.0.1:1', 'd', 't', 'c')",
    "SELECT aiGenerate('x')",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'd', 't', 'u', 'p') PARTITION BY a",
]
WRITE_FILE = [
    "SELECT 1 INTO OUTFILE '{o}/a'",
    "SELECT 1 INTO  /* x */  OUTFILE '{o}/a' TRUNCATE FORMAT CSV",
    "SELECT 1 into\noutfile '{o}/a'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{o}/a'",
    "INSERT INTO FUNCTION file('{o}/a', 'CSV', 'a UInt8') SELECT 1",
    "INSERT INTO FUNCTION file('{o}/a', 'CSV', 'a UInt8') VALUES (1)",
    "INSERT INTO FUNCTION file('{o}/a', 'CSV', 'a UInt8') FORMAT CSV\n1\n",
    "INSERT INTO TABLE FUNCTION file('{o}/a', 'CSV', 'a UInt8') SELECT 1",
    "INSERT INTO FUNCTION url('{u}/x', 'CSV', 'a UInt8') SELECT 1",
    "WITH 1 AS x INSERT INTO FUNCTION file('{o}/a', 'CSV', 'a UInt8') SELECT x",
    "INSERT INTO kept FROM INFILE '{s}' FORMAT CSV",
    "INSERT INTO kept SELECT length(file('{s}'))",
    "INSERT INTO kept VALUES (length(file('{s}')))",
    "INSERT INTO kept VALUES (1); SELECT 1 INTO OUTFILE '{o}/a'",
    "INSERT INTO kept SELECT a FROM file('{s}', 'Parquet', 'a UInt64')",
    "BACKUP TABLE kept TO File('{o}/a')",
    "BACKUP DATABASE default TO Disk('default', 'x')",
    "RESTORE TABLE kept AS k2 FROM File('{o}/a')",
    "CREATE TABLE bad1 (a UInt8) ENGINE = File(CSV, '{o}/a')",
    "CREATE TABLE bad2 (a UInt8) ENGINE = URL('{u}/x', CSV)",
    "CREATE TABLE bad3 (a UInt8) engine=S3('{u}/b/x', 'CSV')",
    "CREATE TABLE bad4 (a String) ENGINE = Executable('x.sh', CSV)",
    "CREATE TABLE bad5 (a String) ENGINE = ExecutablePool('x.sh', CSV)",
    "CREATE TABLE bad6 AS file('{s}')",
    "CREATE TABLE bad7 ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM file('{s}')",
    "CREATE TABLE bad8 (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = 'local', path = '{o}/')",
    "CREATE TABLE bad9 (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS storage_policy = 'x'",
    "CREATE TABLE bad10 (a String DEFAULT file('{s}')) ENGINE = Memory",
    "CREATE TABLE bad11 (a UInt8) ENGINE = `File`(CSV, '{o}/a')",
    "CREATE TABLE bad12 (a UInt8) ENGINE = SQLite('{s}', 't')",
    "CREATE TABLE bad13 (a UInt8) ENGINE = Distributed('default', 'default', 'kept')",
    "CREATE TABLE bad24 (c1 Nullable(String)) ENGINE = Buffer('default', '{s}', 1, 10, 100, 10000, 1000000, 10000000, 100000000)",
    "CREATE VIEW bad25 AS SELECT * FROM {{v:Identifier}}",
    "CREATE TABLE bad26 AS `{s}`",
    "CREATE TABLE bad27 (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS ratio_of_defaults_for_sparse_serialization = 1e-10, disk = disk(type = 'local', path = '{o}/')",
    "INSERT INTO `{{.,a}}{{.,b}}/x.csv` SELECT 1",
    "INSERT INTO `x*.csv` SELECT 1",
    "CREATE VIEW bad14 AS SELECT * FROM file('{s}')",
    "CREATE MATERIALIZED VIEW bad15 ENGINE = Memory AS SELECT file('{s}') AS x FROM kept",
    "CREATE DICTIONARY bad16 (a UInt64, b String) PRIMARY KEY a SOURCE(FILE(path '{s}' format 'CSV')) LAYOUT(FLAT()) LIFETIME(1)",
    "CREATE FUNCTION bad17 AS x -> file(x)",
    "CREATE DATABASE bad18 ENGINE = Filesystem('/')",
    "CREATE DATABASE bad19 ENGINE = SQLite('{o}/a')",
    "CREATE DATABASE bad20 ENGINE = PostgreSQL('127.0.0.1:1', 'd', 'u', 'p')",
    "CREATE NAMED COLLECTION bad21 AS url = '{u}'",
    "CREATE USER bad22",
    "ATTACH TABLE bad23 FROM '{o}' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "ALTER TABLE kept ADD COLUMN b String DEFAULT file('{s}')",
    "ALTER TABLE kept UPDATE a = length(file('{s}')) WHERE 1",
    "ALTER TABLE kept MODIFY SETTING storage_policy = 'x'",
    "ALTER TABLE kept FREEZE WITH NAME 'x'",
    "ALTER TABLE kept FETCH PARTITION 1 FROM '/x'",
    "DELETE FROM kept WHERE a IN (SELECT length(file('{s}')))",
    "SYSTEM SHUTDOWN",
    "SYSTEM RELOAD CONFIG",
    "SYSTEM STOP MERGES",
    "EXECUTE AS default SELECT 1",
    "SET allow_ddl = 1, dialect = 'kusto'",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "DROP TABLE kept ON CLUSTER 'default'",
]
ASK = {"writer": ("POST", "writer"), "by GET": ("GET", "writer"), "reader": ("POST", "reader")}


@pytest.mark.parametrize("way", ASK)
@pytest.mark.parametrize("sql", READ_FILE + CALL + WRITE_FILE)
def test_files_networks_and_programs_are_out_of_reach(door, canary, sql, way):
    method, user = ASK[way]
    before, here = canary.calls, door.tables()
    text = sql.format(s=door.secret, o=door.out, u=f"http://127.0.0.1:{canary.server_address[1]}")
    status, headers, body = door.ask(text, method=method, user=user, param_p=str(door.secret), param_q="{.,a}{.,b}/x")
    assert b"top" not in body or status != 200, body
    assert status != 200, "refused, not just without an effect"
    assert headers["X-ClickHouse-Exception-Code"] in ("497", "164", "452", "62", "36", "344"), body
    assert (os.listdir(door.out), canary.calls, door.tables()) == ([], before, here)
    assert door.ask("SELECT sum(a) FROM kept")[2] == b"7\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT number FROM numbers(3)", "SELECT * FROM zeros(2)", "SELECT * FROM values('a UInt8', 1, 2)", "SELECT format('{} {}', 'a', 'b')",
        "SELECT * FROM view(SELECT 1)", "SELECT * FROM merge('default', '^kept$')", "SELECT arrayJoin([1, 2])", "SELECT * FROM generateRandom('a UInt8') LIMIT 1",
        "SELECT 'file(1)', \"a\" FROM kept -- url('x')", "SELECT 1 AS `clicks/displays`", "SELECT 1 AS file, 2 AS url", "SELECT count() FROM system.tables",
        "EXPLAIN SELECT 1", "SHOW TABLES", "DESCRIBE kept", "EXISTS kept", "WITH 1 AS x SELECT x", "SELECT '\\xff' = char(255), 'a\\nb', '\\0'", "SELECT $$a'b$$",
        "SELECT 1 SETTINGS max_threads = 1", "SELECT 1 FORMAT JSONEachRow", "SELECT transform(1, [1], ['one'], 'x')", "SELECT 1;",
    ],
)  # fmt: skip
def test_what_asks_only_is_answered(door, sql):
    for method, user in ASK.values():
        status, _, body = door.ask(sql, method=method, user=user)
        assert status == 200, body


@pytest.mark.parametrize(
    "query",
    [
        {"readonly": "0"}, {"readonly": "0", "allow_ddl": "1"}, {"READONLY": "0"}, {"readonly": " 0"}, {"readonly": "false"},
        {"readonly": "00"}, {"readonly": "0x0"}, {"readonly": "-0"}, {"param_readonly": "0"}, {"readonly": ""},
        {"profile": "default"}, {"compatibility": "20.1"}, {"dialect": "polyglot"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("sql", ["DROP TABLE kept", "CREATE TABLE made (a UInt8) ENGINE = Memory", "SET readonly = 0", "INSERT INTO kept VALUES (1)",
                                 "INSERT INTO kept SELECT 1", "ALTER TABLE kept DELETE WHERE 1", "TRUNCATE TABLE kept", "OPTIMIZE TABLE kept",
                                 "SELECT 1; DROP TABLE kept", "SELECT 1 SETTINGS readonly = 0", "WITH 1 AS x INSERT INTO kept SELECT x",
                                 "SET readonly = 0; DROP TABLE kept", "EXPLAIN ANALYZE INSERT INTO kept SELECT 1", "KILL QUERY WHERE 1", "CREATE TEMPORARY TABLE x (a UInt8)",
                                 "RENAME TABLE kept TO gone", "EXCHANGE TABLES kept AND kept", "DETACH TABLE kept", "USE system"])  # fmt: skip
def test_readers_and_get_change_nothing_whatever_the_url_says(door, sql, query):
    for method, user in (("GET", "writer"), ("POST", "reader"), ("GET", "reader")):
        status, _, body = door.ask(sql, method=method, user=user, **query)
        assert status != 200, body
    assert door.tables() == ["kept"] and door.ask("SELECT sum(a), count() FROM kept")[2] == b"7\t1\n"


def test_no_database_reads_files_whatever_the_name(door):
    """The rules for names are one thing; the engine, asked without them, knows tables alone."""
    found = door.ask("SELECT name, engine FROM system.databases WHERE engine NOT IN ('Atomic', 'Memory')")[2]
    assert found == b"" and door.ask("SELECT currentDatabase()")[2] == b"default\n"
    assert door.ask("SELECT 1", database="/tmp")[0] == 403
    name = f"named-{os.getpid()}.csv"
    (door.folder / "endpoint.tmp" / "empty" / name).write_text("top\n")
    status, headers, body = door.ask(f"SELECT * FROM `{name}`")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "60") and b"top" not in body


def test_a_store_of_before_opens_and_is_found_by_what_ran_before(tmp_path):
    """There `default` was a database of files and tables."""
    run = "import chdb, sys; c = chdb.connect(sys.argv[1]); [print(c.query(one).bytes().decode(), end='') for one in sys.argv[2:]]; c.close()"

    def before(*statements):
        return subprocess.run([sys.executable, "-c", run, str(tmp_path / "a"), *statements], capture_output=True, text=True, check=True).stdout

    before("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a", "INSERT INTO t SELECT 1", "CREATE DATABASE other")
    for more in (2, 3):
        with endpoint.started(tmp_path / "a") as url:
            client = connect(url)
            client.command(f"INSERT INTO t SELECT {more}")
            assert client.command("SELECT count() FROM t") == more
            assert "other" in client.command("SHOW DATABASES")
    assert before("SELECT sum(a) FROM t") == "6\n"


@pytest.mark.parametrize("setting", [("max_execution_time", "0"), ("max_execution_time", "100000"), ("max_execution_time", "1e9"), ("max_memory_usage", "0"), ("max_threads", "5000")])
def test_a_readers_limits_cannot_be_lifted(door, setting):
    name, value = setting
    status, _, body = door.ask(f"SELECT toFloat64(getSetting('{name}')) AS x", user="reader", **{name: value})
    limit = {"max_execution_time": 60, "max_memory_usage": 4 << 30, "max_threads": max(2, os.cpu_count())}[name]
    assert status != 200 or 0 < float(body) <= limit, body
    small = "totals_auto_threshold = 1e-10"
    assert door.ask(f"SELECT 1 SETTINGS {small}, max_block_size = 10", user="reader")[2] == b"1\n"
    for way in (f"SELECT 1 SETTINGS {small}, {name} = {value}", f"SELECT 1 SETTINGS totals_auto_threshold = -1.5e-300, {name} = {value}",
                f"SELECT 1 SETTINGS x.y = 1, {name} = {value}", f"SELECT 1 SETTINGS extremes, {name} = {value}",
                f"SELECT 1 SETTINGS {name} = {value}", f"SELECT * FROM (SELECT 1 SETTINGS {name} = {value})", f"SELECT 1 SETTINGS max_block_size = 10, {name} = {value}"):
        assert door.ask(way, user="reader")[0] != 200


def test_the_loader_reads_parquet_files_of_delta_tables_only(door, tmp_path):
    import polars as pl

    def at(*parts):
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"a": [5]}).write_parquet(path)
        return path

    (tmp_path / "lake" / "t" / "_delta_log").mkdir(parents=True)
    good, bare, other = at("lake", "t", "hour=2026", "x.parquet"), at("lake", "t", "x.parquet"), at("files", "hour=2026", "x.parquet")
    link = good.with_name("y.parquet")
    link.symlink_to(other)
    read = "SELECT a FROM file('{}', 'Parquet', 'a Int64')"
    assert door.ask(read.format(good))[2] == b"5\n"
    for user, method in (("reader", "POST"), ("writer", "GET")):
        assert door.ask(read.format(good), user=user, method=method)[0] == 403
    for path in (bare, other, link, good.parent / "*.parquet", f"{good.parent}/../hour=2026/x.parquet", f"{good.parent}/{{../../x,x}}.parquet"):
        assert door.ask(read.format(path))[0] == 403, path
    assert door.ask(f"SELECT * FROM file('{good}', 'CSV', 'a String')")[0] == 403
    assert door.ask(f"SELECT * FROM file('{good}', 'Parquet', 'a Int64', 'none')")[0] == 403


# --- who asks -------------------------------------------------------------------------------------------------------


def test_without_the_folders_password_nothing_is_answered(door):
    wrong = [{}, {"X-ClickHouse-User": "writer"}, {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": "x"}, {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": door.password("reader")},
             {"X-ClickHouse-User": "nobody", "X-ClickHouse-Key": door.password()}, {"Authorization": "Basic !"}, {"Authorization": f"Bearer {door.password()}"},
             {"X-ClickHouse-Key": "\xff" * 64}, {"X-ClickHouse-Key": ""}]  # fmt: skip
    for headers in wrong:
        status, found, body = door.ask("SELECT 1", user=None, headers=headers)
        assert (status, found["X-ClickHouse-Exception-Code"]) == (401, "516"), headers
        assert door.password() not in body.decode() and door.password("reader") not in body.decode()
    assert door.raw("GET", "/?query=SELECT+1", {})[0] == 401
    assert door.raw("GET", "/?query=SELECT+1&user=writer&password=x", {})[0] == 401
    assert door.ask("SELECT 1", headers={"Authorization": "Basic " + base64.b64encode(b"writer:x").decode()})[0] == 401  # beside the right one


def test_the_password_is_taken_in_every_way_of_clickhouse(door):
    basic = base64.b64encode(f"reader:{door.password('reader')}".encode()).decode()
    assert door.raw("GET", "/?query=SELECT+1", {"Authorization": f"Basic {basic}"})[2] == b"1\n"
    assert door.raw("GET", f"/?query=SELECT+1&user=default&password={door.password()}", {})[2] == b"1\n"
    assert door.raw("GET", f"/?query=SELECT+1&password={door.password()}", {})[2] == b"1\n"
    assert door.ask("SELECT 1", user="pages")[2] == b"1\n"


def test_ping_is_open_and_tells_no_secret(door):
    status, headers, body = door.raw("GET", "/ping", {})
    assert (status, body) == (200, b"Ok.\n")
    told = str(headers.items())
    assert str(door.folder) not in told and door.password() not in told and len(headers["X-Glasshouse-Folder"]) == 32


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://127.0.0.1:8501"}, {"Referer": "http://127.0.0.1:8501/"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "x"}, {"Sec-Fetch-Site": ""},
        *({"Host": host} for host in ("a{b.", "elsewhere.example", "127.0.0.1.elsewhere.example", "127.0.0.1:8123@elsewhere", "elsewhere@127.0.0.1", "[::1",
                                      "localhost.", "LOCALHOST", "127.1", "0.0.0.0", "127.0.0.2", "[::ffff:127.0.0.1]", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:123456",
                                      "localhost:1/x", "localhost#", "localhost\t", "127.0.0.1, x", "", "\xff", "[127.0.0.1]", "xn--localhost")),
    ],
)  # fmt: skip
def test_what_a_browsers_page_sends_is_refused(door, headers):
    for path in ("/?query=SELECT+1", "/ping"):
        with door.socket() as line:
            head = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "127.0.0.1"} | door.credentials() | headers).items())
            line.sendall(f"GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode("latin-1"))
            answer = line.makefile("rb").read()
        assert answer.split(b" ", 2)[1] in (b"403", b"400") and b"\n1\n" not in answer


@pytest.mark.parametrize(
    "head",
    [
        "GET /?query=SELECT+1 HTTP/1.1\r\n", "GET /?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n", "GET /?query=SELECT+1 HTTP/1.0\r\n",
        "GET http://elsewhere.example/?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1\r\n", "GET http://127.0.0.1/?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        "GET /?query=SELECT+1 HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: elsewhere.example\r\n",
    ],
)  # fmt: skip
def test_the_host_must_be_there_once_and_only_there(door, head):
    with door.socket() as line:
        credentials = "".join(f"{name}: {value}\r\n" for name, value in door.credentials().items())
        line.sendall(f"{head}{credentials}Connection: close\r\n\r\n".encode())
        answer = line.makefile("rb").read()
    assert answer.split(b" ", 2)[1] in (b"403", b"400") and b"\n1\n" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:8123", "localhost:1", "[::1]", "[::1]:8123"])
def test_this_machines_names_are_answered(door, host):
    assert door.ask("SELECT 1", headers={"Host": host, "Sec-Fetch-Site": "none"})[2] == b"1\n"


# --- every request is answered, and closed --------------------------------------------------------------------------


@pytest.mark.parametrize("query_id", ["\u20ac", "\U0001f600", "\ud83d", "a\r\nSet-Cookie: x=1", "a\nb", "\0", "x" * 1_000_000, "", " ", "\x7f", "é"])
def test_a_query_id_of_any_kind_is_answered(door, query_id):
    quoted = urllib.parse.quote(query_id.encode("utf-8", "surrogatepass"))
    status, headers, body = door.raw("GET", f"/?query=SELECT+1&query_id={quoted}", door.credentials())
    if len(quoted) < 60_000:  # a longer target is no URL for the HTTP parser
        assert (status, body) == (200, b"1\n") and len(headers["X-ClickHouse-Query-Id"]) <= 128
    assert status in (200, 400) and headers["Set-Cookie"] is None and door.ask("SELECT 1")[2] == b"1\n"


@pytest.mark.parametrize("form", ["\u20ac", "CSV\r\nX: y", "x" * 100_000, "Nö", "No such"])
def test_a_format_of_any_kind_is_answered(door, form):
    status, headers, _ = door.raw("POST", f"/?default_format={urllib.parse.quote(form)}", door.credentials(), b"SELECT 1")
    assert status == 400 and headers["X"] is None


def places_are_free(door, running=8):
    """As many slow statements as a user has places, all at once, are answered."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(door.ask("SELECT sleep(0.2)")[0])) for _ in range(running)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found == [200] * running


def test_clients_that_go_leave_nothing_behind(door):
    before = door.open_files()
    for number in range(30):
        with door.socket() as line:
            sql = b"SELECT number, repeat('x', 100) FROM numbers(100000000)" if number % 2 else b"SELECT sleep(0.1)"
            head = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "127.0.0.1", "Content-Length": len(sql)} | door.credentials()).items())
            line.sendall(f"POST /?wait_end_of_query={number % 3 % 2} HTTP/1.1\r\n{head}\r\n".encode() + sql[: number * 9])
            if number % 3 == 0 and number * 9 > len(sql):
                line.recv(1000)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0" if number % 5 == 0 else b"\0" * 8)
    assert places_are_free(door)
    end = time.monotonic() + HANG_S
    while len(door.open_files()) > len(before) + 10 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(door.open_files()) <= len(before) + 10, set(door.open_files()) - set(before)
    assert door.ask("SELECT count() FROM system.processes")[2] == b"1\n"


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "-- x\n" * 5000 + "SELECT 1", "/* x */" * 5000 + "SELECT 1", "/*" * 20000 + "SELECT 1", "(" * 500 + "SELECT 1" + ")" * 499, "SELECT " + "(" * 20000,
        " \n" * 20000 + "INSERT INTO", "INSERT INTO t (" + "`a`, " * 20000, "INSERT INTO t " + "SETTINGS a = 1 " * 5000, "INSERT INTO t (" + "`" * 40001, "SELECT '" + "\\" * 100001,
        "INSERT INTO kept " + "-- FORMAT\n" * 10000 + "FORMAT", "SELECT 1 " + "FORMAT x " * 10000, "SELECT " + "-" * 50000 + "1",
    ],
)  # fmt: skip
def test_no_statement_takes_long_to_read(door, text):
    began = time.monotonic()
    door.ask(text)
    assert time.monotonic() - began < 20  # seconds on a busy machine; the exponential ones took minutes
    assert door.ask("SELECT 1")[2] == b"1\n"


@pytest.mark.parametrize("unit", ["/*", "\\'", "--", "'\\", "`", "a ", "1 ", "(", "'' "])
@pytest.mark.parametrize("before", ["'", "INSERT INTO t ", "INSERT INTO t (`a", "INSERT INTO t VALUES ('a'), '", "/* ", ""])
def test_the_start_of_a_statement_is_read_in_one_pass(before, unit):
    """A quarter of a mebibyte of each; the quadratic ones took minutes, and nothing else was answered meanwhile."""
    from assets.metrics.endpoint import guard

    data = (before + unit * (guard.MAX_SQL_BYTES // len(unit))).encode()
    began = time.process_time()
    for whole in (True, False):
        guard.insert_head(data, whole)
    guard.is_one(data)
    assert time.process_time() - began < 10


def test_a_long_quote_keeps_nobody_waiting(door):
    asking = threading.Thread(target=lambda: [door.ask("'" + "\\'" * (100 << 10), user="reader") for _ in range(3)])
    asking.start()
    time.sleep(0.2)
    waited = 0.0
    while asking.is_alive():
        began = time.monotonic()
        assert door.raw("GET", "/ping", {})[0] == 200
        waited = max(waited, time.monotonic() - began)
    assert waited < 5


def test_a_statement_is_bounded(door):
    before = door.resident()
    status, _, _ = door.ask("", body=b"SELECT '" + b"x" * (8 << 20) + b"'")
    assert status == 413 and door.resident() - before < 300


def packed(encoding):
    """300 MB of blanks."""
    if encoding == "zstd":
        from backports.zstd import compress

        return compress(b" " * 300_000_000)
    if encoding == "lz4":
        import lz4.frame

        return lz4.frame.compress(b" " * 300_000_000)
    return gzip.compress(b" " * 300_000_000, 9) if encoding == "gzip" else zlib.compress(b" " * 300_000_000, 9)


@pytest.mark.parametrize("encoding", ["zstd", "lz4", "gzip", "deflate"])
def test_a_body_that_grows_when_it_is_unpacked_takes_no_memory(door, encoding):
    high, done = [door.resident()], threading.Event()

    def watch():
        while not done.wait(0.01):
            high.append(door.resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    status, _, _ = door.ask("", body=packed(encoding), headers={"Content-Encoding": encoding})
    done.set()
    watcher.join()
    assert status in (400, 413) and max(high) - high[0] < 150


def test_encodings_cannot_be_stacked_or_cut_short(door):
    once = gzip.compress(b"SELECT 1")
    for header in ("gzip, gzip", "gzip,deflate", "x", "\xff"):
        assert door.ask("", body=gzip.compress(once), headers={"Content-Encoding": header})[0] == 400
    assert door.ask("", body=once[:-9], headers={"Content-Encoding": "gzip"})[0] != 200
    assert door.ask("", body=gzip.compress(b"SELECT ") + gzip.compress(b"1"), headers={"Content-Encoding": "gzip"})[2] == b"1\n"


def test_slow_statements_of_one_do_not_starve_the_others(door):
    """45 of a notebook's; the pages, the loader and ping are answered meanwhile."""
    statuses = []
    slow = [threading.Thread(target=lambda: statuses.append(door.ask("SELECT sleepEachRow(1) FROM numbers(2)", user="notebook")[0])) for _ in range(45)]
    for thread in slow:
        thread.start()
    time.sleep(1)
    began = time.monotonic()
    for user in ("pages", "loader", "writer"):
        assert door.ask("SELECT 1", user=user)[2] == b"1\n"
    assert door.raw("GET", "/ping", {})[0] == 200
    waited, alive = time.monotonic() - began, sum(thread.is_alive() for thread in slow)
    for thread in slow:
        thread.join()
    assert alive > 20 and waited < 10, "answered while they waited"
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 30


def test_a_full_queue_says_so(door):
    found = []
    many = [threading.Thread(target=lambda: found.append(door.ask("SELECT sleep(2)", user="reader")[:2])) for _ in range(100)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    refused = [headers["X-ClickHouse-Exception-Code"] for status, headers in found if status == 503]
    assert refused and set(refused) == {"202"}


def test_answers_that_nobody_reads_take_no_memory_and_end(door):
    """60 of them, each endless."""
    before, lines = door.resident(), []
    sql = urllib.parse.quote("SELECT number, repeat('x', 1000) FROM numbers(1000000000)")
    try:
        for number in range(60):
            line = door.socket()
            lines.append(line)
            head = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "127.0.0.1"} | door.credentials("reader")).items())
            line.sendall(f"GET /?query={sql}&default_format={['TSV', 'Native', 'JSON'][number % 3]} HTTP/1.1\r\n{head}\r\n".encode())
        high, end = before, time.monotonic() + 2 * HANG_S
        while time.monotonic() < end:
            high = max(high, door.resident())
            assert door.raw("GET", "/ping", {})[0] == 200
            if door.ask("SELECT 1", user="reader")[0] == 200:  # has got a place: those who do not read have lost theirs
                break
        else:
            pytest.fail("they keep their places")
        assert high - before < 5000, f"{high - before} MiB"
    finally:
        for line in lines:
            line.close()


def test_a_client_that_sends_slowly_is_let_go(door):
    lines = [door.socket() for _ in range(20)]
    try:
        for line in lines:
            line.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        assert door.ask("SELECT 1")[2] == b"1\n"
        gone, end = 0, time.monotonic() + HANG_S
        while gone < len(lines) and time.monotonic() < end:
            time.sleep(1)
            gone = 0
            for line in lines:
                try:
                    line.sendall(b"x")
                except OSError:
                    gone += 1
        assert gone == len(lines)
    finally:
        for line in lines:
            line.close()


def test_connections_that_say_nothing_do_not_take_all_of_them(door):
    lines = []
    try:
        for _ in range(400):
            lines.append(door.socket())
        assert door.ask("SELECT 1")[2] == b"1\n"
    finally:
        for line in lines:
            line.close()
    assert door.ask("SELECT 1")[2] == b"1\n"


def test_a_form_is_bounded_and_takes_no_files(door):
    def form(*parts):
        body = b"".join(b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + b"--b--\r\n"
        return door.ask("", body=body, headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert form((b'name="query"', b"SELECT {x:String}"), (b'name="param_x"', b"y"))[2] == b"y\n"
    assert form((b'name="query"', b"SELECT 1"), (b'name="t"; filename="t"', b"1"))[0] >= 400
    assert form((b'name="query"', b"SELECT 1"), (b'name="param_x"', b"y" * (17 << 20)))[0] == 413
    assert door.ask("", body=b"x", headers={"Content-Type": "multipart/form-data"})[0] == 400


# --- whose endpoint -------------------------------------------------------------------------------------------------


def test_loads_of_one_home_never_go_into_anothers(tmp_path):
    a, b = tmp_path / "a" / "clickhouse", tmp_path / "b" / "clickhouse"
    with endpoint.started(a) as url:
        port = urllib.parse.urlsplit(url).port
        client = connect(url)
        assert client.command("SELECT 1") == 1 and endpoint.running(a)
    with endpoint.started(b, port=port):
        with pytest.raises(Exception, match="516|serves another folder"):
            client.command("CREATE TABLE ours (a UInt8) ENGINE = Memory")
        with pytest.raises(ConnectionError, match="serves another folder .* and not .*a/clickhouse"):
            connect(url, folder=a)
        assert endpoint.running(a) is None, "the lock file of a stopped endpoint is not believed, whoever answers there"
        assert connect(endpoint.running(b)).command("SHOW TABLES") in ("", [])


def test_a_copy_of_a_home_is_another_home(tmp_path):
    with endpoint.started(tmp_path / "a") as url:
        port = urllib.parse.urlsplit(url).port
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with endpoint.started(tmp_path / "b", port=port):
        assert endpoint.running(tmp_path / "a") is None
        with pytest.raises(ConnectionError, match="serves another folder"):
            connect(url)


def test_a_killed_endpoint_is_not_running_though_its_file_says_so(tmp_path):
    with endpoint.started(tmp_path / "a") as url:
        port = urllib.parse.urlsplit(url).port
        os.kill(int((tmp_path / "a" / endpoint.LOCK).read_text().split()[0].removeprefix("process-")), signal.SIGKILL)
        with endpoint_soon(tmp_path / "b", port):
            assert endpoint.running(tmp_path / "a") is None


@contextlib.contextmanager
def endpoint_soon(folder, port):
    """An endpoint on a port that another process is still letting go."""
    for _ in range(50):
        try:
            with endpoint.started(folder, port=port) as url:
                yield url
                return
        except endpoint.EndpointError:
            time.sleep(0.1)
    raise AssertionError("the port is not let go")


def test_the_password_stands_nowhere_but_in_its_file(tmp_path):
    with endpoint.started(tmp_path / "a") as url:
        secret = urllib.parse.urlsplit(url).password
        connect(url).command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
        for path in (tmp_path / "a").rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        command = open(f"/proc/{int((tmp_path / 'a' / endpoint.LOCK).read_text().split()[0].removeprefix('process-'))}/cmdline").read()
        assert secret not in command
        with pytest.raises(Exception) as error:
            connect(url).command("SELEC 1")
        assert secret not in str(error.value) and json.dumps(secret)


def test_a_key_cut_short_while_it_serves_is_drawn_anew_and_taken(tmp_path):
    with endpoint.started(tmp_path / "a") as url:
        (tmp_path / "a" / "endpoint.key").write_bytes(b"")
        fresh = endpoint.running(tmp_path / "a")
        assert fresh != url and connect(fresh).command("SELECT 1") == 1


def test_who_means_a_home_comes_in_after_its_key_was_drawn_anew(tmp_path):
    """The loader and the question for a sign of life, which hold a client and a URL from before."""
    from dagster_project import heartbeats

    with endpoint.started(tmp_path / "a", user="loader") as url:
        probe = heartbeats.queries(lambda: endpoint.running(tmp_path / "a"))
        assert probe()
        (tmp_path / "a" / "endpoint.key").unlink()
        assert connect(url, folder=tmp_path / "a").command("SELECT 1") == 1
        assert [probe(), probe()][-1]
        with pytest.raises(Exception, match="516|serves another folder"):
            connect(url)


KEY_UNREAD = """
import sys
from pathlib import Path
from assets.metrics import access
from assets.metrics.endpoint import serving
from assets.metrics.endpoint.confine import not_kept
folder, code = Path(sys.argv[1]), Path(serving.__file__).parents[3]
if not_kept():
    print("no Landlock")
    raise SystemExit
first = access.keys(folder)
read_keys = serving._confine(folder, [], [])
def denied(work):
    try:
        work()
    except PermissionError:
        return True
    except OSError as error:
        return error.errno == 18  # moved into a folder that may be read
    return False
key = folder / access.KEY
print(all(map(denied, (
    key.read_bytes, lambda: key.rename(folder / "tmp" / "k"), lambda: (folder / "tmp" / "l").hardlink_to(key),
    (code / "pyproject.toml").read_bytes, lambda: list(code.iterdir()),
))) and read_keys() == first and (folder / "tmp" / "x").write_text("x"))
"""


def test_the_process_that_runs_statements_cannot_read_its_own_key(tmp_path):
    (tmp_path / "folder").mkdir()
    done = subprocess.run([sys.executable, "-c", KEY_UNREAD, str(tmp_path / "folder")], capture_output=True, text=True)
    if "no Landlock" in done.stdout:
        pytest.skip("this kernel has no Landlock")
    assert done.stdout == "1\n", done


CONFINED = """
import os, socket, subprocess, sys, tempfile
from assets.metrics.endpoint.confine import confine
listening = socket.create_server(("127.0.0.1", 0))
folder, secret = sys.argv[1:]
os.environ["TMPDIR"] = folder  # chdb makes a folder there when it is imported
if not confine([folder], []):
    print("no Landlock")
    raise SystemExit
import chdb
engine = chdb.connect(folder + "/db")
engine.query("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
engine.query("INSERT INTO t SELECT 1")
assert engine.query("SELECT sum(a) FROM t").bytes().strip() == b"1"
def denied(work):
    try:
        work()
    except Exception as error:
        return "ermission denied" in str(error)
    return False
print(all(map(denied, (
    lambda: open(secret), lambda: open(secret + "2", "w"), lambda: os.unlink(secret), lambda: subprocess.run(["true"]),
    lambda: socket.create_connection(listening.getsockname()),
    lambda: engine.query(f"SELECT * FROM file('{secret}', 'LineAsString')"), lambda: engine.query(f"SELECT 1 INTO OUTFILE '{secret}3'"),
))))
"""


def test_the_kernel_keeps_the_process_from_what_the_rules_keep_statements_from(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("x")
    done = subprocess.run([sys.executable, "-c", CONFINED, str(tmp_path / "folder"), str(tmp_path / "secret")], capture_output=True, text=True)
    if "no Landlock" in done.stdout:
        pytest.skip("this kernel has no Landlock")
    assert done.stdout == "True\n", done
