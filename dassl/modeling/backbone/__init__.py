from .build import BACKBONE_REGISTRY, build_backbone
from .backbone import Backbone
from . import torchvision_models
