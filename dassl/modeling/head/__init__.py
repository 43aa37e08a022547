from .build import HEAD_REGISTRY, build_head
from .mlp import mlp
