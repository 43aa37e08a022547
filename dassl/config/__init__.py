from common.keys import build_cfg

from .defaults import KEYS


def get_cfg_default():
    """Return a fresh, mutable copy of the default configuration (a yacs ``CfgNode``)."""
    return build_cfg(KEYS)


def clean_cfg(cfg, trainer):
    """Drop from ``cfg.TRAINER`` the options of all trainers but ``trainer``, to print less."""
    for key in list(cfg.TRAINER.keys()):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
