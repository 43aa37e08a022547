from .defaults import _C as _defaults


def get_cfg_default():
    """Return a fresh, mutable copy of the default configuration (a yacs ``CfgNode``)."""
    return _defaults.clone()


def clean_cfg(cfg, trainer):
    """Drop from ``cfg.TRAINER`` the options of all trainers but ``trainer``, to print less."""
    for key in list(cfg.TRAINER.keys()):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
