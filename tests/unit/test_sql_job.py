"""Files of sql/lake/: what is read from them, and every mistake named with file and line, before Spark is asked."""

import datetime as dt

import pytest
import sqlglot
from sqlglot.lineage import lineage
from sqlglot.schema import MappingSchema

from assets.attribution.rules import Rules
from assets.engines.translate import schema_of
from assets.lake import Window
from assets.samples import sql_job
from assets.samples.sql_job import SqlJobError, load_jobs
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER

HEAD = """\
-- name: {name}
-- owner: team:feed
-- grain: hour, user_id
-- partition: hourly
-- description: Clicks of each user.
"""
BODY = """\
select e.hour, e.user_id, count(*) as clicks -- how many
from {table} as e
where e.hour >= {{{{ window_start }}}} and e.hour < {{{{ window_end }}}} and e.action = 'click'
group by e.hour, e.user_id
"""
WINDOW = Window(dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC), dt.datetime(2026, 1, 5, 5, tzinfo=dt.UTC))


def write(folder, name, body=None, head=HEAD, table="events"):
    path = folder / f"{name}.sql"
    path.write_text(head.format(name=name) + (BODY.format(table=table) if body is None else body))
    return path


def refused(folder):
    with pytest.raises(SqlJobError) as caught:
        load_jobs(folder, TABLES)
    return str(caught.value)


def test_a_file_becomes_a_job(tmp_path):
    path = write(tmp_path, "user_clicks")
    (job,) = load_jobs(tmp_path, TABLES)
    assert job.path == path
    grain = ("hour", "user_id")
    assert job.head == sql_job.Head("user_clicks", "team:feed", grain, "hourly", "Clicks of each user.", None, None)
    assert job.inputs == ("events",)
    hour, user, clicks = job.columns
    assert hour == sql_job.Column("hour", "TIMESTAMP", "", (("events", "hour"),))
    assert user.sources == (("events", "user_id"),)
    assert (clicks.type, clicks.comment, clicks.sources) == ("BIGINT", "how many", ())


def test_the_window_and_the_rules_are_filled_in_and_the_lines_stay(tmp_path):
    body = "select hour, user_id, {{ long_view_ms }} as x, {{ window_ms }} as y\nfrom events\n"
    body += "where hour >= {{ lookback_start }}\n"
    write(tmp_path, "user_clicks", body, head=HEAD + "-- lookback: 7d\n")
    (job,) = load_jobs(tmp_path, TABLES)
    text = sql_job.render(job, WINDOW, Rules())
    assert "TIMESTAMP '2025-12-29T03:00:00Z'" in text
    assert "10000 as x, 1200000 as y" in text
    assert len(text.splitlines()) == len(job.template.splitlines())


def test_a_description_goes_on_over_lines(tmp_path):
    head = HEAD + "--   It says: more.\n--\n--   note: this too\n"
    write(tmp_path, "user_clicks", head=head)
    (job,) = load_jobs(tmp_path, TABLES)
    assert job.head.description == "Clicks of each user. It says: more. note: this too"


def test_a_job_of_spark_alone_may_say_what_the_embedded_engine_does_not_know(tmp_path):
    body = "select hour, user_id, soundex(action) as p, percentile_approx(dwell_ms, 0.5) over () as q from events\n"
    write(tmp_path, "user_clicks", body, head=HEAD + "-- engine: spark\n")
    (job,) = load_jobs(tmp_path, TABLES)
    assert job.head.engine == "spark"


def test_jobs_come_after_their_inputs_and_know_their_columns(tmp_path):
    write(tmp_path, "a_second", "select f.hour, f.user_id, f.clicks + 1 as more from z_first as f\n")
    write(tmp_path, "z_first")
    first, second = load_jobs(tmp_path, TABLES)
    assert (first.name, second.name) == ("z_first", "a_second")
    assert second.columns[2].sources == (("z_first", "clicks"),)


@pytest.mark.parametrize(
    ("head", "line", "says"),
    [
        ("", 1, "lacks name, owner, grain, partition, description"),
        (HEAD.replace("-- owner: team:feed\n", ""), 1, "lacks owner"),
        (HEAD.replace("{name}", "other_name"), 1, "user_clicks.sql holds the job `user_clicks`"),
        (HEAD.replace("team:feed", "somebody"), 2, "an owner is an e-mail address or team:NAME"),
        (HEAD.replace("hourly", "daily"), 4, "`hourly` is the one partition"),
        (HEAD + "-- lookback: a week\n", 6, "like 6h or 7d"),
        (HEAD + "-- grain: hour\n", 6, "`grain` twice"),
        (HEAD + "-- engine: duckdb\n", 6, "`spark` is the one engine that a job can ask for"),
        (HEAD.replace("-- grain", "-- grian"), 3, "`grian` is not a word of the head"),
        (HEAD.replace("hour, user_id", "hour, note_id"), 3, "the grain needs the column `note_id`"),
        ("-- some words\n" + HEAD, 1, "the head begins with"),
    ],
)
def test_a_wrong_head_is_named_with_its_line(tmp_path, head, line, says):
    path = write(tmp_path, "user_clicks", head=head)
    message = refused(tmp_path)
    assert message.startswith(f"{path}:{line}: ")
    assert says in message


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("select hour, user_id\nfrom events\nwhere hour > {{ start }}\n", 8, "no template variable `start`"),
        ("select hour, user_id\nfrom events where {{ lookback_start }}\n", 7, "say `-- lookback: 7d` in the head"),
        ("select hour, user_id\nfrom events where hour > {{ window_start }\n", 7, "template:"),
        ("select hour, user_id\nfrom\n  event\n", 8, "unknown table `event`; known are: "),
        ("select hour, user_id\nfrom other.events\n", 7, "unknown table `other.events`"),
        ("select hour, user_id,\n  clicks\nfrom events\n", 7, "clicks"),
        ("select e.hour, e.user_id,\n  e.clicks\nfrom events as e\n", 7, "clicks"),
        ("select hour, user_id\nfrom events where (hour > 1\n", 7, "Expecting )"),
        ("select hour, user_id, 'x from events\n", 6, "is a quote or a comment left open?"),
        ("select user_id\nfrom events\n", 3, "the grain needs the column `hour`"),
        ("select hour, user_id, user_id\nfrom events\n", 1, "two columns named user_id"),
        ("delete from events\n", 1, "a job is one SELECT"),
        ("select hour, user_id,\n  percentile_approx(dwell_ms, 0.5) as p\nfrom events group by hour, user_id\n", 7, "percentile_approx is approximate"),
        ("select hour, user_id,\n  soundex(action) as p\nfrom events\n", 7, "say `-- engine: spark` in the head"),
        ("select hour, user_id from events; select 1\n", 1, "a job is one SELECT"),
    ],
)
def test_a_wrong_query_is_named_with_its_line(tmp_path, body, line, says):
    path = write(tmp_path, "user_clicks", body)
    message = refused(tmp_path)
    assert says in message
    assert message.startswith(f"{path}:{line}: ")


def test_a_cycle_is_named(tmp_path):
    for name, reads in (("a", "c"), ("b", "a"), ("c", "b")):
        write(tmp_path, name, table=reads)
    message = refused(tmp_path)
    assert any(message.startswith(f"{tmp_path}/{name}.sql:7: a cycle") for name in "abc")
    assert " -> " in message


def test_a_job_that_reads_itself_is_a_cycle(tmp_path):
    write(tmp_path, "mine", table="mine")
    assert "a cycle, each reading the one before: mine -> mine" in refused(tmp_path)


def test_a_table_of_the_line_cannot_be_a_job(tmp_path):
    write(tmp_path, "events", table="raw_events")
    assert "`events` is already a table of the line" in refused(tmp_path)


def test_the_names_of_ctes_are_no_inputs(tmp_path):
    body = "with events as (select hour, user_id from click_sessions) select hour, user_id from events\n"
    write(tmp_path, "user_clicks", body)
    (job,) = load_jobs(tmp_path, TABLES)
    assert job.inputs == ("click_sessions",)
    assert job.columns[1].sources == (("click_sessions", "user_id"),)


@pytest.mark.parametrize("job", load_jobs(FOLDER, TABLES), ids=lambda job: job.name)
def test_lineage_is_that_of_sqlglot(job):
    kinds = schema_of({table.name: table.schema for table in TABLES})
    kinds |= {other.name: {c.name: c.type for c in other.columns} for other in load_jobs(FOLDER, TABLES)}
    query = sqlglot.parse_one(sql_job.render(job, sql_job.EXAMPLE, Rules()), read="spark")
    for column in job.columns[:: max(1, len(job.columns) // 6)]:
        tree = lineage(column.name, query, schema=MappingSchema(kinds, dialect="spark"), dialect="spark")
        leaves = {
            (node.expression.this.name, node.name.split(".")[-1].strip("`\""))
            for node in tree.walk()
            if isinstance(node.expression, sqlglot.exp.Table)
        }
        assert set(column.sources) == leaves


def test_every_shipped_column_says_what_it_is():
    assert [(job.name, c.name) for job in load_jobs(FOLDER, TABLES) for c in job.columns if not c.comment] == []
