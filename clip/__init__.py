"""CLIP with OpenAI's interface (github.com/openai/CLIP); towers, weights, tokenizer are open_clip's."""

from .clip import _MODELS, _download, available_models, build_model, load, tokenize

__all__ = ["_MODELS", "_download", "available_models", "build_model", "load", "tokenize"]
