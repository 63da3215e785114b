"""The endpoint's parts that need no engine: what is an INSERT with data, what a URL says, what is refused, whose a password is."""

import os
import shutil

import pytest

from assets.metrics import access, endpoint
from assets.metrics.client import ClickHouseDown, connect, masked
from assets.metrics.endpoint import guard, http


@pytest.mark.parametrize(
    ("text", "head", "format", "data"),
    [
        (b"INSERT INTO `t` (`a`, `b`) FORMAT Native\n\x00\x01", "INSERT INTO `t` (`a`, `b`) FORMAT Native", "Native", b"\x00\x01"),
        (b"insert into db.t format CSV\r\n1", "insert into db.t format CSV", "CSV", b"1"),
        (b"/* me */ INSERT INTO `d b`.`t(1)` (`a)`) SETTINGS x = 1 FORMAT ArrowStream", "/* me */ INSERT INTO `d b`.`t(1)` (`a)`) SETTINGS x = 1 FORMAT ArrowStream", "ArrowStream", b""),
        (b"-- note\nINSERT INTO TABLE t (a,\n b) FORMAT JSONEachRow {}", "-- note\nINSERT INTO TABLE t (a,\n b) FORMAT JSONEachRow", "JSONEachRow", b"{}"),
        (b"INSERT INTO t (format, values) VALUES (1); DROP TABLE x", "INSERT INTO t (format, values) VALUES", "Values", b"(1); DROP TABLE x"),
    ],
)  # fmt: skip
def test_an_insert_with_data_is_recognised(text, head, format, data):
    found = guard.insert_head(text, whole=True)
    assert (found.sql, found.format, text[found.length :].strip()) == (head, format, data)


@pytest.mark.parametrize("text", [b"INSERT INTO t SELECT 1 FORMAT Null", b"SELECT 'INSERT INTO t FORMAT CSV'", b"DROP TABLE t", b"", b"INSERT"])
def test_a_statement_without_data_is_not_taken_for_one(text):
    assert guard.insert_head(text, whole=True) is False


def test_a_head_that_may_go_on_is_waited_for():
    text = b"INSERT INTO t (a) FORMAT CSV\n1"
    assert [guard.insert_head(text[:at], whole=False) for at in (3, 14, 25, 27)] == [None] * 4
    assert guard.insert_head(text, whole=False).format == "CSV"


def request(query="", headers=(), method="POST"):
    return http._request({"method": method, "path": "/", "query_string": query.encode(), "headers": headers}, None)


def test_a_url_becomes_a_call():
    call = http.call_of(request("query=SELECT+1&param_x=%C3%A9&max_threads=1&wait_end_of_query=1&session_id=s"), writer=True)
    assert (call.sql, call.params, call.settings, call.wait, call.writes) == ("SELECT 1", {"x": "é"}, {"max_threads": "1"}, True, True)


@pytest.mark.parametrize(("method", "writer"), [("GET", True), ("POST", False), ("GET", False), ("HEAD", True)])
def test_only_a_post_of_a_writer_writes(method, writer):
    assert not http.call_of(request("query=SELECT+1&readonly=0", method=method), writer).writes


def test_an_error_keeps_clickhouses_code_and_text():
    error = endpoint.QueryError("Streaming query failed: Code: 60. DB::Exception: Table x does not exist.")
    assert (error.code, error.message) == (60, "Code: 60. DB::Exception: Table x does not exist.")


def test_another_address_than_loopback_must_be_allowed(tmp_path):
    with pytest.raises(endpoint.EndpointError, match="allow-remote"):
        endpoint.serve(tmp_path, host="0.0.0.0", port=0)


def test_nothing_running_says_what_to_start():
    port = endpoint._listen("127.0.0.1", 0)
    number = port.getsockname()[1]
    port.close()
    with pytest.raises(ClickHouseDown, match="make up"):
        connect(f"http://127.0.0.1:{number}")


def test_a_url_of_another_kind_is_refused_without_repeating_its_password():
    with pytest.raises(ValueError, match="ClickHouse URL") as error:
        connect("clickhouse://me:secret@host/db")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:s:e@cret@host:8123/db", "http://me:***@host:8123/db"),
        ("https://host:8443/db?user=me&password=secret&x=1", "https://host:8443/db?user=***&password=***&x=***"),
        ("http://:secret@host", "http://:***@host"),
        ("http://host:8123/db", "http://host:8123/db"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert masked(url) == shown


def test_a_key_is_drawn_once_and_for_its_owner_only(tmp_path):
    found = access.keys(tmp_path / "new")
    assert found == access.keys(tmp_path / "new") and found.writer != found.reader
    assert os.stat(tmp_path / "new" / access.KEY).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "new") == [access.KEY]


@pytest.mark.parametrize("left", [b"", b"\n", b"0123", b"0" * 64, b"0" * 63 + b"\n", b"g" * 64 + b"\n"])
def test_a_key_that_a_full_disk_cut_short_is_drawn_anew(tmp_path, left):
    (tmp_path / access.KEY).write_bytes(left)
    found = access.keys(tmp_path)
    assert len((tmp_path / access.KEY).read_bytes()) == 65 and found == access.keys(tmp_path)


def test_a_copy_of_a_home_has_other_passwords(tmp_path):
    ours = access.keys(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    theirs = access.keys(tmp_path / "b")
    assert not {ours.writer, ours.reader, ours.folder} & {theirs.writer, theirs.reader, theirs.folder}
    os.rename(tmp_path / "a", tmp_path / "c")
    assert access.keys(tmp_path / "c") == ours


def test_a_lock_file_without_an_endpoint_is_no_running_one(tmp_path):
    access.keys(tmp_path)
    (tmp_path / endpoint.LOCK).write_text("process-1 http://127.0.0.1:1")
    assert endpoint.running(tmp_path) is None
