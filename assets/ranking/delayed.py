"""Labels that come late: train at once as if nothing would come, and correct that when it does (Ktena et al., RecSys 2019).

Here: the corrections, as functions of a label and of what the model says. Not here: when a sample is closed (fresh.py), the loss.

A display enters training at once as a negative; if a positive comes, the sample enters once more as a positive. Of a display with
probability p, that stream has 1 negative and p positives, so a model that learns it as it is learns b = p / (1 + p).
"""

from __future__ import annotations

import numpy as np


def fake_negative_weights(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Importance weights that make the stream's expected loss that of the true labels ("FN weighted"), float32 as `labels`.

    labels: 1 for a sample that enters as a positive, 0 for one that enters at once. p: what the model says of the sample now; no
    gradient goes through it. Positives weigh 1 + p, negatives (1 - p)(1 + p).
    """
    return np.where(labels > 0, 1 + p, (1 - p) * (1 + p)).astype(np.float32)


def calibrated(b: np.ndarray) -> np.ndarray:
    """The probability p of a model that has learned the stream unweighted ("FN calibration"): b / (1 - b), 1 at most."""
    return np.minimum(b / np.maximum(1 - b, 1e-6), 1)
