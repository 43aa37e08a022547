"""Few-shot draws, stored as JSON and the same on every machine: CoOp's own from its split file, else nested ones."""

import os.path as osp
import pickle
import random
from collections import Counter
from dataclasses import replace

from common.errors import UserError
from common.files import write_json

from .schemas import Draw, read_checked
from .splits import by_class, relative, split_folder

DRAWN = ("train", "val")
# Module and class of the images in CoOp's pickles, and the attributes of such an image.
DATUM = ("dassl.data.datasets.base_dataset", "Datum"), ("dassl.data.datasets", "Datum")
DATUM_FIELDS = {"_impath": str, "_label": int, "_domain": int, "_classname": str}


def draw_few_shot(data, folder, split_zhou, cfg):
    """Draw `NUM_SHOTS` training and min(`NUM_SHOTS`, 4) validation images per class of every task.

    A draw is made once per (shots, seed) and stored as `shot_<shots>-seed_<seed>.json` in `split_folder`, which later
    calls read, so that every method sees the same images. A class with fewer images gives all of them. Tasks and
    classes that are added later are drawn then; the others stay as they are. CoOp's `shot_<shots>-seed_<seed>.pkl`, if
    it is there, replaces a draw of CoOp's.

    Args:
        data: list of `TaskData`.
        folder: the dataset's.
        split_zhou: path of CoOp's split file, which need not exist; "" for a dataset that can have none.

    Returns:
        `data` with the drawn images only; nested draws in the order of labels, CoOp's in the order of the draw.

    Raises:
        UserError: `FEWSHOT_DRAW` is coop without CoOp's split file; the stored draw was made another way or does not
            fit the present files; stored draw and pickle differ; as `read_pickle`.
    """
    shots, seed = cfg.DATASET.NUM_SHOTS, cfg.SEED
    way = way_of(cfg.DATASET.FEWSHOT_DRAW, folder, split_zhou)
    store = split_folder(folder, cfg)
    path = osp.join(store, f"shot_{shots}-seed_{seed}.json")
    # CoOp writes beside the images
    pickled = osp.join(store if cfg.DATASET.SPLIT_DIR else osp.join(folder, "split_fewshot"),
                       f"shot_{shots}-seed_{seed}.pkl")
    stored = read_draw(path, shots, seed, way) if osp.isfile(path) else {}
    if osp.isfile(pickled):
        if way == "coop":
            (task_data,) = data
            given = read_pickle(pickled, task_data, folder)
            if stored and apply_draw(task_data, stored, folder, path, shots, way) != given:
                raise UserError(f"{pickled} and {path} hold different few-shot images: delete the one that is not "
                                "meant")
            print(f"the few-shot images of {pickled} are used")
            return [given]
        print(f"{pickled} is not read: it is a draw of CoOp's, but the images are drawn nested "
              f"({'DATASET.FEWSHOT_DRAW' if osp.isfile(split_zhou) else 'there is no split_zhou_*.json'})")

    tasks = {task_data.task.name: complete_draw(task_data, stored.get(task_data.task.name), folder, shots, seed, way)
             for task_data in data}
    if len(tasks) < len(data):
        raise UserError(f"{folder}: two tasks have the same name")
    if {**stored, **tasks} != stored:
        write_json({"shots": shots, "seed": seed, "draw": way, "tasks": {**stored, **tasks}}, path)
    return [apply_draw(task_data, tasks, folder, path, shots, way) for task_data in data]


def read_draw(path, shots, seed, way):
    """Read the draws {task: {part: {class: paths below the dataset's folder}}} in the file `path`.

    Raises:
        UserError: it has another content, or another way, number of shots or seed.
    """
    content = read_checked(Draw, path, "delete it to draw again")
    if content.draw != way:
        said = f'its "draw" is {content.draw!r}' if content.draw else 'it has no "draw", as files of older versions'
        raise UserError(f"the few-shot draw {path} was drawn another way than {way!r} ({said}): delete it to draw "
                        "again, or set DATASET.SPLIT_DIR to another folder to keep it")
    if (content.shots, content.seed) != (shots, seed):
        raise UserError(f"the few-shot draw {path} holds one of {content.shots} shots and seed {content.seed}: delete "
                        "it to draw again")
    return content.tasks


def complete_draw(task_data, stored, folder, shots, seed, way):
    """Return the draw {part: {class: paths below `folder`}} of a task: `stored`, and a draw of the classes it lacks.

    CoOp's code draws all classes with one generator, so a class can't be added to such a draw.
    """
    if stored and way == "coop":
        return stored
    names = class_keys(task_data.task.classnames)
    drawn_before = {name for groups in (stored or {}).values() for name in groups}
    parts = {part: [(path, label) for path, label in getattr(task_data, part) if names[label] not in drawn_before]
             for part in DRAWN}
    drawn = (draw_coop(parts, shots, seed) if way == "coop"
             else draw_nested(parts, shots, seed, task_data.task.name, names))
    return {part: {**(stored or {}).get(part, {}),
                   **{names[label]: [relative(path, folder) for path in chosen] for label, chosen in groups.items()}}
            for part, groups in drawn.items()}


def way_of(wanted, folder, split_zhou):
    """Return "coop" or "nested" for a `DATASET.FEWSHOT_DRAW`; coop without CoOp's split file is a UserError."""
    if osp.isfile(split_zhou):
        return "coop" if wanted == "auto" else wanted
    if wanted == "coop":
        raise UserError("DATASET.FEWSHOT_DRAW is 'coop', but " + (
            f"there is no {split_zhou}: put CoOp's split file there" if split_zhou
            else f"CoOp publishes no split file for the dataset in {folder}: leave it out") + ", or set it to auto")
    return "nested"


def count_per_part(shots):
    """Return {part: images per class}."""
    return {"train": shots, "val": min(shots, 4)}


def draw_coop(parts, shots, seed):
    """Draw the images that CoOp's code draws from the lists of its split file, in its order.

    One generator serves both parts; labels come in the order in which they first appear in a list.

    Args:
        parts: {"train", "val": [(path, label)]}, in the order of the split file.

    Returns:
        {part: {label: paths}}.
    """
    generator = random.Random(seed)
    drawn = {}
    for part, count in count_per_part(shots).items():
        groups = {}
        for path, label in parts[part]:
            groups.setdefault(label, []).append(path)
        drawn[part] = {label: generator.sample(paths, count) if len(paths) >= count else paths
                       for label, paths in groups.items()}
    return drawn


def draw_nested(parts, shots, seed, task, names):
    """Draw {part: {label: paths}}; the first paths of a label are the draw of fewer shots.

    The seed, the part and the names of task and class decide the order in which a class's images are drawn; other
    classes and tasks do not matter.
    """
    drawn = {}
    for part, count in count_per_part(shots).items():
        drawn[part] = by_class(parts[part])
        for label, paths in drawn[part].items():
            random.Random(f"{seed}/{part}/{task}/{names[label]}").shuffle(paths)
            del paths[count:]
    return drawn


def class_keys(classnames):
    """Number the later ones of equal names ("missile", "missile (2)"), so that each name stands for one class."""
    seen = Counter()
    keys = []
    for name in classnames:
        seen[name] += 1
        keys.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return keys


def apply_draw(task_data, draws, folder, path, shots, way):
    """Return `task_data` with only the images of {task: {part: {class: paths below `folder`}}}.

    Raises:
        UserError: a drawn image is gone, stands twice or is of another class, a class has more than `shots` of them,
            or, in a draw of CoOp's, none. The message names `path`, the draw's file.
    """
    task = task_data.task
    names = class_keys(task.classnames)
    labels = {name: label for label, name in enumerate(names)}

    def wrong(what):
        return UserError(f"the few-shot draw {path} does not fit the data any more ({what} of task {task.name!r}): "
                         "delete it to draw again")

    parts = {}
    for part, most in count_per_part(shots).items():
        there = {relative(image, folder): (image, label) for image, label in getattr(task_data, part)}
        groups = draws[task.name].get(part, {}) if task.name in draws else {}
        lacking = {names[label] for _, label in there.values()} - set(groups)
        if lacking:
            raise wrong(f"it has no image of class {min(lacking)!r}")
        parts[part] = []
        for name in (groups if way == "coop" else names):
            chosen = groups.get(name, []) if name in labels else []
            if name in labels and not chosen and labels[name] in {label for _, label in there.values()}:
                raise wrong(f"it has no {part} image of class {name!r}")
            if len(chosen) > most or len(set(chosen)) < len(chosen):
                raise wrong(f"it has {len(chosen)} {part} images of class {name!r}, at most {most} and each once")
            for image in chosen:
                if image not in there:
                    raise wrong(f"{image!r} is gone from {part}")
                if there[image][1] != labels[name]:
                    raise wrong(f"{image!r} is an image of {names[there[image][1]]!r}, not of {name!r}")
                parts[part].append((there[image][0], labels[name]))
    return replace(task_data, **parts)


# ------------------------------------------------------------------ CoOp's pickles
class DatumUnpickler(pickle.Unpickler):
    """Reads plain data and the attributes of CoOp's `Datum`; it looks up nothing else, so no code is run."""

    def __init__(self, file, path):
        super().__init__(file)
        self.path = path
        self.datum = type("Datum", (), {})

    def find_class(self, module, name):
        if (module, name) in DATUM:
            return self.datum
        raise UserError(f"{self.path} holds {module}.{name}, but only Dassl's Datum is read from a pickle: delete the "
                        "file, or make it with CoOp's code")


def read_pickle(path, task_data, folder):
    """Return `task_data` with only the images of CoOp's {"train", "val": list of `Datum`} in the file `path`.

    Images are found by their path below the dataset's folder, which may have been another when the pickle was made.

    Raises:
        UserError: the file is no such pickle, holds an object of another class, or has an image that is not in the
            dataset's training and validation lists with that label.
    """
    try:
        with open(path, "rb") as file:
            content = DatumUnpickler(file, path).load()
        parts = {part: [datum_of(item) for item in content[part]] for part in DRAWN}
    except UserError:
        raise
    except Exception:  # pickle names no common error for what broken files raise
        raise UserError(f"{path} is not a pickle of CoOp's train and val lists: delete it to draw again") from None
    there = {(relative(p, folder), label): p for part in DRAWN for p, label in getattr(task_data, part)}
    return replace(task_data, **{part: [(find_image(there, item, label, path), label) for item, label in items]
                                 for part, items in parts.items()})


def datum_of(item):
    """Return (path, label) of an unpickled `Datum`; another object is a ValueError."""
    values = vars(item)
    if {name: type(value) for name, value in values.items()} != DATUM_FIELDS:
        raise ValueError("not a Datum")
    return values["_impath"], values["_label"]


def find_image(there, image, label, path):
    """Find in {(path below the dataset's folder, label): path} the longest end of `image`; return its path."""
    names = image.replace("\\", "/").split("/")
    for start in range(len(names)):
        found = there.get(("/".join(names[start:]), label))
        if found:
            return found
    raise UserError(f"{path} holds the image {image} with the label {label}, which the dataset's training and "
                    "validation lists do not have: delete the file to draw again, or use the split file that it "
                    "was made with")
