"""Uses what runs have learned: loads it from their folders, predicts, exports, makes a report."""

import dassl  # noqa: F401  sets how PyTorch's threads wait, before PyTorch is loaded


def load(run):
    """The `classifier.Classifier` of a finished run, whose folder is `run`: `load(run).predict(["photo.jpg"])`.

    Raises:
        MissingFile, UserError: the run is not finished, or lacks its model or its backbone.
    """
    import contextlib
    import sys

    from .loading import load_classifier  # PyTorch is slow to import

    with contextlib.redirect_stdout(sys.stderr):  # messages of loading, as in predict.py
        return load_classifier(run)
