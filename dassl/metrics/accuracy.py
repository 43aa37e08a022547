def compute_accuracy(output, target, topk=(1,)):
    """Top-k accuracy in percent.

    Args:
        output: (batch, n_cls) scores, or a list or tuple whose first item is that.
        target: (batch,) integer labels.
        topk: the k's.

    Returns:
        A list with one tensor of shape (1,) a k.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices  # (batch, max_k)
    hits = ranked.eq(target.view(-1, 1)).float()  # (batch, max_k), at most one 1 a row
    return [hits[:, :k].sum().view(1) * (100.0 / target.size(0)) for k in topk]
