from .trainer import TRAINER_REGISTRY, SimpleTrainer, TrainerX, build_trainer
