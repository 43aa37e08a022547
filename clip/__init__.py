"""CLIP with OpenAI's interface (github.com/openai/CLIP); towers, weights and tokenizer come from open_clip."""

from .clip import _MODELS, _download, available_models, build_model, load, tokenize

__all__ = ["_MODELS", "_download", "available_models", "build_model", "load", "tokenize"]
