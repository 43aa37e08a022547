"""Importing this package registers every dataset."""

from . import (  # noqa: F401
    caltech101, dtd, eurosat, fashion20, fgvc_aircraft, folder_tasks, food101, general10, imagenet, imagenet_a,
    imagenet_r, imagenet_sketch, imagenetv2, oxford_flowers, oxford_pets, plant6, rs8, shapes8, stanford_cars, sun397,
    ucf101,
)
