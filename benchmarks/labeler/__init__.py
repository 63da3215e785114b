"""The live labeler beside its peers, on one generated log, in one run: `python -m benchmarks.labeler`.

Here: the log (log.py), a module a design (glasshouse.py, flink.py with flink/*.java, spark_join.py), the check of rows
against the truth (compare.py), memory (measure.py), the table (table.py). Not here: the labeler itself
(assets/attribution), and assertions on time.
"""
