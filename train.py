"""One run: config files and flags -> trainer -> training and test.

    python train.py --root DATA --trainer KgCoOp --dataset-config-file configs/datasets/outfits16.yaml \
        --config-file configs/trainers/tiny_ep50.yaml --output-dir output/run DATASET.NUM_SHOTS 8
"""

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from common.program import program
from runs.config import build_parser
from trainers.run import run


def main():
    args = build_parser().parse_args()
    with program("goes on from the last saved epoch"):
        run(args)


if __name__ == "__main__":
    main()
