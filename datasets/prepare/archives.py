"""Unpack zip and tar files: every member is checked before the first is written.

The check is this module's own, as tarfile's filters differ between versions of Python.
"""

import errno
import lzma
import os
import os.path as osp
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

from tqdm import tqdm

from common.errors import UserError

LONGEST_NAME = 1024  # bytes, with its folders
UNSUPPORTED = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "zstd"}
LINKS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
         stat.S_IFSOCK: "a socket", tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link",
         tarfile.FIFOTYPE: "a fifo", tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError,
           OverflowError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Member:
    """What an archive says of a member.

    Attributes:
        name: its path. kind: "folder", "file" or in words what else it is. size: of its content, in bytes.
        handle: what the archive's reader calls it.
    """

    name: str
    kind: str
    size: int
    handle: object


def extract(path, folder, name):
    """Unpack the zip or tar file `path`, which messages call `name`, into `folder`, which is made.

    Only plain files and folders are written, as new ones of the user's. Of several files of one name the last counts.

    Raises:
        UserError: it is no such file, is damaged, or has a member that is refused. Nothing is written by then, or, if
            a file's content is damaged, what is written is in `folder`.
    """
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, kind in UNSUPPORTED.items():
        if head.startswith(magic):
            raise UserError(f"{name} is a {kind} archive, but zip and tar files alone are unpacked here: unpack it by "
                            "hand beside it")
    try:
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(path) as opened:
                write(check(zip_members(opened), folder, name), opened.open, folder, name)
        else:
            with tarfile.open(path) as opened:
                write(check(tar_members(opened), folder, name), opened.extractfile, folder, name)
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, not of the content
            raise
        raise UserError(f"{name} is damaged or no zip or tar file ({' '.join(str(error).split())}): move it away and "
                        "run the same command again, or fetch it by hand") from error


def zip_members(opened):
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 1:
            kind = "protected by a password"
        else:
            kind = LINKS.get(kind) or ("folder" if info.is_dir() or kind == stat.S_IFDIR else "file")
        yield Member(info.orig_filename, kind, info.file_size, info)  # `filename` ends at a NUL


def tar_members(opened):
    for info in opened:
        kind = "folder" if info.isdir() else "file" if info.isreg() else LINKS.get(info.type, "of an unknown kind")
        yield Member(info.name, kind, info.size, info)
    # tarfile takes a broken header for the end, and does not read up to the checksum of what is compressed
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a broken header")
    while opened.fileobj.read(1 << 20):
        pass


def check(members, folder, name):
    """The files {path below `folder`: `Member`} and folders {path} of `members`; one that is refused is a UserError."""
    free = shutil.disk_usage(osp.dirname(folder)).free
    files, folders, total = {}, set(), 0
    for member in members:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        path = "/".join(parts)
        if wrong := refusal(member, parts):
            raise UserError(f"{name} is not unpacked, its member {member.name[:200]!r} {wrong}: unpack by hand what "
                            "you trust of it, or fetch it elsewhere")
        total += member.size
        if total > free:
            raise UserError(f"{name} is not unpacked, it says to hold at least {total / 1e9:,.1f} GB, but only "
                            f"{free / 1e9:,.1f} GB are free on its disk: free space, or fetch it again if that is not "
                            "its size")
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if member.kind == "folder":
            above.add(path)
        else:
            files.pop(path, None)  # the last one counts, in its place: a packed tar file is best read in order
            files[path] = member
        folders |= above
        clash = next((each for each in (path, *above) if each in files and each in folders), None)
        if clash:
            raise UserError(f"{name} is not unpacked, it has {clash[:200]!r} both as a file and as a folder: unpack it "
                            "by hand, or fetch it elsewhere")
    return files, folders - {""}


def refusal(member, parts):
    """Why a member, whose path has these `parts`, is not written, in words; "" if it may be."""
    name = member.name
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "has a control character in its name"
    if name.startswith("/") or ".." in parts or "\\" in name or re.match("[A-Za-z]:", name):
        return "is to be written elsewhere"  # without these, and as there are no links, its path can't lead out
    if len(os.fsencode(name)) > LONGEST_NAME:
        return "has too long a name"
    if member.kind not in ("file", "folder"):
        return f"is {member.kind}"
    if member.kind == "file" and (not parts or name.endswith("/")):
        return "is a file without a name"
    return "" if member.size >= 0 else "has a negative size"


def write(checked, reader, folder, name):
    """Make the folders and write the files that `check` returned, whose content `reader` opens, into `folder`."""
    files, folders = checked
    os.mkdir(folder)
    for path in sorted(folders):
        os.mkdir(osp.join(folder, path))
    for path, member in tqdm(files.items(), desc=f"unpacking {osp.basename(name)}", unit=" files", disable=None):
        with reader(member.handle) as content, open(osp.join(folder, path), "xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
            if file.tell() != member.size:
                raise EOFError(f"{member.name} is shorter than it should be")
