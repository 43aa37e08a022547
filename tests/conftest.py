"""A small random CLIP, a folder of generated images, and the stored numbers of the published implementation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.memory import keep_memory
from datasets.class_folders import ClassFolders
from datasets.general10 import General10
from datasets.imagenet import ImageNetClasses, ImageNetSubset
from tests import parity

keep_memory()  # as programs do

DATA = Path(__file__).parent / "data"
TASKS = {"colour_naming": {"red": (220, 30, 30), "green": (30, 200, 30), "dark_blue": (20, 20, 130)},
         "lightness": {"dark": (30, 30, 30), "light": (230, 230, 230)}}


@pytest.fixture(scope="session")
def parity_folder(tmp_path_factory):
    """The stored cases, with the weights as the OpenAI-layout file that `cases.json` names."""
    folder = tmp_path_factory.mktemp("parity")
    parity.unpack(DATA / "parity", folder)
    return folder


@pytest.fixture(scope="session")
def methods_folder(tmp_path_factory):
    """The stored methods, likewise."""
    folder = tmp_path_factory.mktemp("methods")
    parity.unpack(DATA / "parity" / "methods", folder)
    return folder


@pytest.fixture(scope="session")
def backbone(parity_folder):
    """Path of a tiny CLIP (ViT, 32x32 images, width 64) in OpenAI's layout."""
    return str(parity_folder / "clip_vit.pt")


@pytest.fixture(scope="session")
def words(backbone, tmp_path_factory):
    """The backbone with another embedding for every word, which the file has not: its classes would tie."""
    weights = torch.load(backbone, weights_only=True)
    embedding = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(3)) / 10
    path = tmp_path_factory.mktemp("weights") / "words.pt"
    torch.save(weights, path)
    return str(path)


@pytest.fixture(scope="session")
def photo_root(tmp_path_factory):
    """A `FolderTasks` root: two tasks of noisy single-coloured images, 12 a class."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.RandomState(0)
    for task, classes in TASKS.items():
        for name, colour in classes.items():
            folder = root / task / name
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = np.clip(np.array(colour) + rng.randint(-25, 26, (40, 36, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return root


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing of the user's is read or written."""
    os.environ["SOFTCPT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The models here are too small for more, which would only wait for each other on a busy machine."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = os.environ["LOKY_MAX_CPU_COUNT"] = "1"


@pytest.fixture
def few_classes(monkeypatch):
    """Datasets with lists may have any number of classes."""
    for cls in (*General10.members, ImageNetClasses, ImageNetSubset):
        if not issubclass(cls, ClassFolders):
            monkeypatch.setattr(cls, "class_count", 0)
