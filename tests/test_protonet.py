"""ProtoNet against a nearest class mean in NumPy, its episodes, and whole runs with and without a learned embedding."""

import re

import numpy as np
import pytest
import torch

from clip import clip
from common.errors import UserError
from datasets.base import Task
from tests import helpers
from tests.helpers import make_cfg, results, train_args
from trainers.protonet import EpisodeLoader, PrototypeCLIP

EPISODES = {"TRAINER.PROTONET.DIM": 32, "TRAINER.PROTONET.EPISODES": 8, "OPTIM.MAX_EPOCH": 3}


def arguments(root, backbone, output, *extra, **options):
    options = {"DATASET.SPLIT_DIR": output.parent / "splits",
               "DATALOADER.FEATURE_CACHE_DIR": output.parent / "features", **options}
    return train_args(root, backbone, output, "ProtoNet", *extra, **options)


def call(*args, **options):
    return helpers.call(arguments(*args, **options))


def nearest_mean(trainer, weight=None):
    """Accuracy per task in percent, in NumPy."""
    def embed(images):
        features = trainer.encode(images).double().numpy()
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return (features if weight is None else features @ weight.T,
                np.array([datum.label for datum in images.data_source]))

    x, y = embed(trainer.plain_images["train"])
    test, truth = embed(trainer.plain_images["test"])
    accuracies, first = [], 0
    for task in trainer.tasks:
        classes = range(first, first + len(task.classnames))
        first = classes.stop
        means = np.stack([x[y == c].mean(axis=0) for c in classes])
        own = np.isin(truth, classes)
        distances = np.linalg.norm(test[own][:, None] - means, axis=2)
        accuracies.append(100 * np.mean(distances.argmin(axis=1) + classes.start == truth[own]))
    return accuracies


def metrics(folder):
    return [task["metric"] for task in results(folder)["tasks"]]


def test_frozen_features_are_a_nearest_class_mean(photo_root, backbone, tmp_path):
    trainer = call(photo_root, backbone, tmp_path / "run")
    written = results(tmp_path / "run")
    assert written["n_params"] == 0 and written["n_train"] == 10
    assert metrics(tmp_path / "run") == pytest.approx(nearest_mean(trainer))
    assert min(metrics(tmp_path / "run")) > 80  # plain colours
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Finished training" in log and not re.search(r"^epoch ", log, re.M)
    call(photo_root, backbone, tmp_path / "test", "--eval-only", "--model-dir", str(tmp_path / "run"))
    assert results(tmp_path / "test")["tasks"] == written["tasks"]
    with pytest.raises(UserError, match="--eval-only tests what ProtoNet has learned: give the folder"):
        call(photo_root, backbone, tmp_path / "refused", "--eval-only")


def test_logits_are_squared_distances(backbone):
    torch.manual_seed(0)
    model = PrototypeCLIP(clip.load(backbone, device="cpu")[0], [Task("a", ("x", "y")), Task("b", ("u", "v"))], 5)
    features, labels = torch.randn(6, 64), torch.tensor([0, 1, 1, 2, 3, 3])
    model.support.features, model.support.labels = features, labels
    embedded = features / features.norm(dim=1, keepdim=True) @ model.embedding.weight.T
    means = torch.stack([embedded[labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(model.class_features(), means)
    logits = model.logits(features, labels, means)
    expected = -((embedded[:, None] - means) ** 2).sum(-1)
    own = torch.tensor([[True, True, False, False]] * 3 + [[False, False, True, True]] * 3)
    torch.testing.assert_close(logits[own], expected[own], rtol=1e-4, atol=1e-5)
    assert (logits[~own] == float("-inf")).all()


def test_embedding_is_learned_saved_and_tested_again(photo_root, backbone, tmp_path):
    trainer = call(photo_root, backbone, tmp_path / "run", **EPISODES)
    written = results(tmp_path / "run")
    weight = torch.load(tmp_path / "run" / "embedding" / "model.pth.tar-3", weights_only=True)["state_dict"]["weight"]
    assert written["n_params"] == 32 * 64 == weight.numel() and torch.equal(weight, trainer.model.embedding.weight)
    assert metrics(tmp_path / "run") == pytest.approx(nearest_mean(trainer, weight.double().numpy()))
    log = (tmp_path / "run" / "log.txt").read_text()
    # 8 episodes in 3 epochs; two images a class are one to support and one to be asked
    assert [int(n) for n in re.findall(r"^epoch \[\d/3\] batch \[1/(\d)\]", log, re.M)] == [2, 3, 3]
    assert "Episodes of task lightness have 2 classes with 1 support and 1 query images each\n" in log
    call(photo_root, backbone, tmp_path / "test", "--eval-only", "--model-dir", str(tmp_path / "run"), **EPISODES)
    assert results(tmp_path / "test")["tasks"] == written["tasks"]
    call(photo_root, backbone, tmp_path / "off", **EPISODES, **{"DATALOADER.FEATURE_CACHE": False})
    assert results(tmp_path / "off")["tasks"] == written["tasks"]


def test_prototypes_serve_the_classes_of_training_alone(photo_root, backbone, tmp_path):
    call(photo_root, backbone, tmp_path / "base", **EPISODES, **{"DATASET.SUBSAMPLE_CLASSES": "base",
                                                                "DATASET.SUBSAMPLE_TASKS": "task0"})
    for options in ({"DATASET.SUBSAMPLE_CLASSES": "new"}, {"DATASET.SUBSAMPLE_TASKS": "task1"}):
        with pytest.raises(UserError, match="ProtoNet learns something of its own for every class"):
            call(photo_root, backbone, tmp_path / "new", "--eval-only", "--model-dir", str(tmp_path / "base"),
                 **EPISODES, **options)


def test_an_interrupted_run_goes_on_as_if_undisturbed(photo_root, backbone, tmp_path, monkeypatch):
    expected = call(photo_root, backbone, tmp_path / "calm", **EPISODES).model.embedding.weight
    helpers.call_until(2, arguments(photo_root, backbone, tmp_path / "run", **EPISODES, **{"TRAIN.RESUME_SECONDS": 0}),
                       monkeypatch)
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = call(photo_root, backbone, tmp_path / "run", **EPISODES)
    assert "Resuming from" in (tmp_path / "run" / "log.txt").read_text()
    assert torch.equal(resumed.model.embedding.weight, expected)


# ---------------------------------------------------------------- episodes
class Rows:
    """Stands in for `Images` of some numbers of images per class; their "features" say which image it is and how."""

    epoch = 0

    def __init__(self, counts, is_train):
        from dassl.data.datasets import Datum
        self.data_source = [Datum(label=c) for c, count in enumerate(counts) for _ in range(count)]
        self.is_train = is_train


def features_of(images):
    """(n, 3): class, image, whether it is augmented."""
    return torch.tensor([[datum.label, i, images.is_train] for i, datum in enumerate(images.data_source)])


def loader(counts, sizes, n_epochs=1, **options):
    options = {"WAY": 3, "SHOT": 2, "QUERY": 3, "EPISODES": 30, **options}
    options = make_cfg(options={f"TRAINER.PROTONET.{key}": value for key, value in options.items()}).TRAINER.PROTONET
    tasks = [Task(f"task {t}", tuple(f"class {i}" for i in range(size))) for t, size in enumerate(sizes)]
    return EpisodeLoader(Rows(counts, True), Rows(counts, False), features_of, tasks, options, n_epochs)


def test_episodes_lie_inside_a_task_and_share_no_image():
    torch.manual_seed(0)
    seen = set()
    for support, query in loader([6] * 9, [4, 5]):
        assert support.shape == (3, 2, 3) and query.shape == (3, 3, 3)
        both = torch.cat([support, query], dim=1)  # (way, 5, 3)
        assert (both[:, :, 0] == both[:, :1, 0]).all() and (both[:, :, 2] == 1).all()
        classes = both[:, 0, 0].tolist()
        assert len(set(classes)) == 3 and len({c < 4 for c in classes}) == 1
        assert len(set(both[:, :, 1].flatten().tolist())) == 15
        seen.update(classes)
    assert seen == set(range(9))


@pytest.mark.parametrize("counts, expected", [
    ([4, 4, 4], (3, 2, 2)), ([3, 9, 9], (3, 2, 1)), ([2, 2, 2], (3, 1, 1)), ([9, 9], (2, 2, 3))])
def test_small_tasks_have_smaller_episodes(counts, expected, capsys):
    support, queries = next(iter(loader(counts, [len(counts)])))
    way, shot, query = expected
    assert support.shape == (way, shot, 3) and queries.shape == (way, query, 3)
    assert (f"task 0 have {way} classes with {shot} support and {query} query images each\n"
            in capsys.readouterr().out)


def test_a_single_image_is_its_own_query(capsys):
    support, query = (features[:, 0] for features in next(iter(loader([1, 1, 5], [3]))))  # (3, 3)
    assert torch.equal(support[:, :2], query[:, :2])
    assert (support[:, 2] == 0).all() and (query[:, 2] == 1).all()
    assert "1 support and 1 query images each, which are two views of the same image" in capsys.readouterr().out


def test_all_episodes_are_spread_over_the_epochs():
    episodes = loader([3] * 3, [3], n_epochs=4, EPISODES=10)
    lengths = []
    for episodes.dataset.epoch in range(4):
        lengths.append(len(episodes))
        assert len(list(episodes)) == lengths[-1]
    assert lengths == [2, 3, 2, 3]


@pytest.mark.parametrize("options, message", [
    ({"WAY": 1}, "WAY is 1 .* must be greater than or equal to 2"), ({"SHOT": 0}, "SHOT is 0"),
    ({"QUERY": 0}, "QUERY is 0"),
    ({"EPISODES": 0}, "EPISODES is 0 .* must be greater than or equal to 1"),
    ({"sizes": [1, 1]}, "no task has two")])
def test_clear_errors(options, message):
    sizes = options.pop("sizes", [2])
    with pytest.raises(ValueError, match=message):
        loader([2, 2], sizes, **options)


def test_every_epoch_has_an_episode(photo_root, backbone, tmp_path):
    with pytest.raises(UserError, match="EPISODES is 2 .set on the command line., but must be 3 or more .an episode"):
        call(photo_root, backbone, tmp_path / "run", **{**EPISODES, "TRAINER.PROTONET.EPISODES": 2})


def test_a_class_without_training_images_is_named(photo_root, backbone, tmp_path, monkeypatch):
    from datasets.folder_tasks import FolderTasks
    made = FolderTasks.__init__

    def without_green(self, cfg):
        made(self, cfg)
        self._train_x = [datum for datum in self.train_x if datum.classname != "green"]

    monkeypatch.setattr(FolderTasks, "__init__", without_green)
    with pytest.raises(ValueError, match="of every class, but FolderTasks has none of 1 classes, such as 'green'$"):
        call(photo_root, backbone, tmp_path / "run")


def test_steps_on_episodes_bring_queries_nearer_to_their_prototypes(backbone):
    """Three classes that differ in a few of the dimensions, in much noise in the others."""
    torch.manual_seed(0)
    model = PrototypeCLIP(clip.load(backbone, device="cpu")[0].requires_grad_(False),
                          [Task("a", ("x", "y", "z"))], 8)
    centres = torch.cat([4 * torch.eye(3), torch.zeros(3, 61)], dim=1)

    def episode():
        features = centres[:, None] + torch.randn(3, 8, 64)
        return features[:, :4], features[:, 4:]

    def accuracy():
        with torch.no_grad():
            pairs = [model(*episode()) for _ in range(100)]
        return np.mean([(logits.argmax(1) == targets).float().mean().item() for logits, targets in pairs])

    before = accuracy()
    optimizer = torch.optim.SGD(model.embedding.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        model.losses(*episode())[0]["loss"].backward()
        optimizer.step()
    assert accuracy() > before + 0.15
