import torch


class RAdam(torch.optim.RAdam):
    """RAdam as upstream's: the weights decay apart from the gradient.

    Raises:
        ValueError: ``degenerated_to_sgd`` is off: the first steps, before the variance is known, are always SGD's.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, degenerated_to_sgd=True):
        if not degenerated_to_sgd:
            raise ValueError("RAdam without degenerated_to_sgd is not implemented: leave it on")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True)
