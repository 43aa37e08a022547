"""Weights as people have them: wrapped and prefixed state dicts, transformers' folders, and files that are none."""

import argparse
import io
import json
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from clip import ClipError, clip, files, model as clip_model
from clip.files import MissingFile
from common.errors import UserError
from dassl.data.transforms import build_transform
from runs.config import make_cfg
from runs.identity import settings_of
from runs.methods import TRAINERS
from tests.helpers import REPOSITORY, call, results, train_args
from trainers.multitask_clip import load_clip

TINY = load_file(REPOSITORY / "clip" / "tiny.safetensors")
TOKENS = clip.tokenize(["a photo of a cat.", "a satellite photo of permanent crop land from above.", "dog"])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def features(model):
    size = model.visual.input_resolution
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model.encode_image(images), model.encode_text(TOKENS)


@pytest.fixture(scope="module")
def expected():
    with torch.no_grad():
        return features(clip.load("tiny", device="cpu")[0])


def small_vit():
    """OpenAI's layout of a ViT with random weights: transformers has no ResNet, and `tiny` is one."""
    torch.manual_seed(0)
    vision = {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    return {name: value + 0.05 * torch.randn(value.shape) for name, value in
            open_clip.CLIP(32, vision, text, quick_gelu=True).state_dict().items()}


VIT = small_vit()


# ---------------------------------------------------------------- state dicts as people save them
def prefixed(prefix, state_dict=TINY):
    return {prefix + name: value for name, value in state_dict.items()}


def custom_text(state_dict=TINY):
    """Names of open_clip's CustomTextCLIP."""
    return {name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": value
            for name, value in state_dict.items()}


def to_transformers(state_dict=VIT):
    """Names of transformers' CLIPModel, by rules of its own: these tests must not read the table they test."""
    found = {}
    for name, value in state_dict.items():
        tower = "vision_model." if name.startswith("visual.") else "text_model."
        name = name.removeprefix("visual.")
        if name in ("proj", "text_projection"):
            found["visual_projection.weight" if name == "proj" else "text_projection.weight"] = value.T.contiguous()
            continue
        if ".in_proj_" in name:
            for part, piece in zip("qkv", value.chunk(3)):
                new = name.replace("transformer.resblocks", "encoder.layers").replace(
                    "attn.in_proj_", f"self_attn.{part}_proj.")
                found[tower + new] = piece.clone()
            continue
        for old, new in (("transformer.resblocks", "encoder.layers"), (".attn.", ".self_attn."),
                         ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("c_fc", "fc1"), ("c_proj", "fc2"),
                         ("ln_final", "final_layer_norm"),
                         ("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"),
                         ("positional_embedding", "embeddings.position_embedding.weight"),
                         ("token_embedding", "embeddings.token_embedding"),
                         ("class_embedding", "embeddings.class_embedding"), ("conv1", "embeddings.patch_embedding")):
            name = name.replace(old, new)
        found[name if name == "logit_scale" else tower + name] = value
    return found


ADAM = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}]}
GOOD = {
    "plain": TINY,
    "ordered": OrderedDict(TINY),
    "state_dict": {"state_dict": TINY},
    "model_state_dict": {"model_state_dict": TINY, "epoch": 1},
    "model": {"model": TINY},
    "net": {"net": TINY, "args": {"lr": 0.1, "name": "run"}},
    "module": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "module and compiled": prefixed("module._orig_mod."),
    "lightning": {"state_dict": prefixed("model."), "epoch": 3, "pytorch-lightning_version": "2.5.0",
                  "optimizer_states": [ADAM]},
    "lightning, compiled": {"state_dict": prefixed("model._orig_mod."), "global_step": 5},
    "two dicts deep": {"checkpoint": {"net": prefixed("clip_model.")}},
    "training checkpoint": {"epoch": 7, "name": "run", "state_dict": prefixed("module."), "optimizer": ADAM,
                            "scaler": {"scale": torch.tensor(1.0)}, "best": None},
    "average": {**prefixed("module."), "n_averaged": torch.tensor(5)},
    "sizes of openai": {**TINY, "input_resolution": torch.tensor(64), "vocab_size": torch.tensor(49408)},
    "epoch beside": {**TINY, "epoch": 3},
    "scale of shape (1,)": {**TINY, "logit_scale": TINY["logit_scale"].reshape(1)},
    "custom text": custom_text(),
    "custom text in a checkpoint": {"state_dict": prefixed("module.", custom_text()), "epoch": 2},
    "transformers": to_transformers(),
    "transformers in lightning": {"state_dict": prefixed("model.", to_transformers())},
}


def save(content, path):
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_a_state_dict_is_found(name, expected, tmp_path):
    model, _ = clip.load(save(GOOD[name], tmp_path / "weights.pt"), device="cpu")
    if "transformers" in name:
        expected = features(clip.load(save(VIT, tmp_path / "plain.pt"), device="cpu")[0])
    assert all(map(torch.equal, features(model), expected))


def test_a_file_is_read_by_its_content(expected, tmp_path):
    """Neither the name nor the format decides."""
    torch.save(TINY, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    save(TINY, tmp_path / "a.safetensors").rename(tmp_path / "pytorch_model.bin")
    save(TINY, tmp_path / "b.pt").rename(tmp_path / "b.safetensors")
    for file in ("legacy.ckpt", "pytorch_model.bin", "b.safetensors"):
        assert all(map(torch.equal, features(clip.load(tmp_path / file, device="cpu")[0]), expected)), file


# ---------------------------------------------------------------- files that are refused
class Settings:
    """A class that a checkpoint may hold."""


def written(make):
    buffer = io.BytesIO()
    make(buffer)
    return buffer.getvalue()


def nan(state_dict, name, value):
    changed = state_dict[name].clone()
    changed.view(-1)[3] = value
    return {**state_dict, name: changed}


WHOLE = written(lambda buffer: torch.save({"a": torch.ones(1000)}, buffer))
BAD = {  # what the file holds, bytes or what torch.save gets -> what is said
    "objects": ({"state_dict": TINY, "args": argparse.Namespace(lr=1)}, r"argparse.Namespace .*save a state dict"),
    "own class": ({"model": Settings()}, "holds more than tensors and plain values .*tests.test_weights.Settings"),
    "whole model": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear .*torch.save or safetensors"),
    "old pickle of objects": (pickle.dumps(Settings(), 2), "is damaged, or holds more than tensors"),
    "plain pickle": (pickle.dumps({"a": [1.0]}, 4), "is damaged, or holds more than tensors"),
    "empty": (b"", "is empty: get the file again"),
    "cut": (WHOLE[:-500], "is damaged, or .*: get the file again, or save a state dict"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a Git LFS pointer.*git lfs pull"),
    "web page": (b"\n<!DOCTYPE html><html>404", "is neither a safetensors file nor one that torch.save wrote: "),
    "npz": (written(lambda buffer: np.savez(buffer, a=np.ones(3))), "is damaged, or .*: .* save a state dict"),
    "noise": (b"\x01\x02\x03" * 50, "is neither a safetensors file nor"),
    "nan": (nan(TINY, "text_projection", float("nan")), "has NaN or infinite values in text_projection: get the"),
    "infinite": (nan(TINY, "ln_final.bias", -float("inf")), "NaN or infinite values in ln_final.bias"),
    "int8": ({**VIT, "visual.proj": VIT["visual.proj"].to(torch.int8)}, "has visual.proj as int8, as quantised"),
    "two clips": ({"model": TINY, "model_ema": prefixed("module.")},
                  r"holds 2 CLIPs, 'model.\*', 'model_ema.module.\*': save the state dict of the one you mean"),
    "teacher": ({**prefixed("student."), **prefixed("teacher.")}, r"holds 2 CLIPs, 'student.\*', 'teacher.\*'"),
    "head beside": ({**prefixed("model."), "head.weight": torch.ones(2)}, r"under model.\* and, beside it, head.wei"),
    "adapter inside": ({**TINY, "adapter.weight": torch.ones(2)}, "is no CLIP in .*Unexpected key.*adapter.weight"),
    "image tower": ({name: value for name, value in TINY.items() if name.startswith("visual.")},
                    "is no CLIP in OpenAI's layout: it lacks 'text_projection'"),
    "image tower of transformers": ({name: value for name, value in to_transformers().items() if "vision" in name},
                                    "layout of Hugging Face transformers, but no whole CLIPModel: it lacks logit"),
    "no tensors": ({"epoch": 3}, "holds no state dict"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_clip_gets_one_sentence(name, tmp_path):
    content, message = BAD[name]
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        clip.load(path, device="cpu")
    said = str(caught.value)
    assert isinstance(caught.value, ClipError) and "\n" not in said and "weights_only" not in said
    assert said.startswith(f"{path} ") and len(said) < 600


def test_other_refusals(tmp_path):
    with pytest.raises(MissingFile, match="there is no .*open_clip_config.json"):
        clip.load(tmp_path, device="cpu")
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(ValueError, match="page.pt is neither a safetensors file nor"):
        clip.load(f"open_clip:ViT-B-32/{tmp_path}/page.pt", device="cpu")
    wide = {**VIT, "visual.conv1.weight": torch.ones(1280, 3, 14, 14)}
    with pytest.raises(ValueError, match="image tower of ViT-H-14, .* give it as open_clip:ViT-H-14/PATH"):
        clip.load(save(wide, tmp_path / "wide.pt"), device="cpu")
    for norm, tower in (("visual.ln_post.weight", "an image"), ("ln_final.weight", "a text")):
        odd = {**VIT, norm: torch.ones(96)}  # open_clip would take it for one head of 96
        with pytest.raises(ValueError, match=f"{tower} tower of width 96, no multiple of 64"):
            clip.load(save(odd, tmp_path / "odd.pt"), device="cpu")


# ---------------------------------------------------------------- folders of transformers
def clip_of_transformers(act="quick_gelu", eos=49407, heads=(1, 2)):
    """A CLIPModel whose towers differ in all sizes; every weight is random."""
    text = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": heads[0],
            "hidden_act": act, "eos_token_id": eos, "projection_dim": 32}
    vision = {"hidden_size": 96, "intermediate_size": 250, "num_hidden_layers": 3, "num_attention_heads": heads[1],
              "hidden_act": act, "image_size": 32, "patch_size": 8, "projection_dim": 32}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).eval()
    for value in model.parameters():
        value.add_(0.05 * torch.randn(value.shape))
    return model


def pooled(output):
    """transformers 5 wraps the features that 4 returns."""
    return output if torch.is_tensor(output) else output.pooler_output


def check_features(model, theirs):
    ours = features(model)
    size = model.visual.input_resolution
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(ours, (theirs.get_image_features(images), theirs.get_text_features(TOKENS.long()))):
        torch.testing.assert_close(ours, pooled(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("act, eos", [("quick_gelu", 49407), ("gelu", 49407), ("quick_gelu", 2), ("gelu", 2)])
def test_a_folder_of_transformers(act, eos, tmp_path):
    theirs = clip_of_transformers(act, eos)
    theirs.save_pretrained(tmp_path)
    for name in (tmp_path, f"local-dir:{tmp_path}", tmp_path / "model.safetensors"):
        model, preprocess = clip.load(name, device="cpu")
        check_features(model, theirs)
    assert model.logit_scale == theirs.logit_scale and model.visual.preprocess_cfg["size"] in (32, (32, 32))
    assert model.visual.preprocess_cfg["resize_mode"] == "shortest"


def test_shards_and_pickles_of_transformers(tmp_path):
    theirs = clip_of_transformers()
    theirs.save_pretrained(tmp_path, max_shard_size="2MB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    check_features(clip.load(tmp_path, device="cpu")[0], theirs)
    for shard in tmp_path.glob("model*"):
        shard.unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    check_features(clip.load(tmp_path, device="cpu")[0], theirs)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="transformers folder without weights: .*model.safetensors"):
        clip.load(tmp_path, device="cpu")


@pytest.mark.parametrize("change, message", [
    ({"model_type": "siglip"}, "is a Hugging Face transformers folder of model_type 'siglip', .* open_clip:ARCH"),
    ({"model_type": "clip_vision_model"}, "of model_type 'clip_vision_model'"),
    ({"text_config": {"hidden_act": "relu"}}, "has the hidden_act quick_gelu and relu"),
    ({"vision_config": {"hidden_act": "gelu"}}, "has the hidden_act gelu and quick_gelu"),
    ({"vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps 1e-06 and 1e-05"),
    ({"text_config": {"eos_token_id": 5}}, "eos_token_id 5"),
    ({"vision_config": {"num_hidden_layers": 1}}, "no CLIP in the layout that its config.json describes: .*nexpected"),
    ({"projection_dim": 16}, "layout that its config.json describes: .*size mismatch"),
])
def test_other_folders_of_transformers_are_refused(change, message, tmp_path):
    clip_of_transformers().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as caught:
        clip.load(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


OPENAI = {"crop_size": {"height": 32, "width": 32}, "do_center_crop": True, "resample": 3,
          "size": {"shortest_edge": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


@pytest.mark.parametrize("file, options, mode, interpolation", [
    ("preprocessor_config.json", OPENAI, "shortest", "bicubic"),
    ("preprocessor_config.json", {**OPENAI, "size": 32, "crop_size": 32, "resample": 2}, "shortest", "bilinear"),
    ("preprocessor_config.json", {**OPENAI, "size": {"height": 32, "width": 32}, "do_center_crop": False},
     "squash", "bicubic"),
    ("processor_config.json", {"image_processor": OPENAI}, "shortest", "bicubic"),
])
def test_the_image_processor_of_transformers(file, options, mode, interpolation, tmp_path):
    clip_of_transformers().save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(options))
    found = clip.load(tmp_path, device="cpu")[0].visual.preprocess_cfg
    assert found["mean"] == (0.5, 0.4, 0.3) and found["std"] == (0.2, 0.3, 0.4)
    assert (found["resize_mode"], found["interpolation"]) == (mode, interpolation)


@pytest.mark.parametrize("change, message", [
    ({"size": {"shortest_edge": 36}}, "resizes to .36. and crops .32., but the model reads 32x32"),
    ({"resample": 0}, "has the resample 0, which is neither"), ({"do_center_crop": False}, "neither crops nor"),
    ({"do_normalize": False}, "leaves out"), ({"image_mean": "x"}, "is no config of an image processor")])
def test_image_processors_that_are_refused(change, message, tmp_path):
    clip_of_transformers().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**OPENAI, **change}))
    with pytest.raises(ValueError, match=f"preprocessor_config.json {message}"):
        clip.load(tmp_path, device="cpu")


# ---------------------------------------------------------------- the activation
def test_the_activation_is_chosen_by_a_key(tmp_path):
    # As load_clip returns it: frozen, its attention takes other kernels.
    expected = features(clip.load("tiny", device="cpu")[0].requires_grad_(False))
    path = save(TINY, tmp_path / "weights.pt")
    found = {value: load_clip(make_cfg({"MODEL.BACKBONE.NAME": str(path), "MODEL.BACKBONE.QUICK_GELU": value}))
             for value in ("auto", True, False)}
    assert all(map(torch.equal, features(found["auto"]), expected))
    assert all(map(torch.equal, features(found[True]), expected))
    assert not torch.equal(features(found[False])[1], expected[1])
    for value, there in (("auto", False), (False, True)):
        cfg = make_cfg({"MODEL.BACKBONE.QUICK_GELU": value, "TRAINER.NAME": "MTCoOp"})
        assert ("MODEL.BACKBONE.QUICK_GELU" in settings_of(cfg, TRAINERS["MTCoOp"])) == there


def test_the_key_decides_for_an_architecture_with_a_file(tmp_path, monkeypatch):
    config = {"embed_dim": 32, "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    path = save(VIT, tmp_path / "weights.pt")
    expected = features(clip.load(path, device="cpu")[0])
    for given, same in ((None, False), (False, False), (True, True)):
        found = features(clip.load(f"open_clip:small/{path}", device="cpu", quick_gelu=given)[0])
        assert torch.equal(found[1], expected[1]) == same


def test_a_file_is_read_as_the_published_weights_of_its_architecture(tmp_path, monkeypatch):
    config = {"embed_dim": 32, "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    path = save(VIT, tmp_path / "weights.pt")
    own = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "resize_mode": "squash"}
    tags = {"first": {**own, "quick_gelu": True}, "second": {**own, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", tags)

    def read(**options):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model, _ = clip.load(f"open_clip:small/{path}", device="cpu", **options)
        return model, [str(warning.message) for warning in said if "does not tell" in str(warning.message)]

    model, said = read()
    assert not said and {key: model.visual.preprocess_cfg[key] for key in own} == own
    assert torch.equal(features(model)[1], features(clip.load(path, device="cpu")[0])[1])  # QuickGELU

    tags["second"] = {**own, "mean": (0.48145466, 0.4578275, 0.40821073)}
    model, (said,) = read()
    assert model.visual.preprocess_cfg["mean"] == tags["second"]["mean"]
    assert model.visual.preprocess_cfg["std"] == own["std"]
    assert "mean (0.5, 0.4, 0.3) (first) or (0.48145466, 0.4578275, 0.40821073) (second), of which (0.48" in said
    assert "quick_gelu True (first) or False (second), of which False is taken (else set MODEL.BACKBONE.QUICK" in said
    assert "std" not in said
    assert "quick_gelu" not in read(quick_gelu=True)[1][0]  # it is told


def test_what_is_taken_for_a_file_is_possible_for_every_architecture():
    for arch in open_clip.pretrained._PRETRAINED:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = clip_model._settings_of_file("", arch, tags, None)
        assert found in [clip_model._published_settings(arch, open_clip.get_pretrained_cfg(arch, tag)) for tag in tags]


# ---------------------------------------------------------------- how images are read
OWN = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
       "resize_mode": "squash"}
KEYS = {"INPUT.PIXEL_MEAN": [0.5, 0.4, 0.3], "INPUT.PIXEL_STD": [0.2, 0.3, 0.4], "INPUT.INTERPOLATION": "bilinear",
        "INPUT.RESIZE_MODE": "squash", "INPUT.SIZE": [32, 32]}


def write_local_dir(folder, preprocess=OWN):
    config = {"embed_dim": 32, "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save(VIT, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(50, 90), (90, 37), (20, 20), (101, 100)])
def test_test_images_are_read_as_open_clip_reads_them(mode, shape, tmp_path):
    name = write_local_dir(tmp_path, {**OWN, "resize_mode": mode})
    cfg = make_cfg({"MODEL.BACKBONE.NAME": name, "INPUT.TRANSFORMS": ("normalize",), "VERBOSE": False})
    load_clip(cfg)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8))
    assert torch.equal(build_transform(cfg, is_train=False)(picture), clip.load(name, device="cpu")[1](picture))


def test_what_is_set_counts_and_a_difference_is_said(tmp_path, capsys):
    name = write_local_dir(tmp_path)
    cfg = make_cfg([("MODEL.BACKBONE.NAME", name, "x"), ("INPUT.PIXEL_MEAN", [0.1, 0.2, 0.3], "in my.yaml:7"),
                    ("INPUT.PIXEL_STD", OWN["std"], "in my.yaml:8"),
                    ("INPUT.INTERPOLATION", "bicubic", "in my.yaml:9")])
    load_clip(cfg)
    assert cfg.INPUT.PIXEL_MEAN == [0.1, 0.2, 0.3] and cfg.INPUT.INTERPOLATION == "bicubic"
    assert cfg.INPUT.PIXEL_STD == OWN["std"] and cfg.INPUT.RESIZE_MODE == "squash" and cfg.INPUT.SIZE == (32, 32)
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert [line.split()[1] for line in warnings] == ["INPUT.PIXEL_MEAN", "INPUT.INTERPOLATION"]
    assert "[0.1, 0.2, 0.3] (set in my.yaml:7), but the backbone" in warnings[0] and "[0.5, 0.4, 0.3]" in warnings[0]
    with pytest.raises(UserError, match=r"INPUT.SIZE is \(64, 64\) \(set by make_cfg\), but .* reads 32x32 images"):
        load_clip(make_cfg({"MODEL.BACKBONE.NAME": name, "INPUT.SIZE": (64, 64)}))


def test_openai_s_models_read_as_the_published_configs_say(tmp_path):
    cfg = make_cfg({"MODEL.BACKBONE.NAME": "tiny", "TRAINER.NAME": "MTCoOp", "INPUT.TRANSFORMS": ("normalize",)})
    before = settings_of(cfg, TRAINERS["MTCoOp"])
    load_clip(cfg)
    assert settings_of(cfg, TRAINERS["MTCoOp"]) == {**before, "INPUT.SIZE": [64, 64]}
    assert not {"INPUT.RESIZE_MODE", "MODEL.BACKBONE.QUICK_GELU"} & {*before}  # older run folders have neither


def test_a_run_and_its_test_use_and_record_the_backbone_s_own(photo_root, tmp_path):
    """The identity holds what was used; a trained model is tested as it was trained."""
    torch.set_grad_enabled(True)
    (tmp_path / "model").mkdir()
    backbone = write_local_dir(tmp_path / "model")
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "INPUT.TRANSFORMS": "('normalize',)", "OPTIM.MAX_EPOCH": 1}
    arguments = train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard", **options)
    place = arguments.index("INPUT.SIZE")
    del arguments[place:place + 2]
    call(arguments)
    assert {key: results(tmp_path / "run")["identity"][key] for key in KEYS} == KEYS

    given = {**options, "INPUT.RESIZE_MODE": "shortest", "INPUT.PIXEL_MEAN": "(0.1, 0.2, 0.3)"}
    call(train_args(photo_root, backbone, tmp_path / "given", "MTCoOpHard", **given))
    call(train_args(photo_root, backbone, tmp_path / "test", "MTCoOpHard", "--eval-only", "--model-dir",
                    str(tmp_path / "given"), **options))
    assert results(tmp_path / "test")["overall_metric"] == results(tmp_path / "given")["overall_metric"]
    assert results(tmp_path / "test")["config"]["INPUT"]["RESIZE_MODE"] == "shortest"
    assert results(tmp_path / "test")["identity"]["INPUT.PIXEL_MEAN"] == [0.1, 0.2, 0.3]


# ---------------------------------------------------------------- no network
def test_the_hub_is_not_asked_for_what_is_cached(tmp_path, monkeypatch):
    def look_up(repository, file, cache_dir):
        return f"{cache_dir}/{repository}/{file}" if file == there else None

    monkeypatch.setattr(files, "try_to_load_from_cache", look_up)
    monkeypatch.setattr(files.requests, "head", lambda *args, **kwargs: pytest.fail("the network was asked"))
    for there in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        assert files.download_pretrained({"hf_hub": "some/model/"}, "cache") == f"cache/some/model/{there}"

    def offline(url, timeout):
        assert timeout < 5
        raise files.requests.ConnectionError("no route")

    monkeypatch.setattr(files.requests, "head", offline)
    monkeypatch.setattr(files, "open_clip_download", lambda *args, **kwargs: pytest.fail("it would wait for minutes"))
    there = ""
    for config in ({"hf_hub": "some/model/"}, {"url": "https://example.org/none.pt"}):
        with pytest.raises(OSError, match="no route"):
            files.download_pretrained(config, str(tmp_path))
