"""The endpoint's parts that need no engine: what is an INSERT with data, what a URL says, what is refused."""

import pytest

from assets.metrics import endpoint
from assets.metrics.client import ClickHouseDown, connect


@pytest.mark.parametrize(
    ("text", "table", "format"),
    [
        ("INSERT INTO `t` (`a`, `b`) FORMAT Native\n", "`t`", "Native"),
        ("insert into db.t format CSV\r\n", "db.t", "CSV"),
        ("/* me */ INSERT INTO `d b`.`t(1)` (`a)`) SETTINGS x = 1 FORMAT ArrowStream", "`d b`.`t(1)`", "ArrowStream"),
        ("-- note\nINSERT INTO TABLE t (a,\n b) FORMAT JSONEachRow", "t", "JSONEachRow"),
    ],
)
def test_an_insert_with_data_is_recognised(text, table, format):
    found = endpoint._INSERT.match(text)
    assert (found["table"], found["format"]) == (table, format)


@pytest.mark.parametrize(
    "text", ["INSERT INTO t SELECT 1 FORMAT Null", "INSERT INTO t VALUES (1)", "SELECT 'INSERT INTO t FORMAT CSV'"]
)
def test_a_statement_without_data_is_not_taken_for_one(text):
    assert not endpoint._INSERT.match(text)


def test_a_url_becomes_a_call():
    query = {"query": "SELECT 1", "param_x": "é", "max_threads": "1", "wait_end_of_query": "1", "session_id": "s"}
    call = endpoint._call(query, {}, "POST")
    assert (call.params, call.settings, call.wait) == ({"x": "é"}, {"max_threads": "1"}, True)


def test_a_get_cannot_write():
    assert endpoint._call({"query": "SELECT 1"}, {}, "GET").settings["readonly"] == "2"


def test_a_setting_is_a_name_not_sql():
    with pytest.raises(endpoint.QueryError, match="Unknown setting"):
        endpoint._call({"a=1; DROP TABLE t; --": "1"}, {}, "POST")


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
