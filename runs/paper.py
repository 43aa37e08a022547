"""Published accuracies.

Ding et al., Prompt Tuning with Soft Context Sharing for Vision-Language Models, Neurocomputing 2024: percent, mean over
the tasks of a suite and over 1, 2, 4, 8 and 16 shots, with the backbone RN50.
"""

SHOTS = (1, 2, 4, 8, 16)
BACKBONE = "RN50"
SUITES = ("General10", "Plant6", "RS8", "Fashion20")  # DATASET.NAME of the columns
ACCURACY = {
    "ZS-CLIP":      (58.29, 50.96, 47.91, 45.49),
    "ProtoNet":     (19.20, 36.35, 48.85, 41.60),
    "LP-CLIP":      (56.96, 64.55, 73.00, 60.11),
    "CoOp-CA":      (66.39, 62.59, 73.23, 59.95),
    "CoOp-CS":      (60.70, 63.98, 72.30, 57.16),
    "CoOp-MT":      (63.43, 63.90, 74.12, 60.55),
    "CoCoOp":       (63.93, 61.33, 65.93, 59.35),
    "ProGrad":      (67.01, 62.46, 71.07, 60.79),
    "KgCoOp":       (66.28, 62.35, 68.03, 61.97),
    "PLOT":         (67.18, 66.14, 75.42, 61.92),
    "SoftCPT-NATS": (67.04, 67.13, 76.11, 60.88),
    "SoftCPT-NATA": (67.12, 67.68, 76.86, 62.75),
}


def find_suite(name):
    """The DATASET.NAME of a suite, also if written as general-10; None if nothing is published."""
    return {suite.lower(): suite for suite in SUITES}.get(name.replace("-", "").replace("_", "").lower())
