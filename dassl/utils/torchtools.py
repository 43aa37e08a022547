"""Checkpoints, and small services for modules."""

import os
import pickle
import random
import warnings
from collections import OrderedDict

import numpy as np
import torch

from common.errors import MissingFile, UserError
from common.files import atomic_path


class _PickledObject:
    """The attributes of an optimizer or scheduler that a checkpoint pickled, without that object."""


def _empty_dict(*_):
    # Optimizers pickle their state as defaultdict(dict); the safe loader fills plain dicts only.
    return {}


# Dassl used to pickle live schedulers, and through them their optimizer. Only these names are accepted
# besides tensors and plain values, and each is read as inert data: none of these classes' code runs.
_SAFE_GLOBALS = [(_PickledObject, name) for name in (
    *(f"torch.optim.lr_scheduler.{name}" for name in ("StepLR", "MultiStepLR", "CosineAnnealingLR")),
    *(f"dassl.optim.lr_scheduler.{name}" for name in ("ConstantWarmupScheduler", "LinearWarmupScheduler")),
    *(f"torch.optim.{name}" for name in ("sgd.SGD", "adam.Adam", "adamw.AdamW", "rmsprop.RMSprop", "radam.RAdam")),
    "dassl.optim.radam.RAdam")]
_SAFE_GLOBALS += [(_empty_dict, "collections.defaultdict"), (dict, "builtins.dict"), (dict, "__builtin__.dict")]


def _as_plain(value):
    """Turn pickled schedulers, at any depth of plain dicts, into their state dicts (without optimizer)."""
    if isinstance(value, _PickledObject):
        return {k: _as_plain(v) for k, v in vars(value).items() if k != "optimizer"}
    return {k: _as_plain(v) for k, v in value.items()} if type(value) is dict else value


def load_checkpoint(fpath):
    """Read a checkpoint into CPU memory, always with PyTorch's safe loader (``weights_only=True``).

    Checkpoints of upstream Dassl, which pickle scheduler objects, are read too: such an object comes back as
    the dict that its ``load_state_dict`` takes.

    Returns:
        The saved object: usually a dict with ``state_dict``, ``epoch``, ``optimizer``, ``scheduler``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, or holds objects that are not on the short list of accepted ones.
    """
    if not os.path.isfile(fpath):
        raise MissingFile(f'No checkpoint at "{fpath}": check the path and the epoch')
    # Not inside `try`: a PyTorch that is too old for the list says nothing about the file.
    with torch.serialization.safe_globals(_SAFE_GLOBALS):
        try:
            return _as_plain(torch.load(fpath, map_location="cpu", weights_only=True))
        except pickle.UnpicklingError as error:
            # torch's message is a page of advice, ending in the reason
            reason = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()[0]
            raise UserError(f'The checkpoint "{fpath}" was refused ({reason}): it is damaged or holds more than '
                            "tensors, plain values and optimizer state; use another file or save its state_dict alone"
                            ) from error
        except Exception as error:  # the ways to stumble over bytes that are no checkpoint are many
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f'The checkpoint "{fpath}" cannot be read ({reason}): it is damaged; fetch it or train '
                            "again") from error


def _without_module_prefix(state_dict):
    """Drop the "module." that nn.DataParallel puts before parameter names."""
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


def save_checkpoint(state, save_dir, model_name):
    """Write ``state`` to the file ``<save_dir>/<model_name>`` and that name to the file ``checkpoint``.

    Args:
        state: dict with ``state_dict`` (the prefix "module." of its names is dropped), ``epoch``, and the state dicts
            ``optimizer`` and ``scheduler``. For `load_checkpoint` to read it, it must hold tensors and plain values.
    """
    fpath = os.path.join(save_dir, model_name)
    with atomic_path(fpath) as temporary:
        torch.save({**state, "state_dict": _without_module_prefix(state["state_dict"])}, temporary)
    print(f"Checkpoint saved to {fpath}")
    # last, so that the pointer never names a file that is not whole
    with atomic_path(os.path.join(save_dir, "checkpoint")) as temporary, open(temporary, "w") as file:
        file.write(f"{model_name}\n")


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    """Restore what `save_checkpoint` wrote last to the folder ``fdir``.

    Loads the weights, the states of ``optimizer`` and ``scheduler`` (where given), and those of the random
    number generators (where saved), so that training goes on exactly as if it had not been interrupted.

    Returns:
        The number of finished epochs, which is the index of the next one.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`; or the state of one of them is missing.
    """
    with open(os.path.join(fdir, "checkpoint")) as file:
        fpath = os.path.join(fdir, file.readline().strip())
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for key, target in (("optimizer", optimizer), ("scheduler", scheduler)):
        if target is None:
            continue
        if checkpoint.get(key) is None:
            raise ValueError(f'The checkpoint "{fpath}" has no {key} state: load its weights alone')
        target.load_state_dict(checkpoint[key])
        print(f"Loaded {key}")
    if "rng_state" in checkpoint:
        set_rng_state(checkpoint["rng_state"])
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def get_rng_state():
    """Return the random number generators' states (Python, NumPy, torch) as tensors and plain values."""
    _, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": ("MT19937", keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state):
    """Restore what `get_rng_state` returned; states of GPUs that are not there are left out."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"]):
        torch.cuda.set_rng_state(cuda_state, device)


def count_num_param(model):
    """Count the values in a module's parameters."""
    return sum(p.numel() for p in model.parameters())


def load_pretrained_weights(model, weight_path):
    """Load the layers of the checkpoint at ``weight_path`` whose name and shape match; report the others.

    The file holds a state dict, or a dict with one under ``state_dict``. Raises as `load_checkpoint` does.
    """
    checkpoint = load_checkpoint(weight_path)
    state_dict = _without_module_prefix(checkpoint.get("state_dict", checkpoint))
    model_dict = model.state_dict()
    matched = {k: v for k, v in state_dict.items() if k in model_dict and model_dict[k].shape == v.shape}
    discarded = [k for k in state_dict if k not in matched]
    model_dict.update(matched)
    model.load_state_dict(model_dict)
    if not matched:
        warnings.warn(f"Cannot load {weight_path}: no layer matches, check the key names", stacklevel=2)
        return
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")
