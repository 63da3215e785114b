"""The ladder: what each kind of model is worth on the same samples, from a note's popularity to the ranker.

read.py the split's samples for all rungs, baselines.py the rungs before the ranker, guard.py what no rung may read,
measures.py intervals of an AUC, climb.py all rungs and the rows of the table. Not here: the ranker's network and
training (assets/ranking), where the data comes from and how the table is printed (benchmarks/ladder).
"""
