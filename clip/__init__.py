"""CLIP with OpenAI's interface (github.com/openai/CLIP); towers, weights, tokenizer are open_clip's."""

from .clip import _MODELS, _download, available_models, build_model, load, tokenize
from .files import ClipError

__all__ = ["ClipError", "_MODELS", "_download", "available_models", "build_model", "load", "tokenize"]
