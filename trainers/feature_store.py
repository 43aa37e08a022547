"""Image features on disk, shared by all runs; `python -m trainers.feature_cache` lists and clears them.

A *space* is a folder of features that one encoder made in one way (backbone, transforms, precision ...: its
`space.json`). In it, a *view* is a folder per draw of the augmentation, and "test" without one. A view holds packs:
safetensors files of `keys` (n, 16) uint8, one per image, and `features` (n, dim) or, local ones, (n, positions, dim),
with a checksum of both. A pack is written once, under a temporary name that is then renamed, so runs that share the
folder never see half of one; at worst two of them do the same work. Packs are memory-mapped when they are read.
"""

import contextlib
import hashlib
import json
import os
import os.path as osp
import re
import shutil
import time
import zlib

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dassl.utils import UserError, atomic_path, write_json

KEY_BYTES = 16
SPACE = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")  # name of a space's folder
SPARE = 2**30  # bytes that are left free on the disk
TEMPORARY = re.compile(r"\..+\.tmp")  # of a pack that is being written, or was by a run that was killed
ABANDONED = 3600  # seconds after which it is taken for the latter; a pack is written in seconds


def default_folder():
    """`$SOFTCPT_CACHE`, or `~/.cache/softcpt`, and in it `features`."""
    return osp.join(osp.expanduser(os.environ.get("SOFTCPT_CACHE") or "~/.cache/softcpt"), "features")


def key_of(*parts):
    """16 bytes that stand for some strings and numbers."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:KEY_BYTES]


class FeatureCache:
    """The features of one space.

    Args:
        folder: of all spaces.
        description: dict of what features of this space have in common; another description is another space.
    """

    def __init__(self, folder, description):
        self.folder = osp.join(folder, key_of(json.dumps(description, sort_keys=True)).hex())
        self.description = description
        self.full = False

    def load(self, view, keys):
        """Look up features.

        Args:
            view: name of the view.
            keys: list of n keys.

        Returns:
            (features, known): (n, ...), of which the rows where `known` (n,) is False are undefined, or None if no
            key is known.
        """
        wanted = b"".join(keys)
        place = {}  # key -> (pack, row)
        packs = []
        for path in list_packs(osp.join(self.folder, view)):
            try:
                there, features = read_pack(path)
            except FileNotFoundError:  # cleared meanwhile
                continue
            except (SafetensorError, DamagedPack) as error:
                print(f"The cached features {path} are damaged ({error}): they are deleted and made again")
                with contextlib.suppress(FileNotFoundError):  # another run met it too
                    os.remove(path)
                continue
            if there == wanted:
                return features, np.ones(len(keys), dtype=bool)  # the usual case: mapped, not copied
            for row in range(len(features)):
                place[there[KEY_BYTES * row:KEY_BYTES * (row + 1)]] = len(packs), row
            packs.append(features)
        found = np.array([place.get(key, (-1, 0)) for key in keys]).reshape(-1, 2)  # (n, 2): pack, row
        known = found[:, 0] >= 0
        if not known.any():
            return None, known
        result = packs[0].new_empty(len(keys), *packs[0].shape[1:])
        for i, features in enumerate(packs):
            here = found[:, 0] == i
            result[torch.from_numpy(here)] = features[torch.from_numpy(found[here, 1])]
        return result, known

    def store(self, view, keys, features):
        """Keep features (n, ...) under their keys (list of n). A disk that is full is said once, and no error."""
        if self.full:
            return
        try:
            write_json(self.description, osp.join(self.folder, "space.json"))
            if shutil.disk_usage(self.folder).free < features.nbytes + SPARE:
                raise OSError(f"the disk has less than {megabytes(features.nbytes + SPARE)} left")
            # Named after its keys: two runs that made the same pack write the same file.
            path = osp.join(self.folder, view, f"{key_of(*keys).hex()}.safetensors")
            data = torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).copy()).view(-1, KEY_BYTES)
            remove_abandoned(osp.dirname(path))
            features = features.contiguous()
            with atomic_path(path) as temporary:
                save_file({"keys": data, "features": features}, temporary, {"crc32": checksum(data, features)})
        except (OSError, UserError, SafetensorError) as error:
            print(f"Image features can't be kept in {self.folder} ({error}): going on without")
            self.full = True


class DamagedPack(Exception):
    """A pack does not hold what it was written with."""


def read_pack(path):
    """(keys as bytes, features (n, ...), memory-mapped) of a pack.

    Raises:
        DamagedPack, SafetensorError: it is not what was written.
    """
    with safe_open(path, "pt") as pack:
        keys, features = pack.get_tensor("keys"), pack.get_tensor("features")
        written = (pack.metadata() or {}).get("crc32")
    if keys.dtype != torch.uint8 or keys.shape != (len(features), KEY_BYTES) or not features.is_floating_point():
        raise DamagedPack(f"keys {tuple(keys.shape)} {keys.dtype}, features {tuple(features.shape)} {features.dtype}")
    if written != checksum(keys, features):
        raise DamagedPack("its checksum is another one")
    return keys.numpy().tobytes(), features


def checksum(keys, features):
    """CRC-32 of a pack's tensors, as text."""
    crc = 0
    for tensor in (keys, features):
        crc = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def remove_abandoned(folder):
    """Remove the temporaries that killed runs left in a view's folder; other machines may write there now."""
    for entry in os.scandir(folder) if osp.isdir(folder) else ():
        with contextlib.suppress(FileNotFoundError):
            if TEMPORARY.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.remove(entry.path)


def list_packs(folder):
    """Sorted paths of the packs in a view's folder."""
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.endswith(".safetensors")) if osp.isdir(folder) else []


def megabytes(size):
    return f"{size / 2**20:,.1f} MB"


def spaces(folder):
    """[(description, folder, bytes)] of all spaces; of one whose description is lost or damaged it is {}.

    Folders of other names than spaces have are not ours.
    """
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if osp.isdir(folder) else ():
        if not (entry.is_dir() and SPACE.fullmatch(entry.name)):
            continue
        try:
            with open(osp.join(entry.path, "space.json"), encoding="utf-8") as f:
                description = json.load(f)
        except (OSError, ValueError):
            description = {}
        size = sum(osp.getsize(path) for view in os.scandir(entry.path) if view.is_dir()
                   for path in list_packs(view.path))
        found.append((description if isinstance(description, dict) else {}, entry.path, size))
    return found
