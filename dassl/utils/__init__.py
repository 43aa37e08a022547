from common.errors import MissingFile, NotFinite, UserError
from common.files import atomic_path, is_lfs_pointer, mkdir_if_missing, read_json, write_json
from common.images import BrokenImage, MissingImage, list_broken, read_image

from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry
from .tools import check_availability, check_isfile, collect_env_info, listdir_nohidden, set_random_seed
from .torchtools import (
    count_num_param,
    get_rng_state,
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
