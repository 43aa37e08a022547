"""General-10: ten public benchmarks of natural, fine-grained, texture, satellite and action images; 1,191 classes."""

import os.path as osp
import re

from common.errors import UserError
from common.files import read_json
from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset, Suite
from .class_folders import ClassFolders
from .files import PARTS, parse_lines, read_list, read_mat
from .sources import COOP, Source

FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
SUN = "https://vision.princeton.edu/projects/2010/SUN/"


@DATASET_REGISTRY.register()
class Caltech101(ClassFolders):
    """Caltech101 (Fei-Fei et al., CVPRW 2004): objects of 100 kinds, without background and close-up faces."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    sources = (Source("https://data.caltech.edu/records/mzrjq-6wc02", folders=(image_dir,),
                      url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                      checksum="md5:3138e1922a9193bfa496528edbbc45d0",
                      inner="caltech-101/101_ObjectCategories.tar.gz"),)
    split_zhou = True
    class_count = 100
    image_count = (8242,)  # of the 9,144 without BACKGROUND_Google and Faces_easy
    task_name = "object category recognition"
    metric = "mean_acc"
    skip = ("BACKGROUND_Google", "Faces_easy")
    renames = {"Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike", "airplanes": "airplane"}


@DATASET_REGISTRY.register()
class DescribableTextures(ClassFolders):
    """Describable Textures (Cimpoi et al., CVPR 2014): photos by the word that people use for their texture."""

    dataset_dir = "dtd"
    image_dir = "images"
    sources = (Source("https://www.robots.ox.ac.uk/~vgg/data/dtd/", folders=(image_dir,),
                      url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                      checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1"),)
    split_zhou = True
    class_count = 47
    image_count = (5640,)
    images_per_class = (120, 120)
    task_name = "texture recognition"
    template = "{} texture."


@DATASET_REGISTRY.register()
class EuroSAT(ClassFolders):
    """EuroSAT (Helber et al., JSTARS 2019): land use and land cover in 64x64 RGB patches of Sentinel-2 images."""

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


@DATASET_REGISTRY.register()
class FGVCAircraft(SingleTaskDataset):
    """FGVC-Aircraft (Maji et al., arXiv 1306.5151): aircraft by variant, with official train, val and test lists."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    sources = (Source("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", folders=(image_dir,),
                      files=("variants.txt", *map("images_variant_{}.txt".format, PARTS)),
                      url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),)
    class_count = 100
    image_count = (10000,)
    images_per_class = (100, 100)
    task_name = "aircraft model recognition"
    template = "a photo of a {}, a type of aircraft."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        def parse(line):
            number, variant = line.split(" ", 1)
            return osp.join(folder, cls.image_dir, f"{number}.jpg"), variant

        variants = parse_lines(osp.join(folder, "variants.txt"), str)
        return variants, {part: read_list(osp.join(folder, f"images_variant_{part}.txt"), parse, variants)
                          for part in PARTS}


@DATASET_REGISTRY.register()
class Food101(ClassFolders):
    """Food-101 (Bossard et al., ECCV 2014): photos of dishes."""

    dataset_dir = "food-101"
    image_dir = "images"
    sources = (Source("https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", folders=(image_dir,),
                      url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                      checksum="md5:85eeb15f3717b99a5da872d97d918f87"),)
    split_zhou = True
    class_count = 101
    image_count = (101000,)
    images_per_class = (1000, 1000)
    task_name = "food recognition"
    template = "a photo of {}, a type of food."


@DATASET_REGISTRY.register()
class OxfordFlowers(SingleTaskDataset):
    """Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008): flowers that are common in the United Kingdom."""

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    sources = (Source(FLOWERS, folders=(image_dir,), url=f"{FLOWERS}102flowers.tgz",
                      checksum="md5:52808999861908f626f3c1f4e79d11fa"),
               Source(FLOWERS, files=("imagelabels.mat",), url=f"{FLOWERS}imagelabels.mat",
                      checksum="md5:e0620be6f572b9609742df49c70aed4d"),
               Source(COOP, files=("cat_to_name.json",), note="the file cat_to_name.json"))
    split_zhou = True
    class_count = 102
    image_count = (8189,)
    task_name = "flower species recognition"
    template = "a photo of a {}, a type of flower."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        names_path = osp.join(folder, "cat_to_name.json")
        names = read_json(names_path)
        numbers = read_mat(osp.join(folder, "imagelabels.mat"), "labels")  # classes from 1, of images from 1
        try:
            classnames = [names[str(number)] for number in range(1, max(numbers) + 1)]
        except (KeyError, TypeError):
            raise UserError(f"{names_path} does not name all {max(numbers)} classes of imagelabels.mat: fetch both "
                             "files again") from None
        return classnames, {"all": [(osp.join(folder, cls.image_dir, f"image_{i:05d}.jpg"), number - 1)
                                    for i, number in enumerate(numbers, 1)]}


@DATASET_REGISTRY.register()
class OxfordPets(SingleTaskDataset):
    """Oxford-IIIT Pets (Parkhi et al., CVPR 2012): breeds of cats and dogs, with official trainval and test lists."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    sources = (Source(PETS, folders=(image_dir,), url=f"{PETS}data/images.tar.gz",
                      checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
               Source(PETS, files=("annotations/trainval.txt", "annotations/test.txt"),
                      url=f"{PETS}data/annotations.tar.gz", checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f"))
    split_zhou = True
    class_count = 37
    image_count = (7349,)
    task_name = "pet breed recognition"
    template = "a photo of a {}, a type of pet."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        def parse(line):  # "american_bulldog_100 2 2 1": image, number of the breed, species, number within it
            image, number = line.split()[:2]
            breed = image.rsplit("_", 1)[0].replace("_", " ").lower()
            return osp.join(folder, cls.image_dir, f"{image}.jpg"), (int(number), breed)

        trainval, test = (osp.join(folder, "annotations", name) for name in ("trainval.txt", "test.txt"))
        breeds = sorted({breed for _, breed in parse_lines(trainval, parse)})
        return [name for _, name in breeds], {"train": read_list(trainval, parse, breeds),
                                              "test": read_list(test, parse, breeds)}


@DATASET_REGISTRY.register()
class StanfordCars(SingleTaskDataset):
    """Stanford Cars (Krause et al., 3dRR 2013): cars by make, model and year, with official train and test images."""

    dataset_dir = "stanford_cars"
    sources = (Source("https://github.com/pytorch/vision/issues/7545", folders=("cars_train", "cars_test"),
                      files=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"),
                      note="the folders cars_train and cars_test, car_devkit and the labelled test annotations: the "
                           "authors' site is gone, this page tells where copies are"),)
    split_zhou = True
    class_count = 196
    image_count = (16185,)
    task_name = "car model recognition"

    @classmethod
    def read_official(cls, folder):
        names = read_mat(osp.join(folder, "devkit", "cars_meta.mat"), "class_names")
        parts = {}
        for part, path in (("train", osp.join(folder, "devkit", "cars_train_annos.mat")),
                           ("test", osp.join(folder, "cars_test_annos_withlabels.mat"))):
            images, numbers = read_mat(path, "annotations", "fname", "class")  # classes from 1
            if not set(numbers) <= set(range(1, len(names) + 1)):
                raise UserError(f"{path} has classes that devkit/cars_meta.mat does not name: fetch both files again")
            parts[part] = [(osp.join(folder, f"cars_{part}", image), int(number) - 1)
                           for image, number in zip(images, numbers)]
        # "Audi TT RS Coupe 2012" -> "2012 Audi TT RS Coupe"
        return [" ".join([name.split()[-1], *name.split()[:-1]]) for name in names], parts


@DATASET_REGISTRY.register()
class SUN397(SingleTaskDataset):
    """SUN397 (Xiao et al., CVPR 2010): scenes, with the first of the ten official train and test lists."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    sources = (Source(SUN, folders=(image_dir,), url=f"{SUN}SUN397.tar.gz",
                      checksum="md5:8ca2778205c41d23104230ba66911c7a"),
               Source(SUN, files=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
                      url=f"{SUN}download/Partitions.zip",
                      checksum="sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9"))
    split_zhou = True
    class_count = 397
    image_count = (39700,)  # of the lists; the archive has more
    images_per_class = (100, 100)
    task_name = "scene recognition"

    @classmethod
    def read_official(cls, folder):
        def scene(line):  # "/a/apse/indoor" -> "apse/indoor"
            return line.strip("/").split("/", 1)[1]

        def parse(line):  # "/a/apse/indoor/sun_axwbjcmaybnsdgmv.jpg"
            return osp.join(folder, cls.image_dir, line.strip("/")), scene(osp.dirname(line))

        scenes = parse_lines(osp.join(folder, "ClassName.txt"), scene)
        names = [" ".join(reversed(name.split("/"))).replace("_", " ") for name in scenes]  # "indoor apse"
        return names, {"train": read_list(osp.join(folder, "Training_01.txt"), parse, scenes),
                       "test": read_list(osp.join(folder, "Testing_01.txt"), parse, scenes)}


@DATASET_REGISTRY.register()
class UCF101(SingleTaskDataset):
    """UCF101 (Soomro et al., arXiv 1212.0402): human actions by the middle frame of a video, first official split."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    sources = (Source(COOP, folders=(image_dir,), archive="UCF-101-midframes.zip",
                      note="the middle frames of the videos, UCF-101-midframes.zip"),
               Source("https://www.crcv.ucf.edu/data/UCF101.php",
                      files=tuple(map("ucfTrainTestlist/{}.txt".format, ("classInd", "trainlist01", "testlist01"))),
                      url="https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
                      checksum="sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27"))
    split_zhou = True
    class_count = 101
    image_count = (13320,)
    task_name = "human action recognition"
    template = "a photo of a person doing {}."

    @classmethod
    def read_official(cls, folder):
        def words(action):  # "YoYo" -> ["Yo", "Yo"]
            return re.findall("[A-Z][^A-Z]*", action)

        def parse(line):  # "YoYo/v_YoYo_g08_c01.avi 101", whose frame is Yo_Yo/v_YoYo_g08_c01.jpg
            action, video = line.split()[0].split("/")
            return osp.join(folder, cls.image_dir, "_".join(words(action)), osp.splitext(video)[0] + ".jpg"), action

        lists = osp.join(folder, "ucfTrainTestlist")
        actions = parse_lines(osp.join(lists, "classInd.txt"), lambda line: line.split()[1])
        return [" ".join(words(action)) for action in actions], {
            "train": read_list(osp.join(lists, "trainlist01.txt"), parse, actions),
            "test": read_list(osp.join(lists, "testlist01.txt"), parse, actions)}


@DATASET_REGISTRY.register()
class General10(Suite):
    members = (Caltech101, DescribableTextures, EuroSAT, FGVCAircraft, Food101, OxfordFlowers, OxfordPets,
               StanfordCars, SUN397, UCF101)
