"""torchvision's classifiers without their last layer."""

from torch import nn
from torchvision import models

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "alexnet", "vgg16", "mobilenet_v2"]
NAMES += [f"efficientnet_b{i}" for i in range(8)]


class TorchvisionBackbone(Backbone):
    """(batch, 3, H, W) images -> (batch, out_features), by the torchvision model ``name``."""

    def __init__(self, name, pretrained):
        super().__init__()
        weights = models.get_model_weights(name).IMAGENET1K_V1 if pretrained else None
        self.model = models.get_model(name, weights=weights)
        head = "fc" if name.startswith("resnet") else "classifier"
        layers = getattr(self.model, head)
        layers = list(layers) if isinstance(layers, nn.Sequential) else [layers]
        # Keep the classifier up to its last hidden linear layer, if it has one.
        *hidden, last = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        self._out_features = layers[last].in_features
        setattr(self.model, head, nn.Sequential(*layers[: hidden[-1] + 1]) if hidden else nn.Identity())

    def forward(self, x):
        return self.model(x)


def _register(name):
    def build(pretrained=True, **kwargs):
        return TorchvisionBackbone(name, pretrained)

    build.__name__ = name
    BACKBONE_REGISTRY.register(build)


for _name in NAMES:
    _register(_name)
