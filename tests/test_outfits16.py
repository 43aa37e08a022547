"""Outfits16 (the suite that makes itself) and `tiny` (the encoder trained on other scenes)."""

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
from datasets import outfits16
from datasets.outfits16 import IMAGES_PER_CLASS, TASKS, Outfits16, generate, image_folder
from outfits import train_tiny_clip
from outfits.captions import caption
from outfits.render import RGB, render
from outfits.scenes import ASPECTS, PARTS, USUAL, VALUES, Scene, Style, random_chances, random_scene
from outfits.suite import STYLES, scene_of
from tests.helpers import make_cfg

# Of the pixels of the first test image of the last class of every task. If an image changes on purpose, raise
# `outfits16.VERSION` with it: folders of the old images are then refused.
PIXELS = "1 c6e454a32f5b313d"


def cfg(root, shots=-1):
    return make_cfg(root, {"DATASET.NUM_SHOTS": shots})


def test_image(task, label, number=0, part="test"):
    return render(scene_of(task, part, label, number), STYLES[part])


test_image.__test__ = False


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root folder that does not exist yet."""
    folder = tmp_path_factory.mktemp("data") / "new" / "root"
    Outfits16.find_folder(str(folder))
    return folder


def test_pixels_are_those_of_this_version():
    digest = hashlib.sha256()
    for task in range(len(TASKS)):
        digest.update(test_image(task, len(TASKS[task].classnames) - 1).tobytes())
    assert f"{outfits16.VERSION} {digest.hexdigest()[:16]}" == PIXELS


def test_files_hold_the_rendered_pixels(root):
    for task, part in ((0, "train"), (3, "val"), (7, "test")):
        path = os.path.join(image_folder(root / "outfits16" / "images", task, part, 1), "002.png")
        stored = np.asarray(Image.open(path))
        assert stored.dtype == np.uint8 and stored.shape == (64, 64, 3)
        assert np.array_equal(stored, test_image(task, 1, 2, part))


def test_counts_per_task_and_class(root):
    dataset = Outfits16(cfg(root))
    assert [len(task.classnames) for task in dataset.tasks] == 4 * [4, 4, 3, 3]
    assert dataset.num_classes == 56 and len(set(dataset.classnames)) == 13  # names that tasks have in common
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        counts = np.bincount([datum.label for datum in items], minlength=56)
        assert (counts == IMAGES_PER_CLASS[part]).all()


def test_few_shot_draw(root):
    dataset = Outfits16(cfg(root, shots=16))
    assert (np.bincount([datum.label for datum in dataset.train_x]) == 16).all()
    assert (np.bincount([datum.label for datum in dataset.val]) == 4).all()
    assert (root / "outfits16" / "split_fewshot" / "shot_16-seed_1.json").is_file()


def test_no_two_images_are_equal(root):
    images = root / "outfits16" / "images"
    files = list(images.rglob("*.png"))
    hashes = {hashlib.md5(np.asarray(Image.open(file)).tobytes()).digest() for file in files}
    assert len(files) == 56 * sum(IMAGES_PER_CLASS.values()) == len(hashes)


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix != ".lock")


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fail_later(*args):
        calls.append(args)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return render(*args)

    monkeypatch.setattr(outfits16, "render", fail_later)
    with pytest.raises(KeyboardInterrupt):
        generate(str(tmp_path / "outfits16" / "images"))
    assert entries(tmp_path / "outfits16") == []


def test_two_generations_at_once(tmp_path, monkeypatch):
    """One writes; the other waits, and finds what the first one made."""
    written = []

    def write_slowly(folder):
        written.append(folder)
        time.sleep(0.3)

    monkeypatch.setattr(outfits16, "write_images", write_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(generate, 2 * [str(tmp_path / "images")]))
    assert len(written) == 1 and entries(tmp_path) == ["images"]


KILLED = """
import os, signal, sys
from datasets import outfits16
outfits16.render = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
outfits16.generate(sys.argv[1])
"""


def test_what_killed_runs_left_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "[outfits16]"  # not a pattern
    repository = os.path.dirname(os.path.dirname(outfits16.__file__))
    subprocess.run([sys.executable, "-c", KILLED, str(folder / "images")], cwd=repository)
    assert entries(folder) == ["images.incomplete"]
    (folder / "images.of.the.user").mkdir()
    monkeypatch.setattr(outfits16, "write_images", lambda folder: None)
    generate(str(folder / "images"))
    assert entries(folder) == ["images", "images.of.the.user"]


def test_images_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outfits16, "write_images", lambda folder: None)
    generate(str(tmp_path / "images"))
    monkeypatch.setattr(outfits16, "VERSION", outfits16.VERSION + 1)
    with pytest.raises(ValueError, match="delete the folder"):
        generate(str(tmp_path / "images"))


def test_labels_are_the_scenes_looks():
    for task, aspect in enumerate(ASPECTS):
        assert TASKS[task].name == " ".join(aspect)
        for label, value in enumerate(TASKS[task].classnames):
            assert all(scene_of(task, "test", label, number).looks[aspect] == value for number in range(5))


def test_other_aspects_vary_independently():
    """Within a class of a colour task every other aspect takes its striking values about equally often."""
    made = [scene_of(4, part, 0, number).looks for part in ("train", "test") for number in range(300)]
    for aspect in ASPECTS[:4] + ASPECTS[5:]:
        values = [value for value in VALUES[aspect[1]] if value != USUAL[aspect[1]]]
        shares = np.array([sum(looks[aspect] == value for looks in made) for value in values])
        assert abs(shares / shares.mean() - 1).max() < 0.4, aspect


def test_seeds_are_disjoint_from_the_encoders():
    made = [scene_of(task, part, 0, number).seed for task in range(16) for part in IMAGES_PER_CLASS
            for number in range(6)]
    assert min(made) >= 2**31 and max(made) < 2**32 and len(set(made)) == len(made)


BARE = Style(gain=(1, 1), gamma=(1, 1), saturation=(1, 1), noise=(0, 0), blur=(0, 0), shadow=(0, 0))
USUAL_LOOKS = {aspect: USUAL[aspect[1]] for aspect in ASPECTS}


def garment(part, seed=7, **changes):
    """Pixels (64, 64, 3) of a figure that is as usual but for a red garment, and the mask of this garment."""
    looks = {(part, "colour"): "red", **{(part, attribute): value for attribute, value in changes.items()}}
    image = render(Scene({**USUAL_LOOKS, **looks}, seed), BARE) / 255
    return image, (image[..., 0] > 2 * image[..., 2]) & (image[..., 0] > 2 * image[..., 1])  # no skin is that red


@pytest.mark.parametrize("part", PARTS)
def test_garments_are_as_long_and_as_wide_as_the_scene_says(part):
    for seed in range(5):
        for attribute, axis in (("length", 1), ("width", 0)):
            # rows (or columns) with more than the brim, the sleeves or the strap have
            sizes = [garment(part, seed, **{attribute: value})[1].any(axis=axis).sum() for value in VALUES[attribute]]
            assert sizes[0] + 2 <= sizes[1] and sizes[1] + 2 <= sizes[2], (attribute, sizes)


@pytest.mark.parametrize("part", PARTS)
def test_a_garment_is_where_it_is_worn(part):
    rows, columns = np.argwhere(garment(part)[1]).mean(axis=0)
    low, high = {"hat": (5, 18), "shirt": (26, 38), "trousers": (38, 56), "bag": (30, 52)}[part]
    assert low < rows < high and (columns > 40) == (part == "bag")


@pytest.mark.parametrize("part", PARTS)
def test_garments_have_the_scenes_colour(part):
    mask = garment(part)[1]
    for colour in VALUES["colour"]:
        image, _ = garment(part, colour=colour)
        middle = np.median(image[mask], axis=0)
        assert min(RGB, key=lambda name: abs(middle - np.array(RGB[name])).sum()) == colour


@pytest.mark.parametrize("part", PARTS)
def test_patterns_differ(part):
    """A plain garment has one colour within its seam, a patterned one two, each pattern in other places."""
    mask = garment(part)[1]
    images = {pattern: garment(part, pattern=pattern)[0] for pattern in ("plain", *VALUES["pattern"])}
    for one in images:
        for other in images:
            changed = (abs(images[one] - images[other]).max(axis=2) > 0.1)[mask].mean()
            assert changed == 0 if one == other else changed > 0.15


def test_captions_are_true_and_some_only_name_what_stands_out():
    rng = np.random.RandomState(0)
    values = {value: attribute for attribute, words in VALUES.items() for value in words}
    topics = 0
    for seed in range(500):
        scene = random_scene(rng, seed, random_chances(rng))
        said = caption(scene, rng).split()
        for value in set(said) & set(values):
            assert any(scene.looks[aspect] == value for aspect in ASPECTS)
        topics += not set(said) & set(values) and bool(set(said) & set(VALUES))
    assert 30 < topics < 150  # of 500 captions


def test_a_garments_caption_has_its_own_values():
    """`a red hat` is said of a red hat, not of another red garment."""
    rng = np.random.RandomState(0)
    found = 0
    for seed in range(500):
        scene = random_scene(rng, seed, random_chances(rng))
        said = caption(scene, rng).split()
        for value, part in zip(said, said[1:]):
            if part in PARTS and any(value in words for words in VALUES.values()):
                found += 1
                assert value in {scene.looks[part, attribute] for attribute in VALUES}
    assert found > 100


def test_the_styles_are_shifted():
    """The same scenes in three styles: few-shot and test images are darker and warmer (red over blue)."""
    made = [scene_of(3, "train", label, number) for label in range(3) for number in range(8)]

    def statistics(style):
        images = np.stack([render(scene, style) for scene in made]) / 255
        return images.mean(), images[..., 0].mean() / images[..., 2].mean()

    plain, train, test = (statistics(style) for style in (Style(), STYLES["train"], STYLES["test"]))
    assert test[0] < train[0] < plain[0] - 0.1
    assert min(train[1], test[1]) > plain[1] + 0.05


def test_tiny_reads_task_names():
    """Names of tasks that share no word have cosines below 0.9; those of the same garment are closer to each other."""
    model, _ = clip.load("tiny", device="cpu")
    with torch.no_grad():
        features = model.encode_text(clip.tokenize([f"{task.name}." for task in TASKS]), normalize=True)
    cosines = (features @ features.t()).numpy()
    garment, attribute = (np.array([[one[k] == other[k] for other in ASPECTS] for one in ASPECTS]) for k in (0, 1))
    alone = ~garment & ~attribute
    assert cosines[alone].max() < 0.9
    assert cosines[alone].mean() + 0.02 < cosines[garment & ~attribute].mean() < 0.9


def test_tiny_needs_to_be_told_which_garment():
    """A value alone is ambiguous; with its garment and attribute before it `tiny` reads almost every test image."""
    model, preprocess = clip.load("tiny", device="cpu")
    accuracies = {"a photo of a {}.": [], "{name} : {}": []}
    for number, task in enumerate(TASKS):
        images = torch.stack([preprocess(Image.fromarray(test_image(number, label, k)))
                              for label in range(len(task.classnames)) for k in range(10)])
        truth = torch.arange(len(task.classnames)).repeat_interleave(10)
        for form, found in accuracies.items():
            texts = clip.tokenize([form.format(value, name=task.name) for value in task.classnames])
            with torch.no_grad():
                logits = model.encode_image(images, normalize=True) @ model.encode_text(texts, normalize=True).t()
            found.append((logits.argmax(dim=1) == truth).float().mean().item())
    alone, told = (np.mean(found) for found in accuracies.values())
    assert alone < 0.65 and told > 0.85


def test_tiny_is_small_and_says_how_it_was_made():
    from safetensors import safe_open

    path = os.path.join(os.path.dirname(clip.__file__), "tiny.safetensors")
    assert os.path.getsize(path) <= 8_000_000
    with safe_open(path, "pt") as weights:
        assert "train_tiny_clip.py" in weights.metadata()["made_by"]
        assert weights.get_tensor("token_embedding.weight").dtype == torch.float16
        assert weights.get_slice("positional_embedding").get_shape()[0] == 77


@pytest.mark.parametrize("vision, prefix", [("resnet", ""), ("vit", "local-dir:")])
def test_what_is_trained_is_what_is_loaded(vision, prefix, tmp_path, monkeypatch):
    """OpenAI's layout does not say how wide attention heads are, so a file of other heads would compute otherwise."""
    trained = []
    monkeypatch.setattr(train_tiny_clip, "CHUNK", 10)
    monkeypatch.setattr(train_tiny_clip, "BATCH", 10)
    monkeypatch.setattr(train_tiny_clip, "train", lambda model, *args: trained.append(model))
    monkeypatch.setattr(sys, "argv", ["train_tiny_clip", "--vision", vision, "--scenes", "20", "--threads", "1",
                                      "--out", str(tmp_path / "out")])
    train_tiny_clip.main()
    model, pixels = trained[0].eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.visual(pixels)
        found = clip.load(f"{prefix}{tmp_path / 'out'}", device="cpu")[0].float().visual(pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))  # it is kept in fp16


def test_scenes_follow_from_their_number():
    scene = scene_of(0, "train", 0, 0)
    assert isinstance(scene, Scene) and scene == scene_of(0, "train", 0, 0) != scene_of(0, "train", 0, 1)
