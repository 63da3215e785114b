"""What a hostile page, client, file, clock or signal does to what `make up` starts: `python -m tests.chaos.hostile`, `make chaos-hostile`.

Here: attacks on a checkout from outside, the same on today's code and on an older one: HTTP, landed files, signals, the command line.
Not here: imports of the tree under test (the one thing that is told apart, where its secrets lie, is house.py's), tests of single
functions (tests/faults).
"""
