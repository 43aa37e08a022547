from common.files import mkdir_if_missing, read_json, write_json
from common.images import read_image

from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry
from .tools import check_availability, check_isfile, collect_env_info, listdir_nohidden, set_random_seed
from .torchtools import (
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
