"""Lists of images with their labels as CSV: a header, then a line for each image."""

import csv
import os.path as osp

from common.errors import UserError

from .files import IMAGE_SUFFIXES, list_images
from .schemas import check_below

# Usual names of the two columns, in small letters.
IMAGE_COLUMNS = ("filename", "file_name", "file", "filepath", "file_path", "path", "image", "image_path", "image_id")
LABEL_COLUMNS = ("label", "class", "category")


def is_table(path):
    return path.lower().endswith(".csv")


def read_table(path, folder, columns, classes=None, groups=None):
    """Read [(image, label, group)] in the order of the lines.

    The first line names the columns, between commas, semicolons or tabs. An image without a suffix, as an `image_id`,
    is the image file of that name with one.

    Args:
        path: the CSV file. folder: what its images are relative to.
        columns: `schemas.Columns` with the names of the columns; None for the usual ones.
        classes: the labels that may occur; None: any.
        groups: name of the column with an image's group, or "folder": the group is the folder that the image is in;
            None: every group is "".

    Raises:
        UserError: there is no such column, or a line is malformed, has an empty value or an unknown label, or names an
            image outside of the folder or for the second time. The message names file and line.
    """
    items, stems = {}, {}
    number = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
            header = file.readline()
            delimiter = max(",;\t", key=header.count)  # the first of equals
            header = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
            image_at = find_column(path, header, columns and columns.image, IMAGE_COLUMNS, "image")
            label_at = find_column(path, header, columns and columns.label, LABEL_COLUMNS, "label")
            group_at = find_column(path, header, groups, (), "group") if groups not in (None, "folder") else None
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                number = 1 + reader.line_num
                if not row:
                    continue
                row = [value.strip() for value in row]
                if len(row) != len(header):
                    raise ValueError(f"it has {len(row)} values, but the header {len(header)}")
                empty = [header[at] for at in (image_at, label_at, group_at) if at is not None and not row[at]]
                if empty:
                    raise ValueError(f"{empty[0]} is empty")
                if classes is not None and row[label_at] not in classes:
                    raise ValueError(f"{row[label_at]!r} is none of the task's `classes`")
                below = check_below(row[image_at])
                image = find_image(osp.join(folder, below), stems)
                if image in items:
                    raise ValueError(f"{row[image_at]!r} stands there twice")
                group = "" if groups is None else row[group_at] if group_at is not None else osp.dirname(below)
                if groups and not group:
                    raise ValueError(f"{row[image_at]!r} is in no folder, which is its group with `groups: folder`")
                items[image] = row[label_at], group
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from None
    except UserError:
        raise
    except csv.Error as error:  # in the line after the last that was read: an open quotation mark, say
        raise UserError(f"{path}, line {number + 1}: {error}") from None
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {error}") from None
    if not items:
        raise UserError(f"{path} lists no image: it needs a line for each below its header")
    return [(image, label, group) for image, (label, group) in items.items()]


def find_column(path, header, given, usual, what):
    """Return the place in the header of the column `given`, or of the one with a usual name."""
    found = [at for at, name in enumerate(header) if (name == given if given else name.lower() in usual)]
    if len(found) == 1:
        return found[0]
    wanted = repr(given) if given else f"one of {', '.join(usual)}"
    advice = "name one of them" if what == "group" else f"name it in tasks.yaml, as `columns: {{{what}: ...}}`"
    hint = ", or, if its images have no labels, list only those that have, as `images: ...`" if what == "label" else ""
    raise UserError(f"{path}, line 1: the {what} column must be {wanted}, but {len(found) or 'none'} of the columns "
                    f"{', '.join(header)} {'are' if found else 'is'}: {advice}{hint}")


def find_image(path, stems):
    """Return `path`, or, where it lacks an image's suffix, the image of that name with one, if there is one.

    Args:
        stems: {folder: {name without suffix: paths}}, which is filled.

    Raises:
        ValueError: there are several.
    """
    if path.lower().endswith(IMAGE_SUFFIXES):
        return path
    folder, name = osp.split(path)
    if folder not in stems:
        stems[folder] = {}
        for image in list_images(folder) if osp.isdir(folder) else ():
            stems[folder].setdefault(osp.splitext(osp.basename(image))[0], []).append(image)
    found = stems[folder].get(name, [path])
    if len(found) > 1:
        raise ValueError(f"{name!r} may be {' or '.join(map(osp.basename, found))}")
    return found[0]
