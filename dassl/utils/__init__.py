from ..errors import MissingFile, NotFinite, UserError
from .tools import (
    atomic_path,
    check_availability,
    check_isfile,
    collect_env_info,
    is_lfs_pointer,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    set_random_seed,
    write_json,
)
from .images import BrokenImage, MissingImage, list_broken, read_image
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry
from .torchtools import (
    count_num_param,
    get_rng_state,
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
