"""The embedded endpoint as a client meets it: errors, parameters, several at once, restart, kill -9, tokens."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from assets.metrics import endpoint
from assets.metrics.client import connect

pytestmark = pytest.mark.slow

DDL = (
    "CREATE OR REPLACE TABLE {} (a UInt64, b String) ENGINE = MergeTree ORDER BY a "
    "SETTINGS non_replicated_deduplication_window = 100"
)


@pytest.fixture(scope="module")
def client(url):
    return connect(url)


@pytest.fixture
def table(client, request):
    name = f"t_{abs(hash(request.node.name)) % 10**9}"
    client.command(DDL.format(name))
    yield name
    client.command(f"DROP TABLE {name}")


def asked(url):
    """The URL without its credentials, and headers that bear them."""
    parts = urlsplit(url)
    return f"http://{parts.hostname}:{parts.port}", {"X-ClickHouse-User": parts.username, "X-ClickHouse-Key": parts.password}


def process_of(path):
    return int((path / endpoint.LOCK).read_text().split()[0].removeprefix("process-"))


def test_rows_parameters_and_types_come_back(client):
    found = client.query(
        "SELECT {i:Int64} AS i, {s:String} AS s, {t:DateTime64(6, 'UTC')} AS t, {l:Array(String)} AS l",
        parameters={"i": -5, "s": "it's {é} \\ \n", "t": "2026-03-01 00:00:00.000001", "l": ["a'b", "ü"]},
    )
    i, s, t, names = found.result_rows[0]
    assert (i, s, t.microsecond, names) == (-5, "it's {é} \\ \n", 1, ["a'b", "ü"])


def test_parameters_too_long_for_a_url_arrive(client):
    text = "é" * 50_000
    assert client.query("SELECT length({x:String})", parameters={"x": text}).result_rows == [(100_000,)]


def test_an_empty_answer_has_its_columns(client, table):
    found = client.query(f"SELECT a, b AS text FROM {table} WHERE a = {{a:UInt8}}", parameters={"a": 1})
    assert (found.column_names, found.result_rows) == (("a", "text"), [])


def test_a_large_answer_comes_whole(client):
    rows = client.query_arrow("SELECT number, toString(number) AS s FROM numbers(3000000)")
    assert rows.num_rows == 3_000_000 and rows.column("s")[-1].as_py() == "2999999"
    with client.query_row_block_stream("SELECT number FROM numbers(3000000)") as blocks:
        assert sum(len(block) for block in blocks) == 3_000_000


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_inserts_in_every_compression(url, client, table, compression):
    import clickhouse_connect

    sender = clickhouse_connect.get_client(
        dsn=url.replace("http://", "clickhousedb://"), compress=compression, autogenerate_session_id=False
    )
    sender.insert(table, [[i, "ü'\n"] for i in range(50_000)], column_names=["a", "b"])
    assert client.query(f"SELECT count(), uniq(a), any(b) FROM {table}").result_rows == [(50_000, 50_000, "ü'\n")]


def test_arrow_inserts(client, table):
    client.insert_arrow(table, pa.table({"a": pa.array([1, 2], pa.uint64()), "b": ["x", "y"]}))
    assert client.query(f"SELECT * FROM {table}").result_rows == [(1, "x"), (2, "y")]


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELEC 1", 62), ("SELECT * FROM nowhere", 60), ("SELECT {x:UInt8}", 456), ("SELECT toUInt8('x')", 6),
     ("SELECT throwIf(number = 3000000), number FROM numbers(9000000)", 395)],
)  # fmt: skip
def test_errors_have_clickhouses_code_and_words(client, sql, code):
    with pytest.raises(DatabaseError) as error:
        client.query(sql)
    assert error.value.code == code and f"Code: {code}. DB::Exception" in str(error.value)


def test_an_error_in_the_middle_of_a_stream_is_no_short_answer(client):
    with pytest.raises(StreamFailureError, match="Code: 395"):
        with client.query_row_block_stream("SELECT throwIf(number = 3000000), number FROM numbers(9000000)") as blocks:
            for _ in blocks:
                pass


def test_a_broken_insert_says_so_and_leaves_nothing(client, table):
    with pytest.raises(DatabaseError) as error:
        client.raw_insert(table, ["a", "b"], b"1,x\nnot a number,y\n", fmt="CSV")
    assert error.value.code == 27
    with pytest.raises(DatabaseError) as error:
        client.insert("nowhere", [[1]], column_names=["a"], column_type_names=["UInt64"])
    assert error.value.code == 60
    assert client.query(f"SELECT count() FROM {table}").result_rows == [(0,)]


def test_settings_end_with_their_request(client):
    assert client.query("SELECT getSetting('max_threads')", settings={"max_threads": 1}).result_rows == [(1,)]
    assert client.query("SELECT getSetting('readonly')").result_rows == [(0,)]
    with pytest.raises(DatabaseError) as error:
        client.raw_query("SELECT 1", settings={"max_block_size": "no number"})
    assert error.value.code == 27  # CANNOT_PARSE_INPUT_ASSERTION_FAILED


@pytest.mark.parametrize(
    "sql", ["DROP TABLE {0}", "TRUNCATE TABLE {0}", "INSERT INTO {0} VALUES (1, 'x')", "SET readonly = 0"]
)
def test_a_read_only_client_changes_nothing(url, client, table, sql):
    client.insert(table, [[1, "x"]], column_names=["a", "b"])
    reader = connect(url, read_only=True)
    with pytest.raises(DatabaseError) as error:
        reader.command(sql.format(table))
    assert error.value.code == 164
    with pytest.raises(DatabaseError):
        reader.insert(table, [[2, "y"]], column_names=["a", "b"])
    assert reader.query(f"SELECT count() FROM {table}").result_rows == [(1,)]


def test_a_repeated_token_changes_nothing(client, table):
    for token, rows in (("one", 2), ("one", 2), ("two", 2), ("one", 2)):
        settings = {"insert_deduplication_token": token}
        client.insert(table, [[i, token] for i in range(rows)], column_names=["a", "b"], settings=settings)
    assert client.query(f"SELECT b, count() FROM {table} GROUP BY b ORDER BY b").result_rows == [("one", 2), ("two", 2)]


def test_many_clients_read_and_write_at_once(url, client, table):
    failed = []

    def work(number):
        try:
            mine = connect(url)
            for i in range(5):
                mine.insert(table, [[number * 100 + i, "x"]], column_names=["a", "b"])
                assert mine.query("SELECT uniqExact(number % 1000) FROM numbers(300000)").result_rows == [(1000,)]
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert client.query(f"SELECT count(), uniqExact(a) FROM {table}").result_rows == [(40, 40)]


def test_a_browsers_page_is_refused(url):
    bare, credentials = asked(url)
    request = urllib.request.Request(f"{bare}/?query=SELECT+1", headers=credentials | {"Origin": "http://elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code == 403 and error.value.headers["X-ClickHouse-Exception-Code"] == "497"
    request = urllib.request.Request(f"{bare}/?query=SELECT+1", headers=credentials | {"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request)


def test_curl_like_requests(url):
    bare, credentials = asked(url)
    read = lambda path, body=None: urllib.request.urlopen(urllib.request.Request(f"{bare}{path}", body, credentials)).read()  # noqa: E731
    assert read("/ping") == b"Ok.\n"
    assert read("/?query=SELECT+1") == b"1\n"
    assert read("/", b"SELECT 1 AS x FORMAT JSONEachRow") == b'{"x":1}\n'
    assert json.loads(read("/?default_format=JSON", b"SELECT 1 AS x"))["data"] == [{"x": 1}]


def test_a_second_endpoint_on_the_folder_says_who_has_it(url, tmp_path):
    with endpoint.started(tmp_path / "one") as first:
        assert endpoint.running(tmp_path / "one") == first
        with pytest.raises(endpoint.EndpointError, match=f"is served by process-.* at {asked(first)[0]}"):
            with endpoint.started(tmp_path / "one"):
                pass
        with pytest.raises(endpoint.EndpointError, match="cannot be taken"):
            with endpoint.started(tmp_path / "two", port=urlsplit(first).port):
                pass
    assert endpoint.running(tmp_path / "one") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path, number):
    command = [sys.executable, "-m", "assets.metrics.endpoint", "--path", str(tmp_path), "--port", "0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = child.stdout.readline().strip()
    assert endpoint.running(tmp_path).endswith(said.removeprefix("http://"))
    assert connect(endpoint.running(tmp_path)).query("SELECT 1").result_rows == [(1,)]
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (0, "")


def test_what_was_written_survives_kill_9(tmp_path):
    with endpoint.started(tmp_path) as url:
        client = connect(url)
        client.command(DDL.format("kept"))
        for i in range(20):
            client.insert(
                "kept", [[i, "x"]], column_names=["a", "b"], settings={"insert_deduplication_token": f"batch-{i}"}
            )
        pid = process_of(tmp_path)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while endpoint.answers(url) and time.monotonic() < end:
            time.sleep(0.05)
    with endpoint.started(tmp_path) as url:
        client = connect(url)
        # The last batch again, as a writer does that saw no answer: the token outlives the process.
        client.insert("kept", [[19, "x"]], column_names=["a", "b"], settings={"insert_deduplication_token": "batch-19"})
        assert client.query("SELECT count(), uniqExact(a) FROM kept").result_rows == [(20, 20)]
