"""Read image files of many kinds as RGB, and say in a sentence why one can't be read."""

import contextlib
import os
import re
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from .errors import MissingFile, UserError
from .files import is_lfs_pointer

# MPO, several JPEG in one file, is opened by Pillow's JPEG. Pillow 11.3 and later have AVIF.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", *["AVIF"] * bool(features.check("avif")))
AGAIN = "extract or download it again, or convert it to 8-bit PNG"


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

    The file may be JPEG, PNG, WebP, BMP, TIFF or, where Pillow has it, AVIF, with any suffix and up to 178 million
    pixels. Pillow's `convert("RGB")` converts images of up to 8 bits and colours of 16 bits; it drops transparency.
    Grey images of more bits become grey values from 0 to 255:

    - 16 bits: divided by 257 (12 bits of TIFF: by 4095 / 255).
    - 32-bit integers and floats: values that all lie in [0, 255] are taken as they are, but floats in [0, 1] are
      multiplied by 255; others are stretched so that the image's smallest value becomes 0 and its largest 255. NaN
      becomes 0.

    Args:
        upright: turn the image as its EXIF orientation says. TIFF files are always turned, by Pillow.

    Raises:
        BrokenImage: the file is no such image, is damaged, or can't be opened.
        MissingImage: there is no such file.
    """
    check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd metadata, and on size, which is checked
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                if upright:
                    turn(image)
                return to_rgb(image)
        except (BrokenImage, MemoryError):
            raise
        except PermissionError:
            raise BrokenImage(path, "may not be read: change its permissions") from None
        except Image.DecompressionBombError as error:
            pixels = re.search(r"\d+", str(error))
            raise BrokenImage(path, f"has {int(pixels[0]) / 1e6 if pixels else 179:,.0f} million pixels, but at most "
                              f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million are read: scale it down") from None
        except UnidentifiedImageError:
            raise BrokenImage(path, "is a Git LFS pointer, not an image: run git lfs pull" if is_lfs_pointer(path) else
                              "is damaged, or no image of a kind that is read (JPEG, PNG, WebP, BMP, TIFF, AVIF): "
                              "convert it to PNG, or extract or download it again") from None
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
        values = values * (255 / (2**bits - 1))
    elif image.mode == "F" and 0 <= low and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / ((high - low) or 1))
    values = np.nan_to_num(values, nan=0).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(values).convert("RGB")


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
