"""Image features on disk, shared by all runs; `python -m features` lists and clears them.

Features that one encoder made in one way (backbone, transforms, precision ...) share a folder, whose `space.json`
describes that way. It has a subfolder, here called a group, for each seed of augmentation, and "test". A group holds
packs: safetensors files of `keys` (n, 16) uint8, one for each image and view, and `features` (n, dim) or, if they are
local, (n, positions, dim), with a checksum of both and the dataset that they were made for. A pack is written once,
under a temporary name that is then renamed, so runs that share the folder never see half of one. Packs are
memory-mapped while rows are taken from them. The time of a pack's file is that of its last use.

A process holds a lock in each folder that it uses. Locks are taken, and features are cleared, while `.lock` in the
folder of all is held, so nothing is cleared that a process begins to use meanwhile.
"""

import contextlib
import hashlib
import json
import os
import os.path as osp
import re
import shutil
import socket
import tempfile
import time
import weakref
import zlib
from functools import partial

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from common.errors import MissingFile, UserError
from common.files import atomic_path, write_json

KEY_BYTES = 16
FOLDER_NAME = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")  # name of such a folder
IN_USE = ".use.lock"  # how the names of locks end that processes hold in the folders that they use
SPARE = 2**30  # bytes that are left free on the disk
TEMPORARY = re.compile(r"\..+\.tmp")  # of a pack that is being written, or was by a run that was killed
ABANDONED = 3600  # seconds after which it is taken for the latter; a pack is written in seconds


def default_folder():
    """`$SOFTCPT_CACHE`, or `~/.cache/softcpt`, and in it `features`."""
    return osp.join(osp.expanduser(os.environ.get("SOFTCPT_CACHE") or "~/.cache/softcpt"), "features")


def key_of(*parts):
    """16 bytes that stand for some strings and numbers."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:KEY_BYTES]


class Rows:
    """The places of n features: `pack` (n,), -1 for one that is missing, and `row` (n,) in that pack.

    A pack is a function that memory-maps its features (m, ...), so that only the rows that are taken stand in memory.
    """

    def __init__(self, n):
        self.packs, self.pack, self.row = [], np.full(n, -1), np.zeros(n, dtype=int)

    @property
    def missing(self):
        """Sorted indices (m,) of the features that are missing."""
        return np.flatnonzero(self.pack < 0)

    def put(self, index, pack, rows):
        """Note that the features at `index` are the `rows` of `pack`."""
        if pack not in self.packs:
            self.packs.append(pack)
        self.pack[index], self.row[index] = self.packs.index(pack), rows

    def select(self, index):
        """The `Rows` at `index`, which may repeat some."""
        result = Rows(0)
        result.packs, result.pack, result.row = self.packs, self.pack[index], self.row[index]
        return result

    def take(self, index):
        """A copy of the features (b, ...) at `index` (b,), a numpy array, on the CPU."""
        packs, rows, result = self.pack[index], torch.from_numpy(self.row[index]), None
        for number in np.unique(packs):
            here = torch.from_numpy(packs == number)
            taken = self.packs[number]()[rows[here]]
            if result is None:
                result = taken.new_empty(len(rows), *taken.shape[1:])
            result[here] = taken
        return result


class FeatureCache:
    """Features that were made in one way.

    Args:
        folder: of all features.
        description: dict of all that can change a feature's last bit; another description is another folder.
        source: {"dataset": its name, "root": its folder}, which packs say that this object writes.
    """

    def __init__(self, folder, description, source=None):
        self.root, self.folder = folder, osp.join(folder, key_of(json.dumps(description, sort_keys=True)).hex())
        self.description, self.source = description, source or {}
        self.full, self.in_use = False, None

    def use(self):
        """Lock the folder against being cleared, as long as this object lives; where nothing can be written, do not."""
        with contextlib.suppress(OSError), guard(self.root):
            remove_abandoned_locks(self.folder)
            path = osp.join(self.folder, f"{os.getpid()}-{os.urandom(4).hex()}{IN_USE}")
            os.makedirs(self.folder, exist_ok=True)
            self.in_use = FileLock(path)
            self.in_use.acquire()
            note_owner(path)

    def find(self, group, keys):
        """The `Rows` of an array of different keys (n,), bytes of 16, in the packs of a group."""
        rows, order = Rows(len(keys)), np.argsort(keys)
        ordered = keys[order]
        for path in list_packs(osp.join(self.folder, group)):
            if not len(rows.missing):
                break
            try:
                there = np.frombuffer(read_pack(path, "keys").numpy().tobytes(), dtype=f"S{KEY_BYTES}")
                place = np.searchsorted(ordered, there) % len(keys)  # (m,)
                here = (ordered[place] == there) & (rows.pack[order[place]] < 0)
                if here.any():
                    check_pack(path)
                    with contextlib.suppress(PermissionError):  # another user's
                        os.utime(path)
            except FileNotFoundError:  # cleared meanwhile
                continue
            except (SafetensorError, DamagedPack) as error:
                print(f"The cached features {path} are damaged ({error}): they are deleted and made again")
                with contextlib.suppress(FileNotFoundError):  # another run met it too
                    os.remove(path)
                continue
            if here.any():
                rows.put(order[place[here]], partial(map_pack, path), np.flatnonzero(here))
        return rows

    @contextlib.contextmanager
    def alone(self, name):
        """Let one run at a time make features; others print whom they wait for, until it has ended or died.

        Args:
            name: runs that give different names do not wait for each other.
        """
        path = osp.join(self.folder, f"{name}.lock")
        lock = FileLock(path)
        try:
            os.makedirs(self.folder, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{owner_of(path)} makes features of these images now: waiting for it")
            lock.acquire()
        except OSError as error:
            self.give_up(error)
        try:
            if lock.is_locked:
                note_owner(path)
            yield
        finally:
            lock.release()

    def has_room(self, size):
        """True if `size` bytes may be kept."""
        return not self.full and has_room(self.folder, size)

    def store(self, group, keys, features):
        """Keep features (n, ...) under an array of keys (n,). If the disk is full, a line says so once; it is no error.

        Returns:
            The pack, a function as `Rows` has them, or None if it could not be written.
        """
        if self.full:
            return None
        try:
            write_json(self.description, osp.join(self.folder, "space.json"))
            if shutil.disk_usage(self.folder).free < features.nbytes + SPARE:
                raise OSError(f"the disk has less than {megabytes(features.nbytes + SPARE)} left")
            # Named after its keys: two runs that made the same pack write the same file.
            data = keys.astype(f"S{KEY_BYTES}").tobytes()
            path = osp.join(self.folder, group, f"{key_of(data).hex()}.safetensors")
            data = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()).view(-1, KEY_BYTES)
            remove_abandoned(osp.dirname(path))
            features = features.contiguous()
            with atomic_path(path) as temporary:
                save_file({"keys": data, "features": features}, temporary,
                          {"crc32": checksum(data, features), **self.source})
            return partial(map_pack, path)
        except (OSError, UserError, SafetensorError) as error:
            self.give_up(error)

    def give_up(self, error):
        """Keep no more features, and say why."""
        if not self.full:
            print(f"Image features can't be kept in {self.folder} ({error}): going on without")
        self.full = True


class TemporaryPack:
    """A pack in a file without a name, which is gone when the process is, however it ends.

    Args:
        like: a feature (...), for shape and type.
    """

    def __init__(self, like):
        self.like = like
        self.file = tempfile.TemporaryFile(prefix="softcpt-")
        weakref.finalize(self, self.file.close)

    def put(self, first, features):
        """Write features (n, ...) to the rows from `first` on; returns these rows (n,)."""
        self.file.seek(first * self.like.nbytes)
        self.file.write(features.contiguous().flatten().view(torch.uint8).numpy())
        self.file.flush()
        return np.arange(first, first + len(features))

    def __call__(self):
        values = torch.from_numpy(np.memmap(self.file, np.uint8, "c")).view(self.like.dtype)
        return values.view(-1, *self.like.shape)


def has_room(folder, size):
    """True if `size` bytes are at most half of the free space of a folder's disk; the folder need not exist."""
    while not osp.isdir(folder):
        folder = osp.dirname(folder) or "."
    return size <= (shutil.disk_usage(folder).free - SPARE) // 2


@contextlib.contextmanager
def guard(root):
    """Inside, no other process begins to use or clears features below `root`, the folder of all of them."""
    os.makedirs(root, exist_ok=True)
    with FileLock(osp.join(root, ".lock")):
        yield


def note_owner(lock):
    """Write down that this process holds a lock, for messages only."""
    with contextlib.suppress(OSError, UserError):
        write_json({"pid": os.getpid(), "host": socket.gethostname()}, f"{lock}.owner")


def locks_of_users(folder):
    """Paths of the locks of processes that use a folder, and of those that have ended: two sorted lists."""
    held, free = [], []
    for path in sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(IN_USE)):
        try:
            with FileLock(path).acquire(timeout=0):
                free.append(path)
        except Timeout:
            held.append(path)
    return held, free


def remove_abandoned_locks(folder):
    """Remove the locks by which processes that have ended used a folder; needs `guard`."""
    for path in locks_of_users(folder)[1] if osp.isdir(folder) else ():
        for name in (path, f"{path}.owner"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(name)


def owner_of(lock):
    """Who holds a lock, in words. It writes that down right after it got it, so wait for it a moment."""
    for _ in range(20):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(f"{lock}.owner", encoding="utf-8") as f:
                owner = json.load(f)
            return f"The run with pid {owner['pid']} on {owner['host']}"
        time.sleep(0.05)
    return f"The run that holds {lock}"


class DamagedPack(Exception):
    """A pack does not hold what it was written with."""


def read_pack(path, name):
    """A tensor of a pack, memory-mapped."""
    with safe_open(path, "pt") as pack:
        return pack.get_tensor(name)


def map_pack(path):
    """Features (n, ...) of a pack that was checked, memory-mapped.

    Raises:
        MissingFile: it is not there any more.
    """
    try:
        return read_pack(path, "features")
    except FileNotFoundError:
        raise MissingFile(f"the kept image features {path} were deleted while this run used them") from None


def check_pack(path):
    """Compare a pack with its checksum.

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


def checksum(keys, features):
    """CRC-32 of a pack's tensors, as text."""
    crc = 0
    for tensor in (keys, features):
        crc = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def remove_abandoned(folder):
    """Remove old temporary files that killed runs left in a group; younger ones may be another machine's."""
    for entry in os.scandir(folder) if osp.isdir(folder) else ():
        with contextlib.suppress(FileNotFoundError):
            if TEMPORARY.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.remove(entry.path)


def list_packs(folder):
    """Sorted paths of the packs in a group's folder."""
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.endswith(".safetensors")) if osp.isdir(folder) else []


def megabytes(size):
    return f"{size / 2**20:,.1f} MB"
