"""ImageNet-A (Hendrycks et al., CVPR 2021): natural photos of 200 ImageNet classes that misled a ResNet-50."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import CLASS_NAMES, ImageNetSubset
from .sources import Source


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    image_count = (7500,)
    sources = (Source("https://github.com/hendrycks/natural-adv-examples", folders=(image_dir,),
                      url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                      checksum="sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e"),
               CLASS_NAMES)
