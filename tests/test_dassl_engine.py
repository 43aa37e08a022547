"""Training, resuming and testing a trainer that is written for Dassl."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.engine import SimpleTrainer, TrainerX, build_trainer
from dassl.utils import load_checkpoint, resume_from_checkpoint, set_random_seed

from .coop_style import Toy, make_cfg


@pytest.fixture
def cfg(tmp_path):
    return make_cfg(tmp_path)


def weights(trainer):
    return torch.cat([p.detach().flatten() for group in trainer.optim.param_groups for p in group["params"]])


def test_training_learns_and_its_checkpoints_load(cfg, capsys):
    set_random_seed(0)
    trainer = build_trainer(cfg)
    trainer.train()
    out = capsys.readouterr().out
    assert "epoch [5/5] batch [4/4] time" in out and "\nFinished training\n" in out
    assert out.index("Finished training") < out.index("=> result") < out.index("Elapsed: 0:00:")
    assert trainer.test() == 100.0
    run = Path(cfg.OUTPUT_DIR)
    assert (run / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-5\n"
    assert not list(run.rglob("*.tmp")) and list((run / "tensorboard").iterdir())

    checkpoint = torch.load(run / "adapter" / "model.pth.tar-5", weights_only=True)  # no allow-list
    assert checkpoint["epoch"] == 5 and set(checkpoint["state_dict"]) == {"weight", "bias"}
    assert load_checkpoint(str(run / "text_encoder" / "model.pth.tar-5"))["optimizer"] is None

    set_random_seed(1)
    other = build_trainer(cfg)
    assert not torch.equal(weights(other), weights(trainer))
    other.load_model(cfg.OUTPUT_DIR, epoch=5)
    assert torch.equal(weights(other), weights(trainer)) and other.test() == 100.0
    for load_model in (other.load_model, super(Toy, other).load_model):
        with pytest.raises(FileNotFoundError, match="prompt_learner/model.pth.tar-9"):
            load_model(cfg.OUTPUT_DIR, epoch=9)
        with pytest.raises(FileNotFoundError, match="prompt_learner/model-best.pth.tar"):
            load_model(cfg.OUTPUT_DIR)


def test_context_goes_from_base_to_new_classes(cfg):
    cfg.DATASET.SUBSAMPLE_CLASSES = "base"
    base = build_trainer(cfg)
    base.save_model(0, cfg.OUTPUT_DIR)
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    new = build_trainer(cfg)
    assert new.dm.dataset.classnames == ["grey 220"] and new.dm.num_classes == new.num_classes == 1
    tokens = new.model.prompt_learner.token_prefix.clone()
    new.load_model(cfg.OUTPUT_DIR, epoch=1)
    assert torch.equal(new.model.prompt_learner.ctx, base.model.prompt_learner.ctx)
    assert torch.equal(new.model.prompt_learner.token_prefix, tokens)

    cfg.MODEL.INIT_WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "prompt_learner", "model.pth.tar-1")
    started = build_trainer(cfg)  # takes the context, whose shape fits, and leaves the tokens
    assert torch.equal(started.model.prompt_learner.ctx, base.model.prompt_learner.ctx)
    with pytest.raises(RuntimeError, match="token_prefix"):
        super(Toy, new).load_model(cfg.OUTPUT_DIR, epoch=1)


def test_shared_optimizer_is_stepped_once_a_name(cfg):
    trainer = build_trainer(cfg)
    trainer.before_train()
    bias = trainer.model.adapter.bias
    w, g = bias.detach().clone(), torch.ones(len(bias))
    lr, momentum, decay = trainer.get_current_lr(), cfg.OPTIM.MOMENTUM, cfg.OPTIM.WEIGHT_DECAY
    trainer.model_backward_and_update(bias.sum())
    velocity = g + decay * w
    w = w - lr * velocity
    w = w - lr * (momentum * velocity + g + decay * w)
    torch.testing.assert_close(bias.detach(), w)
    trainer.update_lr()  # ends the warm-up, then steps the cosine once
    assert trainer.get_current_lr() == pytest.approx(0.1 * (1 + np.cos(np.pi / 5)) / 2, rel=1e-12)
    assert trainer.get_current_lr("adapter") == trainer.get_current_lr()
    trainer.model_zero_grad()
    assert not any(p.grad is not None and p.grad.any() for p in trainer.model.parameters())
    trainer.close_writer()


@pytest.mark.parametrize("final_model", ["last_step", "best_val"])
def test_interrupted_training_resumes_bit_exactly(cfg, final_model, tmp_path, monkeypatch):
    cfg.TEST.FINAL_MODEL = final_model
    results = []
    for name, stops in (("straight", [None]), ("interrupted", [1, 3, None])):
        cfg.OUTPUT_DIR = str(tmp_path / name)
        for seed, stop in enumerate(stops):
            set_random_seed(seed)  # only the first counts: resuming restores the generators too
            trainer = build_trainer(cfg)
            monkeypatch.setattr(Toy, "stop_at", stop)
            if stop is None:
                trainer.train()
            else:
                with pytest.raises(KeyboardInterrupt):
                    trainer.train()
                trainer.close_writer()
        results.append((weights(trainer), trainer.optim.state_dict(), trainer.best_result))
    (w1, optim1, best1), (w2, optim2, best2) = results
    assert torch.equal(w1, w2) and best1 == best2
    assert optim1["param_groups"] == optim2["param_groups"]
    for key, state in optim1["state"].items():
        assert torch.equal(state["momentum_buffer"], optim2["state"][key]["momentum_buffer"])


def test_best_model_is_deployed_also_after_resuming(cfg, monkeypatch):
    cfg.TEST.FINAL_MODEL = "best_val"
    values, tested = iter([50.0, 90.0, 70.0]), []

    def test(self, split=None):
        tested.append((split, weights(self)))
        return next(values, 60.0)

    monkeypatch.setattr(Toy, "test", test)
    monkeypatch.setattr(Toy, "stop_at", 3)
    with pytest.raises(KeyboardInterrupt):
        build_trainer(cfg).train()
    monkeypatch.setattr(Toy, "stop_at", None)
    second = build_trainer(cfg)
    second.train()
    best = load_checkpoint(os.path.join(cfg.OUTPUT_DIR, "adapter", "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"], second.best_result) == (2, 90.0, 90.0)
    assert [split for split, _ in tested] == ["val"] * 5 + [None]
    assert torch.equal(tested[-1][1], tested[1][1])  # tested at the end is what scored 90
    assert not torch.equal(tested[-1][1], tested[-2][1])


def test_resuming_from_another_folder(cfg, tmp_path, capsys):
    cfg.OPTIM.MAX_EPOCH = 2
    first = build_trainer(cfg)
    first.train()
    cfg.merge_from_list(["RESUME", cfg.OUTPUT_DIR, "OUTPUT_DIR", str(tmp_path / "more"), "OPTIM.MAX_EPOCH", 3])
    capsys.readouterr()
    second = build_trainer(cfg)
    second.train()
    assert second.start_epoch == 2 and "epoch [3/3]" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "more" / "adapter")) == ["checkpoint", "model.pth.tar-3"]


def test_resume_refuses_parts_of_different_epochs(cfg):
    trainer = build_trainer(cfg)
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 0
    trainer.save_model(0, cfg.OUTPUT_DIR)
    trainer.save_model(1, cfg.OUTPUT_DIR)
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 2
    Path(cfg.OUTPUT_DIR, "adapter", "checkpoint").write_text("model.pth.tar-1\n")
    with pytest.raises(ValueError, match="different epochs"):
        trainer.resume_model_if_exist(cfg.OUTPUT_DIR)
    with pytest.raises(ValueError, match="no optimizer state"):
        resume_from_checkpoint(os.path.join(cfg.OUTPUT_DIR, "text_encoder"), trainer.model.text_encoder, trainer.optim)


def test_trainer_errors(cfg, monkeypatch):
    trainer = build_trainer(cfg)
    with pytest.raises(FloatingPointError):
        trainer.model_backward(torch.tensor(float("nan"), requires_grad=True))
    monkeypatch.setattr(Toy, "forward_backward", lambda self, batch: {"loss": float("inf")})
    with pytest.raises(FloatingPointError):  # also of a trainer that calls backward() itself
        trainer.run_epoch()
    with pytest.raises(ValueError, match="already registered"):
        trainer.register_model("adapter", trainer.model.adapter)
    with pytest.raises(ValueError, match="choose from"):
        trainer.update_lr("tail")
    trainer.set_model_mode("train")
    trainer.set_model_mode("eval", "adapter")
    assert trainer.model.prompt_learner.training and not trainer.model.adapter.training
    trainer.val_loader = None
    with pytest.raises(ValueError, match="no validation images"):
        trainer.test("val")
    for trainer_class in (SimpleTrainer, TrainerX):
        with pytest.raises(NotImplementedError, match=f"{trainer_class.__name__} must implement build_model"):
            trainer_class(cfg)
    cfg.TRAINER.TOY.PREC = "fp8"
    with pytest.raises(AssertionError):
        build_trainer(cfg)
    cfg.TRAINER.NAME = "Toi"
    with pytest.raises(ValueError, match="did you mean Toy[?]"):
        build_trainer(cfg)


def test_upstreams_batches_have_a_domain(cfg):
    trainer = build_trainer(cfg)
    image, label, domain = TrainerX.parse_batch_train(trainer, next(iter(trainer.train_loader_x)))
    assert image.shape == (6, 3, 8, 8) and label.shape == (6,) and domain.tolist() == [0] * 6
