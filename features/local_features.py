"""Local image features: what the frozen image tower makes of each position of its last map, comparable with texts."""

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import UserError


class LocalImageEncoder(nn.Module):
    """A frozen image tower that gives the features of all positions instead of the image's one.

    - ResNets of CLIP: what the attention pool makes at every position of the map, which asks there as the mean does
      for the whole image (Chen et al., ICLR 2023).
    - Vision transformers: the patch tokens, after the last norm and the projection.
    - timm's convolutional towers: every position of the map, through the tower's own head as a map of one position.

    The token that stands for the whole image is not among them.

    Args:
        visual: image tower of a `clip` model.
        name: of the model, for the error message.

    Raises:
        UserError: the tower is another one, or its pooling leaves no features of positions.
    """

    kind = "local"  # tells these features from a tower's own, where they are kept

    def __init__(self, visual, name="this backbone"):
        from open_clip.modified_resnet import ModifiedResNet  # open_clip is slow to import
        from open_clip.timm_model import TimmModel
        from open_clip.transformer import VisionTransformer

        super().__init__()
        self.visual = visual
        self.is_resnet, self.is_transformer = (isinstance(visual, cls) for cls in (ModifiedResNet, VisionTransformer))
        kind = type(visual).__name__
        if isinstance(visual, TimmModel):
            kind = f"timm's {type(visual.trunk).__name__}"
            probe = torch.zeros(1, 3, *visual.image_size)
            with torch.no_grad():
                shape = visual.trunk.forward_features(probe).shape
            usable = len(shape) == 4 and shape[1] == visual.trunk.num_features and not hasattr(visual.head, "pool")
        else:
            usable = self.is_resnet or self.is_transformer and visual.attn_pool is None
        if not usable:
            raise UserError(f"{name} has no local image features that are known here: its image tower is {kind}, but "
                             "must be a ResNet of CLIP, a vision transformer without attentional pooling, or one of "
                             "timm's convolutional towers with average pooling")

    def forward(self, images):
        """Images (B, 3, H, W) -> features (B, positions, dim), not normalised, in the tower's dtype."""
        visual = self.visual
        if self.is_resnet:
            return attention_pool(visual.attnpool, last_of(visual, images))[:, 1:]
        if self.is_transformer:
            return last_of(visual, images, normalize_intermediates=True, output_fmt="NLC") @ visual.proj
        places = visual.trunk.forward_features(images)  # (B, width, h, w)
        maps = places.flatten(2).transpose(1, 2).flatten(0, 1)[..., None, None]  # (B * h * w, width, 1, 1)
        return visual.head(visual.trunk.forward_head(maps)).unflatten(0, (len(images), -1))


def last_of(visual, images, **options):
    """Output of the tower's last stage, before it is pooled."""
    return visual.forward_intermediates(images, indices=1, intermediates_only=True, **options)["image_intermediates"][0]


def attention_pool(pool, maps):
    """CLIP's attention pool, at all positions.

    Args:
        pool: open_clip's `AttentionPool2d`.
        maps: (B, width, h, w).

    Returns:
        (B, 1 + h * w, dim): first the image's own feature, the only one that `pool` returns.
    """
    x = maps.flatten(2).transpose(1, 2)  # (B, h * w, width)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
    x = x + pool.positional_embedding.to(x.dtype)
    query, key, value = (proj(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)  # (B, heads, 1 + h * w, d)
                         for proj in (pool.q_proj, pool.k_proj, pool.v_proj))
    return pool.c_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
