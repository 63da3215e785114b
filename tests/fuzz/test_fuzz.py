"""The short form of `make fuzz`, and whether the fuzz would notice: its reference, its judgement of a tree that fails, its shrinking."""

import csv
import io
import random
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.events import csv_records
from tests.fuzz import files, reference, rows, shrink, tables
from tests.fuzz.__main__ import COMBINATIONS, Fuzz
from tests.fuzz.drive import OWN, Job, Victim, play

# --- the line, short --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [17, None], ids=["the seed of always", "a seed drawn"])
def test_every_way_takes_every_format_of_whatever_and_every_row_is_accounted_for(seed, tmp_path):
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"again: make fuzz FUZZ_ARGS='--inputs {len(COMBINATIONS)} --seed {seed}'")
    fuzz = Fuzz(OWN, inputs=len(COMBINATIONS), seed=seed, out=tmp_path, shrink=False, files_a_turn=3)
    report = fuzz.report(fuzz.run())
    assert {(line["way"], line["format"]) for line in report["rows"] if line["inputs"]} == set(COMBINATIONS)
    assert report["malformed"] > report["inputs"] / 2
    assert (report["exceptions"], report["unaccounted"], report["spoiled"]) == (0, 0, 0), report["findings"]


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_is_the_same_for_the_same_seed_and_another_for_another():
    for way, format in COMBINATIONS[:7] + COMBINATIONS[-2:]:
        once, again, other = ([files.draw(seed, way, format, number).data() for number in range(6)] for seed in (5, 5, 6))
        assert once == again and once != other


@pytest.mark.slow
def test_every_format_has_half_of_its_rows_malformed_and_every_fault_comes():
    seen = Counter()
    for format in (*files.FORMATS, *files.ORDER_FORMATS):
        drawn = [files.draw(1, "label", format, number) for number in range(60)]
        inputs = sum(file.inputs for file in drawn)
        assert sum(file.malformed for file in drawn) >= inputs / 2, format
        seen.update(kind for file in drawn for kind in file.kinds)
        seen.update(file.fault for file in drawn if file.fault)
    assert set(seen) >= {*rows.JSON_KINDS, *rows.CSV_KINDS}
    assert {fault.split(":")[0] for fault in seen} >= {"gzip", "header", "Parquet"}
    assert {kind.split(":", 1)[1] for kind in seen if kind and kind.split(":")[0] in rows.NATIVE.columns} <= set(tables.COLUMNS)


@pytest.mark.parametrize("kind", tables.COLUMNS)
def test_parquet_takes_columns_of_every_type_that_the_fuzz_names(kind):
    assert tables.writable(Random(1), kind, 5) is not None


# --- the reference ----------------------------------------------------------------------------------------------------

FIELD = st.text(st.sampled_from('a "\n\r,;\u2028\x0c'), max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(FIELD, min_size=3, max_size=3), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_the_reference_counts_the_records_that_the_csv_module_wrote(records, end):
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["x", "y", "z"], *records])
    assert len(reference.csv_rows(text.getvalue().encode(), ",", '"', None).records) == len(records)


LINES = st.sampled_from(['x,"open', 'x,"open', '"open,x', "a,b", '"two', 'lines",b', 'a,"two', 'lines"', "", '""', 'a,"b"', " ", '"\r"', 'a,"'])


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=80), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(1, 1000), st.integers(1, 3))
def test_the_reader_finds_the_records_of_the_reference_however_many_quotes_are_left_open(lines, end, piece, width):
    data = end.join(lines).encode()
    expected = [(b"%s\r" % record if end == "\r\n" else record).rstrip(b"\r") for record in reference.csv_rows(data, ",", '"', width).records]
    marks, found, held, line = csv_records.Marks.of(",", '"'), [], b"", 1
    for begin in range(0, len(data) + piece, piece):
        held += data[begin : begin + piece]
        start, stop, number, rest, line = csv_records.split(
            np.frombuffer(held or b"\n", np.uint8), 0, begin >= len(data), line, marks, width, reference.LONGEST
        )
        found += [held[a:b].rstrip(b"\r") for a, b in zip(start, stop, strict=True)]
        held = held[rest:]
    assert found == expected


@pytest.mark.parametrize("text, records", [
    ('a,b\n1,5" x\n2,6" y\n', ['1,5" x', '2,6" y']),  # inch marks are text
    ('a,b\n"1,x\n2,y\n', ['"1,x', "2,y"]),  # never closed: its own line alone
    ('a,b\n"1"x,y\n2,y\n', ['"1"x,y', "2,y"]),
    ('a,b\n"1\n2",x,y\n3,z\n', ['"1', '2",x,y', "3,z"]),  # spans lines, and has not two fields
    ('a,b\n"1\n2",x\r3,z', ['"1\n2",x', "3,z"]),
    ('\ufeffa,b\r\n\r\n\n1,2\r\n\r\n', ["1,2"]),
    ('"a\nb",c\n1,2\n', ["1,2"]),
])  # fmt: skip
def test_the_reference_by_hand(text, records):
    assert [one.decode() for one in reference.csv_rows(text.encode(), ",", '"', None).records] == records


def test_the_reference_of_a_broken_header_is_none_and_blanks_may_be_rows():
    assert reference.csv_rows(b'a,"b\n1,2\n', ",", '"', None) is None
    found = reference.json_rows(b'{}\r\n\n \n\xef\xbb\xbf\n{"a"\r:1}\n')
    assert (found.least, found.most) == (2, 4)


# --- does it notice? --------------------------------------------------------------------------------------------------

SABOTAGED = '''
import os, time, types
from pathlib import Path
class SourceError(Exception): pass
def label_files(paths, out, mapping, rules):
    data = Path(paths[0]).read_bytes()
    if b"stop" in data: raise ValueError("stopped")
    if b"words" in data: raise SourceError("the file has words; take them out")
    if b"end" in data: os.abort()
    if b"leave" in data: raise SystemExit(0)
    if b"wait" in data: time.sleep(60)
    if b"fat" in data: globals()["held"] = bytearray(os.urandom(1)) * 600_000_000; time.sleep(60)
    rows = sum(b"lose" not in line for line in data.splitlines() if line)
    return {"rows": rows, "events": rows, "repeats": 0, "quarantined": 0}
'''


@pytest.fixture
def sabotaged(tmp_path):
    """A tree with the entry points of `label`, which fails as the row of a file asks it to."""
    for name in ("assets", "assets/attribution", "assets/events"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "__init__.py").touch()
    (tmp_path / "tree/assets/attribution/label.py").write_text(SABOTAGED)
    (tmp_path / "tree/assets/attribution/rules.py").write_text("def load_rules(): return None\n")
    (tmp_path / "tree/assets/events/intake.py").write_text("def read_log(*given): return None\n")
    return tmp_path / "tree"


def log(*lines):
    parts = [(rows.Row(line, True), b"\n") for line in lines]
    return files.File("f000000.jsonl", "jsonl", rows.NATIVE, b"", parts, bytes, None, True, ())


@pytest.mark.slow
def test_a_tree_that_fails_is_told_by_its_place(sabotaged, tmp_path):
    def told(victim, word, **changed):
        job = Job("label", "jsonl", [replace(log(b"{}", word, b"{}"), **changed)])
        return play(victim, job).places(job)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Victim(sabotaged, scratch, hang_s=3, memory_mb=400) as victim:
        assert told(victim, b"fine") == []
        assert told(victim, b"stop") == ["ValueError assets/attribution/label.py:7"]
        assert told(victim, b"leave") == ["SystemExit assets/attribution/label.py:10"]
        assert told(victim, b"lose") == ["rows lost (label, jsonl)"]
        assert told(victim, b"words") == ["a whole file refused for its rows (label, jsonl)"]
        assert told(victim, b"words", fault="gzip: cut") == []
        assert told(victim, b"end") == ["SIGABRT of the process (label, jsonl)"]
        assert told(victim, b"wait") == ["hang of the process (label, jsonl)"]
        assert told(victim, b"fat") == ["memory of the process (label, jsonl)"]
        assert told(victim, b"fine") == []  # started anew


def test_the_smallest_file_holds_only_the_rows_that_it_takes():
    whole = log(*(b"%d" % number for number in range(100)))
    found = shrink.smallest(whole, lambda file: {b"7", b"93"} <= {row.data for row, _ in file.parts}, tries=200)
    assert [row.data for row, _ in found.parts] == [b"7", b"93"]


def test_a_refusal_is_one_whatever_its_kind():
    from assets.events.sources import CutError, SourceError
    from tests.fuzz import worker

    assert [worker._refused(error) for error in (SourceError("a"), CutError("b"), ValueError("c"))] == ["a", "b", None]
