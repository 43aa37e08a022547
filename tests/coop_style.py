"""A dataset and a trainer written for Dassl, in the way of CoOp's: prompts that are learned in a frozen model."""

import math
import os.path as osp
import pickle
import zlib

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from yacs.config import CfgNode as CN

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights, mkdir_if_missing, read_json, write_json

LEVELS = (40, 120, 220)  # grey level of each class
SIZES = {"train": 8, "val": 2, "test": 4}  # images a class
DIM = 8


@DATASET_REGISTRY.register()
class GreyLevels(DatasetBase):
    """Noisy grey images, with a split file and stored few-shot draws."""

    dataset_dir = "grey_levels"

    def __init__(self, cfg):
        root = osp.abspath(osp.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = osp.join(root, self.dataset_dir)
        self.split_path = osp.join(self.dataset_dir, "split.json")
        self.split_fewshot_dir = osp.join(self.dataset_dir, "split_fewshot")
        mkdir_if_missing(self.split_fewshot_dir)
        if not osp.exists(self.split_path):
            self.make_images()
        split = read_json(self.split_path)
        train, val, test = ([Datum(impath=osp.join(self.dataset_dir, name), label=label, classname=classname)
                             for name, label, classname in split[part]] for part in SIZES)

        num_shots = cfg.DATASET.NUM_SHOTS
        if num_shots >= 1:
            preprocessed = osp.join(self.split_fewshot_dir, f"shot_{num_shots}-seed_{cfg.SEED}.pkl")
            if osp.exists(preprocessed):
                with open(preprocessed, "rb") as file:
                    train, val = pickle.load(file)
            else:
                train = self.generate_fewshot_dataset(train, num_shots=num_shots)
                val = self.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
                with open(preprocessed, "wb") as file:
                    pickle.dump((train, val), file)

        train, val, test = self.subsample_classes(train, val, test, subsample=cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val or None, test=test)

    def make_images(self):
        rng, split = np.random.default_rng(0), {}
        for part, count in SIZES.items():
            split[part] = []
            for label, level in enumerate(LEVELS):
                for i in range(count):
                    pixels = rng.normal(level, 15, (12, 12, 3)).clip(0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(osp.join(self.dataset_dir, f"{part}_{label}_{i}.png"))
                    split[part].append([f"{part}_{label}_{i}.png", label, f"grey {level}"])
        write_json(split, self.split_path)

    @staticmethod
    def subsample_classes(*parts, subsample="all"):
        """All classes, or the "base" or "new" half of them with labels from 0 on."""
        labels = sorted({item.label for item in parts[0]})
        half = math.ceil(len(labels) / 2)
        selected = {"all": labels, "base": labels[:half], "new": labels[half:]}[subsample]
        relabeler = {label: i for i, label in enumerate(selected)}
        return [[Datum(impath=item.impath, label=relabeler[item.label], classname=item.classname)
                 for item in part if item.label in relabeler] for part in parts]


def load_frozen():
    """The same image and text encoder at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [nn.Sequential(nn.Flatten(), nn.Linear(size, DIM)) for size in (3 * 8 * 8, 3 * DIM)]


class PromptLearner(nn.Module):
    """A learned context before which stands a token of the class's name."""

    def __init__(self, classnames):
        super().__init__()
        self.n_cls = len(classnames)
        self.ctx = nn.Parameter(torch.randn(2, DIM) * 0.02)
        seeds = [torch.Generator().manual_seed(zlib.crc32(name.encode())) for name in classnames]
        self.register_buffer("token_prefix", torch.stack([torch.randn(1, DIM, generator=seed) for seed in seeds]))

    def forward(self):
        return torch.cat([self.token_prefix, self.ctx.expand(self.n_cls, -1, -1)], dim=1)


class CustomModel(nn.Module):
    def __init__(self, classnames):
        super().__init__()
        self.prompt_learner = PromptLearner(classnames)
        self.image_encoder, self.text_encoder = load_frozen()
        self.adapter = nn.Linear(DIM, DIM)

    def forward(self, image):
        return self.adapter(self.image_encoder(image)) @ self.text_encoder(self.prompt_learner()).t()


@TRAINER_REGISTRY.register()
class Toy(TrainerX):
    """`prompt_learner` and `adapter` share an optimizer and a scheduler; `text_encoder` has neither."""

    stop_at = None

    def check_cfg(self, cfg):
        assert cfg.TRAINER.TOY.PREC in ["fp32"]

    def build_model(self):
        cfg = self.cfg
        self.model = CustomModel(self.dm.dataset.classnames)
        for name, param in self.model.named_parameters():
            if "encoder" in name:
                param.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        params = [*self.model.prompt_learner.parameters(), *self.model.adapter.parameters()]
        self.optim = build_optimizer(params, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        self.register_model("adapter", self.model.adapter, self.optim, self.sched)
        self.register_model("text_encoder", self.model.text_encoder)

    def before_epoch(self):
        if self.epoch == self.stop_at:
            raise KeyboardInterrupt

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        loss_summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return loss_summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        """As upstream's, but the tokens stay those of the current classes."""
        if not directory:
            return
        model_file = "model-best.pth.tar" if epoch is None else "model.pth.tar-" + str(epoch)
        for name in self.get_model_names():
            model_path = osp.join(directory, name, model_file)
            if not osp.exists(model_path):
                raise FileNotFoundError('Model not found at "{}"'.format(model_path))
            state_dict = load_checkpoint(model_path)["state_dict"]
            if "token_prefix" in state_dict:
                del state_dict["token_prefix"]
            self._models[name].load_state_dict(state_dict, strict=False)


def make_cfg(folder):
    """A config for `Toy` on `GreyLevels`, with everything written below `folder`."""
    cfg = get_cfg_default()
    cfg.TRAINER.TOY = CN()
    cfg.TRAINER.TOY.PREC = "fp32"
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.merge_from_list(
        ["OUTPUT_DIR", str(folder / "run"), "DATASET.ROOT", str(folder), "DATASET.NAME", "GreyLevels"]
        + ["TRAINER.NAME", "Toy", "USE_CUDA", False, "INPUT.SIZE", (8, 8)]
        + ["INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize")]
        + ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 6, "OPTIM.NAME", "sgd", "OPTIM.LR", 0.1]
        + ["OPTIM.MAX_EPOCH", 5, "OPTIM.LR_SCHEDULER", "cosine", "OPTIM.WARMUP_EPOCH", 1]
        + ["OPTIM.WARMUP_TYPE", "constant", "TRAIN.PRINT_FREQ", 2, "TRAIN.CHECKPOINT_FREQ", 1])
    return cfg
