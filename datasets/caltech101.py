"""Caltech101 (Fei-Fei et al., CVPRW 2004): photos of objects of 100 kinds; background and close-up faces left out."""

from dassl.data.datasets import DATASET_REGISTRY

from .class_folders import ClassFolders
from .sources import Source


@DATASET_REGISTRY.register()
class Caltech101(ClassFolders):
    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    sources = (Source("https://data.caltech.edu/records/mzrjq-6wc02", folders=(image_dir,),
                      url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                      checksum="md5:3138e1922a9193bfa496528edbbc45d0",
                      inner="caltech-101/101_ObjectCategories.tar.gz"),)
    split_zhou = True
    class_count = 100
    image_count = (8242,)  # of the 9,144 without BACKGROUND_Google and Faces_easy
    task_name = "object category recognition"
    template = "a photo of a {}."
    metric = "mean_acc"
    skip = ("BACKGROUND_Google", "Faces_easy")
    renames = {"Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike", "airplanes": "airplane"}
