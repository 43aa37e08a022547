"""CLIP's byte-pair tokenizer under the module name that CoOp-family code imports."""

from open_clip.tokenizer import SimpleTokenizer

__all__ = ["SimpleTokenizer"]
