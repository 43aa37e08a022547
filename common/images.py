"""Read image files of many kinds as RGB, and say in a sentence why one can't be read."""

import contextlib
import os
import re
import stat
import sys
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from .errors import MissingFile, UserError
from .files import is_lfs_pointer



def heif_formats():
    """Make Pillow read HEIC if pillow-heif is installed; return Pillow's name of it in a tuple, else ()."""
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener()
    return ("HEIF",)


# MPO, several JPEG in one file, is opened by Pillow's JPEG. Pillow 11.3 and later have AVIF.
READER = 2  # number of the way from a file to its pixels: by another, images are checked and encoded anew
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", *["AVIF"] * bool(features.check("avif")), *heif_formats())
AGAIN = "extract or download it again, or convert it to 8-bit PNG"
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_HINT = "HEIC needs pillow-heif (pip install pillow-heif) or conversion to JPEG"
# Pillow opens many raw photographs as TIFF: their thumbnail.
RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef",
                ".srw", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mrw", ".mos", ".x3f", ".raw")
RAW_HINT = "raw photographs must be developed to JPEG or TIFF"
SUBFILE_TYPE, MAX_SAMPLE, SUB_IFDS, S_MAX_SAMPLE, DNG_VERSION = 254, 281, 330, 341, 50706  # tags of TIFF
DEPTHS = 8, 10, 12, 14, 16  # bits of cameras, scanners and X-rays that files of 16 bits hold
# Pillow's names of the bytes of 16-bit colours, of which it keeps the high ones -> what it must be told to keep the low
# ones. N is the machine's own order. Grey with alpha is read as it lies: high, low, high, low.
LOW_BYTES = {f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA", "RGBX") for order, other in (
    ("L", "B"), ("B", "L"), ("N", "B" if sys.byteorder == "little" else "L"))} | {"LA;16B": "RGBA"}


class BrokenImage(UserError):
    """A file that can't be read as an image.

    Attributes:
        path: path of the file.
        reason: continues a sentence that begins with the path ("is empty: ...") and says what to do.
    """

    def __init__(self, path, reason):
        super().__init__(path, reason)  # both, so that it can be pickled
        self.path, self.reason = path, reason

    def __str__(self):
        return f"{self.path} {self.reason}"


class MissingImage(BrokenImage, MissingFile):
    """There is no such file."""


def read_image(path, upright=False):
    """Read the (first) frame of an image file as a PIL image in RGB.

    The file may be JPEG, PNG, WebP, BMP, TIFF or, where Pillow has them, AVIF and HEIC, with any suffix and up to 178
    million pixels. Pillow's `convert("RGB")` converts images of up to 8 bits; it drops transparency. Images of more
    bits become values from 0 to 255:

    - 12 and 16 bits: multiplied by 255 and divided by the largest value that the file could have, see `largest_of`.
      Where colours use all 16 bits, the high byte is taken, as Pillow does.
    - 32-bit grey integers and floats: values that all lie in [0, 255] are taken as they are, but floats in [0, 1] are
      multiplied by 255; others are stretched so that the image's smallest value becomes 0 and its largest 255. NaN
      becomes 0.

    Args:
        upright: turn the image as its EXIF orientation says. TIFF files are always turned, by Pillow.

    Raises:
        BrokenImage: the file is no such image, is damaged, can't be opened, or is a raw photograph, of which Pillow
            would read the thumbnail.
        MissingImage: there is no such file.
    """
    check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd metadata, and on size, which is checked
        try:
            image, deep = load(path, upright)
            return scale_colours(image, deep, lambda: load(path, upright, low=True)[0]) if deep else to_rgb(image)
        except (BrokenImage, MemoryError):
            raise
        except PermissionError:
            raise BrokenImage(path, "may not be read: change its permissions") from None
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            raise BrokenImage(path, f"has {int(pixels[0]) / 1e6 if pixels else 179:,.0f} million pixels, but at most "
                              f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million are read: scale it down") from None
        except UnidentifiedImageError:
            raise BrokenImage(path, unknown_kind(path)) from None
        except Exception as error:  # Pillow's decoders share no exception type
            raise BrokenImage(path, f"is damaged, or of a kind that Pillow does not read ({one_line(error)}): {AGAIN}"
                              ) from error


def check_file(path):
    """Refuse anything but a regular file with content, before it is opened: opening a pipe waits for a writer."""
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise MissingImage(path, f"is a link to {os.readlink(path)}, which does not exist: mend the link") from None
        raise MissingImage(path, "does not exist: check DATASET.ROOT and that the dataset is complete") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BrokenImage(path, f"can't be opened ({reason}): check its name and permissions") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, a socket or a device"
        raise BrokenImage(path, f"is {kind}, not an image: remove it, or give it another name")
    if not state.st_size:
        raise BrokenImage(path, "is empty: extract or download it again")


def unknown_kind(path):
    """Return why Pillow does not know a file, as a `BrokenImage`'s reason."""
    with open(path, "rb") as file:
        head = file.read(12)
    if is_lfs_pointer(path):
        return "is a Git LFS pointer, not an image: run git lfs pull"
    if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS and "HEIF" not in FORMATS:
        return f"is a photograph of another kind: {HEIF_HINT}"
    if path.lower().endswith(RAW_SUFFIXES):
        return f"is a photograph of another kind: {RAW_HINT}"
    return ("is damaged, or no image of a kind that is read (JPEG, PNG, WebP, BMP, TIFF, AVIF): convert it to PNG, or "
            "extract or download it again")


def load(path, upright, low=False):
    """Open and decode an image file.

    Args:
        low: of 16-bit colours keep the low bytes instead of the high ones, see `LOW_BYTES`.

    Returns:
        The PIL image, turned if `upright`, and, of 16-bit colours, which Pillow reduces to 8, its name of their bytes.
    """
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "TIFF" and is_preview(image):
            raise BrokenImage(path, "holds a raw photograph or another larger picture, of which Pillow reads the "
                              f"thumbnail: {RAW_HINT}")
        tiles = getattr(image, "tile", ())  # (decoder, box, offset, arguments)
        names = [tile[3] if isinstance(tile[3], str) else tile[3] and tile[3][0] for tile in tiles]
        deep = next((name for name in names if name in LOW_BYTES), None)
        if low:
            name = LOW_BYTES[deep]
            image.tile = [with_arguments(tile, name if isinstance(tile[3], str) else (name, *tile[3][1:]))
                          for tile in tiles]
        image.load()
        if upright:
            turn(image)
        return image, deep


def with_arguments(tile, arguments):
    """Return a Pillow tile with other arguments; before Pillow 11 it was a plain tuple."""
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def is_preview(image):
    """Return whether the first picture of an opened TIFF file is the thumbnail of another, as in raw photographs."""
    with open(image.filename, "rb") as file:
        head = file.read(10)
    tags = image.tag_v2
    return (image.filename.lower().endswith(RAW_SUFFIXES) or head[8:] == b"CR" or DNG_VERSION in tags
            or bool(tags.get(SUBFILE_TYPE, 0) & 1) and (SUB_IFDS in tags or image.n_frames > 1))


def turn(image):
    """Turn a loaded image as its EXIF orientation says; an orientation that can't be read is ignored."""
    with contextlib.suppress(Exception):  # Pillow's readers share no exception type
        ImageOps.exif_transpose(image, in_place=True)


def to_rgb(image):
    """Convert an opened image of any mode to RGB, see `read_image`."""
    bits = bits_of(image)
    if bits <= 8:
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)  # (H, W)
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise BrokenImage(image.filename, "holds no finite value: make it again")
    low, high = finite.min(), finite.max()
    if bits < 32:
        values = values * (255 / largest_of(image, bits, high))
    elif image.mode == "F" and 0 <= low and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / ((high - low) or 1))
    values = np.nan_to_num(values, nan=0).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(values).convert("RGB")


def scale_colours(image, deep, load_low):
    """Convert 16-bit colours to RGB, see `read_image`.

    Args:
        image, deep: as `load` returns them. load_low: a function that returns the image with the low bytes.
    """
    high = np.asarray(image)[..., :3].astype(np.float64)  # (H, W, 3)
    largest = largest_of(image, 16, 256 * high.max())
    if largest == 2**16 - 1:
        return image.convert("RGB")
    low = np.asarray(load_low())
    values = 256 * high + (low[..., 1:2] if deep.startswith("LA") else low[..., :3])
    return Image.fromarray((values * (255 / largest)).clip(0, 255).round().astype(np.uint8))


def largest_of(image, bits, largest):
    """Return the largest value that an image of 12 or 16 bits could have, from the `largest` that it has.

    A TIFF file may say it (SMaxSampleValue, MaxSampleValue). Else values in a file of 16 bits are taken for the fewest
    bits of `DEPTHS` that hold them all: those of a 12-bit camera would be nearly black as 16 bits.
    """
    said = image.tag_v2.get(S_MAX_SAMPLE, image.tag_v2.get(MAX_SAMPLE)) if image.format == "TIFF" else None
    said = max(said) if isinstance(said, tuple) else said
    if said and largest <= said < 2**bits:
        return said
    return 2**(bits if bits < 16 else next(depth for depth in DEPTHS if largest < 2**depth)) - 1


def bits_of(image):
    """Return the bits of a value, 8 for images that Pillow has reduced to 8."""
    if image.mode.startswith("I;16"):
        return image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16  # some scanners save 12
    if image.mode == "I" and image.format == "PNG":  # Pillow 10 opens 16 bits so
        return 16
    return 32 if image.mode in ("I", "F") else 8


def one_line(error):
    """Return an exception's text on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def list_broken(broken, most=10):
    """Write {path: reason} as text: their number, and a line for each of the first `most`."""
    lines = [f"  {path} {reason}" for path, reason in sorted(broken.items())]
    if len(lines) > most:
        lines[most:] = [f"  ... and {len(lines) - most:,} more"]
    return "\n".join([f"{len(broken):,} image{'s' if len(broken) > 1 else ''} can't be read:", *lines])
