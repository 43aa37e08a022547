"""clip/: OpenAI's interface, weight files, open_clip models, downloads and refusals."""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import clip as clip_package
from clip import clip, model as clip_model
from clip.model import convert_weights
from clip.simple_tokenizer import SimpleTokenizer

# OpenAI's own files are TorchScript archives, whatever becomes of TorchScript.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VISION = {
    "vit": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32},
    "rn": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64},
}
EMBED_DIM = 32  # not the text width, so that a transposed projection shows


def randomise(module, seed=0):
    """Give every weight a value of its own (fresh biases and last norms are 0), all exact in fp16."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_((1 + 0.1 * noise).abs().half())
            elif name.endswith("logit_scale"):
                tensor.fill_(2.5)
            else:
                tensor.copy_((tensor + 0.05 * noise).half())
    return module.eval()


@pytest.fixture(scope="module", params=["vit", "rn"])
def reference(request):
    """open_clip's own fp32 model; its state dict is OpenAI's layout."""
    torch.manual_seed(0)
    return randomise(open_clip.CLIP(EMBED_DIM, dict(VISION[request.param]), dict(TEXT), quick_gelu=True))


@pytest.fixture(scope="module")
def state_dict(reference):
    return {name: value.half() if value.is_floating_point() else value
            for name, value in reference.state_dict().items()}


@pytest.fixture(scope="module")
def images(reference):
    size = reference.visual.image_size
    size = size if isinstance(size, int) else size[0]
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tokens():
    return clip.tokenize(["a photo of a cat.", "a satellite photo of permanent crop land from above.", "dog"])


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


class Node(nn.Module):
    """A module that only holds names: state dicts of TorchScript archives need a module tree."""

    def forward(self, x: torch.Tensor):
        return x


def torchscript(state_dict):
    root = Node()
    for name, value in state_dict.items():
        *path, leaf = name.split(".")
        node = root
        for part in path:
            if part not in node._modules:
                node.add_module(part, Node())
            node = node._modules[part]
        node.register_buffer(leaf, value)
    return torch.jit.script(root)


def write(form, state_dict, folder):
    """Write a state dict in one of the accepted forms; returns the path."""
    path = folder / ("model.safetensors" if form == "safetensors" else "model.pt")
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in state_dict.items()}, path)
    elif form == "torchscript":
        sizes = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        sizes = {name: torch.tensor(value) for name, value in sizes.items()}
        torch.jit.save(torchscript({**sizes, **state_dict}), path)
    elif form == "wrapped":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state_dict.items()}}, path)
    else:
        torch.save(state_dict, path)
    return path


@pytest.mark.parametrize("form", ["plain", "wrapped", "safetensors", "torchscript"])
def test_openai_layout_file(form, reference, state_dict, images, tokens, tmp_path):
    model, _ = clip.load(write(form, state_dict, tmp_path), device="cpu")
    assert not model.training and model.dtype == torch.float32
    assert model.visual.input_resolution == images.shape[-1] and model.visual.output_dim == EMBED_DIM
    assert (model.context_length, model.vocab_size) == (77, 49408)
    assert (model.transformer.width, model.transformer.layers) == (64, 2)
    loaded = model.state_dict()
    assert loaded.keys() == state_dict.keys()
    for name, value in state_dict.items():
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name
    torch.testing.assert_close(model.encode_image(images), reference.encode_image(images))
    torch.testing.assert_close(model.encode_text(tokens), reference.encode_text(tokens))


def test_fp32_file_keeps_its_digits(state_dict, tmp_path):
    state_dict = {**state_dict, "text_projection": torch.full((64, EMBED_DIM), 1.0001)}
    model, _ = clip.load(write("plain", state_dict, tmp_path), device="cpu")
    assert torch.equal(model.text_projection, state_dict["text_projection"])


def test_forward_is_scaled_cosine(reference, state_dict, images, tokens):
    model = clip.build_model(state_dict).float()
    per_image, per_text = model(images, tokens)
    image_features, text_features, scale = reference(images, tokens)
    torch.testing.assert_close(per_image, scale * image_features @ text_features.T)
    torch.testing.assert_close(per_text, per_image.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_coop_text_encoder_recipe(state_dict, tokens, dtype):
    model = clip.build_model(state_dict)
    model = model.float() if dtype == torch.float32 else model
    assert model.dtype == dtype
    prompts = model.token_embedding(tokens).type(dtype)
    x = prompts + model.positional_embedding.type(dtype)
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x).type(dtype)
    x = x[torch.arange(x.shape[0]), tokens.argmax(dim=-1)] @ model.text_projection
    torch.testing.assert_close(x, model.encode_text(tokens))


def test_transformer_is_causal_at_any_length(state_dict, tokens):
    model = clip.build_model(state_dict).float()
    torch.testing.assert_close(model.encode_text(tokens[:, :20]), model.encode_text(tokens))
    x = torch.randn(77, 2, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(model.transformer(x[:5]), model.transformer(x)[:5])


def test_build_model_casts_what_openai_casts(reference, state_dict, images, tokens):
    model = clip.build_model(state_dict)
    dtypes = {name: value.dtype for name, value in model.state_dict().items()}
    last = "visual.proj" if "visual.proj" in dtypes else "visual.attnpool.q_proj.bias"
    for name in ("text_projection", "transformer.resblocks.1.attn.in_proj_weight",
                 "transformer.resblocks.0.mlp.c_fc.bias", "visual.conv1.weight", last):
        assert dtypes[name] == torch.float16, name
    for name in ("token_embedding.weight", "positional_embedding", "logit_scale", "ln_final.weight"):
        assert dtypes[name] == torch.float32, name
    assert not any(m.training for m in model.modules())

    half = model.encode_image(images), model.encode_text(tokens)
    exact = reference.encode_image(images), reference.encode_text(tokens)
    for a, b in zip(half, exact):
        assert a.dtype == torch.float16
        assert (a.float() - b).norm() < 0.01 * b.norm()
    model.float()
    torch.testing.assert_close(model.encode_image(images), exact[0])
    convert_weights(model, dtype=torch.bfloat16)
    assert model.dtype == model.text_projection.dtype == model.encode_image(images).dtype == torch.bfloat16


def test_norms_compute_in_fp32(state_dict):
    norm = clip.build_model(state_dict).ln_final
    x = 300 * torch.randn(4, 64, generator=torch.Generator().manual_seed(3))  # squares overflow fp16
    out = norm(x.half())
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), norm(x.half().float()), atol=2e-3, rtol=2e-3)


def write_local_dir(folder, vision, text=(), weights=True, **config):
    """An open_clip model folder as open_clip itself writes it; random weights."""
    config = {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": {**TEXT, **dict(text)}, **config}
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear",
                  "resize_mode": "squash"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    if weights:
        settings = {key: value for key, value in config.items() if key != "custom_text"}
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        save_file(randomise(kind(**settings)).state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


TIMM = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64}


@pytest.mark.parametrize("vision", [VISION["vit"], TIMM], ids=["vit", "timm"])
@pytest.mark.parametrize("custom_text", [False, True])
def test_local_dir_matches_open_clip(vision, custom_text, tokens, tmp_path):
    name = write_local_dir(tmp_path, vision, custom_text=custom_text)
    model, preprocess = clip.load(name, device="cpu")
    theirs, _, their_preprocess = open_clip.create_model_and_transforms(name)
    theirs.eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8))
    image = preprocess(picture)[None]
    assert torch.equal(image[0], their_preprocess(picture))
    features = model.encode_image(image), model.encode_text(tokens)
    torch.testing.assert_close(features[0], theirs.encode_image(image))
    torch.testing.assert_close(features[1], theirs.encode_text(tokens))
    assert tuple(model.visual.image_mean) == (0.5, 0.4, 0.3)
    assert tuple(model.visual.image_std) == (0.2, 0.3, 0.4)
    assert model.visual.input_resolution == vision["image_size"] and model.visual.output_dim == EMBED_DIM
    names = set(model.state_dict())
    assert {"text_projection", "transformer.resblocks.1.ln_2.weight", "token_embedding.weight"} <= names

    convert_weights(model)
    for half, exact in zip((model.encode_image(image), model.encode_text(tokens)), features):
        assert half.dtype == torch.float16
        assert (half.float() - exact).norm() < 0.02 * exact.norm()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.running_var.dtype == m.weight.dtype == torch.float32 for m in norms)
    assert bool(norms) == (vision is TIMM)


def test_open_clip_architecture_with_a_file(tokens, tmp_path, monkeypatch):
    config = {"embed_dim": EMBED_DIM, "vision_cfg": VISION["vit"], "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    theirs = randomise(open_clip.CLIP(EMBED_DIM, dict(VISION["vit"]), dict(TEXT), nonscalar_logit_scale=True))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    model, _ = clip.load(f"open_clip:small/{tmp_path}/weights.pt", device="cpu")
    torch.testing.assert_close(model.encode_text(tokens), theirs.encode_text(tokens))
    assert model.logit_scale.shape == () and model.logit_scale.item() == 2.5


def test_quickgelu_follows_the_weights(tmp_path, tokens, monkeypatch):
    config = {"embed_dim": EMBED_DIM, "vision_cfg": VISION["vit"], "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    theirs = randomise(open_clip.CLIP(EMBED_DIM, dict(VISION["vit"]), dict(TEXT), quick_gelu=True))
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    tag = {"file": str(tmp_path / "weights.pt"), "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", {"sometag": tag})
    model, _ = clip.load("open_clip:small/sometag", device="cpu")
    torch.testing.assert_close(model.encode_text(tokens), theirs.encode_text(tokens))


def test_preprocess_is_openai_s(state_dict, images, tmp_path):
    model, preprocess = clip.load(write("plain", state_dict, tmp_path), device="cpu")
    size = images.shape[-1]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 140, 3), np.uint8))
    scaled = picture.resize((int(size * 140 / 100), size), Image.Resampling.BICUBIC)
    left = round((scaled.width - size) / 2)
    pixels = np.asarray(scaled.crop((left, 0, left + size, size)), np.float32) / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = torch.from_numpy(((pixels - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1))
    torch.testing.assert_close(preprocess(picture), expected)
    assert preprocess(picture.convert("L")).shape == (3, size, size)
    assert model.visual.image_mean == mean and model.visual.image_std == std


def test_tokenize():
    tokens = clip.tokenize("a photo of a cat.")
    assert tokens.shape == (1, 77) and tokens.dtype == torch.int
    assert tokens[0, :9].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407, 0]
    assert clip.tokenize(["a cat", "Dog"], context_length=5).tolist() == [
        [49406, 320, 2368, 49407, 0], [49406, 1929, 49407, 0, 0]]
    with pytest.raises(ValueError, match="'cat cat cat cat'.*6 tokens.*length 5"):
        clip.tokenize(["cat", "cat cat cat cat"], context_length=5)
    assert clip.tokenize("cat cat cat cat", 5, truncate=True).tolist() == [[49406, 2368, 2368, 2368, 49407]]
    tokenizer = SimpleTokenizer()
    assert tokenizer.encode("a photo of a cat.") == [320, 1125, 539, 320, 2368, 269]
    assert tokenizer.decode([320, 2368]) == "a cat "
    assert tokenizer.encoder["cat</w>"] == 2368 and tokenizer.decoder[2368] == "cat</w>"


def test_tiny_is_in_the_repository():
    model, preprocess = clip.load("tiny", device="cpu")
    size = model.visual.input_resolution
    assert preprocess(Image.new("RGB", (80, 60))).shape == (3, size, size)
    tokens = clip.tokenize(["a photo of a red hat.", "a photo of a striped bag."])
    features = model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
    assert features[0] @ features[1] < 0.9  # different things to a trained model


def test_names():
    assert clip_package.available_models() == [
        "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64",
        "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "tiny"]
    files = {"RN50x4": "RN50x4.pt", "ViT-B/16": "ViT-B-16.pt", "ViT-L/14@336px": "ViT-L-14-336px.pt"}
    for name, file in files.items():
        *_, digest, last = clip_package._MODELS[name].split("/")
        assert last == file and len(digest) == 64
    assert clip_package.load is clip.load and clip_package._download is clip._download


# --- downloads


class Server:
    """A file server on 127.0.0.1. `cut`: close after that many bytes of a reply; `requests`: how many came."""

    def __init__(self, content):
        self.content, self.cut, self.requests = content, None, 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(owner.content)))
                self.end_headers()
                self.wfile.write(owner.content[: owner.cut])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, digest=None):
        digest = digest or hashlib.sha256(self.content).hexdigest()
        return f"http://127.0.0.1:{self.http.server_port}/models/{digest}/weights.pt"


@pytest.fixture
def server():
    server = Server(np.random.default_rng(0).bytes(3_000_000))
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_download_to_the_default_cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = clip._download(server.url())
    assert path == str(tmp_path / ".cache/clip/weights.pt")
    assert open(path, "rb").read() == server.content
    clip._download(server.url())
    assert server.requests == 1  # the second call used the file


def files_in(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_interrupted_download_leaves_nothing(server, tmp_path):
    server.cut = 2_000_000
    (tmp_path / "weights.pt.part").write_bytes(b"of a killed call")
    with pytest.raises(clip_package.ClipError, match="2000000 bytes read, 1000000 more.*starts anew") as caught:
        clip._download(server.url(), tmp_path)
    assert files_in(tmp_path) == [] and "\n" not in str(caught.value)
    server.cut = None
    path = clip._download(server.url(), tmp_path)
    assert open(path, "rb").read() == server.content and files_in(tmp_path) == ["weights.pt"]


def test_calls_at_once_fetch_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(clip._download, 4 * [server.url()], 4 * [tmp_path]))
    assert paths == {str(tmp_path / "weights.pt")} and server.requests == 1


def test_wrong_checksum_leaves_no_file(server, tmp_path):
    with pytest.raises(RuntimeError, match="SHA-256 .* instead of 00ff and was removed; try again") as caught:
        clip._download(server.url(digest="00ff"), tmp_path)
    assert files_in(tmp_path) == [] and "\n" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's disk that is always full")
def test_full_disk_is_said(server, tmp_path):
    (tmp_path / "weights.pt.part").symlink_to("/dev/full")
    with pytest.raises(clip_package.ClipError, match=f"the disk is full, .* could not be stored in {tmp_path}"):
        clip._download(server.url(), tmp_path)
    assert files_in(tmp_path) == []


def test_existing_file_with_another_checksum_is_used(server, state_dict, tmp_path, monkeypatch):
    monkeypatch.setitem(clip._MODELS, "RN50", server.url())
    write("plain", state_dict, tmp_path).rename(tmp_path / "weights.pt")
    with pytest.warns(UserWarning, match="weights.pt is used although its SHA-256"):
        model, _ = clip.load("RN50", device="cpu", download_root=tmp_path)
    assert model.text_projection.shape == (64, EMBED_DIM) and server.requests == 0


def test_no_network_says_url_and_place(tmp_path, monkeypatch):
    url = "http://127.0.0.1:9/models/00ff/RN50.pt"  # nothing listens on the discard port
    monkeypatch.setitem(clip._MODELS, "RN50", url)
    with pytest.raises(RuntimeError) as error:
        clip.load("RN50", device="cpu", download_root=tmp_path)
    assert url in str(error.value) and f"put the file at {tmp_path}/RN50.pt" in str(error.value)
    assert "Connection refused" in str(error.value) and "Max retries" not in str(error.value)


def test_no_network_for_open_clip(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("offline")

    monkeypatch.setattr(clip_model, "download_pretrained", fail)
    message = r"https://huggingface.co/laion/.* \(offline\).*open_clip:ViT-B-32/PATH"
    with pytest.raises(RuntimeError, match=message):
        clip.load("open_clip:ViT-B-32/laion2b_s34b_b79k", device="cpu")


# --- refusals


@pytest.mark.parametrize("name, error, message", [
    ("nothing", ValueError, "unknown CLIP model 'nothing'.*ViT-B/16.*tiny"),
    ("nothing.pt", FileNotFoundError, "there is no weight file nothing.pt"),
    ("local-dir:nothing", FileNotFoundError, "there is no nothing/open_clip_config.json"),
    ("open_clip:ViT-B-33/openai", ValueError, "no model 'ViT-B-33'; it has .*ViT-B-32"),
    ("open_clip:ViT-B-32/laion2b_s34b", ValueError, "no weights 'laion2b_s34b' .*laion2b_s34b_b79k"),
    ("open_clip:ViT-B-32/no/file.pt", FileNotFoundError, "there is no weight file no/file.pt"),
    ("open_clip:ViT-B-32", ValueError, "no weights '' for ViT-B-32; it has openai"),
])
def test_refused_names(name, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        clip.load(name, device="cpu")
    assert "\n" not in str(caught.value) and isinstance(caught.value, clip_package.ClipError)


def test_random_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Required pretrained weights .* could not be loaded"):
        clip.load(write_local_dir(tmp_path, VISION["vit"], weights=False), device="cpu")


def test_jit_is_refused():
    with pytest.raises(ValueError, match="jit=False"):
        clip.load("RN50", device="cpu", jit=True)


@pytest.mark.parametrize("form", ["plain", "safetensors", "torchscript"])
def test_truncated_file_is_named(form, tmp_path):
    path = write(form, {"a": torch.ones(1000), "b": torch.ones(1000)}, tmp_path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ValueError, match=f"{path} is damaged") as caught:
        clip.load(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    torch.save({"a": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="trap.pt .*holds more than tensors .*io.open .*save a state dict"):
        clip.load(tmp_path / "trap.pt", device="cpu")
    assert not (tmp_path / "trapped").exists()


def test_file_that_is_no_clip(state_dict, tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt is no CLIP in OpenAI's layout: it lacks 'visual.layer1.0.conv1.weight'"):
        clip.load(tmp_path / "other.pt", device="cpu")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds no state dict"):
        clip.load(tmp_path / "list.pt", device="cpu")
    missing = {k: v for k, v in state_dict.items() if k != "transformer.resblocks.1.mlp.c_fc.bias"}
    with pytest.raises(ValueError, match="Missing key.*transformer.resblocks.1.mlp.c_fc.bias"):
        clip.load(write("plain", missing, tmp_path), device="cpu")


def test_foreign_vocabulary_is_refused(state_dict, tmp_path):
    short = {**state_dict, "token_embedding.weight": state_dict["token_embedding.weight"][:100]}
    with pytest.raises(ValueError, match="vocabulary of 100"):
        clip.load(write("plain", short, tmp_path), device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_weights_are_fp16(reference, state_dict, images, tokens, tmp_path):
    model, _ = clip.load(write("plain", state_dict, tmp_path), device="cuda")
    assert model.dtype == torch.float16 and model.token_embedding.weight.dtype == torch.float32
    expected = reference.encode_image(images)
    features = model.encode_image(images.cuda()).float().cpu()
    assert (features - expected).norm() < 0.01 * expected.norm()
