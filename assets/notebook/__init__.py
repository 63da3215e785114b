"""Where data scientists begin: tables at any version, SQL cells, notebooks as jobs, promotion of a cell to a SQL job.

Here: what a notebook may call, how notebook files are read, run and promoted. Not here: the notebooks (notebooks/),
their assets (dagster_project/notebook_jobs.py), the settings they use (dagster_project/notebook.py).
"""
