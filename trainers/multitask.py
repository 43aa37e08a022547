"""The engine of all methods. `MultiTaskTrainer.train` is the whole of a run, from its resume file to its test."""

import time
from functools import cached_property

import torch
from torch.utils.data import BatchSampler, SequentialSampler
from tqdm import tqdm

from common.errors import NotFinite, UserError
from common.program import Stopped, until_sigterm
from dassl.data.datasets import build_dataset
from dassl.data.samplers import build_sampler
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import count_num_param, set_random_seed
from features.image_features import FeatureLoader, ImageFeatures, PixelLoader
from features.images import Images
from runs.checkpoints import BEST
from runs.folder import RunFolder
from runs.identity import digests_of, identity_of
from runs.keys import refusal
from runs.methods import find_row
from runs.results import describe_suite, write_results

from .evaluation import make_evaluator
from .method import Method
from .multitask_clip import cast_towers, digest_of_clip, load_clip, recompute_blocks
from .progress import Progress
from .prompts import similarities
from .saving import SavesParts
from .step_graph import StepGraph


def resolve_precision(prec, device):
    """The precision to compute in: `prec`, or fp32 where the CPU has no fp16, which a line says."""
    if device.type == "cpu" and prec in ("fp16", "amp"):
        print(f"PREC {prec} needs CUDA: computing in fp32 on the CPU")
        return "fp32"
    return prec


class MultiTaskTrainer(Method, SavesParts):
    """Base of all trainers: a `Method`, and the engine that runs it.

    Args:
        cfg: the config.
        tasks: list of `Task` to build the model for instead of the dataset's. Then nothing is read but the backbone
            (`dataset` is None): the trainer loads checkpoints and predicts, but neither trains nor tests.

    Raises:
        UserError: settings, data or weights that do not fit together.
    """

    def __init__(self, cfg, tasks=None):
        self.options = cfg.TRAINER[self.node] if self.node else None
        self.check_cfg(cfg)
        self.cfg = cfg
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        if cfg.MODEL.CUDA_GRAPH is True and self.device.type != "cuda":
            raise refusal(cfg, "MODEL.CUDA_GRAPH", "needs a CUDA GPU, and this run computes on the CPU: leave it auto")
        self.epoch, self.max_epoch = 0, cfg.OPTIM.MAX_EPOCH
        self.folder = RunFolder(cfg.OUTPUT_DIR)
        self.model_digest = ""  # of what --eval-only tests
        self.validation = None  # with TEST.CALIBRATE, what `ClassificationMT.calibrate` returns
        self.elapsed = self.test_seconds = 0.0  # seconds of training, over all resumed pieces, and of testing
        self.dataset = None if tasks else build_dataset(cfg)
        self.tasks = tasks or self.dataset.tasks
        self.best = None  # {"epoch", "result", "parts"} of the best epoch so far, with TEST.FINAL_MODEL best_val
        self.build_model()
        if self.dataset:
            self.build_data()

    # ------------------------------------------------------------------ building
    def build_model(self):
        cfg, name = self.cfg, type(self).__name__
        self.prec = resolve_precision(self.precision(), self.device)
        clip_model = load_clip(cfg)
        self.weights = digest_of_clip(clip_model)
        cast_towers(clip_model, self.prec)  # before the method adds to them what stays in fp32
        self.model = self.build_clip_model(clip_model).to(self.device).eval()
        if self.prec == "fp64":
            self.model.to_double()
        for tower, said in (("image", self.learns_images), ("text", self.learns_texts)):
            if not said and any(p.requires_grad for p in getattr(self.model, f"{tower}_encoder").parameters()):
                raise TypeError(f"{name} learns values of the {tower} tower: set its learns_{tower}s True")
        if self.learns_texts:
            self.model.zero_shot_features  # made once, before anything is learned or loaded
        self.model.text_encoder.checkpoint = cfg.MODEL.CHECKPOINT_TEXT
        self.model.text_encoder.chunk = cfg.MODEL.TEXT_CHUNK
        if cfg.MODEL.CHECKPOINT_IMAGE:
            recompute_blocks(self.model.image_encoder, cfg)
        if cfg.MODEL.COMPILE:
            self.model.text_encoder.compile_blocks()
        self.scaler = torch.amp.GradScaler(self.device.type) if self.prec == "amp" else None
        self.saved = {part: getattr(self.model, part) for part in self.saved_parts(cfg)}
        # The published code registers the one optimizer and scheduler under every part, and Dassl steps them once
        # per part; see docs/fidelity.md.
        self.repeats = len(self.parts(self.options)) if cfg.OPTIM.STEP_PER_PART else 1
        self.encode = ImageFeatures(cfg, self.model.image_encoder, self.device, self.model.dtype,
                                    autocast=self.scaler is not None, keep=not self.learns_images)

    def build_data(self):
        from dassl.data.transforms import build_transform  # torchvision is slow to import

        cfg, dataset = self.cfg, self.dataset
        train, test = (build_transform(cfg, is_train=is_train) for is_train in (True, False))
        self.train_images = Images(cfg, dataset.train_x, train, is_train=True)  # augmented
        self.plain_images = {"train": Images(cfg, dataset.train_x, test), "val": Images(cfg, dataset.val or [], test),
                             "test": Images(cfg, dataset.test, test)}
        self.evaluator = make_evaluator(cfg, self.tasks)
        if cfg.VERBOSE:
            print(f"{cfg.DATASET.NAME}: {len(self.tasks)} tasks, {dataset.num_classes:,} classes; images: "
                  f"{len(dataset.train_x):,} train, {len(dataset.val or ()):,} val, {len(dataset.test):,} test")

    def build_optimizer(self):
        """Optimizer and scheduler of what is learned by steps.

        Raises:
            TypeError: a learned value is in no part, so it would not be saved, or `steps` says otherwise.
        """
        learned = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        kept = {id(value) for part in self.saved.values() for value in part.parameters()}
        lost = [name for name, value in learned.items() if id(value) not in kept]
        if lost:
            raise TypeError(f"{type(self).__name__} learns {lost[0]}, which is in none of its parts: it would not be "
                            "saved")
        if bool(learned) != self.steps(self.cfg):
            raise TypeError(f"{type(self).__name__} has {len(learned)} values for an optimizer, but steps() is "
                            f"{self.steps(self.cfg)}")
        self.names, self.trained = list(learned), list(learned.values())
        self.waiting = None  # after the first step {name: value} of what had no gradient yet; an empty value never has
        print(f"# learned values: {self.n_params:,}")
        self.optimizer, self.scheduler = self.make_optimizer() if learned else (None, None)
        self.graph = self.make_graph()

    def make_graph(self):
        """A `StepGraph`, or None where a step's kernels are launched one by one."""
        wanted = self.cfg.MODEL.CUDA_GRAPH and self.fixed_steps and self.device.type == "cuda"
        return StepGraph(self, required=self.cfg.MODEL.CUDA_GRAPH is True) if wanted else None

    def make_optimizer(self):
        """The optimizer of the learned values, and the schedule of its rates."""
        batches = len(self.make_train_loader()) if self.rate_by_batch else 1
        optimizer = build_optimizer(self.groups(), self.cfg.OPTIM)
        return optimizer, build_lr_scheduler(optimizer, self.cfg.OPTIM, self.max_epoch * batches)

    def groups(self):
        """The learned values, for the optimizer, or groups of them with rates of their own."""
        return self.trained

    def step_rate(self, by_batch):
        """Step the schedule, as often as the optimizer, if it goes on with every batch (epoch)."""
        for _ in range(self.repeats * (by_batch == self.rate_by_batch)):
            self.scheduler.step()

    @property
    def n_params(self):
        """Number of learned values."""
        return sum(count_num_param(self.saved[part]) for part in self.parts(self.options))

    def make_train_loader(self):
        """The batches of an epoch: an iterable of (features or pixels, labels) with a length."""
        images, loader = self.train_images, PixelLoader if self.learns_images else FeatureLoader
        return loader(images, self.batches(images.data_source), self.encode, self.device)

    def batches(self, data_source):
        """Lists of indices of `data_source`, a list of datums: what one epoch takes of them."""
        options = self.cfg.DATALOADER.TRAIN_X
        sampler = build_sampler(options.SAMPLER, cfg=self.cfg, data_source=data_source,
                                batch_size=options.BATCH_SIZE, n_ins=options.N_INS)
        # The last, smaller batch is left out unless it is the only one.
        drop_last = self.drop_last and len(data_source) >= options.BATCH_SIZE
        return BatchSampler(sampler, options.BATCH_SIZE, drop_last)

    @cached_property
    def data_digests(self):
        return digests_of(self.tasks, self.dataset.train_x, self.dataset.val, self.dataset.test)

    @property
    def identity(self):
        """All that can change the result of this run, see `runs.identity`."""
        return identity_of(self.cfg, type(self), self.data_digests, self.weights, self.prec, self.model_digest)

    # ------------------------------------------------------------------ the run
    def train(self):
        """Train from where the resume file ends, or from the start, save, and test the model that is to be deployed.

        All randomness of an epoch follows from (seed, epoch), so a resumed run goes on as if undisturbed.

        Raises:
            NotFinite: a feature, loss, learned value or logit is. Stopped: a SIGTERM came; the last epoch is saved.
        """
        cfg, state = self.cfg, self.unfinished()  # what the resume file holds, None in a fresh run
        first, last = state["epoch"] if state else 0, self.max_epoch if self.steps(cfg) else 0
        self.make_features(range(first, last))
        began = time.monotonic()
        set_random_seed(self.seed("prepare"))
        if state:
            self.restore_parts(state)
        else:
            self.prepare()
        self.build_optimizer()
        if state:
            self.restore_optimizer(state)
        self.elapsed += time.monotonic() - began
        loader, saved_at = self.make_train_loader() if self.trained else (), time.monotonic()
        with Progress(cfg, loader, last) as progress, until_sigterm() as stop:
            for self.epoch in range(first, last):
                began = time.monotonic()
                set_random_seed(self.seed(self.epoch))
                self.train_images.epoch = self.epoch
                self.set_mode(training=True)
                for batch, (images, labels) in enumerate(loader):
                    metrics = self.step(images, labels, self.repeats)  # losses, backward pass, so many optimizer steps
                    progress.add(self.epoch, batch, metrics, self.learning_rate())
                    self.step_rate(by_batch=True)
                self.end_epoch()
                self.step_rate(by_batch=False)
                self.check_learned()
                self.elapsed += time.monotonic() - began

                done = self.epoch + 1
                if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST:
                    result = self.test("val")
                    if self.best is None or result > self.best["result"]:
                        self.best = {"epoch": done, "result": result, "parts": self.learned()}
                frequent = cfg.TRAIN.CHECKPOINT_FREQ > 0 and done % cfg.TRAIN.CHECKPOINT_FREQ == 0
                if frequent and done < last:
                    self.save_model(done)
                # After the checkpoints, so that a kill between the two makes both again.
                due = time.monotonic() - saved_at >= cfg.TRAIN.RESUME_SECONDS
                if frequent or stop.requested or done == last or due:
                    self.save_resume_file(done)
                    saved_at = time.monotonic()
                if stop.requested:
                    raise Stopped(f"stopped by SIGTERM after epoch {done}, which is saved: the same command goes on")
        self.graph = None  # tests may have its memory
        began = time.monotonic()
        if self.saved:
            self.calibrate()
            self.save_model(last)
        print("Finished training")
        if self.best:
            self.set_learned(self.best["parts"])
            self.calibrate()
            self.save_model(self.best["epoch"], BEST, val_result=self.best["result"])
        self.elapsed += time.monotonic() - began
        if not cfg.TEST.NO_TEST:
            print(f"Deploy the {'model with the best val performance' if self.best else 'last-epoch model'}")
            self.test()

    def step(self, images, labels, repeats):
        """One batch: its gradients, then `repeats` optimizer steps with them (under amp one, as in the published code).

        Nothing here waits for the device but amp's scaler: `Progress` reads the tensors when it prints.

        Args:
            images: features (B, dim), not normalised, or with `learns_images` pixels (B, 3, H, W).
            labels: (B,).

        Returns:
            What the log shows, as `add_gradients`.
        """
        self.optimizer.zero_grad()
        metrics = (self.graph or self.add_gradients)(images, labels)
        if self.waiting is None:
            self.waiting = {name: value for name, value in zip(self.names, self.trained) if value.numel()}
        if self.waiting:
            self.waiting = {name: value for name, value in self.waiting.items() if value.grad is None}
        if self.scaler is not None:
            scale = self.scaler._scale.clone()  # it has no public form that does not wait for the device
            self.scaler.step(self.optimizer)
            self.scaler.update()
            metrics["skipped"] = (self.scaler._scale < scale).float()  # its gradients were not finite
        else:
            for _ in range(repeats):
                self.optimizer.step()
        return metrics

    def add_gradients(self, images, labels, share=1.0):
        """Add `share` times a batch's gradients to those that are there.

        Returns:
            {name: tensor}: the losses, and the accuracy in percent inside the samples' own tasks.
        """
        with self.autocast():
            losses, logits, targets = self.model.losses(images, labels)
        # Under amp the optimizer's gradients are those of scaled losses; the scaler divides them in its step.
        self.backward({name: share * (self.scaler.scale(loss) if self.scaler else loss)
                       for name, loss in losses.items()})
        return {**{name: loss.detach() for name, loss in losses.items()},
                "acc": (logits.argmax(dim=1) == targets).float().sum() * (100 / len(targets))}

    def backward(self, losses):
        """Add the gradients that `losses` ({name: scalar}, each times the same constant) ask for."""
        losses["loss"].backward()

    def autocast(self):
        """Context in which the model computes: under amp it picks fp16 where that is safe, else it changes nothing."""
        return torch.autocast(self.device.type, torch.float16, enabled=self.scaler is not None)

    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]

    def set_mode(self, training):
        """Put the learned parts into training or test mode; all else is in test mode."""
        for part in self.parts(self.options):
            self.saved[part].train(training)

    def check_learned(self):
        """Stop the run, before it saves, where learned values are not finite, or got no gradient in a whole epoch.

        Raises:
            NotFinite: values are NaN or infinite. TypeError: the losses do not depend on some.
        """
        if self.waiting:
            raise TypeError(f"{', '.join(self.waiting)} got no gradient in epoch {self.epoch + 1}: the losses of "
                            f"{type(self).__name__} do not depend on it")
        for name, value in zip(self.names, self.trained):
            if not value.isfinite().all():
                raise NotFinite(f"{name} holds NaN or infinite values after epoch {self.epoch + 1}: use a smaller "
                                "OPTIM.LR, or another PREC")

    # ------------------------------------------------------------------ features and testing
    @torch.no_grad()
    def features(self, part, view=None):
        """Image features of a part, by the present image tower, and their labels.

        Args:
            part: "train", "val" or "test".
            view: number of an augmented view of the training images; None: images as in testing.

        Returns:
            Features (n, ...), not normalised, and labels (n,), on the device.

        Raises:
            UserError: there are no such images.
        """
        images = self.plain_images[part]
        if view is not None:
            images = self.train_images
            images.epoch = view
        self.need_images(part)
        labels = torch.tensor([datum.label for datum in images.data_source], device=self.device)
        return self.encode(images).to(self.device), labels

    def need_images(self, part):
        """Raise a `UserError` where the dataset has no images of a part."""
        if not len(self.plain_images[part]):
            name = {"train": "training", "val": "validation", "test": "test"}[part]
            hint = {"train": ": use --eval-only", "test": "", "val": (
                ": set TEST.SPLIT to test and TEST.FINAL_MODEL to last_step" if "val" in self.tested_parts() else
                f", which {type(self).__name__} needs")}[part]
            raise UserError(f"{self.cfg.DATASET.NAME} has no {name} images{hint}")

    def need_images_of_tasks(self):
        """Raise a `UserError` where a task has no training images."""
        labels = [datum.label for datum in self.train_images.data_source]
        missing = set(range(len(self.tasks))) - set(self.model.task_of_class[labels].tolist())
        if missing:
            raise UserError(f"task {self.tasks[min(missing)].name!r} has no training images, which "
                            f"{type(self).__name__} needs: add some, or leave the task out by DATASET.SUBSAMPLE_TASKS")

    def tested_parts(self):
        """Names of the parts on which this run tests."""
        test = self.cfg.TEST
        validates = test.FINAL_MODEL == "best_val" or test.CALIBRATE
        return {} if test.NO_TEST else dict.fromkeys([test.SPLIT] + ["val"] * validates)

    def make_features(self, epochs):
        """Find or make the image features of training in these epochs, and of what is tested in the end.

        Raises:
            UserError: images are missing or can't be read; all are named, before anything is trained.
        """
        for part in [*["train"] * self.reads_training_images, *["val"] * self.reads_validation_images,
                     *self.tested_parts()]:
            self.need_images(part)
        if len(epochs):
            self.encode.make(self.train_images, epochs)
            self.elapsed += self.encode.seconds
        for part in self.tested_parts():
            self.encode.make(self.plain_images[part], [0])
        self.encode.refuse_broken()

    @torch.no_grad()
    def test(self, part=None):
        """Evaluate on `part` ("val" or "test"; None: TEST.SPLIT); the text features of all classes are made once.

        Returns:
            The mean of the tasks' metrics, in percent.

        Raises:
            UserError: there are no such images. NotFinite: a feature or logit is.
        """
        start = time.monotonic()
        if part is None and self.cfg.TEST.CALIBRATE:
            scores, labels = zip(*self.scores("val"))
            self.validation = self.evaluator.calibrate(torch.cat(scores), torch.cat(labels))
        part = part or self.cfg.TEST.SPLIT
        self.evaluator.reset()
        for scores, labels in self.scores(part):
            self.evaluator.process(scores, labels)
        result = next(iter(self.evaluator.evaluate().values()))
        self.tested = self.plain_images[part].data_source
        self.test_seconds = time.monotonic() - start
        return result

    def scores(self, part):
        """Yield the logits (B, n_cls) and labels (B,) of the images of a part, batch after batch; see `test`."""
        images = self.plain_images[part]
        self.need_images(part)
        print(f"Evaluate on the *{part}* set")
        self.set_mode(training=False)
        batches = BatchSampler(SequentialSampler(images), self.cfg.DATALOADER.TEST.BATCH_SIZE, drop_last=False)
        loader = PixelLoader if self.learns_images else FeatureLoader
        with self.autocast():
            class_features = self.model.class_features()
            for batch, labels in tqdm(loader(images, batches, self.encode, self.device)):
                logits = self.model.logits(self.model.image_features(batch, labels), labels, class_features)
                if not logits.amax(dim=1).isfinite().all():  # -inf is a class that is never predicted
                    raise NotFinite(f"logits of the {part} images are NaN or infinite, so there is no accuracy: check "
                                    "the weights, or use another PREC")
                yield logits, labels

    def write_results(self, wall_seconds, model_dir=""):
        """Write the files of the test, then `results.json`, which ends the run, and delete its resume file.

        Args:
            wall_seconds: the process's whole time.
            model_dir: folder of the run that was tested with `--eval-only`, if there was one.
        """
        self.folder.check_own()
        if self.evaluator.per_task:
            self.evaluator.write(self.tested)
        dataset, similar = self.dataset, None
        with torch.no_grad(), self.autocast():
            kind, contexts = self.model.contexts() or ("", ())
        if kind == "task" and len(contexts) == len(self.tasks):
            similar = [[round(value, 5) for value in row] for row in similarities(contexts).tolist()]
        write_results(
            self.cfg, find_row(self.rows, self.options), self.identity, self.device, self.evaluator.per_task,
            suite=describe_suite(self.tasks), precision=self.prec,
            n_tasks=len(dataset.tasks), n_classes=dataset.num_classes, n_train=len(dataset.train_x),
            n_val=len(dataset.val or ()), n_test=len(dataset.test), n_params=self.n_params, model_dir=model_dir,
            train_seconds=self.elapsed, test_seconds=self.test_seconds, encode_seconds=self.encode.seconds,
            wall_seconds=wall_seconds, validation=self.validation, context_similarity=similar,
            learned=self.digest_of_learned() if self.saved else "")
        self.folder.finish()


class PerClassTrainer(MultiTaskTrainer):
    """Base of the methods that learn something for every class, in the part `classifier`."""

    @staticmethod
    def parts(options):
        return ["classifier"]

    @staticmethod
    def specific(options):
        return {"": "class"}


class PerTaskTrainer(MultiTaskTrainer):
    """Base of the methods that have a learner for every task, in the part `prompt_learner`."""

    @staticmethod
    def parts(options):
        return ["prompt_learner"]

    @staticmethod
    def specific(options):
        return {"": "task"}
