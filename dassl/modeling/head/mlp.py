from torch import nn

from ...utils import check_availability
from .build import HEAD_REGISTRY

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


class MLP(nn.Module):
    """Linear, batch norm, activation and dropout for each of ``hidden_layers`` (a length or a list)."""

    def __init__(self, in_features, hidden_layers, activation="relu", bn=True, dropout=0.0):
        super().__init__()
        check_availability(activation, list(ACTIVATIONS))
        layers = []
        for width in [hidden_layers] if isinstance(hidden_layers, int) else hidden_layers:
            layers.append(nn.Linear(in_features, width))
            if bn:
                layers.append(nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[activation](inplace=True))
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.mlp = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x):
        return self.mlp(x)


@HEAD_REGISTRY.register()
def mlp(**kwargs):
    return MLP(**kwargs)
