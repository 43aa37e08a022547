"""Config keys: each is declared once, and every wrong value is refused with the key, the value and where it was set."""

import sys
from types import SimpleNamespace

import pytest
import yaml

import train
from common.errors import UserError
from runs.commands import calls_of_rows, check_numbers
from runs.config import build_parser, make_cfg, setup_cfg
from runs.identity import reads
from runs.keys import all_keys, markdown
from runs.methods import ROWS, TRAINERS
from runs.paper import ACCURACY
from tests.helpers import REPOSITORY

KEYS = all_keys()


NO_NUMBERS = ["a lot", [1], True, float("nan"), float("inf")]
WRONG = {  # a key of every type: values that it does not accept, beside None
    "USE_CUDA": ["yes", 2, 0.5],
    "OUTPUT_DIR": [3, ["a"], ""],
    "OPTIM.NAME": [3, ["sgd"], "no such choice"],
    "MODEL.BACKBONE.QUICK_GELU": [3, ["auto"], "no such choice"],
    "VERSION": [*NO_NUMBERS, 1.5],
    "INPUT.CROP_PADDING": [*NO_NUMBERS, 1.5, -1],
    "INPUT.GB_K": [*NO_NUMBERS, 1.5, 0],
    "INPUT.RANDAUGMENT_M": [*NO_NUMBERS, 1.5, -1, 31],
    "INPUT.GN_MEAN": NO_NUMBERS,
    "INPUT.GN_STD": [*NO_NUMBERS, -0.1],
    "OPTIM.LR": [*NO_NUMBERS, 0, -1],
    "INPUT.RGS_P": [*NO_NUMBERS, -0.1, 1.1],
    "OPTIM.ADAM_BETA1": [*NO_NUMBERS, -0.1, 1],
    "INPUT.SIZE": [3, ({},), (1,), (1, 1, 1), (0, 1), (1.5, 1)],
    "INPUT.TRANSFORMS": [3, "normalize", ({},), (1,)],
    "OPTIM.STEPSIZE": [{}, 1.5, (1.5,), "a lot"],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_refused(key):
    for value in (None, *WRONG[key]):
        with pytest.raises(UserError) as error:
            make_cfg([(key, value, "in a.yaml:7")])
        message = str(error.value)
        assert message.startswith(key) and "(set in a.yaml:7)" in message and "\n" not in message
        assert "has no value" in message if value is None else repr(value) in message and "must" in message


def test_defaults_are_accepted_and_described():
    for key, declared in KEYS.items():
        assert declared.check(declared.default) == declared.default, key
        assert declared.meaning and declared.describe(), key


def test_docs_are_the_declarations():
    text = (REPOSITORY / "docs" / "keys.md").read_text()
    assert markdown() in text, "python -m trainers --keys prints the table of docs/keys.md"


def settings(tmp_path, text, *opts, flags=()):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return setup_cfg(build_parser().parse_args(["--config-file", str(path), *flags, *map(str, opts)]))


@pytest.mark.parametrize("text, opts, message", [
    ("TEST:\n  FINAL_MODEL: best\n", (),
     "TEST.FINAL_MODEL is 'best' (set in {}:2), but must be 'last_step' or 'best_val'"),
    ("OPTIM:\n  LR: fast\n", (), "OPTIM.LR is 'fast' (set in {}:2), but must be a number"),
    ("OPTIM:\n  LR:\n", (), "OPTIM.LR has no value (set in {}:2)"),
    ("OPTIM:\n  LRR: 1\n", (), "there is no config key OPTIM.LRR (set in {}:2): did you mean OPTIM.LR?"),
    ("OPTIM:\n  LR: 1\n  LR: 2\n", (), "{}:3 sets OPTIM.LR again, line 2 did before"),
    ("- 1\n", (), "{}:1 must hold keys and values"),
    ("OPTIM: {{LR: 1\n", (), "{} is not valid YAML"),
    ("OPTIM: &it\n  LR: *it\n", (), "{} is not valid YAML"),  # it refers to itself
    ("OPTIM: 3\n", (), "there is no config key OPTIM (set in {}:1)"),
    ("", ("OPTIM.LR", "-1"), "OPTIM.LR is -1 (set on the command line), but must be greater than 0"),
    ("", ("OPTIM.LR", "None"), "OPTIM.LR has no value (set on the command line)"),
    ("", ("OPTIM.LR",), "must be KEY VALUE pairs, but OPTIM.LR has no value"),
    ("", ("SEED", "1", "--root", "data"), "--root stands after the KEY VALUE pairs, but flags stand before them: put "
     "it in front of SEED"),
    ("", ("SEED", "1", "--eval-only"), "--eval-only stands after the KEY VALUE pairs"),
    ("", ("SEED", "1", "--root=data", "OPTIM.LR", "1"), "--root=data stands after the KEY VALUE pairs"),
    ("_BASE_: nowhere.yaml\n", (), "nowhere.yaml does not exist"),
])
def test_refusals_name_the_place(text, opts, message, tmp_path):
    with pytest.raises(UserError) as error:
        settings(tmp_path, text.replace("{{", "{"), *opts)
    assert message.replace("{}", str(tmp_path / "a.yaml")) in str(error.value) and "\n" not in str(error.value)


def test_a_superscript_is_no_number(tmp_path, capsys):
    """`"²".isdigit()` is true, but it can't be read as a number."""
    for flags in (["--load-epoch", "²"], ["--seed", "²"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args(flags)
        assert f"error: argument {flags[0]}: " in capsys.readouterr().err
    with pytest.raises(UserError, match="SHOTS has '²', but must be whole numbers"):
        check_numbers("SHOTS", ["²"])
    with pytest.raises(UserError, match="DATASET.NUM_SHOTS is '²' .*, but must be a whole number"):
        settings(tmp_path, "", "DATASET.NUM_SHOTS", "²")


def test_values_are_read_as_people_write_them(tmp_path):
    cfg = settings(tmp_path, "INPUT:\n  SIZE: (32, 32)\nOPTIM:\n  WARMUP_CONS_LR: 1e-5\n  STEP_PER_PART: 0\n  LR: 1\n",
                   "TRAINER.MTCOOPH.CTX_INIT", "2_words", "INPUT.TRANSFORMS", "['normalize']", "USE_CUDA", "1",
                   "OUTPUT_DIR", "007")
    assert cfg.INPUT.SIZE == (32, 32) and cfg.OPTIM.WARMUP_CONS_LR == 1e-5 and cfg.OPTIM.LR == 1.0
    assert cfg.OPTIM.STEP_PER_PART is False and cfg.USE_CUDA is True and cfg.INPUT.TRANSFORMS == ("normalize",)
    assert cfg.TRAINER.MTCOOPH.CTX_INIT == "2_words" and cfg.OUTPUT_DIR == "007"


def test_the_last_setting_counts_and_flags_beat_files(tmp_path):
    (tmp_path / "base.yaml").write_text("OPTIM:\n  LR: 1\n  GAMMA: 0.5\nSEED: 5\n")
    cfg = settings(tmp_path, "OPTIM:\n  LR: 2\n_BASE_: base.yaml\n", "OPTIM.MOMENTUM", "0.1", flags=["--seed", "0"])
    assert (cfg.OPTIM.LR, cfg.OPTIM.GAMMA, cfg.OPTIM.MOMENTUM, cfg.SEED) == (2, 0.5, 0.1, 0)
    assert cfg.sources["OPTIM.GAMMA"] == f"in {tmp_path}/base.yaml:3" and cfg.sources["SEED"] == "by --seed"


def test_files_of_python_are_not_executed(tmp_path, monkeypatch):
    path = tmp_path / "a.py"
    path.write_text("raise SystemExit('executed')\n")
    with pytest.raises(UserError, match="must be .yaml .files of Python are not executed"):
        setup_cfg(build_parser().parse_args(["--config-file", str(path)]))


@pytest.mark.parametrize("opts", [["OPTIM.LR", "-1"], ["TRAINER.MTCOOP.PG_TYPE", "lim"], ["TRAINER.NAME", "Nothing"],
                                  ["DATALOADER.K_TRANSFORMS", "2"], ["INPUT.NO_TRANSFORM", "True"],
                                  ["MODEL.INIT_WEIGHTS", "a.pth"], ["TRAINER.MTCOOP.PG_TYPE", "lincls"]])
def test_a_program_ends_with_one_sentence(opts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--trainer", "MTCoOp", "--output-dir", str(tmp_path / "run"), *opts])
    if opts[0] == "TRAINER.NAME":
        sys.argv[1:3] = []
    with pytest.raises(SystemExit) as stop:
        train.main()
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.startswith(f"error: {opts[0]} is ") and said.count("\n") == 1


def test_what_a_method_does_not_read_is_said(photo_root, backbone, tmp_path, capsys):
    from tests.helpers import call, train_args
    call(train_args(photo_root, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only",
                    **{"DATASET.SPLIT_DIR": tmp_path / "splits", "TRAINER.KGCOOP.W": 3}))
    printed = capsys.readouterr().out
    assert "TRAINER.KGCOOP.W is set on the command line, but ZeroshotCLIP does not read it here\n" in printed
    assert "OPTIM.LR is set on the command line, but" in printed and "INPUT.SIZE is set" not in printed


def test_a_method_reads_its_own_options_and_those_of_what_it_does():
    cfg = make_cfg({"TRAINER.PROTONET.DIM": 0})
    hard, proto, zero = (TRAINERS[name] for name in ("MTCoOpHard", "ProtoNet", "ZeroshotCLIP"))
    assert reads(cfg, hard, "TRAINER.MTCOOPH.N_CTX") and not reads(cfg, hard, "TRAINER.MTCOOP.N_CTX")
    assert reads(cfg, hard, "OPTIM.MOMENTUM") and not reads(cfg, hard, "TRAIN.COUNT")
    assert reads(cfg, hard, "SEED") and reads(cfg, proto, "SEED") and not reads(cfg, zero, "SEED")
    assert not reads(cfg, proto, "OPTIM.LR") and not reads(cfg, zero, "OPTIM.LR")
    assert all(reads(cfg, trainer, "INPUT.TRANSFORMS") for trainer in (hard, proto, zero))  # tests read "normalize"


def test_rows_of_the_tables():
    assert set(ACCURACY) <= set(ROWS) and len({row.order for row in ROWS.values()}) == len(ROWS)
    published = sorted(ACCURACY, key=lambda label: ROWS[label].order)
    settings = SimpleNamespace(root="data", output="output", shots=["1"], seeds=["1"], opts=[], methods=[])
    assert [label for label, _ in calls_of_rows(settings, "outfits16", "tiny_ep50")] == published


def test_no_yaml_file_stands_twice():
    contents = {}
    for path in sorted((REPOSITORY / "configs").rglob("*.yaml")):
        assert yaml.safe_load(path.read_text()), path
        assert path.read_bytes() not in contents, f"{path} is {contents.get(path.read_bytes())}"
        contents[path.read_bytes()] = path
