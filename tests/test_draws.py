"""Few-shot draws: CoOp's own from its split file, nested ones, stored draws and CoOp's pickles."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY, Datum, build_dataset
from datasets.base import Suite
from datasets.draws import DRAWN, draw_coop
from datasets.files import read_split_zhou
from datasets.general10 import DescribableTextures, OxfordFlowers, OxfordPets
from runs.config import build_parser, setup_cfg
from runs.identity import check_model, settings_of
from runs.methods import TRAINERS
from tests.helpers import make_cfg
from tests.miniature import make_general

pytestmark = pytest.mark.usefixtures("few_classes")

# What CoOp's own code draws from the split file beside it: 47 classes, 20/10/10 images, not sorted by class.
DATA = Path(__file__).parent / "data" / "draws"
SPLIT = DATA / "split_zhou_DescribableTextures.json"
DRAWS = json.loads((DATA / "draws.json").read_text())
SHOTS, SEEDS = (1, 2, 4, 8, 16), (1, 2, 3)
PAIRS = [(shots, seed) for shots in SHOTS for seed in SEEDS]


class DrawnSuite(Suite):
    """Pets have no split file, the others have the same one."""

    members = OxfordPets, OxfordFlowers, DescribableTextures


def put_split(root, cls=DescribableTextures):
    """The dataset's folder with the split file, and no images: drawing needs none."""
    folder = root / cls.dataset_dir
    folder.mkdir(parents=True)
    shutil.copy(SPLIT, folder / f"split_zhou_{cls.__name__}.json")
    return folder


def load(cls, root, shots=2, seed=1, **options):
    options = {key: str(value) for key, value in options.items()}
    return cls.load(make_cfg(root, {"DATASET.NUM_SHOTS": shots, "SEED": seed, **options}))


def drawn(task_data, folder):
    """{part: paths below `folder`}, in order."""
    return {part: [os.path.relpath(path, folder) for path, _ in getattr(task_data, part)] for part in DRAWN}


@pytest.fixture
def folder(tmp_path):
    return put_split(tmp_path)


# ------------------------------------------------------------------ CoOp's draws
def test_all_pairs_are_there():
    assert set(DRAWS) == {f"shots {shots} seed {seed}" for shots, seed in PAIRS}


@pytest.mark.parametrize("shots, seed", PAIRS)
def test_draws_are_those_of_coop(shots, seed, tmp_path):
    expected = DRAWS[f"shots {shots} seed {seed}"]
    _, parts = read_split_zhou(SPLIT, "images")
    assert {part: [path[len("images/"):] for paths in groups.values() for path in paths]
            for part, groups in draw_coop(parts, shots, seed).items()} == expected
    folder = put_split(tmp_path)
    for _ in range(2):  # drawn, then read back
        task_data, = load(DescribableTextures, tmp_path, shots, seed)
        assert drawn(task_data, folder / "images") == expected
        assert len(task_data.test) == 470
    assert json.loads((folder / "split_fewshot" / f"shot_{shots}-seed_{seed}.json").read_text())["draw"] == "coop"


@pytest.mark.parametrize("shots, seed", [(1, 1), (16, 3)])
def test_a_member_of_a_suite_draws_as_if_alone(shots, seed, tmp_path):
    make_general(tmp_path, "oxford_pets")
    folders = [put_split(tmp_path, cls) / cls.image_dir for cls in DrawnSuite.members[1:]]
    pets, *others = load(DrawnSuite, tmp_path, shots, seed)
    for task_data, folder in zip(others, folders):
        assert drawn(task_data, folder) == DRAWS[f"shots {shots} seed {seed}"]
    assert [pets] == load(OxfordPets, tmp_path, shots, seed, **{"DATASET.SPLIT_DIR": tmp_path / "alone"})
    stored = tmp_path / OxfordPets.dataset_dir / "split_fewshot" / f"shot_{shots}-seed_{seed}.json"
    assert json.loads(stored.read_text())["draw"] == "nested"
    with pytest.raises(UserError, match="FEWSHOT_DRAW is 'coop', but there is no .*split_zhou_OxfordPets.json"):
        load(DrawnSuite, tmp_path, shots, seed, **{"DATASET.FEWSHOT_DRAW": "coop"})


def test_a_class_with_few_images_gives_all(tmp_path):
    entries = {"train": [["b/0.jpg", 1, "b"], ["a/0.jpg", 0, "a"], ["b/1.jpg", 1, "b"]], "val": [], "test": []}
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / SPLIT.name).write_text(json.dumps(entries))
    task_data, = load(DescribableTextures, tmp_path, 3)
    assert drawn(task_data, tmp_path / "dtd" / "images") == {"train": ["b/0.jpg", "b/1.jpg", "a/0.jpg"], "val": []}


def test_halves_are_taken_of_the_whole_draw(folder, tmp_path):
    for entries in json.loads(SPLIT.read_text()).values():
        for image, *_ in entries:
            path = folder / "images" / image
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    options = {"DATASET.NAME": "DescribableTextures", "DATASET.NUM_SHOTS": 4, "SEED": 2}
    base, new = (build_dataset(make_cfg(tmp_path, {**options, "DATASET.SUBSAMPLE_CLASSES": half}))
                 for half in ("base", "new"))
    found = [os.path.relpath(d.impath, folder / "images") for d in base.train_x + new.train_x]
    assert sorted(found) == sorted(DRAWS["shots 4 seed 2"]["train"]) and len(base.train_x) == 24 * 4
    order = {path: i for i, path in enumerate(DRAWS["shots 4 seed 2"]["train"])}
    assert found[:24 * 4] == sorted(found[:24 * 4], key=order.get)


# ------------------------------------------------------------------ nested draws
@pytest.mark.parametrize("seed", SEEDS)
def test_fewer_shots_are_among_more(seed, tmp_path):
    put_split(tmp_path)
    make_general(tmp_path, "oxford_pets")
    for cls, options in ((DescribableTextures, {"DATASET.FEWSHOT_DRAW": "nested"}), (OxfordPets, {})):
        draws = [load(cls, tmp_path, shots, seed, **options)[0] for shots in SHOTS]
        for few, more in zip(draws, draws[1:]):
            for part in DRAWN:
                assert set(getattr(few, part)) <= set(getattr(more, part))
        if cls is DescribableTextures:
            assert [(len(d.train), len(d.val)) for d in draws] == [(47 * k, 47 * min(k, 4)) for k in SHOTS]
    assert load(OxfordPets, tmp_path, 1, 1)[0].train != load(OxfordPets, tmp_path, 1, 5)[0].train


# ------------------------------------------------------------------ the key
def test_coop_without_a_split_file_is_refused(tmp_path, photo_root):
    make_general(tmp_path, "oxford_pets")
    options = {"DATASET.FEWSHOT_DRAW": "coop"}
    with pytest.raises(UserError, match="FEWSHOT_DRAW is 'coop', but there is no .*split_zhou_OxfordPets.json"):
        load(OxfordPets, tmp_path, **options)
    with pytest.raises(UserError, match="FEWSHOT_DRAW is 'coop', but CoOp publishes no split file"):
        load(DATASET_REGISTRY.get("FolderTasks"), photo_root, **options, **{"DATASET.SPLIT_DIR": tmp_path})
    load(OxfordPets, tmp_path, -1, **options)  # nothing is drawn


def test_the_draw_is_part_of_a_runs_identity():
    args = ["--trainer", "MTCoOp", "DATASET.FEWSHOT_DRAW", "nested"]
    cfg = setup_cfg(build_parser().parse_args(args))
    assert settings_of(cfg, TRAINERS["MTCoOp"])["DATASET.FEWSHOT_DRAW"] == "nested"
    assert "DATASET.FEWSHOT_DRAW" not in settings_of(cfg, TRAINERS["ZeroshotCLIP"])
    check_model({"SEED": 1, "DATASET.FEWSHOT_DRAW": "coop"}, {"SEED": 1, "DATASET.FEWSHOT_DRAW": "auto"}, "model")


# ------------------------------------------------------------------ stored draws
@pytest.mark.parametrize("found, said", [("nested", "its \"draw\" is 'nested'"), (None, 'it has no "draw"')])
def test_a_draw_made_another_way_is_refused(found, said, folder, tmp_path):
    first = load(DescribableTextures, tmp_path)
    path = folder / "split_fewshot" / "shot_2-seed_1.json"
    stored = json.loads(path.read_text())
    del stored["draw"]
    path.write_text(json.dumps({**stored, "draw": found} if found else stored))
    with pytest.raises(UserError) as error:
        load(DescribableTextures, tmp_path)
    assert str(path) in str(error.value) and said in str(error.value) and "DATASET.SPLIT_DIR" in str(error.value)
    assert load(DescribableTextures, tmp_path, **{"DATASET.SPLIT_DIR": tmp_path / "other"}) == first
    path.unlink()
    assert load(DescribableTextures, tmp_path) == first
    with pytest.raises(UserError, match="another way than 'nested'.*is 'coop'.*delete it to draw again"):
        load(DescribableTextures, tmp_path, **{"DATASET.FEWSHOT_DRAW": "nested"})


def test_a_draw_of_a_split_that_is_gone_is_refused(folder, tmp_path):
    load(DescribableTextures, tmp_path)
    split = json.loads(SPLIT.read_text())
    split["train"] = [[f"new/{image}", *rest] for image, *rest in split["train"]]
    (folder / SPLIT.name).write_text(json.dumps(split))
    with pytest.raises(UserError, match="shot_2-seed_1.json does not fit the data any more.*delete it"):
        load(DescribableTextures, tmp_path)


def test_a_class_is_not_added_to_a_stored_draw_of_coop(folder, tmp_path):
    """One generator draws all classes, so another one would draw other images than CoOp's code."""
    load(DescribableTextures, tmp_path)
    path = folder / "split_fewshot" / "shot_2-seed_1.json"
    stored = json.loads(path.read_text())
    (draws,) = stored["tasks"].values()
    for groups in draws.values():
        del groups["banded"]
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="shot_2-seed_1.json does not fit .*no image of class 'banded'.*delete it"):
        load(DescribableTextures, tmp_path)
    assert json.loads(path.read_text()) == stored


# ------------------------------------------------------------------ CoOp's pickles
class Payload:
    """Pickled, it makes the folder `made` when it is unpickled freely."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def put_pickle(folder, content=None):
    """A pickle for 2 shots and seed 1 as CoOp's, made elsewhere, of images that it would not draw: `last_images`."""
    if content is None:
        labels = {image: (label, 0, name) for entries in json.loads(SPLIT.read_text()).values()
                  for image, label, name in entries}
        content = {part: [Datum(f"/else/where/dtd/images/{image}", *labels[image]) for image in images]
                   for part, images in last_images().items()}
    path = folder / "split_fewshot" / "shot_2-seed_1.pkl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, pickle.HIGHEST_PROTOCOL))
    return path


def last_images():
    """{part: the last image of every class}, labels in order of first appearance."""
    return {part: list({label: image for image, label, _ in entries}.values())
            for part, entries in json.loads(SPLIT.read_text()).items() if part in DRAWN}


def test_a_pickle_of_coop_stands_for_the_draw(folder, tmp_path, capsys):
    path = put_pickle(folder)
    for _ in range(2):
        task_data, = load(DescribableTextures, tmp_path)
        assert drawn(task_data, folder / "images") == last_images()
        assert f"the few-shot images of {path} are used" in capsys.readouterr().out
    assert all(os.path.isabs(p) and task_data.task.classnames[label] == Path(p).parent.name
               for p, label in task_data.train)
    task_data, = load(DescribableTextures, tmp_path, **{"DATASET.SPLIT_DIR": tmp_path / "other"})
    assert drawn(task_data, folder / "images") == DRAWS["shots 2 seed 1"]
    path.unlink()
    load(DescribableTextures, tmp_path)
    put_pickle(folder)
    with pytest.raises(UserError, match="shot_2-seed_1.pkl and .*shot_2-seed_1.json hold different few-shot images"):
        load(DescribableTextures, tmp_path)


def test_a_pickle_that_agrees_with_the_stored_draw(folder, tmp_path):
    first = load(DescribableTextures, tmp_path)
    task_data, = first
    put_pickle(folder, {part: [Datum(path, label, 0, task_data.task.classnames[label])
                               for path, label in getattr(task_data, part)] for part in DRAWN})
    assert load(DescribableTextures, tmp_path) == first


def test_a_pickle_is_not_read_where_the_draw_is_nested(tmp_path, capsys):
    folder = make_general(tmp_path, "oxford_pets")
    put_pickle(folder, {"train": Payload(tmp_path / "made"), "val": []})
    load(OxfordPets, tmp_path)
    said = capsys.readouterr().out
    assert f"{folder}/split_fewshot/shot_2-seed_1.pkl is not read: " in said and said.count("\n") == 1
    put_pickle(put_split(tmp_path), {"train": Payload(tmp_path / "made"), "val": []})
    load(DescribableTextures, tmp_path, **{"DATASET.FEWSHOT_DRAW": "nested"})
    assert "(DATASET.FEWSHOT_DRAW)" in capsys.readouterr().out and not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_cannot_execute(protocol, folder, tmp_path):
    made = tmp_path / "made"
    content = pickle.dumps({"train": [Payload(made)], "val": []}, protocol)
    pickle.loads(content)  # read freely, it does
    made.rmdir()
    path = put_pickle(folder, content)
    with pytest.raises(UserError, match=f"{path} holds \\w+\\.mkdir, but only Dassl's Datum is read"):
        load(DescribableTextures, tmp_path)
    assert not made.exists()


@pytest.mark.parametrize("content, message", [
    (b"", "is not a pickle of CoOp's"), (b"not a pickle", "is not a pickle of CoOp's"),
    ({"train": []}, "is not a pickle of CoOp's"), ({"train": ["a"], "val": []}, "is not a pickle of CoOp's"),
    ({"train": [Datum("banded/banded_0000.jpg", "0")], "val": []}, "is not a pickle of CoOp's"),
    # a call of Datum, attributes of the class itself
    (b"(dS'train'\n(lcdassl.data.datasets\nDatum\n(S'a'\ntRas.", "is not a pickle of CoOp's"),
    (b"cdassl.data.datasets\nDatum\n(N(dS'__setstate__'\nI1\nstb.", "is not a pickle of CoOp's"),
    (b"cdassl.data.datasets\nDatumBase\n.", "holds dassl.data.datasets.DatumBase, but"),
    ({"train": [Datum("/a/none.jpg", 0)], "val": []}, "holds the image /a/none.jpg with the label 0, which"),
])
def test_a_wrong_pickle_is_refused(content, message, folder, tmp_path):
    path = put_pickle(folder, content)
    with pytest.raises(UserError, match=f"{path} {message}"):
        load(DescribableTextures, tmp_path)


def test_an_image_of_another_label_or_of_the_test_list_is_refused(folder, tmp_path):
    split = json.loads(SPLIT.read_text())
    image, label, _ = split["train"][0]
    tested, its_label, _ = split["test"][0]
    for wrong in (Datum(f"images/{image}", (label + 1) % 47), Datum(f"images/{tested}", its_label)):
        put_pickle(folder, {"train": [wrong], "val": []})
        with pytest.raises(UserError, match="lists do not have: delete the file"):
            load(DescribableTextures, tmp_path)


def test_a_class_that_was_emptied_in_a_stored_draw_is_refused(folder, tmp_path):
    load(DescribableTextures, tmp_path)
    path = folder / "split_fewshot" / "shot_2-seed_1.json"
    stored = json.loads(path.read_text())
    (draws,) = stored["tasks"].values()
    draws["train"]["banded"] = []
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="shot_2-seed_1.json does not fit .*no train image of class 'banded'.*delete it"):
        load(DescribableTextures, tmp_path)
