from torch import nn


class Backbone(nn.Module):
    """A module from images to features; subclasses set ``_out_features``, the features' length."""

    @property
    def out_features(self):
        return self._out_features
