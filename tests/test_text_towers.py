"""Text towers that are not CLIP's: features are open_clip's own, contexts are read in place of words, runs end."""

import json
import math
import shutil
from types import SimpleNamespace

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, RobertaConfig

import interpret_prompt
from clip import ClipError, clip
from clip.model import CLIP, TextTowerCLIP, convert_to_double, convert_weights
from common.errors import UserError
from datasets.base import Task
from tests.helpers import call, make_cfg, results, train_args
from tests.test_clip import VISION, randomise
from trainers import text_encoder
from trainers.mtcoop import SoftSharedCLIP
from trainers.multitask_clip import ContextCLIP, digest_of_clip
from trainers.prompts import LearnedContext, build_prompts, init_context
from trainers.text_encoder import WholePromptEncoder
from trainers.zsclip import TemplateCLIP

CLASSES = ("red", "dark_blue", "it's a dog.", "green")
TASKS = [Task("colour_naming", CLASSES, template="a photo of a {}."), Task("lightness", ("dark", "light"))]
CORPUS = ["a photo of a red dog.", "colour naming lightness dark blue green light", "itap of a photo of the large x."]
WIDTH, DIM, LENGTH = 64, 32, 20


# --- small tokenizers of the families that open_clip's text towers use


def sentencepiece_like(folder, prefixed=True, corpus=None, **special):
    """BPE on words that begin with a mark, end-of-text after the text: SigLIP's, or SigLIP 2's (not `prefixed`).

    With a `corpus` of its own, pieces go on over words.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    names = ["<pad>", "</s>", "<unk>"]
    if prefixed:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        if corpus is None:
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+"), "isolated")
    finish(tokenizer, folder, names, ("$A </s>", [("</s>", 1)]), corpus, eos_token="</s>", unk_token="<unk>", **special)


def roberta_like(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    finish(tokenizer, folder, ["<s>", "<pad>", "</s>", "<unk>"], ("<s> $A </s>", [("<s>", 0), ("</s>", 2)]),
           bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def bert_like(folder, **special):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    finish(tokenizer, folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], ("[CLS] $A [SEP]", [("[CLS]", 2), ("[SEP]", 3)]),
           cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", **special)


def finish(tokenizer, folder, names, frame, corpus=None, **special):
    kind = trainers.WordPieceTrainer if isinstance(tokenizer.model, models.WordPiece) else trainers.BpeTrainer
    letters = pre_tokenizers.ByteLevel.alphabet() if "<s>" in names else list("abcdefghijklmnopqrstuvwxyz.'▁")
    tokenizer.train_from_iterator(corpus or CORPUS, kind(vocab_size=300, special_tokens=names, initial_alphabet=letters,
                                               show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single=frame[0], special_tokens=frame[1])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def siglip(folder):
    sentencepiece_like(folder, pad_token="</s>")  # as SigLIP's: it pads with end-of-text


def siglip2(folder):
    sentencepiece_like(folder, prefixed=False, pad_token="<pad>")


def roberta(folder):
    roberta_like(folder)
    RobertaConfig(vocab_size=600, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                  max_position_embeddings=LENGTH + 2).save_pretrained(folder)


OTHER = {"context_length": LENGTH, "vocab_size": 600, "hf_tokenizer_name": "some/tokenizer"}
SIGLIP = {**OTHER, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
          "tokenizer_kwargs": {"clean": "canonicalize"}}
# name: what writes the tokenizer, text_cfg, the rest of the config
KINDS = {
    "siglip": (siglip, SIGLIP, {"custom_text": True, "init_logit_bias": -10}),
    "siglip2": (siglip2, {**SIGLIP, "act_kwargs": {"approximate": "tanh"}}, {"custom_text": True}),
    "clipa": (bert_like, {**OTHER, "no_causal_mask": True, "pool_type": "last",
                          "tokenizer_kwargs": {"strip_sep_token": True}}, {}),
    "bert eos": (bert_like, {**OTHER, "pool_type": "eos", "eos_id": 3}, {"custom_text": True}),
    "no mask": (None, {"no_causal_mask": True}, {}),
    "last": (None, {"pool_type": "last"}, {}),
    "layer scale": (None, {"ls_init_value": 0.1}, {}),
    "own blocks": (None, {"block_type": "custom", "qk_norm": True, "scale_heads": True, "scale_attn": True}, {}),
    "no projection": (None, {"proj_type": "none", "width": DIM}, {"custom_text": True}),
    "coca": (None, {"embed_cls": True, "output_tokens": True, "context_length": LENGTH}, {
        "custom_text": True, "multimodal_cfg": {"width": WIDTH, "context_length": LENGTH, "heads": 2, "layers": 1,
                                                "attn_pooler_heads": 2}}),
    "roberta": (roberta, {**OTHER, "hf_model_name": "FOLDER", "hf_pooler_type": "mean_pooler"}, {"custom_text": True}),
    "clips": (bert_like, {**OTHER, "no_causal_mask": True, "pool_type": "last", "tokenizer_mode": "clips"}, {}),
}


def write_model(folder, kind, **text):
    """A local-dir: model of a kind, with random weights; returns its name."""
    folder.mkdir()
    write, text_cfg, rest = KINDS[kind]
    text_cfg = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2, **text_cfg, **text}
    if text_cfg.get("hf_model_name"):
        text_cfg["hf_model_name"] = str(folder)
    vision = {**VISION["vit"], "output_tokens": True} if kind == "coca" else VISION["vit"]
    if write:
        write(folder)
    if write is bert_like and text_cfg.get("tokenizer_mode"):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "bos_token": "[CLS]", "eos_token": "[SEP]"}))
    (folder / "open_clip_config.json").write_text(json.dumps({
        "model_cfg": {"embed_dim": DIM, "vision_cfg": vision, "text_cfg": text_cfg, **rest}, "preprocess_cfg": {}}))
    name = f"local-dir:{folder}"
    torch.manual_seed(0)
    model = randomise(open_clip.create_model(name, load_weights=False, pretrained_text=False))
    state_dict = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state_dict, folder / "open_clip_model.safetensors")
    return name


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Kind -> name of its model, made when first asked for."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def name(kind):
        if kind not in made:
            made[kind] = write_model(root / kind.replace(" ", "_"), kind)
        return made[kind]

    return name


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def load(names, kind):
    """Our model, frozen as the methods get it; open_clip's model, and a function from texts to its features."""
    theirs = open_clip.create_model(names(kind), require_pretrained=True).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(names(kind))
    ours, _ = clip.load(names(kind), device="cpu")
    return ours.requires_grad_(False), theirs, lambda texts: theirs.encode_text(tokenizer(texts))


def close(ours, theirs):
    """Features of the same direction; only that counts, and CoCa's are of length 1."""
    ours, theirs = F.normalize(ours, dim=1), F.normalize(theirs, dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


# --- features


def test_hand_written_prompts_are_open_clips(names, kind):
    model, theirs, features_of = load(names, kind)
    assert isinstance(model, TextTowerCLIP) and model.visual.output_dim == DIM
    model_of_tasks = TemplateCLIP(model, TASKS)
    template = TASKS[1].template
    texts = [f"a photo of a {name.replace('_', ' ')}." for name in CLASSES]
    expected = features_of(texts + [template.format("dark"), template.format("light")])
    ours = model_of_tasks.class_features()
    close(ours, expected)
    assert len(ours.unique(dim=0)) == 6
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = theirs.logit_scale.exp() * theirs.encode_image(images, normalize=True) @ F.normalize(expected, dim=1).T
    torch.testing.assert_close(model_of_tasks.score(model.encode_image(images), ours), logits, rtol=1e-5, atol=1e-5)
    close(model.encode_text(model.tokenizer(texts)), features_of(texts))
    torch.testing.assert_close(model(images, model.tokenizer(texts))[0], logits[:, :4], rtol=1e-5, atol=1e-5)


def test_a_context_of_words_is_those_words(names, kind, monkeypatch):
    """And gradients reach it, the same with activations kept or made again for a chunk of prompts at a time."""
    model, _, features_of = load(names, kind)
    tasks = [Task("colours", CLASSES * 3, repeated_names=True)]
    learned = ContextCLIP(model, tasks, 1, init="a photo of a", per="suite")
    expected = features_of([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    features = learned.class_features()
    close(features[:4], expected)
    close(features[-4:], expected)
    close(learned.class_features(torch.tensor([2, 1])), expected[[2, 1]])
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    encoder, sizes = learned.text_encoder, []
    encoder.tower.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    monkeypatch.setattr(text_encoder, "CHUNK_ROWS", 5 * learned.prompts.tokens.shape[1])
    gradients = []
    for chunk, checkpoint, expected in ((-1, False, [12]), (0, True, [5, 5, 2, 5, 5]), (8, False, [8, 4, 8])):
        encoder.chunk, encoder.checkpoint = chunk, checkpoint
        sizes.clear()
        gradients.append(torch.autograd.grad((learned.class_features() * weights).sum(), learned.prompt_learner.ctx)[0])
        assert sizes == expected
    assert (gradients[0].abs().amax(dim=1) > 0).all()
    for again in gradients[1:]:
        torch.testing.assert_close(again, gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "clipa", "no mask", "coca"])
def test_places_of_the_context(names, kind):
    model, _, features_of = load(names, kind)
    encoder = WholePromptEncoder(model)
    ctx = init_context("a photo of a", encoder.token_embedding, model.tokenizer)[None]
    assert ctx.shape[1] == 4
    for position, text in (("end", "a photo of a dark dog."), ("middle", "a photo dark dog of a."),
                           ("front", "dark dog a photo of a.")):
        prompts = build_prompts(["dark_dog"], 4, position, tokenizer=model.tokenizer)
        close(encoder(prompts, ctx), features_of([text]))


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "roberta"])
def test_softcpt_reads_task_names_and_makes_contexts(names, kind):
    model, _, features_of = load(names, kind)
    soft = SoftSharedCLIP(model, TASKS, options(TASK_CTX_INIT="a photo of a", CTX_INIT="a photo of a"))
    close(soft.task_features(), features_of(["a photo of a colour naming.", "a photo of a lightness."]))
    words = init_context("a photo of a", model.text.token_embedding, model.tokenizer)
    soft.made_contexts = lambda classes=None: words.expand(2, -1, -1)
    expected = features_of([f"a photo of a {name.replace('_', ' ')}." for task in TASKS for name in task.classnames])
    close(soft.class_features(), expected)
    del soft.made_contexts
    soft.class_features().sum().backward()
    assert soft.prompt_gen.proj.grad.abs().max() > 0 and soft.task_prompt_learner.ctx.grad.abs().max() > 0


def options(**changed):
    return make_cfg("", {f"TRAINER.MTCOOP.{key}": value for key, value in changed.items()}).TRAINER.MTCOOP


def test_class_specific_contexts_are_each_its_own(names):
    model, _, features_of = load(names, "siglip2")
    learned = ContextCLIP(model, TASKS, 1, per="class", init="a photo of a")
    assert learned.prompt_learner.ctx.shape[0] == 6
    before = learned.class_features().detach()
    learned.prompt_learner.ctx.data[3] += 1
    changed = (learned.class_features() - before).abs().amax(dim=1)
    assert changed.nonzero().tolist() == [[3]]


@pytest.mark.parametrize("kind", ["siglip", "own blocks", "coca", "roberta"])
def test_precision(names, kind):
    model, _, features_of = load(names, kind)
    texts = ["a photo of a red.", "a photo of a green."]
    exact = features_of(texts)
    convert_to_double(model)
    assert model.encode_text(model.tokenizer(texts)).dtype == torch.float64
    close(model.encode_text(model.tokenizer(texts)).float(), exact)
    for dtype in (torch.bfloat16, torch.float16):
        model, _, _ = load(names, kind)
        convert_weights(model, dtype)
        ctx = LearnedContext(1, model.text.token_embedding, init="a photo of a", tokenizer=model.tokenizer)
        prompts = build_prompts(["red", "green"], ctx.n_ctx, tokenizer=model.tokenizer)
        for low in (model.encode_text(model.tokenizer(texts)), WholePromptEncoder(model)(prompts, ctx())):
            assert low.dtype == dtype and F.cosine_similarity(low.float(), exact).min() > 0.999


def test_clip_layout_keeps_its_encoder(backbone, capsys):
    model, _ = clip.load(backbone, device="cpu")
    assert isinstance(model, CLIP) and type(TemplateCLIP(model, TASKS).text_encoder).__name__ == "TextEncoder"
    assert "no prefix" not in capsys.readouterr().out
    tokens = model.tokenizer(["a photo of a dog."])
    assert torch.equal(tokens, clip.tokenize("a photo of a dog.").long())


# --- runs


METHODS = [("MTCoOp", {}), ("MTCoOp", {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_CSC": True}),
           ("MTCoOpHard", {}), ("KgCoOp", {}), ("ProGrad", {}), ("CoCoOp", {}), ("PLOT", {}), ("ProtoNet", {})]


@pytest.mark.parametrize("trainer, changed", METHODS, ids=[f"{name}-{len(changed)}" for name, changed in METHODS])
def test_runs(names, trainer, changed, photo_root, tmp_path, capsys):
    node = {"MTCoOp": "MTCOOP", "MTCoOpHard": "MTCOOPH"}.get(trainer)
    if node:
        changed = {**changed, f"TRAINER.{node}.N_CTX": 4}
    if trainer == "MTCoOp":
        changed |= {"TRAINER.MTCOOP.TASK_N_CTX": 4, "TRAINER.MTCOOP.CLASS_N_CTX": 4}
    if trainer == "PLOT":
        changed = {"TRAINER.PLOT.N_CTX": 4}
    trained = call(train_args(photo_root, names("siglip"), tmp_path / "run", trainer, **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 2, **changed}))
    assert all(math.isfinite(task["metric"]) for task in results(tmp_path / "run")["tasks"])
    assert all(value.isfinite().all() for value in trained.trained)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("no causal attention mask: no prefix is shared") == 1
    if trainer == "MTCoOp" and "TRAINER.MTCOOP.CSC" not in changed:
        interpret_prompt.main([str(tmp_path / "run"), "--topk", "2"])
        table = capsys.readouterr().out
        assert table.count("\ncolour naming ") == table.count("\nlightness ") == 4 and "▁" in table


def test_roberta_runs(names, photo_root, tmp_path):
    call(train_args(photo_root, names("roberta"), tmp_path / "run", "MTCoOpHard", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1, "TRAINER.MTCOOPH.N_CTX": 4}))
    assert len(results(tmp_path / "run")["tasks"]) == 2


@pytest.mark.parametrize("trainer, said", [
    ("TCP", "deep prompts need a text tower of CLIP's layout"), ("CLIPLoRA", "the text tower here is no transformer as")])
def test_methods_inside_clips_text_tower_say_so(trainer, said, names, photo_root, tmp_path):
    with pytest.raises(UserError, match=said):
        call(train_args(photo_root, names("siglip"), tmp_path / "run", trainer, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits"}))


def test_linear_probe_and_zero_shot(names, photo_root, tmp_path):
    call(train_args(photo_root, names("siglip"), tmp_path / "lp", "LinearProbe", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits"}))
    assert results(tmp_path / "lp")["tasks"][1]["metric"] > 50
    call(train_args(photo_root, names("siglip"), tmp_path / "zs", "ZeroshotCLIP2", "--eval-only", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits"}))
    assert len(results(tmp_path / "zs")["tasks"]) == 2


# --- refusals


def refusal(name):
    with pytest.raises(ClipError) as caught:
        clip.load(name, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_compiling_and_long_prompts_are_refused(names):
    model, _ = clip.load(names("siglip"), device="cpu")
    with pytest.raises(UserError, match="backbone's has no causal attention mask: set MODEL.COMPILE False"):
        WholePromptEncoder(model).compile_blocks()
    build_prompts(["dark"], LENGTH - 2, tokenizer=model.tokenizer)
    with pytest.raises(UserError, match=f"has {LENGTH + 1} tokens .*reads {LENGTH}"):
        build_prompts(["dark"], LENGTH - 1, tokenizer=model.tokenizer)
    model.tokenizer.vocab_size = 9
    with pytest.raises(UserError, match="of 'dark', but the text encoder knows 9 ids"):
        build_prompts(["dark"], tokenizer=model.tokenizer)


def test_a_tokenizer_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def fail(name, timeout):
        assert timeout <= 2
        raise TimeoutError("timed out")

    monkeypatch.setattr(huggingface_hub, "model_info", fail)
    message = refusal("open_clip:ViT-B-16-SigLIP/webli")
    assert "tokenizer timm/ViT-B-16-SigLIP of huggingface.co" in message and "hf download" in message
    assert "local-dir:" in message
    message = refusal("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k")
    assert "tokenizer roberta-base" in message


def cached(folder, cache):
    """Put a model's folder into a cache of the Hub as the repository org/small."""
    repository = cache / "models--org--small"
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


@pytest.mark.parametrize("kind", ["siglip", "roberta"])
def test_a_model_of_the_hub_is_read_from_its_cache_wherever_that_lies(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "small").mkdir(parents=True)  # a folder of the same name is not meant
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *args, **kwargs: pytest.fail("the network was asked"))
    name = write_model(tmp_path / "model", kind)
    path = tmp_path / "model" / "open_clip_config.json"
    content = json.loads(path.read_text())
    if kind == "roberta":
        content["model_cfg"]["text_cfg"]["hf_model_name"] = "org/small"
    path.write_text(json.dumps(content | {"preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}))
    models = [clip.load(name, device="cpu")[0]] if kind == "siglip" else []
    for cache in ("here", "there"):
        cached(tmp_path / "model", tmp_path / cache)
        models.append(clip.load("hf-hub:org/small", device="cpu", download_root=tmp_path / cache)[0])
        assert tuple(models[-1].visual.preprocess_cfg["mean"]) == (0.5, 0.4, 0.3)
    assert len({digest_of_clip(model) for model in models}) == 1


def test_a_model_of_the_hub_is_fetched_or_refused(tmp_path, monkeypatch):
    write_model(tmp_path / "model", "no mask")
    (tmp_path / "model" / "open_clip_model.safetensors").rename(tmp_path / "weights")
    cached(tmp_path / "model", tmp_path)  # without weights

    def fail(name, timeout):
        raise TimeoutError("timed out")

    monkeypatch.setattr(huggingface_hub, "model_info", fail)
    with pytest.raises(ClipError, match=r"^hf-hub:org/small can't be used: .*\(timed out\).*hf download org/small "
                                        r"--include .*'open_clip_model.safetensors'.*local-dir:"):
        clip.load("hf-hub:org/small", device="cpu", download_root=tmp_path)

    def download(name, allow_patterns, cache_dir):
        assert name == "org/small" and "open_clip_pytorch_model.bin" in allow_patterns
        assert "open_clip_model.safetensors" not in allow_patterns and "*.json" in allow_patterns
        torch.save(load_file(tmp_path / "weights"), tmp_path / "model" / "open_clip_pytorch_model.bin")
        return str(tmp_path / "model")

    there = [SimpleNamespace(rfilename=file) for file in ("open_clip_config.json", "open_clip_pytorch_model.bin")]
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, timeout: SimpleNamespace(siblings=there))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    clip.load("hf-hub:org/small", device="cpu", download_root=tmp_path)
    (tmp_path / "model" / "open_clip_config.json").unlink()
    with pytest.raises(ClipError, match="^hf-hub:org/small is no open_clip model folder: there is no "):
        clip.load("hf-hub:org/small", device="cpu", download_root=tmp_path / "none")


@pytest.mark.parametrize("kind, text, message", [
    ("siglip", {"pool_type": "none"}, "does not pool"),
    ("no mask", {"proj_type": "none"}, "no projection from its width 64 to the image features' 32"),
    ("no mask", {"vocab_size": 100}, "the id 49407, but its vocabulary a size of 100"),
    ("siglip", {"vocab_size": 9}, "but its vocabulary a size of 9"),
    ("siglip", {"shape": 3}, "no text_cfg that open_clip understands"),
])
def test_refused_text_towers(kind, text, message, tmp_path):
    folder = tmp_path / "model"
    name = write_model(folder, kind)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    said = refusal(name)
    assert message in said and name in said


def test_damaged_tokenizers_are_refused(tmp_path):
    name = write_model(tmp_path / "model", "siglip")
    path = tmp_path / "model" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "padding_side": "left"}))
    assert "pads before it" in refusal(name)
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    assert "its tokenizer in" in refusal(name)


def test_pieces_that_go_on_over_words_are_refused(tmp_path):
    name = write_model(tmp_path / "model", "siglip2")
    sentencepiece_like(tmp_path / "model", prefixed=False, corpus=["x dog"] * 9, pad_token="<pad>")
    assert "reads 'x dog' otherwise than word by word" in refusal(name)
    sentencepiece_like(tmp_path / "model", prefixed=False, corpus=["x cat", "a cat", "b cat"] * 3, pad_token="<pad>")
    model, _ = clip.load(name, device="cpu")
    build_prompts(["dog"], 2, tokenizer=model.tokenizer)
    build_prompts(["cat"], 2, "front", tokenizer=model.tokenizer)
    with pytest.raises(UserError, match="makes one of the beginning of 'cat.' and the word before it"):
        build_prompts(["cat"], 2, tokenizer=model.tokenizer)


def test_images_that_are_not_square_are_refused(tmp_path):
    name = write_model(tmp_path / "model", "no mask")
    path = tmp_path / "model" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = [32, 48]
    path.write_text(json.dumps(config))
    model = randomise(open_clip.create_model(name, load_weights=False, pretrained_text=False))
    save_file(model.state_dict(), tmp_path / "model" / "open_clip_model.safetensors")
    assert "32x48; only square input is supported" in refusal(name)
