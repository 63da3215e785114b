"""The ranker: nine behaviours of one display, learned from `training_samples` with TorchRec.

config.py numbers, features.py columns to arrays, samples.py Delta to batches, model.py the network, worker.py one
training process, train.py the whole run, evaluate.py AUC and the truth, registry.py model versions and which one serves,
promotion.py whether one is good enough, serving.py scores of a request, compare.py two versions side by side.
Only model.py and worker.py import torch at module level; both are imported inside functions.
"""
