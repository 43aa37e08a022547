import warnings

import torch
from torch import nn

from ..utils import check_availability
from .radam import RAdam

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def _staged_groups(model, optim_cfg):
    """Split the parameters by direct child: NEW_LAYERS learn at LR, the others at LR * BASE_LR_MULT."""
    if not isinstance(model, nn.Module):
        raise ValueError("OPTIM.STAGED_LR needs a module to split into layers: pass one, or turn it off")
    model = model.module if isinstance(model, nn.DataParallel) else model
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = [new_layers] if isinstance(new_layers, str) else list(new_layers)
    if not new_layers:
        warnings.warn("OPTIM.NEW_LAYERS is empty: OPTIM.STAGED_LR lowers every layer's rate", stacklevel=3)
    base, new = [], []
    for name, module in model.named_children():
        (new if name in new_layers else base).extend(module.parameters())
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]


def build_optimizer(model, optim_cfg, param_groups=None):
    """Make the optimizer that ``cfg.OPTIM`` describes.

    Args:
        model: module, or an iterable of parameters or param groups.
        optim_cfg: ``cfg.OPTIM``.
        param_groups: what to optimize instead of ``model``'s parameters; STAGED_LR has no effect on it.

    Raises:
        ValueError: unknown OPTIM.NAME.
    """
    name, common = optim_cfg.NAME, {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    check_availability(name, AVAI_OPTIMS, "OPTIM.NAME")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored: param_groups carry their own rates", stacklevel=2)
    elif optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model

    if name == "sgd":
        return torch.optim.SGD(param_groups, momentum=optim_cfg.MOMENTUM, dampening=optim_cfg.SGD_DAMPNING,
                               nesterov=optim_cfg.SGD_NESTEROV, **common)
    if name == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
    common.update(betas=(optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2), eps=optim_cfg.ADAM_EPS)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, **common)
    if name == "radam":
        return RAdam(param_groups, **common)
    return torch.optim.Adam(param_groups, amsgrad=name == "amsgrad", **common)
