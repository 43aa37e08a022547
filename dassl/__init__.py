"""The Dassl toolbox API (KaiyangZhou/Dassl.pytorch) that CoOp-family code imports, on current PyTorch."""

__version__ = "0.6.3"
