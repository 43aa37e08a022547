"""Image files as people have them: read with their contents, or refused in one sentence."""

import io
import os
import pickle
import shutil
import socket
import struct
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile

from common import images
from common.errors import UserError
from common.images import BrokenImage, MissingImage, list_broken, read_image
from dassl.data.datasets import build_dataset
from datasets import check_images
from datasets.base import NamedDatum, Task, doubts_of
from datasets.check_images import broken_images
from datasets.files import describe_unread, unread_in_class_folders
from datasets.prepare import __main__ as prepare
from features.images import Images
from tests.helpers import call, make_cfg, results, train_args
from tests.miniature import make_general

SIZE = (48, 32)  # width, height
GREY = np.tile(np.linspace(0, 255, SIZE[0]).round().astype(np.uint8), (SIZE[1], 1))  # (H, W)
COLOUR = np.stack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)], axis=2)  # (H, W, 3)
L, RGB = Image.fromarray(GREY), Image.fromarray(COLOUR)
TRANSPARENT = Image.merge("RGBA", [*RGB.split(), L])
GREY3 = np.repeat(GREY[:, :, None], 3, axis=2)


def saved(image, kind, frames=1, **options):
    """A file's bytes; the frames after the first are red."""
    if frames > 1:
        options.update(save_all=True, append_images=[Image.new("RGB", SIZE, "red")] * (frames - 1))
    with io.BytesIO() as buffer:
        image.copy().save(buffer, kind, **options)  # Pillow leaves settings in what it saves
        return buffer.getvalue()


def chunk(name, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits, colour_type, rows, more=b""):
    """A PNG of rows of bytes, as Pillow does not write it, with `more` chunks."""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, bits, colour_type, 0, 0, 0)) + more
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b""))


def tiff(bits, rows, photometric=1, channels=1, sample_format=1, more=(), deflate=False):
    """A little-endian TIFF of rows of bytes, as Pillow does not write it, with `more` fields."""
    data = zlib.compress(b"".join(rows)) if deflate else b"".join(rows)
    depth = struct.pack(f"<{channels}H", *[bits] * channels)
    at = 8 + len(data)
    fields = [(256, 4, 1, SIZE[0]), (257, 4, 1, SIZE[1]),
              (258, 3, channels, at if channels > 2 else bits), (259, 3, 1, 8 if deflate else 1),
              (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, SIZE[1]),
              (279, 4, 1, len(data)), (339, 3, 1, sample_format)]
    fields = sorted([*fields, *more])
    return (b"II*\0" + struct.pack("<I", at + len(depth)) + data + depth + struct.pack("<H", len(fields))
            + b"".join(struct.pack("<HHII", *field) for field in fields) + b"\0" * 4)


def big_endian16(array):
    return [row.tobytes() for row in (array.astype(np.uint16) * 257).astype(">u2")]


def twelve(array, order="<"):
    """Rows of 12-bit values in 16 bits."""
    return [row.tobytes() for row in (array.astype(int) * 4095 // 255).astype(f"{order}u2")]


def packed12(array):
    """Rows of 12-bit values, two in three bytes."""
    values = array.astype(int) * 4095 // 255
    return [b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in zip(row[::2], row[1::2]))
            for row in values.tolist()]


PACKED2 = [np.packbits(np.unpackbits(row[:, None] >> 6, axis=1)[:, 6:]).tobytes() for row in GREY]
# name: (bytes, pixels (H, W, 3) that are expected within 1; None: as Pillow converts it, bit for bit)
READ = {
    "baseline.jpg": (saved(RGB, "JPEG"), None),
    "progressive.jpg": (saved(RGB, "JPEG", progressive=True), None),
    "grey.jpg": (saved(L, "JPEG"), None),
    "cmyk.jpg": (saved(RGB.convert("CMYK"), "JPEG"), None),
    "ycck.jpg": (saved(RGB.convert("CMYK"), "JPEG").replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"), None),
    "icc.jpg": (saved(RGB, "JPEG", icc_profile=b"\0" * 200), None),
    "two.mpo.jpg": (saved(RGB, "MPO", frames=2), None),
    "odd_exif.jpg": (saved(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    "rgb.png": (saved(RGB, "PNG"), COLOUR),
    "interlaced_1bit.png": (saved(L.convert("1"), "PNG"), None),
    "palette.png": (saved(RGB.quantize(16), "PNG"), None),
    "palette_transparent.png": (saved(RGB.quantize(16), "PNG", transparency=bytes(range(16))), None),
    "palette_one_transparent.png": (saved(RGB.quantize(16), "PNG", transparency=3), None),
    "rgba.png": (saved(TRANSPARENT, "PNG"), COLOUR),
    "grey_alpha.png": (saved(Image.merge("LA", [L, L]), "PNG"), GREY3),
    "grey_2bit.png": (png(2, 0, PACKED2),
                      GREY3 // 64 * 85),
    "grey16.png": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), GREY3),
    "grey16_alpha.png": (png(16, 4, big_endian16(np.stack([GREY, GREY], 2).reshape(SIZE[1], -1))), GREY3),
    "rgb16.png": (png(16, 2, big_endian16(COLOUR.reshape(SIZE[1], -1))), COLOUR),
    "rgba16.png": (png(16, 6, big_endian16(np.array(TRANSPARENT).reshape(SIZE[1], -1))), COLOUR),
    "animated.png": (saved(RGB, "PNG", frames=2), COLOUR),
    "lossless.webp": (saved(RGB, "WEBP", lossless=True), COLOUR),
    "alpha.webp": (saved(TRANSPARENT, "WEBP"), None),
    "animated.webp": (saved(RGB, "WEBP", lossless=True, frames=2), COLOUR),
    "rgb.bmp": (saved(RGB, "BMP"), COLOUR),
    "palette.bmp": (saved(RGB.quantize(16), "BMP"), None),
    "rgb.tif": (saved(RGB, "TIFF"), COLOUR),
    "lzw.tif": (saved(RGB, "TIFF", compression="tiff_lzw"), COLOUR),
    "jpeg.tif": (saved(RGB, "TIFF", compression="jpeg"), None),
    "pages.tif": (saved(RGB, "TIFF", frames=2), COLOUR),
    "cmyk.tif": (saved(RGB.convert("CMYK"), "TIFF"), None),
    "lab.tif": (saved(RGB.convert("LAB"), "TIFF"), None),
    "grey12.tif": (tiff(12, packed12(GREY)), GREY3),
    "grey16.tif": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), GREY3),
    "grey16_big_endian.tif": (saved(Image.fromarray((GREY.astype(np.uint16) * 257).astype(">u2")), "TIFF"), GREY3),
    "rgb16.tif": (tiff(16, [row.tobytes() for row in COLOUR.astype("<u2") * 257], photometric=2, channels=3), COLOUR),
    "signed16.tif": (tiff(16, [row.tobytes() for row in (GREY.astype(np.int32) * 257 - 32768).astype("<i2")],
                          sample_format=2), GREY3),
    "grey12_in_16.png": (png(16, 0, twelve(GREY, ">")), GREY3),
    "grey12_in_16.tif": (tiff(16, twelve(GREY)), GREY3),
    "grey8_in_16.png": (saved(Image.fromarray(GREY.astype(np.uint16)), "PNG"), GREY3),
    "grey12_alpha.png": (png(16, 4, twelve(np.stack([GREY, GREY], 2).reshape(SIZE[1], -1), ">")), GREY3),
    "rgb12_in_16.png": (png(16, 2, twelve(COLOUR.reshape(SIZE[1], -1), ">")), COLOUR),
    "rgba12_in_16.png": (png(16, 6, twelve(np.array(TRANSPARENT).reshape(SIZE[1], -1), ">")), COLOUR),
    "rgb12_in_16.tif": (tiff(16, twelve(COLOUR), photometric=2, channels=3), COLOUR),
    "rgb12_deflate.tif": (tiff(16, twelve(COLOUR), photometric=2, channels=3, deflate=True), COLOUR),
    "grey16_says_2040.tif": (tiff(16, twelve(GREY // 4), more=[(281, 3, 1, 2040)]), GREY3 // 4 * 2),
    "grey16_says_all.tif": (tiff(16, twelve(GREY), more=[(281, 3, 1, 65535)]), GREY3 // 16),
    "grey16_says_less.tif": (tiff(16, twelve(GREY), more=[(281, 3, 1, 1000)]), GREY3),
    "rgb16_says_2040.tif": (tiff(16, twelve(COLOUR // 4), 2, 3, more=[(341, 3, 1, 2040)]), COLOUR // 4 * 2),
    "int32_small.tif": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), GREY3),
    "int32_wide.tif": (saved(Image.fromarray(GREY.astype(np.int32) * 70000 - 900), "TIFF"), GREY3),
    "int32_300.tif": (saved(Image.fromarray((GREY * (300 / 255)).astype(np.int32)), "TIFF"), GREY3),
    "float_unit.tif": (saved(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), GREY3),
    "float_255.tif": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), GREY3),
    "float_metres.tif": (saved(Image.fromarray(GREY.astype(np.float32) * 9 - 400), "TIFF"), GREY3),
    "float_nan.tif": (saved(Image.fromarray(np.where(GREY < 40, np.nan, GREY / 255).astype(np.float32)), "TIFF"),
                      np.where(GREY3 < 40, 0, GREY3)),
    "a_png.jpg": (saved(RGB, "PNG"), COLOUR),
    "a_jpeg.tiff": (saved(RGB, "JPEG"), None),
    "no_suffix": (saved(RGB, "PNG"), COLOUR),
    "one_pixel.png": (saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), np.uint8([[[9, 8, 7]]])),
    "panorama.png": (saved(Image.new("RGB", (60000, 3), (9, 8, 7)), "PNG"), np.uint8([[[9, 8, 7]]])),
}
JPEG = READ["baseline.jpg"][0]
NO_IMAGE = r"is damaged, or no image of a kind that is read \(JPEG, .*\): convert it to PNG, or extract or download it "
THUMBNAIL = "holds a raw photograph or another larger picture, of which Pillow reads the thumbnail: raw"
# "CR" after the header, and the fields behind it
CANON = b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + saved(L, "TIFF")[8:]
# name: (bytes, how the sentence goes on after the path)
REFUSED = {
    "empty.jpg": (b"", "is empty: extract or download it again"),
    "truncated.jpg": (JPEG[:-90], "is damaged, or .*truncated.*: extract or download it again"),
    "truncated.png": (READ["rgb.png"][0][:100], "is damaged, or .*extract or download it again"),
    "truncated.webp": (READ["lossless.webp"][0][:60], "is .*damaged.*: extract or download it again"),
    "truncated.tif": (READ["rgb.tif"][0][:500], "is .*damaged.*: extract or download it again"),
    "header_only.jpg": (JPEG[:10], "is damaged, or .*: extract or download it again"),
    "flipped_bit.png": (READ["rgb.png"][0].replace(b"IDAT", b"IDAU"), "is .*damaged"),
    "no_width.png": (READ["rgb.png"][0][:16] + b"\0" * 4 + READ["rgb.png"][0][20:], "is .*damaged"),
    "zeros.jpg": (b"\0" * 999, NO_IMAGE),
    "page.jpg": (b"\n<!DOCTYPE html><html>404</html>", NO_IMAGE),
    "animation.jpg": (saved(RGB, "GIF"), NO_IMAGE),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n",
                    "is a Git LFS pointer, not an image: run git lfs pull"),
    "dng.tif": (tiff(8, [row.tobytes() for row in GREY], more=[(50706, 1, 4, 1025)]), THUMBNAIL),
    "nikon.tif": (tiff(8, [row.tobytes() for row in GREY], more=[(254, 4, 1, 1), (330, 4, 1, 8)]), THUMBNAIL),
    "two.tif": (saved(RGB, "TIFF", frames=2, tiffinfo={254: 1}), THUMBNAIL),
    "canon.tif": (CANON, THUMBNAIL),
    "plain.NEF": (saved(RGB, "TIFF"), THUMBNAIL),
    "panasonic.rw2": (b"IIU\0" + b"\0" * 99, "is a photograph of another kind: raw photographs must be developed to "),
    "float_rgb.tif": (tiff(32, [row.tobytes() for row in (COLOUR / 255).astype("<f4")], 2, 3, 3), NO_IMAGE),
    "all_nan.tif": (saved(Image.fromarray(np.full_like(GREY, np.nan, np.float32)), "TIFF"), "holds no finite value"),
    "bomb.png": (READ["rgb.png"][0][:16] + struct.pack(">II", 20000, 15000) + READ["rgb.png"][0][24:29]
                 + struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">II", 20000, 15000) + READ["rgb.png"][0][24:29]))
                 + READ["rgb.png"][0][33:], "has 300 million pixels, but at most 179 million are read: scale it down"),
}


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", READ)
def test_read_with_their_contents(name, tmp_path, capfd):
    content, expected = READ[name]
    path = tmp_path / name
    path.write_bytes(content)
    image = read_image(str(path))
    found = np.asarray(image)
    assert image.mode == "RGB" and not any(capfd.readouterr())
    if expected is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = Image.open(path).convert("RGB")
        assert np.array_equal(found, np.asarray(plain)) and found.std() > 10
    else:
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name, tmp_path, capfd):
    content, expected = REFUSED[name]
    path = str(tmp_path / name)
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(BrokenImage, match=f"^{path} {expected}") as error:
        read_image(path)
    assert not any(capfd.readouterr()) and "\n" not in str(error.value) and ": " in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.path, again.reason, str(again)) == (path, error.value.reason, str(error.value))


def test_what_is_no_file(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink(tmp_path / "gone.jpg", tmp_path / "link.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    for name, kind, expected in (
            ("none.jpg", MissingImage, "does not exist: check DATASET.ROOT"),
            ("link.jpg", MissingImage, "is a link to .*gone.jpg, which does not exist: mend the link"),
            ("folder.jpg", BrokenImage, "is a folder, not an image"), ("pipe.jpg", BrokenImage, "is a pipe"),
            ("socket.jpg", BrokenImage, "is a pipe, a socket"), ("x" * 300, BrokenImage, "can't be opened .*too long"),
            ("a\0b", BrokenImage, "can't be opened")):
        with pytest.raises(kind, match=expected) as error:
            read_image(str(tmp_path / name))
        assert isinstance(error.value, FileNotFoundError) == (kind is MissingImage)
        assert type(pickle.loads(pickle.dumps(error.value))) is kind


def test_large_photographs_are_read_without_a_warning(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(READ["rgb.png"][0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(str(path)).size == SIZE  # more, but not twice as many


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(READ["rgb.png"][0])
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refused)  # root may read all files
    with pytest.raises(BrokenImage, match="a.png may not be read: change its permissions"):
        read_image(str(path))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_exif_orientation(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of what the photographer saw
    path = str(tmp_path / "photo")
    with open(path, "wb") as file:
        file.write(saved(RGB, kind, exif=exif, frames=2 if kind == "MPO" else 1))
    as_stored, upright = np.asarray(read_image(path)), np.asarray(read_image(path, upright=True))
    assert as_stored.shape == (SIZE[1], SIZE[0], 3)
    assert np.array_equal(upright, np.rot90(as_stored, -1))


def test_low_colours_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.png").write_bytes(png(16, 2, twelve(COLOUR.reshape(SIZE[1], -1), ">"),
                                         chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    found = np.asarray(read_image(str(tmp_path / "a.png"), upright=True)).astype(int)
    assert np.abs(found - np.rot90(COLOUR, -1)).max() <= 1


def test_a_picture_that_calls_itself_reduced_is_read_if_there_is_no_other(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(saved(RGB, "TIFF", tiffinfo={254: 1}))
    assert np.array_equal(read_image(str(path)), COLOUR)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_is_read_with_pillow_heif_and_named_without(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(HEIC)
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in images.FORMATS if name != "HEIF"))
    with pytest.raises(BrokenImage, match=r"a.jpg is .* kind: HEIC needs pillow-heif \(pip install pillow-heif\) or "):
        read_image(str(path))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    assert images.heif_formats() == ()

    class Plugin(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (1, 1), "RGB"
            self.tile = [("raw", (0, 0, 1, 1), 0, ("RGB", 0, 1))]  # the pixel is the file's first bytes

    def register_heif_opener():
        Image.register_open("HEIF", Plugin, lambda head: head[4:12] == b"ftypheic")

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register_heif_opener))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(images, "FORMATS", (*images.FORMATS, *images.heif_formats()))
    assert np.array_equal(read_image(str(path)), [[[0, 0, 0]]])


def test_upright_changes_nothing_without_an_orientation(tmp_path):
    for name in ("baseline.jpg", "odd_exif.jpg", "grey16.png", "rgb.tif", "grey12.tif"):
        (tmp_path / name).write_bytes(READ[name][0])
        path = str(tmp_path / name)
        assert np.array_equal(read_image(path), read_image(path, upright=True)), name


# ------------------------------------------------------------------ images of datasets
BAD = {"cut.png": READ["rgb.png"][0][:100], "page.png": b"<html>"}


@pytest.fixture
def photos(photo_root, tmp_path, monkeypatch):
    """A copy of two small tasks that a test may change, and an empty cache."""
    monkeypatch.setenv("SOFTCPT_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))


@pytest.fixture
def opened(monkeypatch):
    """Paths of the files that Pillow opens."""
    paths, opener = [], Image.open

    def counted(path, *args, **kwargs):
        paths.append(path)
        return opener(path, *args, **kwargs)

    monkeypatch.setattr(Image, "open", counted)
    return paths


def files(folder):
    return sorted(map(str, folder.rglob("*.png")))


def test_broken_images_are_found_and_sound_ones_are_remembered(photos, opened):
    paths = files(photos)
    assert broken_images(paths) == {} and sorted(opened) == paths
    opened.clear()
    assert broken_images(paths * 2) == {} and not opened
    for path, content in zip(paths, BAD.values()):
        Path(path).write_bytes(content)
    os.utime(paths[2], (1e9, 1e9))
    found = broken_images(paths)
    assert list(found) == paths[:2] and sorted(opened) == paths[:3]
    assert "is damaged" in found[paths[0]] and found[paths[1]].startswith("is damaged")
    opened.clear()
    assert broken_images(paths) == found and opened == paths[:2]  # they may have been mended
    Path(paths[0]).write_bytes(READ["rgb.png"][0])
    os.remove(paths[1])
    assert broken_images(paths) == {
        paths[1]: "does not exist: check DATASET.ROOT and that the dataset is complete"}


def test_many_images_are_checked_by_several_processes(photos, monkeypatch):
    for i in range(300):
        (photos / f"{i}.png").write_bytes(READ["rgb.png"][0] if i % 100 else b"")
    monkeypatch.setattr(check_images, "cpu_count", lambda: 2)
    expected = [str(photos / f"{i}.png") for i in (0, 100, 200)]
    assert sorted(broken_images(files(photos))) == expected
    monkeypatch.setattr(check_images, "read_image", None)
    with pytest.raises(TypeError):  # of the broken ones, the others are known
        broken_images(files(photos))
    assert broken_images(set(files(photos)) - set(expected)) == {}


def test_a_memory_that_fails_is_said(photos, capsys):
    memory = photos.parent / "cache" / "checked_images.sqlite"
    memory.parent.mkdir()
    memory.write_bytes(b"damaged" * 100)
    with pytest.raises(UserError, match=f"{memory}, which .* can't be used .file is not a database.: delete it"):
        broken_images(files(photos))
    assert prepare.main(["folder_tasks", "--root", str(photos), "--check"]) == 2
    assert capsys.readouterr().err.startswith(f"{memory}, which remembers")
    memory.unlink()
    memory.mkdir()
    with pytest.raises(UserError, match="can't be used .unable to open"):
        broken_images(files(photos))


def test_files_that_their_suffix_hides_are_counted_and_named(tmp_path):
    for name in ("a.gif", "b.GIF", "c.dcm", "d.jpg", "e.TIF", "IMG1", ".hidden.gif", "Thumbs.db", "README", "a.txt",
                 "b.CSV", "c.json", "f.NEF"):
        (tmp_path / name).touch()
    (tmp_path / "folder.gif").mkdir()
    found = unread_in_class_folders([{"all": [(str(tmp_path / "d.jpg"), 0)]}])
    assert describe_unread(found) == (
        f"5 files are not read (1 .dcm, 2 .gif, 1 .nef, 1 no suffix): {tmp_path}/IMG1, {tmp_path}/a.gif, "
        f"{tmp_path}/b.GIF and 2 more; raw photographs must be developed to JPEG or TIFF, convert all else to PNG or "
        "JPEG")
    assert describe_unread([]) == ""
    assert describe_unread(["x/a.HEIC"]).startswith("1 file is not read (1 .heic): x/a.HEIC; HEIC needs pillow-heif ")


def test_a_class_folder_without_any_image_is_looked_into(tmp_path):
    """Where the class has images in another part."""
    for name in ("train/cat/a.jpg", "train/dog/a.jpg", "test/cat/a.jpg", "test/dog/a.mov"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    parts = {part: [(str(path), 0) for path in (tmp_path / part).rglob("*.jpg")] for part in ("train", "test")}
    assert unread_in_class_folders([parts]) == [str(tmp_path / "test" / "dog" / "a.mov")]


def test_what_a_run_does_not_read_is_said(photos, capsys):
    """In training as with --check: other files, names that say nothing, and a task of one class."""
    (photos / "lightness" / "dark").rename(photos / "lightness" / "n01440764")
    (photos / "colour_naming" / "red" / "IMG_1.mov").touch()
    shutil.copytree(photos / "colour_naming" / "red", photos / "lone" / "7")
    build_dataset(make_cfg(photos, {"DATASET.NAME": "FolderTasks"}))
    trained = capsys.readouterr().out
    assert prepare.main(["folder_tasks", "--root", str(photos), "--check"]) == 0
    checked = capsys.readouterr().out
    for text in (
            f"2 files are not read (2 .mov): {photos}/colour_naming/red/IMG_1.mov, {photos}/lone/7/IMG_1.mov; convert",
            "task 'lightness' has classes whose names are numbers or WordNet ids (n01440764), which tell CLIP nothing: "
            "name each in tasks.yaml, such as classes: {'n01440764': NAME}, or rename the folders\n",
            "task 'lone' has classes whose names are numbers or WordNet ids (7)",
            "task 'lone' has the single class '7': its accuracy is always 100%"):
        assert f"Warning: {text}" in trained and f"\nfolder_tasks: {text}" in checked


def test_a_class_of_other_files_alone_is_said(photos, capsys):
    (photos / "lightness" / "grey").mkdir()
    (photos / "lightness" / "grey" / "a.heic").touch()
    text = f"1 file is not read (1 .heic): {photos}/lightness/grey/a.heic; HEIC needs pillow-heif"
    with pytest.raises(UserError) as error:
        build_dataset(make_cfg(photos, {"DATASET.NAME": "FolderTasks"}))
    assert text in str(error.value)
    assert prepare.main(["folder_tasks", "--root", str(photos), "--check"]) == 1
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("name, odd", [
    ("7", True), ("007", True), ("1.5", True), ("n01440764", True), ("n02085620-Terrier", True), ("n02085620 x", True),
    ("747-200", False), ("7 up", False), ("n1", False), ("cat", False), (".", False)])
def test_names_that_are_numbers(name, odd):
    assert len(doubts_of(Task("t", (name, "owl")))) == odd


def run(root, backbone, output, trainer="MTCoOp", *extra, **options):
    options = {"TRAINER.MTCOOP.TASK_N_CTX": 2, **options} if trainer == "MTCoOp" else options
    return call(train_args(root, backbone, output, trainer, *extra, **options))


def broken_one(part, photos, tmp_path, backbone, number=0):
    """Spoil an image that a run reads in its `part`; returns its path."""
    trainer = run(photos, backbone, tmp_path / "look", "MTCoOp", "--no-train")
    datums = {"train": trainer.dataset.train_x, "val": trainer.dataset.val, "test": trainer.dataset.test}
    path = datums[part][number].impath
    Path(path).write_bytes(BAD["cut.png"])
    return path


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_run_names_the_broken_images_before_it_trains_or_leaves_them_out(part, photos, backbone, tmp_path, capsys):
    path = broken_one(part, photos, tmp_path, backbone)
    options = {"TEST.FINAL_MODEL": "best_val"}
    capsys.readouterr()
    with pytest.raises(UserError) as error:
        run(photos, backbone, tmp_path / "run", **options)
    assert str(error.value).startswith(f"1 image can't be read:\n  {path} is damaged")
    assert "set DATASET.SKIP_BROKEN True, which leaves them out" in str(error.value)
    assert "epoch [1/" not in capsys.readouterr().out
    trainer = run(photos, backbone, tmp_path / "skip", **options, **{"DATASET.SKIP_BROKEN": True})
    assert "DATASET.SKIP_BROKEN leaves out 1 of 60 images" in capsys.readouterr().out
    dataset = trainer.dataset
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (
        10, 10 - (part == "val"), 20 - (part == "test"))  # only of training images there are others in the class
    assert path not in [datum.impath for datum in dataset.train_x + dataset.val + dataset.test]
    Path(path).write_bytes(READ["rgb.png"][0])
    run(photos, backbone, tmp_path / "mended", **options)
    skipped, mended = (results(tmp_path / name)["identity"] for name in ("skip", "mended"))
    assert {key for key in mended if mended[key] != skipped[key]} == {"DATASET.SKIP_BROKEN", f"data.{part}"}


def test_an_image_that_breaks_after_the_check_is_named_without_advice_that_was_taken(photos, backbone, tmp_path,
                                                                                       monkeypatch):
    path = broken_one("train", photos, tmp_path, backbone)
    monkeypatch.setattr("datasets.check_images.broken_images", lambda paths: {})
    with pytest.raises(UserError) as error:
        run(photos, backbone, tmp_path / "run", **{"DATASET.SKIP_BROKEN": True})
    assert path in str(error.value) and "SKIP_BROKEN" not in str(error.value)
    assert "could be read when the run began: call the same command again" in str(error.value)


@pytest.mark.parametrize("options", [{"DATALOADER.FEATURE_CACHE": False}, {"DATALOADER.NUM_WORKERS": 2}])
def test_broken_images_without_cache_and_of_workers(options, photos, backbone, tmp_path):
    paths = [broken_one("train", photos, tmp_path, backbone, number) for number in (0, 7)]
    with pytest.raises(UserError, match="^2 images can't be read:") as error:
        run(photos, backbone, tmp_path / "run", **options)
    assert all(path in str(error.value) for path in paths) and "Traceback" not in str(error.value)


def test_what_was_sound_is_not_encoded_again(photos, backbone, tmp_path, opened):
    path = broken_one("test", photos, tmp_path, backbone)
    for _ in range(2):
        opened.clear()
        with pytest.raises(UserError):
            run(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    assert opened == [path]


def test_at_most_ten_are_named():
    text = list_broken({f"{i:02d}.png": "is empty" for i in range(12)})
    assert text.startswith("12 images can't be read:\n  00.png is empty\n") and text.endswith("\n  ... and 2 more")
    assert text.count("\n") == 11


def test_draws_of_other_images_stay_and_a_class_keeps_its_shots(photos, backbone, tmp_path):
    def draws(shots, **options):
        dataset = build_dataset(make_cfg(photos, {
            "DATASET.NAME": "FolderTasks", "DATASET.NUM_SHOTS": shots, **options}))
        return [[datum.impath for datum in datums] for datums in (dataset.train_x, dataset.val, dataset.test)]

    before = draws(5)  # of six training images a class
    for number in (3, 8, 13, 18, 23):  # one of each class
        path = Path(before[0][number])
        content = path.read_bytes()
        path.write_bytes(b"")
        after = draws(5, **{"DATASET.SKIP_BROKEN": True})
        assert len(set(after[0])) == 25 and after[1:] == before[1:]
        assert [a == b for a, b in zip(after[0], before[0])] == [i != number for i in range(25)]
        assert Path(after[0][number]).parent == path.parent
        path.write_bytes(content)
    assert draws(5) == before  # what is stored is the draw from all images
    for image in path.parent.iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match=f"no training image of class '{path.parent.name}' of task .* can be read"):
        draws(5, **{"DATASET.SKIP_BROKEN": True})


def test_own_photographs_are_turned_and_public_sets_are_not(photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in files(photos):
        Path(path).write_bytes(saved(RGB, "PNG", exif=exif))
    dataset = build_dataset(make_cfg(photos, {"DATASET.NAME": "FolderTasks"}))
    cfg = make_cfg(photos)
    turned = Images(cfg, dataset.train_x, lambda image: np.asarray(image))
    assert np.array_equal(turned[0], np.rot90(COLOUR, -1))
    turned_key = turned.keys([0])[0]
    dtd = make_general(tmp_path / "public", "dtd", 47)
    for path in dtd.rglob("*.jpg"):
        path.write_bytes(saved(RGB, "PNG", exif=exif))
    public = build_dataset(make_cfg(tmp_path / "public", {"DATASET.NAME": "DescribableTextures"}))
    assert np.array_equal(Images(cfg, public.train_x, lambda image: np.asarray(image))[0], COLOUR)
    plain = NamedDatum("a", impath=dataset.train_x[0].impath)
    assert Images(cfg, [plain], None).keys([0])[0] != turned_key
