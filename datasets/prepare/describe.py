"""What the images of a dataset are, and what is unusual about them, in sentences for a person."""

import os.path as osp
from collections import Counter

import pooch

from ..base import doubts_of, first_of
from ..files import MOST, describe_unread, unread_in_class_folders

MOST_CLASSES = 50  # class names that are shown of a task


def find_places(tasks, absent):
    """Map each image that is there to its places.

    Args:
        tasks: [(Task, official parts)].
        absent: paths that do not count.

    Returns:
        {path: {(number of the task, label, part)}}.
    """
    places = {}
    for number, (_, parts) in enumerate(tasks):
        for part, items in parts.items():
            for path, label in items:
                if path not in absent:
                    places.setdefault(path, set()).add((number, label, part))
    return places


def describe_tasks(tasks, absent):
    """Return a line for each task: its name, the images of its smallest and largest class, its classes' names."""
    counts = Counter(place for found in find_places(tasks, absent).values() for place in found)
    lines = []
    for number, (task, parts) in enumerate(tasks):
        sizes = []
        for part in parts:
            numbers = [counts[number, label, part] for label in range(len(task.classnames))]
            least, most = min(numbers), max(numbers)
            sizes.append(f"{least:,}{f' to {most:,}' if most > least else ''}{f' {part}' if part != 'all' else ''}")
        classes = f"{len(task.classnames):,} class{'es' if len(task.classnames) > 1 else ''}"
        lines.append(f"task {task.name!r}, {classes} of {', '.join(sizes)} images: "
                     f"{first_of(task.classnames, MOST_CLASSES)}")
    return lines


def describe_images(cls, tasks, absent):
    """Return sentences on unusual images of `tasks` [(Task, official parts)]; images in `absent` do not count."""
    notes, places = [], find_places(tasks, absent)
    if cls.image_count and len(places) not in cls.image_count:
        notes.append(f"{len(places):,} images, officially {' or '.join(f'{count:,}' for count in cls.image_count)}")
    counts = Counter(place for found in places.values() for place in {(number, label) for number, label, _ in found})
    sizes = [(name, counts[number, label], number) for number, (task, _) in enumerate(tasks)
             for label, name in enumerate(task.classnames)]
    low, high = cls.images_per_class or (1, len(places))
    unusual = [f"{name} {count:,}" for name, count, _ in sizes if not low <= count <= high]
    if unusual:
        notes.append(f"classes with other than {low:,}{f' to {high:,}' if high > low else ''} images"
                     f"{', the official number' if cls.images_per_class else ''}: {first_of(unusual)}")
    single = [f"{name} of task {tasks[number][0].name!r}" for name, count, number in sizes
              if count == 1 and "all" in tasks[number][1]]
    if single:
        notes.append(f"classes with a single image, beside which none is left to validate or test: {first_of(single)}; "
                     "add images, or remove the class")
    unread = describe_unread(unread_in_class_folders([parts for _, parts in tasks]))
    return [*notes, *describe_copies(places), *[unread] * bool(unread),
            *(text for task, _ in tasks for text in doubts_of(task))]


def describe_copies(places):
    """Return sentences on images of the same content, which are in two classes of a task, in two parts, or else in one
    task; `places` are those of `find_places`."""
    conflicts, across, others = [], [], []
    for paths in group_copies(places):
        classes, parts = {}, {}  # task -> {label: path}, part -> path
        for path in paths:
            for number, label, part in sorted(places[path]):
                classes.setdefault(number, {}).setdefault(label, path)
                parts.setdefault(part, path)
        divided = [found for found in classes.values() if len(found) > 1]
        conflicts += [pair_of(found.values()) for found in divided]
        if len(parts) > 1:
            across.append(pair_of(parts.values()))
        elif not divided and len(classes) < len(paths):  # one photograph in several tasks is as it should be
            others.append(pair_of(paths))
    notes = []
    for pairs, where, remedy in (
            (conflicts, "in two classes of a task", "; leave each in the class that it shows"),
            (across, "there in two parts", ""), (others, "there more than once", "")):
        if pairs:
            notes.append(f"{len(pairs):,} image{'s are' if len(pairs) > 1 else ' is'} {where}, with the same content: "
                         f"{first_of(pairs, MOST // 2)}{remedy}")
    return notes


def pair_of(paths):
    """Name the first two of `paths`."""
    first, second, *_ = paths
    return f"{first} and {second}"


def group_copies(paths):
    """List the groups of `paths` whose files have the same content."""
    by_size, by_content = {}, {}
    for path in paths:
        by_size.setdefault(osp.getsize(path), []).append(path)
    for group in by_size.values():
        for path in group if len(group) > 1 else ():
            by_content.setdefault(pooch.file_hash(path), []).append(path)
    return [group for group in by_content.values() if len(group) > 1]
