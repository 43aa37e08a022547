"""Stanford Cars (Krause et al., 3dRR 2013): cars by make, model and year, with the official train and test images."""

import os.path as osp

from common.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import read_mat
from .sources import Source


@DATASET_REGISTRY.register()
class StanfordCars(SingleTaskDataset):
    dataset_dir = "stanford_cars"
    sources = (Source("https://github.com/pytorch/vision/issues/7545", folders=("cars_train", "cars_test"),
                      files=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"),
                      note="the folders cars_train and cars_test, car_devkit and the labelled test annotations: the "
                           "authors' site is gone, this page tells where copies are"),)
    split_zhou = True
    class_count = 196
    image_count = (16185,)
    task_name = "car model recognition"
    template = "a photo of a {}."

    @classmethod
    def read_official(cls, folder):
        names = read_mat(osp.join(folder, "devkit", "cars_meta.mat"), "class_names")
        parts = {}
        for part, path in (("train", osp.join(folder, "devkit", "cars_train_annos.mat")),
                           ("test", osp.join(folder, "cars_test_annos_withlabels.mat"))):
            images, numbers = read_mat(path, "annotations", "fname", "class")  # classes from 1
            if not set(numbers) <= set(range(1, len(names) + 1)):
                raise UserError(f"{path} has classes that devkit/cars_meta.mat does not name: fetch both files again")
            parts[part] = [(osp.join(folder, f"cars_{part}", image), int(number) - 1)
                           for image, number in zip(images, numbers)]
        # "Audi TT RS Coupe 2012" -> "2012 Audi TT RS Coupe"
        return [" ".join([name.split()[-1], *name.split()[:-1]]) for name in names], parts
