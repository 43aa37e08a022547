"""Unpack zip and tar files by Python's own readers, without links and without members that lead elsewhere."""

import errno
import os
import os.path as osp
import stat
import tarfile
import zipfile

from tqdm import tqdm

from common.errors import UserError

UNSUPPORTED = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "zstd"}
# Errors that the names in an archive cause, not the disk
OF_NAMES = (None, errno.EINVAL, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)


def extract(path, folder, name):
    """Unpack the zip or tar file `path`, which messages call `name`, into `folder`, which is made.

    Only plain files and folders are written, with the user's default permissions. The last of several files with one
    name counts.

    Raises:
        UserError: it is no such file, is damaged, or has a member that is refused; earlier members are in `folder`.
    """
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, kind in UNSUPPORTED.items():
        if head.startswith(magic):
            raise UserError(f"{name} is a {kind} archive, but zip and tar files alone are unpacked here: unpack it by "
                            "hand beside it")
    os.mkdir(folder)
    progress = {"desc": f"unpacking {osp.basename(name)}", "unit": " members", "disable": None}
    try:
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(path) as opened:
                for info in tqdm(opened.infolist(), **progress):
                    check_zip_member(info)
                    opened.extract(info, folder)
        else:
            with tarfile.open(path) as opened:
                opened.extractall(folder, tqdm(opened, **progress), filter=plain_member)
                check_end(opened)
    except tarfile.FilterError as error:
        raise UserError(f"{name} is not unpacked, its member {error}: unpack by hand what you trust of it, or fetch it "
                        "elsewhere") from error
    except Exception as error:  # on damaged files the readers raise many types
        if isinstance(error, OSError) and error.errno not in OF_NAMES:  # the disk's error, not the content's
            raise
        raise UserError(f"{name} is damaged or no zip or tar file ({' '.join(str(error).split())}): move it away and "
                        "run the same command again, or fetch it by hand") from error


def check_zip_member(info):
    """Raise a FilterError for a zip member that leads elsewhere, is a link or special file, or has a password."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.filename.startswith("/") or ".." in info.filename.split("/"):
        raise tarfile.FilterError(f"{info.filename!r} is to be written elsewhere")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise tarfile.FilterError(f"{info.filename!r} is a link or a special file")
    if info.flag_bits & 1:
        raise tarfile.FilterError(f"{info.filename!r} is protected by a password")


def plain_member(member, folder):
    """Filter members as `tarfile.data_filter` does, refuse links, and give files the default mode."""
    if member.islnk() or member.issym():
        raise tarfile.FilterError(f"{member.name!r} is a link")
    return tarfile.data_filter(member, folder).replace(mode=None, deep=False)


def check_end(opened):
    """Raise a ReadError if a tar file goes on after its end: tarfile takes a broken header for the end."""
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a broken header")
    while opened.fileobj.read(1 << 20):
        pass
