"""Check the content of the files beside the images (tasks.yaml, splits, few-shot draws) before it is used."""

import posixpath
import re
from collections import Counter
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from common.errors import UserError
from common.files import read_json
from common.keys import in_words

METRICS = ("overall_acc", "mean_acc")


def check_template(template):
    """Return `template`; a ValueError unless it holds one {} for the class name and no other brace."""
    if template.count("{}") != 1 or re.search("[{}]", template.replace("{}", "")):
        raise ValueError(f"must hold exactly one {{}}, for the class name, and no other brace, but is {template!r}")
    return template


def check_templates(value):
    """Return a template, or a list of templates as a tuple; a ValueError as `check_template`."""
    templates = tuple(check_template(str(template)) for template in (value if isinstance(value, list) else [value]))
    if not templates:
        raise ValueError("must hold a template, but is empty")
    return templates if isinstance(value, list) else templates[0]


def check_name(name):
    if not name.strip():
        raise ValueError("must not be empty")
    return name


def check_below(path):
    """Return `path` normalised, with / between its parts; a ValueError unless it stays below its folder."""
    path = path.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:/", path) or ".." in path.split("/") or not path.strip():
        raise ValueError(f"must be a path inside its folder, but is {path!r}")
    return posixpath.normpath(path)


def check_shares(shares):
    """Return the shares of train, val and test; a ValueError unless they sum to 1, and train and test have some."""
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or not shares[0] or not shares[2]:
        raise ValueError("must be the shares of train, val and test, which sum to 1, with some for train and test, but "
                         f"is {list(shares)}")
    return shares


def name_class_folders(classes):
    """Return the `classes` of a task as {class folder: class name}; in a list, underscores become spaces."""
    if isinstance(classes, list):
        twice = [item for item in classes if classes.count(item) > 1]
        if twice:
            raise ValueError(f"must name each class folder once, but has {twice[0]!r} twice")
        if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in classes):
            raise ValueError(f"must be a list of class folders (quote words such as \"no\"), but is {classes!r}")
        classes = {str(item): str(item).replace("_", " ") for item in classes}
    if classes is not None and (not isinstance(classes, dict) or not classes):
        raise ValueError(f"must be a list of class folders or a map folder: name, but is {classes!r}")
    return classes


Name = Annotated[str, AfterValidator(check_name)]
Templates = Annotated[str | tuple[str, ...], BeforeValidator(check_templates)]
Below = Annotated[str, AfterValidator(check_below)]
# A path in a file that this package writes; earlier versions wrote backslashes on Windows.
Stored = Annotated[str, AfterValidator(lambda path: path.replace("\\", "/"))]


class Declaration(BaseModel):
    """Keys of tasks.yaml for one task or, at the top, for every task that does not set them."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)  # `name: 2024` is a name

    template: Templates | None = None
    metric: Literal[METRICS] | None = None
    split: Annotated[tuple[float, float, float], AfterValidator(check_shares)] | None = None
    groups: Name | None = None  # "folder", or a column of CSV files


class Columns(BaseModel):
    """Names of the columns of a task's CSV files."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    image: Name | None = None
    label: Name | None = None


class TaskEntry(Declaration):
    """An entry of `tasks` in tasks.yaml; paths are relative to the root (`folder`) or to the task's folder."""

    folder: Below
    name: Name | None = None
    classes: Annotated[dict[Below, Name] | None, BeforeValidator(name_class_folders)] = None
    train: Below | None = None
    val: Below | None = None
    test: Below | None = None
    images: Below | None = None
    image_dir: Below = "."
    columns: Columns | None = None

    @model_validator(mode="after")
    def check_fixed(self):
        if self.split and self.train:
            raise ValueError("has fixed train and test, so that `split` has nothing to split")
        return self


class TasksFile(Declaration):
    tasks: list[TaskEntry] = []


class Draw(BaseModel):
    """A file of few-shot draws: {task: {part: {class: paths below the dataset's folder}}}."""

    model_config = ConfigDict(extra="forbid")

    shots: StrictInt
    seed: StrictInt
    draw: str = ""  # files of older versions have none
    tasks: dict[str, dict[Literal["train", "val"], dict[str, list[Stored]]]]


Split = dict[Literal["train", "val", "test"], list[Stored]]  # paths below the dataset's folder
SplitZhou = dict[Literal["train", "val", "test"], list[tuple[Stored, StrictInt, str]]]  # image, label, class name


def checked(schema, content, path, remedy):
    """Return `content` of the file `path` as the pydantic type `schema`.

    Raises:
        UserError: it does not fit; the message names the file, the place in it, and the `remedy`.
    """
    try:
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        reason = error.errors()[0]
        text = {"extra_forbidden": "is an unknown key", "missing": "is missing"}.get(reason["type"]) or in_words(reason)
        if reason["type"] not in ("extra_forbidden", "missing", "value_error"):
            text += f", but is {reason['input']!r:.200}"
        text = f"{place_of(reason['loc']) or 'the file'} {text}"
        raise UserError(f"{path}: {text.replace('be a string', 'be text')}: {remedy}") from None


def place_of(steps):
    """Write a place in a file as "tasks[2].name"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def read_checked(schema, path, remedy):
    """Read a JSON file as `checked` does."""
    return checked(schema, read_json(path), path, remedy)


class UniqueKeys(yaml.SafeLoader):
    """Refuses YAML in which a key stands twice in a mapping: the later one would win unseen."""

    def construct_mapping(self, node, deep=False):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice {node.start_mark}".replace("\n", " "))
        return super().construct_mapping(node, deep)


def read_tasks_file(path):
    """Read a tasks.yaml as a `TasksFile`.

    Raises:
        UserError: it is not YAML, a key stands twice, or it does not fit; the message names file, place and key.
    """
    try:
        with open(path, encoding="utf-8") as f:
            content = yaml.load(f, UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the last where it refers to itself
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}): mend it") from None
    return checked(TasksFile, {} if content is None else content, path, "mend it")
