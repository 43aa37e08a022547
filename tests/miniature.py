"""Miniature trees of all suites in the layout of the official files: 8x8 images, all class folders or the first few."""

import io
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from datasets.plant6 import PlantVillage


def image_bytes(kind, colour):
    with io.BytesIO() as buffer:
        Image.new("RGB", (8, 8), colour).save(buffer, kind)
        return buffer.getvalue()


COLOURS = [(r, g, b) for r in (20, 120, 220) for g in (20, 120, 220) for b in (20, 120, 220)]
IMAGES = {ending: [image_bytes(kind, colour) for colour in COLOURS] for ending, kind in (
    (".jpg", "JPEG"), (".jpeg", "JPEG"), (".png", "PNG"), (".tif", "TIFF"))}


def write_images(folder, names):
    """Images of one colour each, which follows from the names of the folder and the image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        number = zlib.crc32(f"{folder.name}/{name}".encode()) % len(COLOURS)
        (folder / name).write_bytes(IMAGES[Path(name).suffix.lower()][number])


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


# ------------------------------------------------------------------ General-10
# A maker fills a dataset's folder with the first classes of its list. Names that a rule changes are the official
# ones; the others are made up. Sets without official lists get 5 images a class (which split 2/1/2), those with lists
# 5 to train on (4/1) and 2 to test on.

def made_up(official, n, pattern="class_{:03d}"):
    return [*official, *(pattern.format(i) for i in range(n))][:n]


def class_folder_maker(official, image_dir, beside=()):
    def make(folder, n):
        for name in [*made_up(official, n), *beside]:
            write_images(folder / image_dir / name, [f"image_{i:04d}.jpg" for i in range(5)])
    return make


def make_fgvc_aircraft(folder, n):
    variants = made_up(["707-320", "A340-500", "F-16A/B", "MD-11"], n, "Boeing {}")
    write_lines(folder / "variants.txt", variants)
    for p, (part, count) in enumerate((("train", 3), ("val", 2), ("test", 2))):
        numbers = {f"{p}{v:04d}{i:02d}": variant for v, variant in enumerate(variants) for i in range(count)}
        write_lines(folder / f"images_variant_{part}.txt", (f"{number} {name}" for number, name in numbers.items()))
        write_images(folder / "images", [f"{number}.jpg" for number in numbers])


def make_oxford_flowers(folder, n):
    names = made_up(["pink primrose", "hard-leaved pocket orchid", "canterbury bells"], n, "flower {}")
    numbered = {str(i): names[i - 1] for i in range(n, 0, -1)}  # the order in the file is not that of the labels
    write_lines(folder / "cat_to_name.json", [json.dumps(numbered)])
    labels = np.array([[number for _ in range(5) for number in range(1, n + 1)]], dtype=np.uint8)
    savemat(folder / "imagelabels.mat", {"labels": labels})
    write_images(folder / "jpg", [f"image_{i:05d}.jpg" for i in range(1, 5 * n + 1)])


def make_oxford_pets(folder, n):
    breeds = made_up(["Abyssinian", "american_bulldog", "american_pit_bull_terrier", "basset_hound"], n, "Breed_{:02d}")
    for part, numbers in (("trainval", range(1, 6)), ("test", range(101, 103))):
        lines = [f"{breed}_{i} {label} 1 1" for i in numbers for label, breed in enumerate(breeds, 1)]
        write_lines(folder / "annotations" / f"{part}.txt", lines)
        write_images(folder / "images", [f"{line.split()[0]}.jpg" for line in lines])


def make_stanford_cars(folder, n):
    names = made_up(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], n, "Make {} Coupe 2010")
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)[None]})
    fields = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for part, count, path in (("train", 5, "devkit/cars_train_annos.mat"),
                              ("test", 2, "cars_test_annos_withlabels.mat")):
        numbers = np.tile(np.arange(1, n + 1, dtype=np.uint8), count)
        images = [f"{i:05d}.jpg" for i in range(1, len(numbers) + 1)]
        annotations = np.array([(39, 116, 569, 375, number, image) for number, image in zip(numbers, images)], fields)
        savemat(folder / path, {"annotations": annotations[None]})
        write_images(folder / f"cars_{part}", images)


def make_sun397(folder, n):
    scenes = made_up(["/a/abbey", "/a/airplane_cabin", "/a/apse/indoor", "/a/apartment_building/outdoor"], n,
                     "/s/scene_{}")
    write_lines(folder / "ClassName.txt", scenes)
    for part, count in (("Training", 5), ("Testing", 2)):
        names = [f"sun_{part.lower()}{i}.jpg" for i in range(count)]
        write_lines(folder / f"{part}_01.txt", (f"{scene}/{name}" for scene in scenes for name in names))
        for scene in scenes:
            write_images(folder / "SUN397" / scene[1:], names)


def make_ucf101(folder, n):
    letters = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghijk"]
    actions = ["ApplyEyeMakeup", "HandstandPushups", "YoYo", *(f"Action{x.title()}" for x in letters)][:n]
    folders = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "HandstandPushups": "Handstand_Pushups", "YoYo": "Yo_Yo"}
    lists = folder / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", (f"{i} {action}" for i, action in enumerate(actions, 1)))
    for part, groups in (("train", range(8, 13)), ("test", range(1, 3))):
        # the test list has no labels, and the names of files need not be spelt as their folder
        videos = [(action, f"v_{action.replace('Handstand', 'HandStand')}_g{g:02d}_c01", label)
                  for label, action in enumerate(actions, 1) for g in groups]
        write_lines(lists / f"{part}list01.txt", (f"{action}/{video}.avi" + f" {label}" * (part == "train")
                                                  for action, video, label in videos))
        for action, video, _ in videos:
            folder_name = folders.get(action, f"Action_{action[6:]}")
            write_images(folder / "UCF-101-midframes" / folder_name, [f"{video}.jpg"])


# config name: (folder, maker, classes, class names by label, images of train, val, test per class)
WHOLE, LISTS = (2, 1, 2), (4, 1, 2)
EUROSAT = ("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop",
           "Residential", "River", "SeaLake")
EUROSAT_NAMES = ("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings",
                 "Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake")
GENERAL = {
    "caltech101": ("caltech-101", class_folder_maker(
        ("Faces", "Leopards", "Motorbikes", "airplanes", "ceiling_fan"), "101_ObjectCategories",
        beside=("BACKGROUND_Google", "Faces_easy")), 100,
        {0: "face", 1: "leopard", 2: "motorbike", 3: "airplane", 4: "ceiling fan", 99: "class 094"}, WHOLE),
    "dtd": ("dtd", class_folder_maker(("banded", "blotchy"), "images"), 47, {0: "banded", 1: "blotchy"}, WHOLE),
    "eurosat": ("eurosat", class_folder_maker(EUROSAT, "2750"), 10, dict(enumerate(EUROSAT_NAMES)), WHOLE),
    "fgvc_aircraft": ("fgvc_aircraft", make_fgvc_aircraft, 100, {0: "707-320", 2: "F-16A/B", 4: "Boeing 0"}, (3, 2, 2)),
    "food101": ("food-101", class_folder_maker(("apple_pie", "baby_back_ribs"), "images"), 101,
                {0: "apple pie", 1: "baby back ribs"}, WHOLE),
    "oxford_flowers": ("oxford_flowers", make_oxford_flowers, 102,
                       {0: "pink primrose", 1: "hard-leaved pocket orchid", 101: "flower 98"}, WHOLE),
    "oxford_pets": ("oxford_pets", make_oxford_pets, 37,
                    {0: "abyssinian", 1: "american bulldog", 2: "american pit bull terrier", 36: "breed 32"}, LISTS),
    "stanford_cars": ("stanford_cars", make_stanford_cars, 196,
                      {0: "2000 AM General Hummer SUV", 1: "2012 Ram C/V Cargo Van Minivan",
                       195: "2010 Make 193 Coupe"}, LISTS),
    "sun397": ("sun397", make_sun397, 397,
               {0: "abbey", 1: "airplane cabin", 2: "indoor apse", 3: "outdoor apartment building"}, LISTS),
    "ucf101": ("ucf101", make_ucf101, 101, {0: "Apply Eye Makeup", 1: "Handstand Pushups", 2: "Yo Yo"}, LISTS),
}


def make_general(root, config, n=3):
    """A tree of one member with n classes; returns its folder."""
    folder, maker, *_ = GENERAL[config]
    maker(root / folder, n)
    return root / folder


# The members that are class folders and nothing else; where there is a split file of CoOp's, it tells the classes.
FOLDERS = {"caltech101": ("Caltech101", "101_ObjectCategories"), "dtd": ("DescribableTextures", "images"),
           "eurosat": ("EuroSAT", "2750"), "food101": ("Food101", "images")}


def make_small_general(root, n, whole=()):
    """All members with n classes each, those in `whole` with all of theirs.

    A split file says that class folders are complete with so few; lists of so few are refused without `few_classes`.
    """
    for config, (_, _, classes, *_) in GENERAL.items():
        folder = make_general(root, config, classes if config in whole else n)
        if config in FOLDERS:
            dataset, image_dir = FOLDERS[config]
            classes = sorted(path.name for path in (folder / image_dir).iterdir())[-n:]
            split = {part: [[f"{name}/image_{i:04d}.jpg", label, name] for label, name in enumerate(classes)
                            for i in numbers]
                     for part, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3, 4)))}
            (folder / f"split_zhou_{dataset}.json").write_text(json.dumps(split))


# ------------------------------------------------------------------ Plant-6, RS8 and Fashion-20
FRUIT_VEGETABLE = [
    "apple", "banana", "beetroot", "bell pepper", "cabbage", "capsicum", "carrot", "cauliflower", "chilli pepper",
    "corn", "cucumber", "eggplant", "garlic", "ginger", "grapes", "jalepeno", "kiwi", "lemon", "lettuce", "mango",
    "onion", "orange", "paprika", "pear", "peas", "pineapple", "pomegranate", "potato", "raddish", "soy beans",
    "spinach", "sweetcorn", "sweetpotato", "tomato", "turnip", "watermelon"]
FLOWER = ["daisy", "dandelion", "rose", "sunflower", "tulip"]
MUSHROOM = ["Agaricus", "Amanita", "Boletus", "Cortinarius", "Entoloma", "Hygrocybe", "Lactarius", "Russula", "Suillus"]
VEGETABLE = ["Bean", "Bitter_Gourd", "Bottle_Gourd", "Brinjal", "Broccoli", "Cabbage", "Capsicum", "Carrot",
             "Cauliflower", "Cucumber", "Papaya", "Potato", "Pumpkin", "Radish", "Tomato"]
SEEDLING = ["Black-grass", "Charlock", "Cleavers", "Common Chickweed", "Common wheat", "Fat Hen", "Loose Silky-bent",
            "Maize", "Scentless Mayweed", "Shepherd’s Purse", "Small-flowered Cranesbill", "Sugar beet"]
AID = ["Airport", "BareLand", "BaseballField", "Beach", "Bridge", "Center", "Church", "Commercial", "DenseResidential",
       "Desert", "Farmland", "Forest", "Industrial", "Meadow", "MediumResidential", "Mountain", "Park", "Parking",
       "Playground", "Pond", "Port", "RailwayStation", "Resort", "River", "School", "SparseResidential", "Square",
       "Stadium", "StorageTanks", "Viaduct"]
OPTIMAL31 = [
    "airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral", "church",
    "circular_farmland", "commercial_area", "dense_residential", "desert", "forest", "freeway", "golf_course",
    "ground_track_field", "harbor", "industrial_area", "intersection", "island", "lake", "meadow",
    "medium_residential", "mobile_home_park", "mountain", "overpass", "parking_lot", "railway",
    "rectangular_farmland", "roundabout", "runway"]
RESISC45 = OPTIMAL31 + [
    "cloud", "palace", "railway_station", "river", "sea_ice", "ship", "snowberg", "sparse_residential", "stadium",
    "storage_tank", "tennis_court", "terrace", "thermal_power_station", "wetland"]
RSI_CB128 = {
    "construction land": ["city_building", "container", "grave", "pipeline", "residents", "storage_room", "tower",
                          "town"],
    "cultivated land": ["bare_land", "dry_farm", "green_farmland"],
    "other land": ["desert", "mountain", "sandbeach", "snow_mountain"],
    "transportation": ["airport_runway", "avenue", "bridge", "city_road", "crossroads", "fork_road", "highway",
                       "marina", "mountain_road", "overpass", "parkinglot", "rail", "turning_circle"],
    "water area": ["coastline", "dam", "hirst", "lakeshore", "river", "sea", "stream"],
    "woodland": ["artificial_grassland", "city_avenue", "city_green_tree", "forest", "mangrove", "natural_grassland",
                 "river_protection_forest", "sapling", "shrubwood", "sparse_forest"]}
RSSCN7 = ["aGrass", "bField", "cIndustry", "dRiverLake", "eForest", "fResident", "gParking"]
UC_MERCED = ["agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential",
             "forest", "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark",
             "overpass", "parkinglot", "river", "runway", "sparseresidential", "storagetanks", "tenniscourt"]
WHU_RS19 = ["Airport", "Beach", "Bridge", "Commercial", "Desert", "Farmland", "footballField", "Forest", "Industrial",
            "Meadow", "Mountain", "Park", "Parking", "Pond", "Port", "railwayStation", "Residential", "River",
            "Viaduct"]

SCENE = "a centered satellite photo of {}."
POOLED = {"train": 6, "test": 2, "validation": 2}  # images a class in each part
# config: (class folders with the folders above them, images' names, class name, task name, template, some names)
ONE_TASK = {
    "fruit_vegetable": (["fruit_vegetable/images", FRUIT_VEGETABLE], "Image_{}.jpg", "FruitVegetable",
                        "fruit and vegetable recognition", "a photo of a {}, a type of fruit or vegetable.",
                        {0: "apple", 3: "bell pepper", 15: "jalapeno", 28: "radish", 31: "sweet corn",
                         32: "sweet potato", 35: "watermelon"}),
    "kaggle_flower": (["kaggle_flower_recognition/flowers", FLOWER], "{}_n.jpg", "KaggleFlower", "flower recognition",
                      "a photo of a {}, a type of flower.", {0: "daisy", 4: "tulip"}),
    "kaggle_mushroom": (["kaggle_mushroom/Mushrooms", MUSHROOM], "{}_x.jpg", "KaggleMushroom",
                        "mushroom genus recognition", "a photo of a {}, a type of mushroom.", {1: "Amanita"}),
    "kaggle_vegetable": (["kaggle_vegetable/images", VEGETABLE], "{}.jpg", "KaggleVegetable", "vegetable recognition",
                         "a photo of a {}, a type of vegetable.", {1: "Bitter Gourd", 14: "Tomato"}),
    "plant_seedling": (["PlantSeedlingV1/Nonsegmented", SEEDLING], "{}.png", "PlantSeedlingV1",
                       "plant seedling species recognition", "a photo of a {}, a type of seedling.",
                       {0: "Black-grass", 9: "Shepherd’s Purse"}),
    "plant_village": (["PlantVillage/Plant_leave_diseases_dataset_without_augmentation", list(PlantVillage.renames)],
                      "image ({}).JPG", "PlantVillage", "plant leaf disease recognition",
                      "a photo of a plant leaf with {} disease.",
                      {0: "apple leaf with scab disease", 4: "background without leaves", 18: "healthy peach leaf",
                       35: "tomato leaf with target spot", 38: "healthy tomato leaf"}),
    "aid": (["aid/AID", AID], "a_{}.jpg", "AID", "aerial scene recognition", SCENE,
            {1: "bare land", 8: "dense residential", 29: "viaduct"}),
    "eurosat": (["eurosat/2750", EUROSAT], "e_{}.jpg", "EuroSAT", "satellite land use recognition", SCENE,
                {0: "Annual Crop Land", 9: "Sea or Lake"}),
    "nwpu_resisc45": (["nwpu-resisc45/NWPU-RESISC45", RESISC45], "n_{}.jpg", "RESISC45",
                      "remote sensing scene recognition", SCENE,
                      {2: "baseball diamond", 43: "thermal power station", 44: "wetland"}),
    "optimal31": (["optimal-31/Images", OPTIMAL31], "o_{}.jpg", "OPTIMAL31",
                  "high resolution remote sensing scene recognition", SCENE, {8: "circular farmland", 30: "runway"}),
    "rsi_cb128": (["rsi-cb128/RSI-CB128", [f"{group}/{name}" for group in RSI_CB128 for name in RSI_CB128[group]]],
                  "{}.tif", "RSICB128", "remote sensing land cover and facility recognition", SCENE,
                  {0: "airport runway", 1: "artificial grassland", 28: "parking lot", 44: "turning circle"}),
    "rsscn7": (["rsscn7/RSSCN7", RSSCN7], "r{}.jpg", "RSSCN7", "landscape recognition from above", SCENE,
               dict(enumerate(["grass land", "farm land", "industrial area", "river or lake", "forest",
                               "residential area", "parking lot"]))),
    "uc_merced": (["uc-merced/UCMerced_LandUse/Images", UC_MERCED], "u{}.tif", "UCMerced",
                  "urban land use recognition", SCENE, {2: "baseball diamond", 13: "mobile home park", 16: "river"}),
    "whu_rs19": (["whu-rs19/WHU-RS19", WHU_RS19], "w-{}.jpg", "WHURS19", "high resolution satellite scene recognition",
                 SCENE, {0: "airport", 16: "viaduct", 17: "football field", 18: "railway station"}),
}
SUITES = {"plant6": ("Plant6", list(ONE_TASK)[:6], 116), "rs8": ("RS8", list(ONE_TASK)[6:], 208)}

# The tasks' published names and what they show; the class names are made up, 78 in all.
FASHION = [("pants type", 6, "pants"), ("pants length", 4, "pants"), ("waist type", 3, "pants"),
           ("collar type", 6, "tops"), ("sleeve type", 4, "tops"), ("sleeve length", 4, "tops"),
           ("top pattern", 6, "tops"), ("shoe material", 4, "shoes"), ("shoe style", 6, "shoes"),
           ("heel shape", 4, "shoes"), ("heel thickness", 2, "shoes"), ("heel height", 3, "shoes"),
           ("upper height", 3, "shoes"), ("toe cap style", 4, "shoes"), ("hat style", 5, "hat"),
           ("socks length", 3, "socks"), ("socks type", 3, "socks"), ("skirt length", 3, "skirt"),
           ("number of button rows", 2, "tops"), ("underwear style", 3, "underwear")]


def make_class_folders(root, config):
    """The tree of one member of Plant-6 or RS8, 10 images a class: they split 5/2/3.

    Returns the folder above the class folders.
    """
    (folder, classes), pattern, *_ = ONE_TASK[config]
    for name in classes:
        if config in ("fruit_vegetable", "kaggle_vegetable"):
            for part, count in POOLED.items():
                write_images(root / folder / part / name, map(pattern.format, range(count)))
        else:
            write_images(root / folder / name, map(pattern.format, range(10)))
    return root / folder


def fashion_classes(number):
    """Class names of a task, as `task_info.csv` has them."""
    return [f"{FASHION[number][0]}_{label}" for label in range(FASHION[number][1])]


def make_fashion20(root):
    """10 images a class; returns the folder."""
    rows = ["id\tname\tname_cn\tclasses"]
    for number, (name, count, _) in enumerate(FASHION):
        rows.append(f"{number}\t{name}\t\t{', '.join(fashion_classes(number))}")
        for label in range(count):
            write_images(root / "fashion20" / "images" / str(number) / str(label), map("{}.jpg".format, range(10)))
    write_lines(root / "fashion20" / "task_info.csv", rows)
    return root / "fashion20"
