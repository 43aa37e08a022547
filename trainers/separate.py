"""Base of the methods whose tasks learn in a suite exactly what each learns in a run of its own.

A task has batches of its own, and their order follows from (seed, epoch, task). A step takes the next batch of every
task, and its loss is the sum of theirs (`MultiTaskCLIP.adds_tasks`). A task whose batches of the epoch are used up
waits for the others: neither momentum nor weight decay nor the schedule goes on for it.
"""

from itertools import zip_longest

from torch import nn

from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed
from features.image_features import FeatureLoader

from .multitask import MultiTaskTrainer


class TaskBatches:
    """Lists of indices of `data_source` (datums): the k-th has the k-th batch of every task that has so many.

    When an epoch begins the trainer is told which tasks these are.
    """

    def __init__(self, trainer, data_source):
        self.trainer, self.of_tasks = trainer, []
        task_of_class = trainer.model.task_of_class.tolist()
        for number, task in enumerate(trainer.tasks):
            index = [i for i, datum in enumerate(data_source) if task_of_class[datum.label] == number]
            set_random_seed(trainer.seed(task.name))  # a sampler may draw its length
            self.of_tasks.append((task.name, index, trainer.batches([data_source[i] for i in index])))

    @property
    def lengths(self):
        """The number of batches of each task."""
        return [len(batches) for _, _, batches in self.of_tasks]

    def __len__(self):
        return max(self.lengths)

    def __iter__(self):
        drawn = []
        for name, index, batches in self.of_tasks:
            set_random_seed(self.trainer.seed(self.trainer.epoch, name))
            drawn.append([[index[i] for i in batch] for batch in batches])
        steps = list(zip_longest(*drawn, fillvalue=[]))  # of each the tasks' batches
        self.trainer.present = [[task for task, own in enumerate(parts) if own] for parts in steps]
        for parts in steps:
            yield sum(parts, [])


class TaskOptimizer:
    """An optimizer for each task, of its own rows of the learned values.

    Args:
        owned: [(learned value (n, ...), the task (n,) of each of its rows)].
        build: makes an optimizer of a list of values.

    Attributes:
        each: the optimizers. present: numbers of the tasks that `step` steps.
    """

    def __init__(self, owned, n_tasks, build):
        self.values = [value for value, _ in owned]
        self.rows = [[(tasks == task).nonzero()[:, 0] for _, tasks in owned] for task in range(n_tasks)]
        self.copies = [[nn.Parameter(value.data[own]) for value, own in zip(self.values, rows)] for rows in self.rows]
        self.each, self.present = [build(copies) for copies in self.copies], range(n_tasks)

    @property
    def param_groups(self):
        """The whole values with the rate of the first task; torch's scaler of gradients reads them."""
        return [{"params": self.values, "lr": self.each[0].param_groups[0]["lr"]}]

    def zero_grad(self):
        for value in self.values:
            value.grad = None

    def step(self):
        for task in self.present:
            for value, rows, copy in zip(self.values, self.rows[task], self.copies[task]):
                copy.data, copy.grad = value.data[rows], None if value.grad is None else value.grad[rows]
            self.each[task].step()
            for value, rows, copy in zip(self.values, self.rows[task], self.copies[task]):
                value.data[rows] = copy.data

    def state_dict(self):
        return {"tasks": [own.state_dict() for own in self.each]}

    def load_state_dict(self, state):
        for own, saved in zip(self.each, state["tasks"], strict=True):
            own.load_state_dict(saved)


class TaskSchedule:
    """The schedules of a `TaskOptimizer`, one for each task; with `by_batch` only those of present tasks go on."""

    def __init__(self, optimizer, schedules, by_batch):
        self.optimizer, self.each, self.by_batch = optimizer, schedules, by_batch

    def step(self):
        for task in self.optimizer.present if self.by_batch else range(len(self.each)):
            self.each[task].step()

    state_dict, load_state_dict = TaskOptimizer.state_dict, TaskOptimizer.load_state_dict


class SeparateTasksTrainer(MultiTaskTrainer):
    """Base of these methods; their models set `adds_tasks`, and every task must have training images.

    Attributes:
        present: numbers of the tasks in each batch that is left of the epoch. A step without such a list is all tasks'.
    """

    present = ()

    def owned(self):
        """[(learned value (n, ...), the task (n,) of each of its rows)]; by default a row is a class."""
        return [(value, self.model.task_of_class) for value in self.trained]

    def task_batches(self):
        """The `TaskBatches` of an epoch."""
        self.need_images_of_tasks()
        return TaskBatches(self, self.train_images.data_source)

    def make_train_loader(self):
        return FeatureLoader(self.train_images, self.task_batches(), self.encode, self.device)

    def make_optimizer(self):
        lengths = self.task_batches().lengths if self.rate_by_batch else [1] * len(self.tasks)
        optimizer = TaskOptimizer(self.owned(), len(self.tasks), lambda values: build_optimizer(values, self.cfg.OPTIM))
        schedules = [build_lr_scheduler(own, self.cfg.OPTIM, self.max_epoch * n)
                     for own, n in zip(optimizer.each, lengths)]
        return optimizer, TaskSchedule(optimizer, schedules, self.rate_by_batch)

    def step(self, images, labels, repeats):
        self.optimizer.present = self.present.pop(0) if self.present else range(len(self.tasks))
        return super().step(images, labels, repeats)
