import random
from collections import defaultdict

from ...utils import Registry

DATASET_REGISTRY = Registry("DATASET.NAME")


def build_dataset(cfg):
    """Return the dataset registered as ``cfg.DATASET.NAME``; ValueError for an unknown name."""
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)


class Datum:
    """One sample: the path of its image, its label, its domain's index and its class's name. Read-only."""

    def __init__(self, impath="", label=0, domain=0, classname=""):
        if not isinstance(impath, str):
            raise ValueError(f"Datum's impath is {impath!r}: pass the image's path as a string")
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    impath = property(lambda self: self._impath)
    label = property(lambda self: self._label)
    domain = property(lambda self: self._domain)
    classname = property(lambda self: self._classname)


class DatasetBase:
    """Lists of `Datum` by split. Subclasses set the class attributes, read their files and call ``__init__``.

    Args:
        train_x: labeled training samples; they define the classes.
        train_u: unlabeled training samples, or None; kept, but no loader reads them.
        val: validation samples, or None.
        test: test samples.

    Raises:
        ValueError: ``train_x`` is empty.
    """

    dataset_dir = ""  # the dataset's folder below DATASET.ROOT

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        if not train_x:
            raise ValueError(f"{type(self).__name__} has no training sample: check DATASET.ROOT and its files")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    train_x = property(lambda self: self._train_x)
    train_u = property(lambda self: self._train_u)
    val = property(lambda self: self._val)
    test = property(lambda self: self._test)
    lab2cname = property(lambda self: self._lab2cname)
    classnames = property(lambda self: self._classnames)
    num_classes = property(lambda self: self._num_classes)

    @staticmethod
    def get_num_classes(data_source):
        """Return the highest label + 1."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source):
        """Return the dict from label to class name, and the list of class names in the order of labels."""
        mapping = {item.label: item.classname for item in data_source}
        return mapping, [mapping[label] for label in sorted(mapping)]

    def generate_fewshot_dataset(self, *data_sources, num_shots=-1, repeat=False):
        """Draw ``num_shots`` samples a class from each list, with Python's ``random``.

        A class with fewer gives all of them, or, with ``repeat``, ``num_shots`` drawn with replacement.
        ``num_shots`` < 1 returns the lists as they are.

        Returns:
            A list of `Datum` for one source, a list (or tuple) of lists for several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            dataset = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    dataset.extend(random.sample(items, num_shots))
                elif repeat:
                    dataset.extend(random.choices(items, k=num_shots))
                else:
                    dataset.extend(items)
            output.append(dataset)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source):
        """Return a dict from label to the list of its samples, in the order in which labels occur."""
        output = defaultdict(list)
        for item in data_source:
            output[item.label].append(item)
        return output
