"""Names as people type them: what they may have meant is said, in one sentence."""

from types import SimpleNamespace

import pytest

import clip
import trainers  # noqa: F401  registers the methods
from common.errors import UserError
from common.names import did_you_mean, near
from runs.commands import WrongCall, calls_of_rows, calls_of_script
from runs.config import find_trainer, make_cfg, read_yaml

SETTINGS = {"root": "data", "output": "output", "methods": [], "shots": ["1"], "seeds": ["1"], "opts": []}
KNOWN = ["Outfits16", "OPTIM.LR", "OPTIM.MAX_EPOCH", "rn50_ep50", "rn101_ep50"]


@pytest.mark.parametrize("name, found", [
    ("outfits-16", ["Outfits16"]), ("outfit16", ["Outfits16"]), ("rn50_ep5", ["rn50_ep50"]), ("rn", KNOWN[3:]),
    ("MAX_EPOCH", ["OPTIM.MAX_EPOCH"]), ("OPTIM", ["OPTIM.LR", "OPTIM.MAX_EPOCH"]), ("optim.lr", ["OPTIM.LR"]),
    ("ep50", KNOWN[3:]), ("zebra", []), ("", []), ("-", [])])
def test_the_names_that_are_like_one(name, found):
    assert near(name, KNOWN) == found


def test_a_message_offers_three_names_at_most():
    assert did_you_mean(["a", "b", "c", "d"]) == ": did you mean a or b or c?" and did_you_mean([]) == ""


@pytest.mark.parametrize("name, meant", [
    ("SoftCPT", r"MTCoOp \(SoftCPT-NATS, SoftCPT-NATA"), ("CoOp", r"MTCoOpHard \(CoOp-CA, CoOp-CS, CoOp-MT\)[?]"),
    ("mtcoop", "MTCoOp[?]"), ("ZeroShotCLIP", "ZeroshotCLIP[?]"), ("LP-CLIP", r"LinearProbe \(LP-CLIP\)[?]"),
    ("KgCoOop", "KgCoOp[?]")])
def test_a_trainer(name, meant):
    with pytest.raises(UserError, match=f"^TRAINER.NAME is '{name}' .*the name of a trainer: did you mean {meant}"):
        find_trainer(make_cfg({"TRAINER.NAME": name}))
    with pytest.raises(WrongCall, match=f"^TRAINER is '{name}', but .*the name of a trainer: did you mean {meant}"):
        calls_of_script(SimpleNamespace(**SETTINGS), "method.sh", "TRAINER DATASET CFG SHOTS", [name, "x", "y", "1"])


def test_without_a_name_that_is_like_it_all_trainers_are_listed():
    with pytest.raises(UserError, match="must be one of .*KgCoOp, .*: set it by --trainer$"):
        find_trainer(make_cfg({"TRAINER.NAME": "xyzzy"}))


@pytest.mark.parametrize("label, said", [
    ("softcpt-nata", ": did you mean SoftCPT-NATA[?]$"), ("SoftCPT", ": did you mean SoftCPT-NATS or SoftCPT-NATA or "),
    ("xyzzy", ", it has ZS-CLIP .*, or all$")])
def test_a_row_of_the_table(label, said):
    with pytest.raises(WrongCall, match=f"^METHODS has '{label}', which the results table does not have{said}"):
        calls_of_rows(SimpleNamespace(**{**SETTINGS, "methods": [label]}), "outfits16", "tiny_ep50")


@pytest.mark.parametrize("path, meant", [
    ("configs/datasets/folder_task.yaml", "configs/datasets/folder_tasks.yaml"),
    ("configs/datasets/outfits16", "configs/datasets/outfits16.yaml"),
    ("configs/trainers/rn50_ep5.yaml", "configs/trainers/rn50_ep50.yaml"), ("configs/trainers/xyzzy.yaml", None),
    ("nowhere/rn50_ep50.yaml", None)])
def test_a_config_file(path, meant):
    with pytest.raises(FileNotFoundError) as error:
        read_yaml(path)
    assert str(error.value) == f"the config file {path} does not exist" + (f": did you mean {meant}?" if meant else "")


@pytest.mark.parametrize("name, meant", [
    ("ViT-B-32", r"ViT-B/32 \(OpenAI's weights\) or open_clip:ViT-B-32/PRETRAINED with one of openai, .* \.\.\.[?]"),
    ("vit-b/32", r"ViT-B/32 \(OpenAI's weights\)[?]"), ("rn50", r"RN50 \(OpenAI's weights\)[?]"), ("Tiny", "tiny[?]"),
    ("ViT-B-32/laion2b_s34b_b79k", "open_clip:ViT-B-32/laion2b_s34b_b79k[?]"),
    ("ViT-H-14", "open_clip:ViT-H-14/PRETRAINED with one of laion2b_s32b_b79k, .*[?]")])
def test_a_backbone(name, meant):
    with pytest.raises(ValueError, match=f"^unknown CLIP model '{name}'; .*hf-hub:ORG/NAME: did you mean {meant}$"):
        clip.load(name)


def test_a_backbone_that_is_like_none():
    with pytest.raises(ValueError, match="hf-hub:ORG/NAME$"):
        clip.load("nothing")
