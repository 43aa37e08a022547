"""Made-up run folders with known numbers, and their tables."""

import json

import parse_test_res

TASKS = ("pets", "cars")
ORDERS = {"ZS-CLIP": 10, "ZS-CLIP (ensemble)": 20, "LP-CLIP": 40, "CoOp-CA": 50, "CoOp-MT": 70, "ProGrad": 80,
          "KgCoOp": 90, "SoftCPT-NATS": 105, "SoftCPT-NATA": 110}


def write_run(folder, accuracies, label="SoftCPT-NATA", shots=1, seed=1, dataset="Mine", backbone="RN50", classes="all",
              which_tasks="all", tasks=TASKS, n_params=1000, model="", seconds=120.0, finished=True, **identity):
    """Write a run folder as `train.py` leaves it: log and, if finished, results.json; return it.

    Args:
        identity: settings, digests ("data.test", "weights") and precision that are not the usual ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mean = sum(accuracies) / len(accuracies)
    lines = ["Finished training", "=> result", f"* total: {100 * len(tasks)}", f"* overall_metric: {mean:.2f}%",
             "=> per-task result"]
    lines += [f"* task: {i} ({task})\ttotal: 100\tmetric: {x:.2f}%"
              for i, (task, x) in enumerate(zip(tasks, accuracies))]
    lines += [f"* average: {mean:.2f}%"]
    (folder / "log.txt").write_text("\n".join(lines if finished else ["epoch [1/2]"]) + "\n")
    if finished:
        zero_shot = label.startswith("ZS")
        learned = "" if zero_shot else f"model of {label} {shots} {seed}"
        known = {} if zero_shot else {"DATASET.NUM_SHOTS": shots, "SEED": seed, "TRAINER.MTCOOP.N_CTX": 16}
        known |= {"DATASET.NAME": dataset, "DATASET.SUBSAMPLE_CLASSES": classes, "precision": "fp16",
                  "DATASET.SUBSAMPLE_TASKS": which_tasks, "data.tasks": f"{which_tasks} {classes}",
                  "data.train": f"{shots} {seed}", "data.test": f"{which_tasks} {classes} test",
                  "weights": "0123abcdef", "TEST.SPLIT": "test", "model": model and learned}
        (folder / "results.json").write_text(json.dumps({
            "label": label, "order": ORDERS[label], "identity": known | identity, "dataset": dataset,
            "backbone": backbone, "overall_metric": mean,
            "tasks": [{"name": name, "total": 100, "metric": x} for name, x in zip(tasks, accuracies)],
            "n_params": 0 if zero_shot else n_params, "model_dir": model, "learned": learned,
            "train_seconds": 0 if zero_shot else seconds}))
    return folder


def write_seeds(folder, values, **run):
    """Runs seed1, seed2 ... whose two tasks are 5 above and below each of `values`."""
    for seed, value in enumerate(values, 1):
        write_run(folder / f"seed{seed}", (value + 5, value - 5), seed=seed, **run)


def change(folder, *keys, to=None):
    """Set the value that `keys` lead to, one after the other, in a run's results.json; None takes it away."""
    path = folder / "results.json"
    written = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    if to is None:
        del node[keys[-1]]
    else:
        node[keys[-1]] = to
    path.write_text(json.dumps(written))


def out(capsys, *arguments):
    """What `parse_test_res.py` prints."""
    parse_test_res.main([str(a) for a in arguments])
    return capsys.readouterr()


def cells(text):
    """{first column: other columns} of a github table."""
    rows = [[x.strip() for x in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows if not row[0].startswith(("-", ":"))}
