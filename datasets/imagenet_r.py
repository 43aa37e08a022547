"""ImageNet-R (Hendrycks et al., ICCV 2021): art, cartoons, toys and other renditions of 200 ImageNet classes."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import CLASS_NAMES, ImageNetSubset
from .sources import Source


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    image_count = (30000,)
    sources = (Source("https://github.com/hendrycks/imagenet-r", folders=(image_dir,),
                      url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                      checksum="sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52"),
               CLASS_NAMES)
