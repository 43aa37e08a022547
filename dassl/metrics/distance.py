from torch.nn import functional as F


def compute_distance_matrix(input1, input2, metric="euclidean"):
    """Distances between the rows of two matrices.

    Args:
        input1: (m, dim).
        input2: (n, dim).
        metric: "euclidean" (as upstream: its square, clamped at 0) or "cosine" (1 - cosine similarity).

    Returns:
        (m, n) distances.

    Raises:
        ValueError: unknown metric, or shapes that do not fit.
    """
    if input1.dim() != 2 or input2.dim() != 2 or input1.size(1) != input2.size(1):
        raise ValueError(
            f"compute_distance_matrix got shapes {tuple(input1.shape)} and {tuple(input2.shape)}: "
            "pass two matrices with as many columns"
        )
    if metric == "euclidean":
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab; rounding can bring it below 0
        squares = input1.pow(2).sum(1, keepdim=True) + input2.pow(2).sum(1)  # (m, n)
        return (squares - 2 * input1 @ input2.t()).clamp(min=0)
    if metric == "cosine":
        return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()
    raise ValueError(f'Unknown distance metric "{metric}": choose "euclidean" or "cosine"')
