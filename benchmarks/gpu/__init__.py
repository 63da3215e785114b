"""The ranker and a Criteo-like model on a GPU beside the CPU of the same machine: `make bench-gpu`.

Here: a folder of wheels (wheels.py), embedding lookups (lookups.py), a Criteo-like set and its network (criteo.py), the ranker's samples
(ranker.py), the parts in order and the report (__main__.py). Not here: the ranker (assets/ranking), what benchmarks/ranker.py measures already.
"""
