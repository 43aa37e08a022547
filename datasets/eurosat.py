"""EuroSAT (Helber et al., JSTARS 2019): land use and land cover in 64x64 RGB patches of Sentinel-2 images."""

from dassl.data.datasets import DATASET_REGISTRY

from .class_folders import ClassFolders
from .sources import Source


@DATASET_REGISTRY.register()
class EuroSAT(ClassFolders):
    dataset_dir = "eurosat"
    image_dir = "2750"
    sources = (Source("https://github.com/phelber/eurosat", folders=(image_dir,),
                      url="https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                          "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                      checksum="md5:c8fa014336c82ac7804f0398fcb19387"),)
    split_zhou = True
    class_count = 10
    image_count = (27000,)
    images_per_class = (2000, 3000)
    task_name = "satellite land use recognition"
    template = "a centered satellite photo of {}."
    renames = {
        "AnnualCrop": "Annual Crop Land",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "SeaLake": "Sea or Lake",
    }
