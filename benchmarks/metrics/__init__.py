"""How fast ClickHouse is loaded, how fast the boards' questions are answered, how fresh the answers are.

data.py makes the lake, boards.py asks, fresh.py measures from file landed to answer. `python -m benchmarks.metrics`, `make bench-metrics`.
"""
