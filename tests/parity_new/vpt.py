"""VPT."""

from ._towers import check as check_towers


def check(case):
    return check_towers(case, "VPT", TEMPLATE="a photo of a {}.")
