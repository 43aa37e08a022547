"""What the checks of methods inside the towers share: stored images for features, and an image tower in double."""

import torch

from datasets.base import Task


def build(case, name, templates, **options):
    """`case.trainer` with these templates (one, or a tuple), all in double; its features are those of stored images."""
    case.tasks = [Task("the task", tuple(case.about["classes"]), templates)]
    trainer = case.trainer(name, **options)
    with torch.no_grad():
        test = case.images["test_images"]
        test = test if trainer.learns_images else trainer.model.image_encoder(test)
    case.features = lambda part, view=None: (test, case.images["test_labels"])
    return trainer


@torch.no_grad()
def batches(case, trainer, n_epochs, n):
    """For each epoch `n` batches (images, labels), stored one after another; features if the image tower is frozen."""
    images = case.images["images"][:n_epochs * n]
    if not trainer.learns_images:
        images = [trainer.model.image_encoder(batch) for batch in images]
    found = list(zip(images, case.images["labels"]))
    return [found[first:first + n] for first in range(0, len(found), n)]
