"""UCF101 (Soomro et al., arXiv 1212.0402): human actions by the middle frame of each video, first official split."""

import os.path as osp
import re

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset, parse_lines, read_list


@DATASET_REGISTRY.register()
class UCF101(SingleTaskDataset):
    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
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
