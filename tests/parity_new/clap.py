"""ZS-LP and CLAP; of the other probes of their repository those that our trainers compute."""

from ._training import optim, ordered, train

MULTIPLIERS = {"l2": "class", "l2-constant": "constant", "l2-balanced": "balanced", "l2-corrected": "corrected",
               "l2-adaptative": "adaptive"}


def check(case):
    kind, batch, orders = case.hyper["INIT"], case.hyper["batch"], case["in/orders"]
    options = {**optim(case), "DATALOADER.VIEWS": case.hyper["views"], "DATALOADER.TRAIN_X.BATCH_SIZE": batch}
    probe = case.trainer("ZSLP", **options)
    epochs = ordered(probe.make_train_loader(), orders)
    if kind == "TR":
        trainer = case.trainer("TaskRes", **optim(case))
        return train(case, trainer, {"prototypes": trainer.model.classifier.weight}, epochs)
    if kind == "ClipA":
        trainer = case.trainer("CLIPAdapter", **optim(case))
        adapter = trainer.model.adapter
        return train(case, trainer, {"mlp.0.weight": adapter.down, "mlp.2.weight": adapter.up}, epochs)
    if kind == "TipA-f-":
        trainer = case.trainer("TipAdapterFixed", **options)
        trainer.prepare()
        cache, epochs = trainer.model.cache, ordered(trainer.make_train_loader(), orders)
        errors = case.errors({"init/cache_keys": cache.keys.detach().clone()})
        return errors | train(case, trainer, {"cache_keys": cache.keys}, epochs)
    if kind == "CrossModal":  # the probe, on samples that are images and texts
        features, labels, n = case["train_features"], case["train_labels"], len(case["in/labels"]) // batch
        epochs = [[(features[index], labels[index]) for index in draws[order].split(batch)[:n]]
                  for draws, order in zip(case["in/epoch_draws"], orders)]
    if case.hyper["CONSTRAINT"] == "none":
        trainer = probe
    else:
        trainer = case.trainer("CLAP", **options, MULTIPLIERS=MULTIPLIERS[case.hyper["CONSTRAINT"]])
    trainer.prepare()
    learned, multipliers = trainer.model.classifier, []
    errors = {} if kind == "RANDOM" else case.errors({"init/prototypes": learned.weight})

    def noted():
        for epoch in epochs:
            multipliers.append(learned.multipliers)
            yield epoch

    errors |= train(case, trainer, {"prototypes": learned.weight}, noted())
    if "multipliers" in case.stored:
        multipliers = [*multipliers, learned.multipliers][:len(case["multipliers"])]
        errors |= case.errors({"multipliers": [value.tolist() for value in multipliers]})
    return errors
