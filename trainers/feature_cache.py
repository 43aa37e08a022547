"""Image features on disk, shared by all runs.

    python -m trainers.feature_cache list     # what is kept, and its size
    python -m trainers.feature_cache clear    # delete all of it

A *space* is a folder of features that one encoder made in one way (backbone, transforms, precision ...: its
`space.json`). In it, a *view* is a folder per draw of the augmentation, and "test" without one. A view holds packs:
safetensors files of `keys` (n, 16) uint8, one per image, and `features` (n, dim) or, local ones, (n, positions, dim).
A pack is written once, under a temporary name that is then renamed, so runs that share the folder never see half of
one; at worst two of them do the same work. Packs are memory-mapped when they are read.
"""

import argparse
import hashlib
import json
import os
import os.path as osp
import shutil
import sys

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dassl.utils import atomic_path, write_json

KEY_BYTES = 16
SPARE = 2**30  # bytes that are left free on the disk


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
                with safe_open(path, "pt") as pack:
                    there, features = pack.get_tensor("keys").numpy().tobytes(), pack.get_tensor("features")
            except FileNotFoundError:  # cleared meanwhile
                continue
            except SafetensorError as error:
                print(f"The cached features {path} are damaged ({error}): they are deleted and made again")
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
            with atomic_path(path) as temporary:
                save_file({"keys": data, "features": features.contiguous()}, temporary)
        except (OSError, SafetensorError) as error:
            print(f"Image features can't be kept in {self.folder} ({error}): going on without")
            self.full = True

    def size(self):
        """Bytes of all packs."""
        return sum(osp.getsize(path) for view in os.scandir(self.folder) if view.is_dir()
                   for path in list_packs(view.path)) if osp.isdir(self.folder) else 0


def list_packs(folder):
    """Sorted paths of the packs in a view's folder."""
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.endswith(".safetensors")) if osp.isdir(folder) else []


def megabytes(size):
    return f"{size / 2**20:,.1f} MB"


def spaces(folder):
    """[(description, `FeatureCache`'s folder, bytes)] of all spaces."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if osp.isdir(folder) else ():
        path = osp.join(entry.path, "space.json")
        if osp.isfile(path):
            with open(path, encoding="utf-8") as f:
                cache = FeatureCache(folder, json.load(f))
            cache.folder = entry.path
            found.append((cache.description, entry.path, cache.size()))
    return found


def main():
    parser = argparse.ArgumentParser(description="List or clear the image features that runs keep on disk.")
    parser.add_argument("command", choices=["list", "clear"])
    parser.add_argument("--folder", default=default_folder(), help="default: %(default)s")
    args = parser.parse_args()
    total = 0
    for description, folder, size in spaces(args.folder):
        total += size
        print(f"{megabytes(size):>12}  {folder}  {description['backbone']}, {description.get('features', 'global')}, "
              f"{description['precision']} on {description['device']}, {description['transforms']}")
        if args.command == "clear":
            shutil.rmtree(folder)
    print(f"{megabytes(total):>12}  {'deleted' if args.command == 'clear' else 'in all'}, {args.folder}")


if __name__ == "__main__":
    sys.exit(main())
