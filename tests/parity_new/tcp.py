"""TCP. The stored template has placeholders where ours has words; the teacher's is the same with "a photo of a"."""

from ._towers import batches, build
from ._training import optim, train


def check(case):
    hyper = case.hyper
    trainer = build(case, "TCP", case.about["teacher_template"], **optim(case), N_CTX=hyper["N_CTX"],
                    CTX_INIT=hyper["CTX_INIT"], LAYER=hyper["layer"], W=hyper["distance_weight"])
    learner = trainer.model.prompt_learner
    learned = {"ctx": learner.learners[0].ctx, **{f"meta_net.{name}": value for name, value
                                                  in learner.meta_nets[0].named_parameters()}}
    return (case.errors({"teacher_text": trainer.model.zero_shot_features})
            | train(case, trainer, learned, batches(case, trainer, hyper["epochs"], hyper["batches"])))
