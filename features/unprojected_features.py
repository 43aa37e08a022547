"""Unprojected image features: those that a frozen image tower maps, in the end, into the space of the texts."""

import torch
from torch import nn

from common.errors import UserError

from .local_features import attention_pool, last_of


class UnprojectedImageEncoder(nn.Module):
    """A frozen image tower that gives its features before the projection into the space of the texts.

    Args:
        visual: image tower of a `clip` model; the projection is taken from it.
        name: of the model, for the error message.

    Attributes:
        projection: (width, dim), and bias: (dim,), which is added after it; both float32.

    Raises:
        UserError: the tower is neither a ResNet of CLIP nor a vision transformer with a projection.
    """

    kind = "unprojected"

    def __init__(self, visual, name="this backbone"):
        from open_clip.modified_resnet import ModifiedResNet  # open_clip is slow to import
        from open_clip.transformer import VisionTransformer

        super().__init__()
        self.visual, self.is_resnet = visual, isinstance(visual, ModifiedResNet)
        if self.is_resnet:
            last, visual.attnpool.c_proj = visual.attnpool.c_proj, nn.Identity()
            self.projection, self.bias = last.weight.detach().t().float(), last.bias.detach().float()
        elif isinstance(visual, VisionTransformer) and visual.proj is not None:
            self.projection, visual.proj = visual.proj.detach().float(), None
            self.bias = torch.zeros(self.projection.shape[1])
        else:
            raise UserError(f"{name} has no projection of image features that is known here: its image tower is "
                            f"{type(visual).__name__}, but must be a ResNet of CLIP or a vision transformer with one")

    def forward(self, images):
        """Images (B, 3, H, W) -> features (B, width), in the tower's dtype."""
        if self.is_resnet:
            return attention_pool(self.visual.attnpool, last_of(self.visual, images))[:, 0]
        return self.visual(images)
