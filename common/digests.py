"""Digests that identify settings, files and tensors."""

import hashlib
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
