"""Unpacking: archives of all kinds, good ones and such as would write elsewhere, and links in the dataset's folder."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import is_lfs_pointer
from datasets.prepare.__main__ import members_of, read_configs
from datasets.prepare.fetch import obtain
from datasets.sources import Source

IMAGES = {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two" * 1000}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def tar(entries, mode="w", **options):
    """Bytes of a tar file of {name: content, or (type, target)}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for name, content in entries if isinstance(entries, list) else entries.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                content = b""
            member.size, member.mode = len(content), 0o6755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(entries, compression=zipfile.ZIP_DEFLATED, mode=stat.S_IFREG | 0o6755, zip64=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries if isinstance(entries, list) else entries.items():
            member = zipfile.ZipInfo("x")
            member.filename, member.compress_type = name, compression  # ZipInfo would end it at a NUL
            member.external_attr = (stat.S_IFDIR if name.endswith("/") else mode) << 16
            with archive.open(member, "w", force_zip64=zip64) as file:
                file.write(content)
    return buffer.getvalue()


def patched(data, *changes):
    """Bytes with (place, format, value) changed."""
    data = bytearray(data)
    for place, form, value in changes:
        struct.pack_into(form, data, place, value)
    return bytes(data)


def encrypted():
    data = zipped(IMAGES)
    return patched(data, (6, "<H", 1), (data.index(b"PK\x01\x02") + 8, "<H", 1))


def broken_header():
    """A tar file whose second header is damaged: tarfile alone would take it for the end."""
    data = tar(IMAGES)
    return patched(data, (1024 + 148, "8s", b"7777777\0"))


DEEP = {f"top/of/all/{name}": content for name, content in IMAGES.items()}
UNICODE = {"images/größe/日本.jpg": b"one", f"images/{'long' * 50}/x.jpg": b"two"}
GOOD = {
    "x.zip": (zipped(IMAGES), IMAGES),
    "stored.zip": (zipped(IMAGES, zipfile.ZIP_STORED), IMAGES),
    "zip64.zip": (zipped(IMAGES, zip64=True), IMAGES),
    "bzip2.zip": (zipped(IMAGES, zipfile.ZIP_BZIP2), IMAGES),
    "with_folders.zip": (zipped([("images/", b""), ("images/a/", b""), *IMAGES.items()]), IMAGES),
    "x.tar": (tar(IMAGES), IMAGES),
    "x.tar.gz": (tar(IMAGES, "w:gz"), IMAGES),
    "x.tgz": (tar(IMAGES, "w:gz"), IMAGES),
    "x.tar.bz2": (tar(IMAGES, "w:bz2"), IMAGES),
    "x.tar.xz": (tar(IMAGES, "w:xz"), IMAGES),
    "gnu.tar": (tar(UNICODE, format=tarfile.GNU_FORMAT), UNICODE),
    "pax.tar": (tar(UNICODE, format=tarfile.PAX_FORMAT, pax_headers={"comment": "größe"}), UNICODE),
    "deep.zip": (zipped(DEEP), IMAGES),
    "deep.tar.gz": (tar(DEEP, "w:gz"), IMAGES),
    "dot.tar": (tar({f"./{name}": content for name, content in IMAGES.items()}), IMAGES),
    "unicode.zip": (zipped(UNICODE), UNICODE),
    "wrong_suffix.tar.gz": (zipped(IMAGES), IMAGES),
    "wrong_suffix.zip": (tar(IMAGES, "w:gz"), IMAGES),
    "cases.tar": (tar({"images/a/1.jpg": b"1", "images/A/1.jpg": b"2"}), {"images/a/1.jpg": b"1",
                                                                        "images/A/1.jpg": b"2"}),
    "twice.tar.gz": (tar([("images/a/1.jpg", b"old"), *IMAGES.items()], "w:gz"), IMAGES),
    "zip_at_the_end.tar": (tar({**IMAGES, "images/a/z.jpg": zipped({"images/evil.jpg": b""})}),
                           {**IMAGES, "images/a/z.jpg": zipped({"images/evil.jpg": b""})}),
}


BAD = {
    "parent.zip": (zipped({**IMAGES, "../evil": b""}), "its member '../evil' is to be written elsewhere: "),
    "parents.zip": (zipped({**IMAGES, "images/a/../../../evil": b""}), "is to be written elsewhere: "),
    "absolute.zip": (zipped({**IMAGES, "/tmp/softcpt-evil": b""}), "is to be written elsewhere: "),
    "parent.tar": (tar({**IMAGES, "../evil": b""}), "its member '../evil' would be extracted to "),
    "parents.tar": (tar({**IMAGES, "images/a/../../../evil": b""}), "which is outside the destination: "),
    "nul.tar": (tar({"images/x": b""}, format=tarfile.PAX_FORMAT, pax_headers={"path": "images/a\0b"}), "null byte"),
    **{f"file_as_folder.{suffix}": (make([*IMAGES.items(), ("images/a/1.jpg/x", b"")]), "is damaged or no ")
       for suffix, make in (("zip", zipped), ("tar", tar))},
    **{f"folder_as_file.{suffix}": (make([*IMAGES.items(), ("images/a", b"")]), "is damaged or no ")
       for suffix, make in (("zip", zipped), ("tar", tar))},
    "link.zip": (zipped({"images/bad": b"/etc"}, mode=stat.S_IFLNK | 0o777), "'images/bad' is a link or a special "),
    "link.tar": (tar({**IMAGES, "images/bad": (tarfile.SYMTYPE, "a/1.jpg")}), "its member 'images/bad' is a link: "),
    "hard_link.tar": (tar({**IMAGES, "images/bad": (tarfile.LNKTYPE, "images/a/1.jpg")}), "'images/bad' is a link: "),
    "through_link.tar": (tar([("images", (tarfile.SYMTYPE, "/tmp")), ("images/softcpt-evil", b"")]), "is a link: "),
    "device.tar": (tar({**IMAGES, "images/bad": (tarfile.CHRTYPE, "")}), "its member 'images/bad' is a special file: "),
    "password.zip": (encrypted(), "its member 'images/a/1.jpg' is protected by a password: "),
    "broken_header.tar": (broken_header(), "is damaged or no zip or tar file (a broken header): "),
    "crc.zip": (zipped(IMAGES, zipfile.ZIP_STORED).replace(b"twotwo", b"toutou", 1), "(Bad CRC-32 for file "),
    "crc.tar.gz": (patched(tar(IMAGES, "w:gz"), (-8, "<I", 7)), "(CRC check failed "),
    **{f"half.{suffix}": (data[:len(data) * 2 // 3], "is damaged or no zip or tar file (") for suffix, data in (
        ("zip", zipped(IMAGES)), ("tar", tar({"images/1": bytes(15000)})), ("tgz", tar(IMAGES, "w:gz")),
        ("tar.bz2", tar(IMAGES, "w:bz2")), ("tar.xz", tar(IMAGES, "w:xz")))},
    "empty.zip": (b"", "empty.zip is an empty file: "),
    "no_members.zip": (zipped({}), "has no images: "),
    "no_members.tar": (tar({}), "has no images: "),
    "page.zip": (b"\n<!DOCTYPE html><html>log in</html>", "page.zip is a web page: "),
    "lfs.zip": (POINTER, "lfs.zip is a Git LFS pointer, which only names the file: "),
    "text.tar.gz": (b"404 not found", "is damaged or no zip or tar file ("),
    "lone.gz": (gzip.compress(b"no tar file"), "is damaged or no zip or tar file ("),
    "x.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "x.7z is a 7z archive, but zip and tar files alone are "),
    "x.rar": (b"Rar!\x1a\x07\x01\0" + bytes(99), "is a RAR archive, but "),
    "folder.zip": (None, "folder.zip is in the way, it is no file: "),
}


def look(folder):
    """All that is below a folder, links as such: {path: (mode, content or target)}; without the lock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = os.readlink(path) if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else None
        found[str(path.relative_to(folder))] = mode, content
    found.pop("data/.prepare.lock", None)
    return found


def put(tmp_path, name, content):
    """A dataset's folder with a file of the user's, and an archive; returns the source and the folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    return Source("the page", folders=("images",), archive=name), folder


@pytest.mark.parametrize("name", GOOD)
def test_good_archives(name, tmp_path):
    content, expected = GOOD[name]
    source, folder = put(tmp_path, name, content)
    before = look(tmp_path)
    obtain(source, folder)
    after = look(tmp_path)
    assert before.items() <= after.items()
    written = {path.removeprefix("data/"): each for path, each in after.items() if path not in before}
    assert {path: data for path, (mode, data) in written.items() if stat.S_ISREG(mode)} == expected
    for path, (mode, _) in written.items():  # neither setuid nor executable
        assert stat.S_ISDIR(mode) or stat.S_IMODE(mode) & ~0o666 == 0, path
    assert set(written) == {str(above) for path in expected for above in (Path(path), *Path(path).parents)} - {"."}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives(name, tmp_path):
    content, message = BAD[name]
    source, folder = put(tmp_path, name, content)
    before = look(tmp_path)
    with pytest.raises(UserError) as caught:
        obtain(source, folder)
    said = str(caught.value)
    assert message in said and name in said and said.count("\n") == 0 and len(said) < 500
    assert look(tmp_path) == before and not os.path.lexists("/tmp/softcpt-evil")


@pytest.mark.parametrize("content, message", [
    (zipped({"top/inner.tar": tar({"images/x": b"", "../evil": b""})}), "'../evil' would be extracted to "),
    (zipped({"top/inner.tar": b"text"}), "top/inner.tar in "), (zipped(IMAGES), "does not hold top/inner.tar: ")])
def test_bad_inner_archives(content, message, tmp_path):
    source, folder = put(tmp_path, "x.zip", content)
    before = look(tmp_path)
    with pytest.raises(UserError, match="inner.tar") as caught:
        obtain(Source("the page", folders=("images",), archive="x.zip", inner="top/inner.tar"), folder)
    assert message in str(caught.value) and look(tmp_path) == before


@pytest.mark.parametrize("name", [".unpacking", ".prepare.lock", "images", "annotations", "empty"])
def test_links_are_never_followed(name, tmp_path):
    _, folder = put(tmp_path, "x.zip", zipped({**IMAGES, "annotations/list.txt": b"list", "empty/1.jpg": b""}))
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "folder" / "empty").mkdir(parents=True)
    (elsewhere / "file").write_text("not to be touched")
    target = {".prepare.lock": "file", "empty": "folder/empty", "images": "nowhere"}.get(name, "folder")
    (folder / name).symlink_to(elsewhere / target)
    before = look(tmp_path)
    with pytest.raises(UserError, match=f"{name} is in the way, it is a link or of the wrong kind: move it away"):
        obtain(Source("the page", ("images", "empty"), ("annotations/list.txt",), archive="x.zip"), folder)
    assert look(tmp_path) == before


def test_an_unfinished_download_that_is_a_link_is_not_followed(tmp_path):
    _, folder = put(tmp_path, "y.zip", b"")
    (tmp_path / "elsewhere").write_text("not to be touched")
    (folder / "x.zip.part").symlink_to(tmp_path / "elsewhere")
    before = look(tmp_path)
    with pytest.raises(UserError, match="x.zip.part is in the way, it is a link"):
        obtain(Source("the page", folders=("images",), url="https://127.0.0.1:9/x.zip"), folder, unverified=True)
    assert look(tmp_path) == before


def test_a_folder_that_is_a_link_is_the_users_choice(tmp_path):
    source, folder = put(tmp_path, "x.zip", zipped(IMAGES))
    (tmp_path / "link").symlink_to(folder)
    obtain(source, tmp_path / "link")
    assert (folder / "images" / "a" / "1.jpg").read_bytes() == b"one"


@pytest.mark.parametrize("content, expected", [(POINTER, True), (b"", False), (b"version 2", False)])
def test_lfs_pointers(content, expected, tmp_path):
    (tmp_path / "x").write_bytes(content)
    assert is_lfs_pointer(tmp_path / "x") is expected


# ------------------------------------------------------------------ declared sources
NO_HTTPS = {"http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"}  # as torchvision has it; its checksum is known


def test_downloads_are_by_https_and_which_have_no_checksum():
    configs = read_configs()
    sources = [source for cls in members_of(configs, configs).values() for source in cls.sources if source.url]
    assert {source.url for source in sources if not source.url.startswith("https://")} == NO_HTTPS
    unchecked = {source.name for source in sources if not source.checksum}
    assert unchecked == {"fgvc-aircraft-2013b.tar.gz"}
    assert not unchecked & {url.rsplit("/", 1)[1] for url in NO_HTTPS}
