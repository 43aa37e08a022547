"""Plant-6: six tasks on fruits, vegetables, flowers, mushrooms, seedlings and leaves; 116 classes."""

from common.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import Suite
from .class_folders import ClassFolders
from .sources import Source


@DATASET_REGISTRY.register()
class FruitVegetable(ClassFolders):
    """Fruit and Vegetable Image Recognition (Kaggle, kritikseth); its three parts are put together and split anew."""

    dataset_dir = "fruit_vegetable"
    image_dir = "images"
    pooled = ("train", "test", "validation")
    sources = (Source("https://www.kaggle.com/datasets/kritikseth/fruit-and-vegetable-image-recognition",
                      folders=tuple(map("images/{}".format, pooled)), note="the folders train, test and validation"),)
    class_count = 36
    image_count = (3825,)
    task_name = "fruit and vegetable recognition"
    renames = {"jalepeno": "jalapeno", "raddish": "radish", "sweetcorn": "sweet corn", "sweetpotato": "sweet potato"}
    template = "a photo of a {}, a type of fruit or vegetable."


@DATASET_REGISTRY.register()
class KaggleFlower(ClassFolders):
    """Flowers Recognition (Kaggle, alxmamaev)."""

    dataset_dir = "kaggle_flower_recognition"
    image_dir = "flowers"
    sources = (Source("https://www.kaggle.com/datasets/alxmamaev/flowers-recognition", folders=(image_dir,),
                      note="the folder flowers with the folders daisy ... tulip"),)
    class_count = 5
    image_count = (4317, 4323)  # two editions
    task_name = "flower recognition"
    template = "a photo of a {}, a type of flower."


@DATASET_REGISTRY.register()
class KaggleMushroom(ClassFolders):
    """Mushrooms classification - Common genus's images (Kaggle, maysee): genera of mushrooms of Northern Europe."""

    dataset_dir = "kaggle_mushroom"
    image_dir = "Mushrooms"
    sources = (Source("https://www.kaggle.com/datasets/maysee/mushrooms-classification-common-genuss-images",
                      folders=(image_dir,), note="the folder Mushrooms with the folders Agaricus ... Suillus"),)
    class_count = 9
    image_count = (6714,)
    task_name = "mushroom genus recognition"
    template = "a photo of a {}, a type of mushroom."


@DATASET_REGISTRY.register()
class KaggleVegetable(ClassFolders):
    """Vegetable Image Dataset (Kaggle, misrakahmed); its three parts are put together and split anew."""

    dataset_dir = "kaggle_vegetable"
    image_dir = "images"
    pooled = ("train", "test", "validation")
    sources = (Source("https://www.kaggle.com/datasets/misrakahmed/vegetable-image-dataset",
                      folders=tuple(map("images/{}".format, pooled)), note="the folders train, test and validation"),)
    class_count = 15
    image_count = (21000,)
    images_per_class = (1400, 1400)
    task_name = "vegetable recognition"
    template = "a photo of a {}, a type of vegetable."


@DATASET_REGISTRY.register()
class PlantSeedlingV1(ClassFolders):
    """Plant Seedlings Dataset, version 1, not segmented (Giselsson et al., 2017): crops and weeds seen from above."""

    dataset_dir = "PlantSeedlingV1"
    image_dir = "Nonsegmented"
    sources = (Source("https://vision.eng.au.dk/plant-seedlings-dataset/", folders=(image_dir,),
                      note="version 1 of the dataset, the images that are not segmented, a folder for each species"),)
    class_count = 12
    task_name = "plant seedling species recognition"
    template = "a photo of a {}, a type of seedling."


@DATASET_REGISTRY.register()
class PlantVillage(ClassFolders):
    """PlantVillage without augmentation (Geetharamani and Pandian, 2019): leaves of 14 crops and their diseases."""

    dataset_dir = "PlantVillage"
    image_dir = "Plant_leave_diseases_dataset_without_augmentation"
    sources = (Source("https://data.mendeley.com/datasets/tywbtsjrjv/1", folders=(image_dir,),
                      url="https://data.mendeley.com/public-files/datasets/tywbtsjrjv/files/"
                          "d5652a28-c1d8-4b76-97f3-72fb80f94efc/file_downloaded",
                      archive="Plant_leaf_diseases_dataset_without_augmentation.zip",
                      checksum="sha256:ac3432453984d02a86197987e775a5429d0d59e7cc7c35bcf5a8f50349b90ff0"),)
    class_count = 39
    image_count = (55448,)
    task_name = "plant leaf disease recognition"
    template = "a photo of a plant leaf with {} disease."
    renames = {
        "Apple___Apple_scab": "apple leaf with scab disease",
        "Apple___Black_rot": "apple leaf with black rot",
        "Apple___Cedar_apple_rust": "apple leaf with cedar apple rust",
        "Apple___healthy": "healthy apple leaf",
        "Background_without_leaves": "background without leaves",
        "Blueberry___healthy": "healthy blueberry leaf",
        "Cherry___Powdery_mildew": "cherry leaf with powdery mildew",
        "Cherry___healthy": "healthy cherry leaf",
        "Corn___Cercospora_leaf_spot Gray_leaf_spot": "corn leaf with cercospora leaf spot or gray leaf spot",
        "Corn___Common_rust": "corn leaf with common rust",
        "Corn___Northern_Leaf_Blight": "corn leaf with northern leaf blight",
        "Corn___healthy": "healthy corn leaf",
        "Grape___Black_rot": "grape leaf with black rot",
        "Grape___Esca_(Black_Measles)": "grape leaf with black measles",
        "Grape___Leaf_blight_(Isariopsis_Leaf_Spot)": "grape leaf with leaf blight",
        "Grape___healthy": "healthy grape leaf",
        "Orange___Haunglongbing_(Citrus_greening)": "orange leaf with citrus greening disease",
        "Peach___Bacterial_spot": "peach leaf with bacterial spot",
        "Peach___healthy": "healthy peach leaf",
        "Pepper,_bell___Bacterial_spot": "pepper with bacterial spot",
        "Pepper,_bell___healthy": "healthy pepper leaf",
        "Potato___Early_blight": "potato leaf with early blight",
        "Potato___Late_blight": "potato leaf with late blight",
        "Potato___healthy": "healthy potato leaf",
        "Raspberry___healthy": "healthy raspberry leaf",
        "Soybean___healthy": "healthy soybean leaf",
        "Squash___Powdery_mildew": "squash with powdery mildew",
        "Strawberry___Leaf_scorch": "strawberry leaf with scorch disease",
        "Strawberry___healthy": "healthy strawberry leaf",
        "Tomato___Bacterial_spot": "tomato leaf with bacterial spot",
        "Tomato___Early_blight": "tomato leaf with early blight",
        "Tomato___Late_blight": "tomato leaf with late blight",
        "Tomato___Leaf_Mold": "tomato leaf with mold",
        "Tomato___Septoria_leaf_spot": "tomato leaf with septoria leaf spot",
        "Tomato___Spider_mites Two-spotted_spider_mite": "tomato leaf with spider mites or two-spotted spider mite",
        "Tomato___Target_Spot": "tomato leaf with target spot",
        "Tomato___Tomato_Yellow_Leaf_Curl_Virus": "tomato leaf with tomato yellow leaf curl virus",
        "Tomato___Tomato_mosaic_virus": "tomato leaf with tomato mosaic virus",
        "Tomato___healthy": "healthy tomato leaf",
    }

    @classmethod
    def class_name(cls, name):
        # Other releases name some folders otherwise ("Corn_(maize)___healthy"): such a name must not become a class.
        if name not in cls.renames:
            raise UserError(f"{name!r} is no class folder of PlantVillage: use the release named {cls.image_dir}")
        return cls.renames[name]


@DATASET_REGISTRY.register()
class Plant6(Suite):
    members = (FruitVegetable, KaggleFlower, KaggleMushroom, KaggleVegetable, PlantSeedlingV1, PlantVillage)
