"""Importing this package registers every dataset."""

from . import fashion20, folder_tasks, general10, imagenet, outfits16, plant6, rs8  # noqa: F401
