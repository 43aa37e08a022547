"""RS8: eight remote sensing scene datasets; 208 classes.

The published results name the suite, 8 tasks and 208 classes, but not its members. The eight here are our choice: they
are public, well known, and have 208 classes together. EuroSAT is also a member of General-10.
"""

import os.path as osp
import re

from dassl.data.datasets import DATASET_REGISTRY

from .base import Suite
from .class_folders import ClassFolders
from .files import find_class_folders, list_folders
from .general10 import EuroSAT
from .sources import Source


class SceneFolders(ClassFolders):
    """Scenes seen from above, a folder a class; the folders' names are turned into words."""

    template = EuroSAT.template

    @classmethod
    def class_name(cls, name):
        return cls.renames.get(name, words_of(name))


def words_of(name):
    """A folder's name as words: "BareLand" and "storage_tank" are "bare land" and "storage tank"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).lower()


@DATASET_REGISTRY.register()
class AID(SceneFolders):
    """Aerial Image Dataset (Xia et al., TGRS 2017): 600x600 Google Earth images."""

    dataset_dir = "aid"
    image_dir = "AID"
    sources = (Source("https://captain-whu.github.io/AID/", folders=(image_dir,),
                      note="the whole dataset, its 30 class folders Airport ... Viaduct"),)
    class_count = 30
    image_count = (10000,)
    images_per_class = (220, 420)
    task_name = "aerial scene recognition"


@DATASET_REGISTRY.register()
class RESISC45(SceneFolders):
    """NWPU-RESISC45 (Cheng et al., Proceedings of the IEEE 2017): 256x256 Google Earth images, 700 a class."""

    dataset_dir = "nwpu-resisc45"
    image_dir = "NWPU-RESISC45"
    sources = (Source("https://huggingface.co/datasets/isaaccorley/resisc45", folders=(image_dir,),
                      url="https://hf.co/datasets/isaaccorley/resisc45/resolve/"
                          "883edc0eee77b2c84225472f10f126e3ed83fa6e/NWPU-RESISC45.zip",
                      checksum="md5:75206b2e16446591afa88e2628744886"),)
    class_count = 45
    image_count = (31500,)
    images_per_class = (700, 700)
    task_name = "remote sensing scene recognition"


@DATASET_REGISTRY.register()
class OPTIMAL31(SceneFolders):
    """OPTIMAL-31 (Wang et al., TGRS 2019): 256x256 Google Earth images, 60 a class."""

    dataset_dir = "optimal-31"
    image_dir = "Images"
    sources = (Source("the authors of OPTIMAL-31 (Wang et al., TGRS 2019)", folders=(image_dir,),
                      note="the folder Images with its folders airplane ... runway; it has no lasting address"),)
    class_count = 31
    image_count = (1860,)
    images_per_class = (60, 60)
    task_name = "high resolution remote sensing scene recognition"


@DATASET_REGISTRY.register()
class RSICB128(SceneFolders):
    """RSI-CB128 (Li et al., Sensors 2020): 128x128 images of places that OpenStreetMap's users have marked.

    Its folders are `<super-class>/<class>`. The order of labels is that of the class folders' names: by super-class,
    base and new classes would be of different kinds.
    """

    dataset_dir = "rsi-cb128"
    image_dir = "RSI-CB128"
    sources = (Source("https://github.com/lehaifeng/RSI-CB", folders=(image_dir,),
                      note="RSI-CB128 with its six folders of super-classes"),)
    class_count = 45
    image_count = (36707,)
    task_name = "remote sensing land cover and facility recognition"
    renames = {"parkinglot": "parking lot", "sandbeach": "sand beach"}

    @classmethod
    def find_classes(cls, images):
        nested = [osp.join(group, name) for group in find_class_folders(images)
                  for name in list_folders(osp.join(images, group))]
        return sorted(nested, key=osp.basename)

    @classmethod
    def class_name(cls, name):
        return super().class_name(osp.basename(name))


@DATASET_REGISTRY.register()
class RSSCN7(SceneFolders):
    """RSSCN7 (Zou et al., GRSL 2015): 400x400 Google Earth images of typical regions in four scales and all seasons."""

    dataset_dir = "rsscn7"
    image_dir = "RSSCN7"
    sources = (Source("https://github.com/palewithout/RSSCN7", folders=(image_dir,),
                      note="the folders aGrass ... gParking"),)
    class_count = 7
    image_count = (2800,)
    images_per_class = (400, 400)
    task_name = "landscape recognition from above"
    renames = {  # what the paper calls the regions; the folders have a letter in front and leave words out
        "aGrass": "grass land", "bField": "farm land", "cIndustry": "industrial area", "dRiverLake": "river or lake",
        "eForest": "forest", "fResident": "residential area", "gParking": "parking lot",
    }


@DATASET_REGISTRY.register()
class UCMerced(SceneFolders):
    """UC Merced Land Use (Yang and Newsam, SIGSPATIAL 2010): 256x256 aerial images of towns in the USA, 100 a class."""

    dataset_dir = "uc-merced"
    image_dir = "UCMerced_LandUse/Images"
    sources = (Source("http://weegee.vision.ucmerced.edu/datasets/landuse.html", folders=(image_dir,),
                      url="https://hf.co/datasets/torchgeo/ucmerced/resolve/"
                          "7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/UCMerced_LandUse.zip",
                      checksum="md5:5b7ec56793786b6dc8a908e8854ac0e4"),)
    class_count = 21
    image_count = (2100,)
    images_per_class = (100, 100)
    task_name = "urban land use recognition"
    renames = {  # this dataset writes two words as one
        "baseballdiamond": "baseball diamond", "denseresidential": "dense residential", "golfcourse": "golf course",
        "mediumresidential": "medium residential", "mobilehomepark": "mobile home park", "parkinglot": "parking lot",
        "sparseresidential": "sparse residential", "storagetanks": "storage tanks", "tenniscourt": "tennis court",
    }


@DATASET_REGISTRY.register()
class WHURS19(SceneFolders):
    """WHU-RS19 (Xia et al., ISPRS 2010; Dai and Yang, GRSL 2011): 600x600 Google Earth images, about 50 a class."""

    dataset_dir = "whu-rs19"
    image_dir = "WHU-RS19"
    sources = (Source("https://captain-whu.github.io/BED4RS/", folders=(image_dir,),
                      note="WHU-RS19, its 19 class folders Airport ... Viaduct"),)
    class_count = 19
    image_count = (1005, 1013)  # two editions
    task_name = "high resolution satellite scene recognition"


@DATASET_REGISTRY.register()
class RS8(Suite):
    members = (AID, EuroSAT, RESISC45, OPTIMAL31, RSICB128, RSSCN7, UCMerced, WHURS19)
