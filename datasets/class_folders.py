"""Datasets that consist of class folders alone: all of Plant-6 and RS8, some of General-10."""

import os.path as osp

from common.errors import UserError

from .base import SingleTaskDataset
from .files import find_class_folders, read_many_class_folders


class ClassFolders(SingleTaskDataset):
    """A dataset of one task whose images `image_dir/<class>/<image>` are split once, 50/20/30 per class.

    Labels follow the sorted names of the class folders.
    """

    skip = ()  # folders of `image_dir` that are no classes
    renames = {}  # {class folder: class name}; other names are the folder's with underscores as spaces
    pooled = ()  # folders of `image_dir` that each hold all class folders; their images are put together

    @classmethod
    def read_official(cls, folder):
        """Return class names and {"all": [(path, label)]}.

        Raises:
            FileNotFoundError: a folder is missing.
            UserError: there are more or fewer class folders than classes, a class folder has no image, or the class
                folders of the `pooled` folders differ.
        """
        images = osp.join(folder, cls.image_dir)
        parts = [osp.join(images, part) for part in cls.pooled] or [images]
        classes = cls.find_classes(parts[0])
        for part in parts[1:]:
            different = sorted(set(classes) ^ set(cls.find_classes(part)))
            if different:
                raise UserError(f"{parts[0]} and {part} must have the same class folders, but {different[0]} is in "
                                 "one of them only: unpack the dataset again")
        # with too many folders, the message below tells more than one about an empty folder among them
        if len(classes) <= cls.class_count:
            items = [item for items in read_many_class_folders([(part, classes) for part in parts]) for item in items]
        if len(classes) != cls.class_count:
            raise UserError(f"{cls.__name__} has {cls.class_count} classes, but {parts[0]} has {len(classes)} class "
                             f"folders ({', '.join(classes[:50])}): unpack the dataset there again, and nothing else")
        return [cls.class_name(name) for name in classes], {"all": items}

    @classmethod
    def find_classes(cls, images):
        """Return the class folders as paths relative to the folder `images`, in the order of labels."""
        return find_class_folders(images, cls.skip)

    @classmethod
    def class_name(cls, name):
        """Return the name of the class whose folder is `name`."""
        return cls.renames.get(name, name.replace("_", " "))
