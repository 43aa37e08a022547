"""Logistic regression with CoOp's search for the regularisation.

It imports no torch, so that the worker processes that fit start fast.
"""

import functools
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

COARSE = (1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6)
FINE_STEPS = 8


def search_c(accuracy):
    """CoOp's search for C: the best of a coarse list, then binary search between C/10 and 10C in log space.

    Args:
        accuracy: function from C to validation accuracy.

    Returns:
        The C of the last step's better end (the left one of equals). The better end is kept from step to step
        and the second step tries the coarse peak again, so no C that was tried is more accurate.
    """
    peak = COARSE[int(np.argmax([accuracy(c) for c in COARSE]))]
    left, right = np.log10(peak) - 1, np.log10(peak) + 1
    for _ in range(FINE_STEPS):
        middle = (left + right) / 2
        if accuracy(10**left) < accuracy(10**right):
            best, left = right, middle
        else:
            best, right = left, middle
    return float(10**best)


def fit_best(x, y, x_val, y_val):
    """Fit with the C that is best on the validation images.

    The fit uses one thread: it is too small for more, which on a busy machine wait for each other, and its last bits,
    and so the C, would depend on their number.

    Args:
        x, x_val: features (n, dim), float32.
        y, y_val: labels (n,).

    Returns:
        (classifier, C, seconds it took).
    """
    start = time.time()

    @functools.cache  # the search comes back to ends that it kept
    def fit(c):
        return LogisticRegression(solver="lbfgs", max_iter=1000, C=c).fit(x, y)

    with warnings.catch_warnings(), threadpool_limits(1):
        # A large C seldom converges within the 1000 iterations that the protocol allows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # With one shot there are as many classes as images.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        c = search_c(lambda c: fit(c).score(x_val, y_val))
        fit(c)
    return fit(c), c, time.time() - start
