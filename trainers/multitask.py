"""What every method shares. `MultiTaskTrainer.train` is the whole of a run, from its resume file to its test."""

import time
import zlib
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
from features.image_features import FeatureLoader, ImageFeatures
from features.images import Images
from runs.checkpoints import BEST, save_parts
from runs.folder import RunFolder
from runs.identity import digests_of, identity_of
from runs.keys import refusal
from runs.methods import find_row
from runs.results import describe_suite, write_results

from .evaluation import make_evaluator
from .multitask_clip import digest_of_weights, load_clip
from .progress import Progress
from .saving import SavesParts


def resolve_precision(prec, device):
    """The precision to compute in: `prec`, or fp32 where the CPU has no fp16 (which is said once)."""
    if device.type == "cpu" and prec in ("fp16", "amp"):
        print(f"PREC {prec} needs CUDA: computing in fp32 on the CPU")
        return "fp32"
    return prec


class MultiTaskTrainer(SavesParts):
    """Base of all methods. A method declares itself, builds its model, and may override what a step does.

    `build_clip_model(clip_model)` returns a `MultiTaskCLIP`, which says what is minimised (`losses`); `parts()` names
    its submodules that are trained and saved, `frozen_parts()` those that are saved only. A method whose step is not
    "gradients of `losses["loss"]`, then the optimizer" overrides `backward`, `add_gradients` or `step`; one that learns
    from other batches than those of images and labels overrides `make_train_loader`.

    Args:
        cfg: the config.
        tasks: list of `Task` to build the model for instead of the dataset's. Then nothing is read but the backbone:
            the trainer loads checkpoints and makes contexts and class features, but neither trains nor tests.

    Raises:
        UserError: settings, data or weights that do not fit together.
    """

    node = ""  # name of the method's options under cfg.TRAINER
    keys = {}  # {option: Key} of that node
    rows = ()  # `Row`s of the results tables
    reads_training_images = True
    not_neutral = ()  # keys that change this method's result, though they change no other's

    def __init__(self, cfg, tasks=None):
        self.check_cfg(cfg)
        self.cfg = cfg
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.epoch, self.max_epoch = 0, cfg.OPTIM.MAX_EPOCH
        self.folder = RunFolder(cfg.OUTPUT_DIR)
        self.model_digest = ""  # of what --eval-only tests
        self.elapsed = self.test_seconds = 0.0  # seconds of training, over all resumed pieces, and of testing
        self.dataset = None if tasks else build_dataset(cfg)
        self.tasks = tasks or self.dataset.tasks
        self.build_model()
        if self.dataset:
            self.build_data()

    # ------------------------------------------------------------------ what a method says of itself
    def check_cfg(self, cfg):
        """Refuse settings that do not fit together; a method adds its own."""
        option = self.node and self.class_specific(cfg.TRAINER[self.node])
        if option and cfg.DATASET.SUBSAMPLE_CLASSES == "new":
            raise refusal(cfg, "DATASET.SUBSAMPLE_CLASSES", "class-specific contexts exist only for the classes they "
                          f"were learned on, and TRAINER.{self.node}.{option} asks for them")
        for key in ("INPUT.NO_TRANSFORM", "DATALOADER.RETURN_IMG0"):
            if cfg[key.split(".")[0]][key.split(".")[1]]:
                raise refusal(cfg, key, f"{type(self).__name__} needs transformed images: leave it False")
        if cfg.MODEL.INIT_WEIGHTS:
            raise refusal(cfg, "MODEL.INIT_WEIGHTS", f"{type(self).__name__} starts from its own initial values: leave "
                          "it empty; --eval-only --model-dir tests what a run has learned")
        if cfg.DATALOADER.K_TRANSFORMS != 1:
            raise refusal(cfg, "DATALOADER.K_TRANSFORMS", f"{type(self).__name__} takes each image once: leave it 1")

    @classmethod
    def learns(cls, cfg):
        """Whether a run of `cfg` trains anything."""
        return True

    @staticmethod
    def task_specific(options):
        """Name of the option by which the method learns something of its own for every task, or ""."""
        return ""

    @staticmethod
    def class_specific(options):
        """Name of the option by which the method learns something of its own for every class, or ""."""
        return ""

    def ties(self):
        """[(who, "task" or "class")]: the options that tie what is learned to the tasks or classes of training.

        Of a method that can't do otherwise, its own name.
        """
        if not self.node:
            return []
        options = self.cfg.TRAINER[self.node]
        found = (self.task_specific(options), "task"), (self.class_specific(options), "class")
        return [(f"TRAINER.{self.node}.{option}", kind) for option, kind in found if option]

    def build_clip_model(self, clip_model):
        raise NotImplementedError

    def parts(self):
        return []

    def frozen_parts(self):
        return []

    def precision(self):
        return self.cfg.TRAINER[self.node].PREC

    # ------------------------------------------------------------------ building
    def build_model(self):
        cfg = self.cfg
        self.prec = resolve_precision(self.precision(), self.device)
        clip_model = load_clip(cfg)
        self.weights = digest_of_weights(clip_model)
        self.model = self.build_clip_model(clip_model).to(self.device).eval()
        self.model.set_precision(self.prec)
        self.model.text_encoder.checkpoint = cfg.MODEL.CHECKPOINT_TEXT
        self.model.text_encoder.chunk = cfg.MODEL.TEXT_CHUNK
        if cfg.MODEL.COMPILE:
            self.model.text_encoder.compile_blocks()
        if self.device.type == "cuda":
            self.model.image_encoder.to(memory_format=torch.channels_last)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.prec == "amp" else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.n_params = count_num_param(params=self.trained)
        print(f"# learned values: {self.n_params:,}")
        self.optim = self.sched = None
        if self.trained:
            self.optim = build_optimizer(self.trained, cfg.OPTIM)
            self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.saved = {part: getattr(self.model, part) for part in [*self.parts(), *self.frozen_parts()]}
        # The published code registers the one optimizer and scheduler under every part, and Dassl steps them once
        # per part; see docs/fidelity.md.
        self.repeats = len(self.parts()) if cfg.OPTIM.STEP_PER_PART else 1
        self.encode = ImageFeatures(cfg, self.model.image_encoder, self.device, self.model.dtype,
                                    autocast=self.scaler is not None)

    def build_data(self):
        from dassl.data.transforms import build_transform  # torchvision is slow to import

        cfg, dataset = self.cfg, self.dataset
        train, test = (build_transform(cfg, is_train=is_train) for is_train in (True, False))
        self.train_images = Images(cfg, dataset.train_x, train, is_train=True)
        self.test_images = {"val": Images(cfg, dataset.val or [], test), "test": Images(cfg, dataset.test, test)}
        self.evaluator = make_evaluator(cfg, self.tasks)
        if cfg.VERBOSE:
            print(f"{cfg.DATASET.NAME}: {len(self.tasks)} tasks, {dataset.num_classes:,} classes; images: "
                  f"{len(dataset.train_x):,} train, {len(dataset.val or ()):,} val, {len(dataset.test):,} test")

    def make_train_loader(self):
        """The batches of an epoch: an iterable of (features, labels) with a length."""
        options, images = self.cfg.DATALOADER.TRAIN_X, self.train_images
        if not len(images):
            raise UserError(f"{self.cfg.DATASET.NAME} has no training images: use --eval-only")
        sampler = build_sampler(options.SAMPLER, cfg=self.cfg, data_source=images.data_source,
                                batch_size=options.BATCH_SIZE, n_ins=options.N_INS)
        # The last, smaller batch is left out unless it is the only one.
        drop_last = len(images) >= options.BATCH_SIZE
        return FeatureLoader(images, BatchSampler(sampler, options.BATCH_SIZE, drop_last), self.encode, self.device)

    @cached_property
    def data_digests(self):
        return digests_of(self.tasks, self.dataset.train_x, self.dataset.val, self.dataset.test)

    @property
    def identity(self):
        """What identifies this run, see `runs.identity`."""
        return identity_of(self.cfg, type(self), self.data_digests, self.weights, self.prec, self.model_digest)

    # ------------------------------------------------------------------ the run
    def train(self):
        """Train from where the resume file ends, or from the start, save, and test the model that is to be deployed.

        All randomness of an epoch follows from (seed, epoch), so a resumed run goes on as if undisturbed.

        Raises:
            NotFinite: a feature, loss, learned value or logit is. Stopped: a SIGTERM came; the last epoch is saved.
        """
        cfg = self.cfg
        loader = self.make_train_loader() if self.trained else ()
        first, self.best = self.resume()  # epoch to begin with; {"epoch", "result", "parts"} of the best one so far
        self.make_features(range(first, self.max_epoch))
        saved_at = time.time()
        with Progress(cfg, loader, self.max_epoch) as progress, until_sigterm() as stop:
            for self.epoch in range(first, self.max_epoch if self.trained else 0):
                began = time.time()
                set_random_seed(zlib.crc32(f"{cfg.SEED}/{self.epoch}".encode()))
                self.train_images.epoch = self.epoch
                self.set_mode(training=True)
                for batch, (features, labels) in enumerate(loader):
                    shown = self.step(features, labels, self.repeats)  # losses, backward pass, so many optimizer steps
                    progress.add(self.epoch, batch, shown, self.learning_rate())
                for _ in range(self.repeats):
                    self.sched.step()
                self.check_learned()
                self.elapsed += time.time() - began

                done = self.epoch + 1
                if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST:
                    result = self.test("val")
                    if self.best is None or result > self.best["result"]:
                        self.best = {"epoch": done, "result": result, "parts": self.learned()}
                frequent = cfg.TRAIN.CHECKPOINT_FREQ > 0 and done % cfg.TRAIN.CHECKPOINT_FREQ == 0
                if frequent and done < self.max_epoch:
                    self.save_model(done)
                # After the checkpoints, so that a kill between the two makes both again.
                if frequent or stop.requested or done == self.max_epoch or (
                        time.time() - saved_at >= cfg.TRAIN.RESUME_SECONDS):
                    self.save_resume_file(done)
                    saved_at = time.time()
                if stop.requested:
                    raise Stopped(f"stopped by SIGTERM after epoch {done}, which is saved: the same command goes on")
        if self.trained:
            self.save_model(self.max_epoch)
        print("Finished training")
        if not cfg.TEST.NO_TEST:
            print(f"Deploy the {'last-epoch model' if self.best is None else 'model with the best val performance'}")
            if self.best is not None:
                save_parts(cfg.OUTPUT_DIR, self.part_states(self.best["parts"], val_result=self.best["result"]),
                           BEST, {**self.common_state(), "epoch": self.best["epoch"]})
                self.load_model(cfg.OUTPUT_DIR, "best")
            self.test()

    def step(self, features, labels, repeats):
        """One batch: its gradients, then `repeats` optimizer steps with them (under amp one, as in the published code).

        Nothing here waits for the device: `Progress` reads the tensors when it prints.

        Args:
            features: (B, dim), not normalised.
            labels: (B,).

        Returns:
            What the log shows, as `add_gradients`.
        """
        self.optim.zero_grad()
        shown = self.add_gradients(features, labels)
        if self.scaler is not None:
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            for _ in range(repeats):
                self.optim.step()
        return shown

    def add_gradients(self, features, labels, share=1.0):
        """Add `share` times a batch's gradients to those that are there.

        Returns:
            {name: tensor}: the losses, and the accuracy in percent inside the samples' own tasks.
        """
        with self.autocast():
            losses, logits, targets = self.model.losses(features, labels)
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
        return self.optim.param_groups[0]["lr"]

    def set_mode(self, training):
        """Put the learned parts into training or test mode; the towers are frozen and stay in test mode."""
        for part in self.parts():
            self.saved[part].train(training)

    def check_learned(self):
        """Stop the run before it saves values that are not finite."""
        for name, value in self.model.named_parameters():
            if value.requires_grad and not value.isfinite().all():
                raise NotFinite(f"{name} holds NaN or infinite values after epoch {self.epoch + 1}: use a smaller "
                                "OPTIM.LR, or another PREC")

    # ------------------------------------------------------------------ testing
    def make_features(self, epochs):
        """Find or make the image features of training in these epochs, and of what is tested in the end.

        Raises:
            UserError: images can't be read; all are named, before anything is trained.
        """
        test = self.cfg.TEST
        if self.trained:
            self.encode.make(self.train_images, epochs)
            self.elapsed += self.encode.seconds
        splits = [test.SPLIT] + ["val"] * (test.FINAL_MODEL == "best_val")
        for split in [] if test.NO_TEST else dict.fromkeys(splits):
            self.encode.make(self.test_images[split], [0])
        self.encode.refuse_broken()

    @torch.no_grad()
    def test(self, split=None):
        """Evaluate on `split` ("val" or "test"; None: TEST.SPLIT); the text features of all classes are made once.

        Returns:
            The mean of the tasks' metrics, in percent.

        Raises:
            UserError: there are no such images. NotFinite: a feature or logit is.
        """
        start = time.time()
        split = split or self.cfg.TEST.SPLIT
        images = self.test_images[split]
        if not len(images):
            raise UserError(f"{self.cfg.DATASET.NAME} has no {'validation' if split == 'val' else 'test'} images"
                            + (": set TEST.SPLIT to test and TEST.FINAL_MODEL to last_step" if split == "val" else ""))
        print(f"Evaluate on the *{split}* set")
        self.set_mode(training=False)
        self.evaluator.reset()
        batches = BatchSampler(SequentialSampler(images), self.cfg.DATALOADER.TEST.BATCH_SIZE, drop_last=False)
        with self.autocast():
            class_features = self.test_features()
            for features, labels in tqdm(FeatureLoader(images, batches, self.encode, self.device)):
                logits = self.model.logits(features, labels, class_features)
                if not logits[self.model.in_own_task(labels)].isfinite().all():
                    raise NotFinite(f"logits of the {split} images are NaN or infinite, so there is no accuracy: check "
                                    "the weights, or use another PREC")
                self.evaluator.process(logits, labels)
        result = next(iter(self.evaluator.evaluate().values()))
        self.tested = images.data_source
        self.test_seconds = time.time() - start
        return result

    def test_features(self):
        """What a test compares images with: `class_features` of the model, once for all images."""
        return self.model.class_features()

    def write_results(self, wall_seconds, model_dir=""):
        """Write the files of the test, then `results.json`: the run is finished, its resume file not needed any more.

        Args:
            wall_seconds: the process's whole time.
            model_dir: folder of the run that was tested with `--eval-only`, if there was one.
        """
        if self.evaluator.per_task:
            self.evaluator.write(self.tested)
        dataset = self.dataset
        row = find_row(self.rows, self.cfg.TRAINER[self.node] if self.node else None)
        write_results(
            self.cfg, row, self.identity, self.device, self.evaluator.per_task,
            suite=describe_suite(self.tasks), precision=self.prec,
            n_tasks=len(dataset.tasks), n_classes=dataset.num_classes, n_train=len(dataset.train_x),
            n_val=len(dataset.val or ()), n_test=len(dataset.test), n_params=self.n_params, model_dir=model_dir,
            train_seconds=self.elapsed, test_seconds=self.test_seconds, encode_seconds=self.encode.seconds,
            wall_seconds=wall_seconds)
        self.folder.finish()


class PerTaskTrainer(MultiTaskTrainer):
    """Base of the methods that have a learner for every task, in the part `prompt_learner`."""

    def parts(self):
        return ["prompt_learner"]

    def ties(self):
        return [(type(self).__name__, "task")]
