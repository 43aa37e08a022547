"""Caltech101 (Fei-Fei et al., CVPRW 2004): photos of objects of 100 kinds; background and close-up faces left out."""

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset


@DATASET_REGISTRY.register()
class Caltech101(SingleTaskDataset):
    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    task_name = "object category recognition"
    template = "a photo of a {}."
    metric = "mean_acc"
    skip = ("BACKGROUND_Google", "Faces_easy")
    renames = {"Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike", "airplanes": "airplane"}
