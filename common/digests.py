"""Digests that identify settings, files and tensors."""

import hashlib
import inspect
import json


def digest(value):
    """Return the hex digest (16 digits) of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def digest_of_tensors(state_dict):
    """Return the hex digest (32 digits) of tensors: of their names, types, shapes and values."""
    import torch

    found = hashlib.sha256()
    for name, value in sorted(state_dict.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:32]


def digest_of_state(state):
    """Hex digest of nested dicts and lists of tensors and plain values, such as an optimizer's state."""
    import torch

    tensors, plain = {}, {}

    def walk(name, value):
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, (dict, list, tuple)):
            plain[name] = len(value)
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{name}/{key}", part)
        else:
            plain[name] = repr(value)

    walk("", state)
    return digest([digest_of_tensors(tensors), plain])


def digest_of_module(module):
    """Hex digest of all that decides a module's output: its tensors, and its submodules' classes and attributes.

    Attributes are those that JSON can hold, such as a number of heads or a kind of pooling, and functions by name.
    """
    described = [[name, type(part).__qualname__, _plain({key: value for key, value in vars(part).items()
                                                         if key != "training" and not key.startswith("_")})]
                 for name, part in module.named_modules()]
    return digest([digest_of_tensors(module.state_dict()), described])


def _plain(value):
    """A value as JSON, with None for what JSON can't hold."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if inspect.isfunction(value) or inspect.isbuiltin(value):
        return value.__qualname__
    return value if isinstance(value, (bool, int, float, str)) else None
