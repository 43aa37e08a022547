"""UCF101 (Soomro et al., arXiv 1212.0402): human actions by the middle frame of each video, first official split."""

import os.path as osp
import re

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import parse_lines, read_list
from .sources import COOP, Source


@DATASET_REGISTRY.register()
class UCF101(SingleTaskDataset):
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
