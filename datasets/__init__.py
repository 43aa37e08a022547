"""Importing this package registers every dataset."""

from . import folder_tasks, shapes8  # noqa: F401
