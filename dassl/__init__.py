"""The Dassl toolbox API (KaiyangZhou/Dassl.pytorch) that CoOp-family code is written for, on current PyTorch."""

__version__ = "0.6.3"
