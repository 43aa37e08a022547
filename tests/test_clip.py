"""OpenAI's interface: tokens, loading in every form, refusals, downloads."""

import hashlib
import http.server
import json
import threading
import warnings

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from clip import clip
from clip.model import build_model, convert_weights

CONFIG = {"embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
          "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}


@pytest.fixture(scope="module")
def model(backbone):
    return clip.load(backbone, device="cpu")[0]


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.randn(2, 3, 32, 32), clip.tokenize(["a photo of a daisy.", "rose"])


def local_dir(folder, text=(), weights=True, **extra):
    """An open_clip model folder with random weights; returns open_clip's own model of it."""
    config = {**CONFIG, **extra, "text_cfg": {**CONFIG["text_cfg"], **dict(text)}}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 32}}))
    if weights:
        random = open_clip.create_model(f"local-dir:{folder}")
        save_file(random.state_dict(), folder / "open_clip_model.safetensors")
        return open_clip.create_model(f"local-dir:{folder}").eval()


def test_tokens():
    tokens = clip.tokenize("a photo of a cat.")
    assert tokens.shape == (1, 77) and tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert not tokens[0, 8:].any()
    with pytest.raises(ValueError, match="'cat cat .*makes 102 tokens"):
        clip.tokenize("cat " * 100)
    assert clip.tokenize("cat " * 100, truncate=True)[0, -1] == 49407


def test_text_encoder_recipe_of_coop_equals_encode_text(model, inputs):
    tokens = inputs[1]
    x = model.token_embedding(tokens).type(model.dtype) + model.positional_embedding.type(model.dtype)
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x).type(model.dtype)
    x = x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection
    torch.testing.assert_close(x, model.encode_text(tokens))
    assert model.visual.input_resolution == 32 and model.logit_scale.ndim == 0


def test_short_sequences(model):
    """The causal mask is cut to the sequence, so what comes later changes nothing before it."""
    x = torch.randn(12, 3, 64)  # (L, N, width)
    torch.testing.assert_close(model.transformer(x)[:5], model.transformer(x[:5]), rtol=1e-4, atol=1e-4)


def test_every_file_form_gives_the_same_model(backbone, model, inputs, tmp_path):
    state_dict = model.state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state_dict.items()}}, tmp_path / "wrapped.pth")
    save_file(state_dict, tmp_path / "plain.safetensors")

    class Archive(torch.nn.Module):  # OpenAI's files: a scripted module with these names, and three scalars
        pass

    def insert(module, name, value):
        head, _, rest = name.partition(".")
        if rest:
            if not hasattr(module, head):
                module.add_module(head, Archive())
            insert(getattr(module, head), rest, value)
        else:
            module.register_buffer(head, value)

    archive = Archive()
    for name, value in {**state_dict, "input_resolution": torch.tensor(32), "context_length": torch.tensor(77),
                        "vocab_size": torch.tensor(49408)}.items():
        insert(archive, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but it is what OpenAI's files are
        torch.jit.script(archive).save(str(tmp_path / "archive.pt"))
    expected = model(*inputs)[0]
    for name in ("wrapped.pth", "plain.safetensors", "archive.pt"):
        loaded, _ = clip.load(str(tmp_path / name), device="cpu")
        torch.testing.assert_close(loaded(*inputs)[0], expected, rtol=0, atol=0)


def test_build_model_is_half_precision_and_float_brings_it_back(model, inputs):
    built = build_model(model.state_dict())
    assert built.dtype == torch.float16 and built.ln_final.weight.dtype == torch.float32
    # the weights were stored in fp16, so nothing is lost
    torch.testing.assert_close(built.float()(*inputs)[0], model(*inputs)[0], rtol=0, atol=0)
    convert_weights(built, torch.bfloat16)
    assert built.encode_image(inputs[0]).dtype == torch.bfloat16


@pytest.mark.parametrize("custom", [False, True])
def test_open_clip_folder_gives_its_features(custom, inputs, tmp_path):
    theirs = local_dir(tmp_path / "m", **({"custom_text": True} if custom else {}))
    ours, preprocess = clip.load(f"local-dir:{tmp_path / 'm'}", device="cpu")
    torch.testing.assert_close(ours.encode_image(inputs[0]), theirs.encode_image(inputs[0]))
    torch.testing.assert_close(ours.encode_text(inputs[1]), theirs.encode_text(inputs[1]), rtol=1e-4, atol=1e-5)
    assert {"visual.proj", "transformer.resblocks.1.mlp.c_fc.weight", "text_projection"} <= set(ours.state_dict())


@pytest.mark.parametrize("text, message", [
    ({"no_causal_mask": True}, "no causal attention mask"),
    ({"embed_cls": True}, "class-token embedding"),
    ({"pool_type": "last"}, "pooled by 'last'"),
    ({"qk_norm": True}, "other than open_clip's default"),
    ({"proj_bias": True}, "projection with a bias"),
    ({"vocab_size": 100}, "CLIP's tokenizer"),
])
def test_other_text_towers_are_refused(text, message, tmp_path):
    local_dir(tmp_path / "m", text, weights=False)
    (tmp_path / "m" / "open_clip_model.safetensors").touch()
    with pytest.raises(ValueError, match=f"local-dir:.*text tower .*{message}"):
        clip.load(f"local-dir:{tmp_path / 'm'}", device="cpu")


def test_clear_errors(backbone, tmp_path):
    local_dir(tmp_path / "m", weights=False)
    (tmp_path / "cut.pt").write_bytes(open(backbone, "rb").read()[:50000])
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    for name, error, message in (
            ("RN51", ValueError, "unknown CLIP model 'RN51'; it can be RN50"),
            (str(tmp_path / "none.pt"), FileNotFoundError, "no weight file"),
            (str(tmp_path / "cut.pt"), ValueError, "cut.pt is damaged"),
            (str(tmp_path / "other.pt"), ValueError, "other.pt is no CLIP in OpenAI's layout: it lacks token_embedding"),
            (f"local-dir:{tmp_path / 'm'}", FileNotFoundError, "no weight file"),
            ("open_clip:ViT-B-99/openai", ValueError, "no model 'ViT-B-99'; it has ViT-B-"),
            ("open_clip:ViT-B-32/laion", ValueError, "no weights 'laion' for ViT-B-32")):
        with pytest.raises(error, match=message):
            clip.load(name, device="cpu")


@pytest.fixture
def server():
    """A local server of one file, which can cut a transfer short; yields (state, url of a checksum)."""
    content = bytes(range(256)) * 4000
    state = {"cut": None, "ranges": [], "content": content}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            state["ranges"].append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:state["cut"]])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield state, lambda digest: f"http://127.0.0.1:{httpd.server_port}/{digest}/RN50.pt"
    httpd.shutdown()


def test_download_resumes_and_checks(server, tmp_path):
    state, url = server
    right = url(hashlib.sha256(state["content"]).hexdigest())
    state["cut"] = 100_000
    with pytest.raises(RuntimeError, match="could not download.*by hand"):
        clip._download(right, tmp_path)
    assert not (tmp_path / "RN50.pt").exists()
    state["cut"] = None
    path = clip._download(right, tmp_path)
    assert open(path, "rb").read() == state["content"] and state["ranges"] == [0, 100_000]
    clip._download(right, tmp_path)
    assert len(state["ranges"]) == 2  # the file that is there is used
    with pytest.warns(UserWarning, match="is used although its SHA-256"):
        assert clip._download(url("0" * 64), tmp_path) == path
    with pytest.raises(RuntimeError, match="instead of 0000"):
        clip._download(url("0" * 64), tmp_path / "other")
    assert not list((tmp_path / "other").glob("RN50.pt*[!k]"))
