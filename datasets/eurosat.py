"""EuroSAT (Helber et al., JSTARS 2019): land use and land cover in 64x64 RGB patches of Sentinel-2 images."""

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset


@DATASET_REGISTRY.register()
class EuroSAT(SingleTaskDataset):
    dataset_dir = "eurosat"
    image_dir = "2750"
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
