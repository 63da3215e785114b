"""The ranker: nine behaviours of one display, learned from `training_samples` with TorchRec.

config.py numbers, features.py columns to arrays, collisions.py ids without collisions, samples.py Delta to batches, model.py
the network, pooling.py its loops over rows and lists on the CPU, rows.py its tables' updates there, worker.py one training
process, checkpoint.py its state on disk, train.py the whole run, fresh.py going on from version to version, evaluate.py AUC
and the truth, registry.py model versions and which one serves, promotion.py whether one is good enough, serving.py scores of
a request, compare.py two versions side by side.
Only model.py, pooling.py, rows.py and worker.py import torch at module level; they are imported inside functions.
"""
