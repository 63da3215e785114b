"""Engines that answer Spark SQL over the lake: Spark itself, and DuckDB within this process.

Here: the translation of Spark SQL for the embedded engine, its connection to the lake's tables, and which engine is taken.
Not here: what a job is (assets/samples/sql_job.py), the Spark session (assets/spark.py).
"""
