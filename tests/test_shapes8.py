"""Shapes8 (the suite that makes itself) and `tiny` (the encoder trained on other scenes)."""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import clip
from datasets import shapes8
from datasets.shapes8 import DECLARATIONS, IMAGES_PER_CLASS, TASKS, Shapes8, generate, image_folder, scene_of
from shapes import scenes
from shapes.captions import caption
from shapes.render import RGB, draw_objects, render
from shapes.scenes import Scene, Style, random_scene
from tests.helpers import make_cfg

# Of the pixels of the first test image of the last class of every task. If an image changes on purpose, raise
# `shapes8.VERSION` with it: folders of the old images are then refused.
PIXELS = "2 d6297705455920bb"


def cfg(root, shots=-1):
    return make_cfg(root, {"DATASET.NUM_SHOTS": shots})


def test_image(task, label, number=0, part="test"):
    return render(scene_of(task, part, label, number), shapes8.STYLES[part])


test_image.__test__ = False


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root folder that does not exist yet."""
    folder = tmp_path_factory.mktemp("data") / "new" / "root"
    Shapes8.find_folder(str(folder))
    return folder


def test_pixels_are_those_of_this_version():
    digest = hashlib.sha256()
    for task in range(len(TASKS)):
        digest.update(test_image(task, len(TASKS[task].classnames) - 1).tobytes())
    assert f"{shapes8.VERSION} {digest.hexdigest()[:16]}" == PIXELS


def test_files_hold_the_rendered_pixels(root):
    for task, part in ((0, "train"), (3, "val"), (7, "test")):
        path = os.path.join(image_folder(root / "shapes8" / "images", task, part, 1), "002.png")
        stored = np.asarray(Image.open(path))
        assert stored.dtype == np.uint8 and stored.shape == (64, 64, 3)
        assert np.array_equal(stored, test_image(task, 1, 2, part))


def test_counts_per_task_and_class(root):
    dataset = Shapes8(cfg(root))
    assert [len(task.classnames) for task in dataset.tasks] == [8, 8, 5, 8, 6, 5, 5, 5]
    assert dataset.num_classes == 50 and len(set(dataset.classnames)) == 50
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        counts = np.bincount([datum.label for datum in items], minlength=50)
        assert (counts == IMAGES_PER_CLASS[part]).all()


def test_few_shot_draw(root):
    dataset = Shapes8(cfg(root, shots=16))
    assert (np.bincount([datum.label for datum in dataset.train_x]) == 16).all()
    assert (np.bincount([datum.label for datum in dataset.val]) == 4).all()
    assert (root / "shapes8" / "split_fewshot" / "shot_16-seed_1.json").is_file()


def test_no_two_images_are_equal(root):
    images = root / "shapes8" / "images"
    files = list(images.rglob("*.png"))
    hashes = {hashlib.md5(np.asarray(Image.open(file)).tobytes()).digest() for file in files}
    assert len(files) == 50 * sum(IMAGES_PER_CLASS.values()) == len(hashes)


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix != ".lock")


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fail_later(*args):
        calls.append(args)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return render(*args)

    monkeypatch.setattr(shapes8, "render", fail_later)
    with pytest.raises(KeyboardInterrupt):
        generate(str(tmp_path / "shapes8" / "images"))
    assert entries(tmp_path / "shapes8") == []


def test_two_generations_at_once(tmp_path, monkeypatch):
    """One writes; the other waits, and finds what the first one made."""
    written = []

    def write_slowly(folder):
        written.append(folder)
        time.sleep(0.3)

    monkeypatch.setattr(shapes8, "write_images", write_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(generate, 2 * [str(tmp_path / "images")]))
    assert len(written) == 1 and entries(tmp_path) == ["images"]


KILLED = """
import os, signal, sys
from datasets import shapes8
shapes8.render = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
shapes8.generate(sys.argv[1])
"""


def test_what_killed_runs_left_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "[shapes8]"  # not a pattern
    repository = os.path.dirname(os.path.dirname(shapes8.__file__))
    subprocess.run([sys.executable, "-c", KILLED, str(folder / "images")], cwd=repository)
    assert len(entries(folder)) == 1 and entries(folder)[0].startswith("images.incomplete-")
    (folder / "images.of.the.user").mkdir()
    monkeypatch.setattr(shapes8, "write_images", lambda folder: None)
    generate(str(folder / "images"))
    assert entries(folder) == ["images", "images.of.the.user"]


def test_images_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes8, "write_images", lambda folder: None)
    generate(str(tmp_path / "images"))
    monkeypatch.setattr(shapes8, "VERSION", shapes8.VERSION + 1)
    with pytest.raises(ValueError, match="delete the folder"):
        generate(str(tmp_path / "images"))


def test_labels_are_the_scenes_attributes():
    for task, (_, _, attribute, classes, _) in enumerate(DECLARATIONS):
        for label, value in enumerate(classes.values()):
            for number in range(5):
                assert getattr(scene_of(task, "test", label, number), attribute) == value


def test_other_attributes_vary_independently():
    """Within a class of the colour task every other attribute takes its values about equally often."""
    made = [scene_of(1, part, 0, number) for part in ("train", "test") for number in range(300)]
    for attribute, values in (("shape", scenes.SHAPES), ("background", scenes.BACKGROUNDS), ("count", scenes.COUNTS),
                              ("weather", scenes.WEATHERS), ("pattern", scenes.PATTERNS)):
        shares = np.array([sum(getattr(scene, attribute) == value for scene in made) for value in values]) / 600
        assert abs(shares * len(values) - 1).max() < 0.4, attribute


def test_seeds_are_disjoint_from_the_encoders():
    made = [scene_of(task, part, 0, number).seed for task in range(8) for part in IMAGES_PER_CLASS
            for number in range(6)]
    assert min(made) >= 2**31 and max(made) < 2**32 and len(set(made)) == len(made)


BARE = Style(gain=(1, 1), gamma=(1, 1), saturation=(1, 1), noise=(0, 0), blur=(0, 0), shadow=(0, 0))


def objects_alone(scene):
    """Mask of the pixels that the objects change."""
    image = np.zeros((64, 64, 3))
    draw_objects(image, scene, np.random.RandomState(scene.seed))
    return image.sum(axis=2) > 0


def blobs(mask):
    """Number of connected parts of a mask."""
    mask, count = mask.copy(), 0
    while mask.any():
        count += 1
        todo = [tuple(np.argwhere(mask)[0])]
        while todo:
            y, x = todo.pop()
            if 0 <= y < 64 and 0 <= x < 64 and mask[y, x]:
                mask[y, x] = False
                todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return count


def plain_scene(**changes):
    rng = np.random.RandomState(3)
    fixed = {"pattern": "plain", "weather": "clear", "frame": None, "shape": "circle", "size": 0.5, **changes}
    return [random_scene(rng, seed, **fixed) for seed in range(12)]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_as_many_objects_as_the_scene_says(count):
    # neighbours in a row may touch
    changes = {"size": 0.2, **({"arrangement": "diagonal"} if count > 2 else {"position": "centre"})}
    assert {blobs(objects_alone(scene)) for scene in plain_scene(count=count, **changes)} == {count}


def test_a_pair_covers_twice_the_area():
    """The two may touch, so they are not counted."""
    one, two = (np.mean([objects_alone(scene).sum() for scene in plain_scene(count=n, size=0.0, position="centre")])
                for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.05)


def test_objects_have_the_scenes_colour():
    for colour in scenes.COLOURS:
        for scene in plain_scene(colour=colour, background="water", count=1, position="centre"):
            image = render(scene, BARE) / 255
            centre = image[objects_alone(scene)]
            nearest = min(RGB, key=lambda name: abs(np.median(centre, axis=0) - np.array(RGB[name])).sum())
            assert nearest == colour


@pytest.mark.parametrize("position, low, high", [("top", 0, 26), ("bottom", 38, 64), ("centre", 26, 38)])
def test_objects_are_where_the_scene_says(position, low, high):
    for scene in plain_scene(position=position):
        assert low < np.argwhere(objects_alone(scene))[:, 0].mean() < high


@pytest.mark.parametrize("arrangement", ["row", "column"])
def test_objects_are_arranged_as_the_scene_says(arrangement):
    for scene in plain_scene(arrangement=arrangement):
        height, width = np.ptp(np.argwhere(objects_alone(scene)), axis=0)
        assert (width > 2 * height) if arrangement == "row" else (height > 2 * width)


def test_a_count_without_position_is_refused():
    with pytest.raises(ValueError, match="no position"):
        random_scene(np.random.RandomState(0), 0, position="top", count=3)


def test_captions_are_true():
    """A caption holds no word of a wrong value; here of an attribute whose words stand for nothing else."""
    rng = np.random.RandomState(0)
    for seed in range(500):
        scene = random_scene(rng, seed)
        said = set(caption(scene, rng).split())
        for attribute, table in (("background", scenes.BACKGROUNDS), ("pattern", scenes.PATTERNS)):
            for value, words in table.items():
                shared = {"snow", "stars"}  # also a weather, and a shape
                assert getattr(scene, attribute) == value or not said & (set(words) - shared)


def test_the_styles_are_shifted():
    """The same scenes in three styles: few-shot and test images are darker and warmer (red over blue) than captioned
    ones, and the objects of test images are the smallest."""
    made = [scene_of(3, "train", label, number) for label in range(8) for number in range(3)]

    def statistics(style):
        images = np.stack([render(scene, style) for scene in made]) / 255
        return images.mean(), images[..., 0].mean() / images[..., 2].mean()

    plain, train, test = (statistics(style) for style in (Style(), shapes8.TRAIN_STYLE, shapes8.TEST_STYLE))
    assert test[0] < train[0] < plain[0] - 0.1
    assert min(train[1], test[1]) > plain[1] + 0.1
    sizes = {part: np.mean([scene_of(task, part, 0, number).size for task in range(8) for number in range(50)])
             for part in ("train", "test")}
    assert sizes["test"] < sizes["train"] - 0.05


def test_tiny_zero_shot_is_above_chance():
    """On ten test images a class: at least 15 points above chance in the mean over the tasks (chance is 16.9%)."""
    model, preprocess = clip.load("tiny", device="cpu")
    above = []
    for task, declared in enumerate(TASKS):
        names = declared.classnames
        images = torch.stack([preprocess(Image.fromarray(test_image(task, label, number)))
                              for label in range(len(names)) for number in range(10)])
        with torch.no_grad():
            text = model.encode_text(clip.tokenize([declared.template.format(name) for name in names]), normalize=True)
            predicted = (model.encode_image(images, normalize=True) @ text.t()).argmax(dim=1)
        truth = torch.arange(len(names)).repeat_interleave(10)
        above.append(100 * ((predicted == truth).float().mean().item() - 1 / len(names)))
    assert np.mean(above) > 15
    assert min(above) > -5


def test_tiny_is_small_and_says_how_it_was_made():
    from safetensors import safe_open

    path = os.path.join(os.path.dirname(clip.__file__), "tiny.safetensors")
    assert os.path.getsize(path) <= 8_000_000
    with safe_open(path, "pt") as weights:
        assert "train_tiny_clip.py" in weights.metadata()["made_by"]
        assert weights.get_tensor("token_embedding.weight").dtype == torch.float16
        assert weights.get_slice("positional_embedding").get_shape()[0] == 77


def test_scenes_follow_from_their_number():
    scene = scene_of(0, "train", 0, 0)
    assert isinstance(scene, Scene) and scene == scene_of(0, "train", 0, 0) != scene_of(0, "train", 0, 1)
