#!/bin/sh
# The results table: METHODS (as the table names them) with SHOTS and SEEDS, then the table and, in the folder of the
# dataset's runs, its chart. What is finished is skipped, so the same call goes on after a stop.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG" 2 "$@"

BASELINES="ZS-CLIP ProtoNet LP-CLIP CoOp-CA CoOp-CS CoOp-MT CoCoOp ProGrad KgCoOp PLOT"
METHODS=${METHODS:-$BASELINES SoftCPT-NATS SoftCPT-NATA}
NAME=${2%_ep*}  # zero-shot and the linear probe have no epochs: rn50_ep50 is their rn50
export DATA OUTPUT PYTHON SEEDS SHOTS OPTS

# softcpt SHOTS CLASS_N_CTX CLASS_CSC TASK_CSC CSC: SoftCPT; on General-10 class-level contexts sample their classes.
softcpt() {
    set -- "$DATASET" "$CFG" "$1" "$2" "$3" 4 "$4" 16 "$5" lin 1
    case $DATASET-$9 in
        general10-True) sh scripts/main_mtcoop_cls_sample.sh "$@" 0.1 ;;
        *) sh scripts/main_mtcoop.sh "$@" ;;
    esac
}

# plot SHOTS: PLOT, on General-10 with two prompts per class.
plot() {
    case $DATASET in
        general10) OPTS="TRAINER.PLOT.N 2 $OPTS" sh scripts/plot.sh "$DATASET" "$CFG" "$1" ;;
        *) sh scripts/plot.sh "$DATASET" "$CFG" "$1" ;;
    esac
}

# train METHOD SHOTS
train() {
    case $1 in
        ProtoNet) sh scripts/protonet.sh "$DATASET" "$CFG" "$2" ;;
        CoOp-CA) sh scripts/main_mtcoop_hard.sh "$DATASET" "$CFG" "$2" 16 False True ;;
        CoOp-CS) sh scripts/main_mtcoop_hard.sh "$DATASET" "$CFG" "$2" 16 True False ;;
        CoOp-MT) sh scripts/main_mtcoop_hard.sh "$DATASET" "$CFG" "$2" 16 False False ;;
        CoCoOp) sh scripts/cocoop.sh "$DATASET" "$CFG" "$2" ;;
        ProGrad) sh scripts/prograd.sh "$DATASET" "$CFG" "$2" ;;
        KgCoOp) sh scripts/kgcoop.sh "$DATASET" "$CFG" "$2" ;;
        PLOT) plot "$2" ;;
        SoftCPT-NATA) softcpt "$2" 0 False False False ;;
        SoftCPT-NATS) softcpt "$2" 0 False True False ;;
        SoftCPT-CATA) softcpt "$2" 4 False False True ;;
        SoftCPT-CSTA) softcpt "$2" 4 True False True ;;
        SoftCPT-CATS) softcpt "$2" 4 False True True ;;
        SoftCPT-CSTS) softcpt "$2" 4 True True True ;;
    esac
}

DATASET=$1
CFG=$2
for METHOD in $METHODS; do
    case $METHOD in
        ZS-CLIP | ProtoNet | LP-CLIP | CoOp-CA | CoOp-CS | CoOp-MT | CoCoOp | ProGrad | KgCoOp | PLOT) ;;
        SoftCPT-NATS | SoftCPT-NATA | SoftCPT-CATA | SoftCPT-CSTA | SoftCPT-CATS | SoftCPT-CSTS) ;;
        *) echo "error: METHODS has '$METHOD', which the results table does not have (see docs/reproduce.md)" >&2
           exit 2 ;;
    esac
done
for METHOD in $METHODS; do
    echo "== $METHOD"
    case $METHOD in
        ZS-CLIP) sh scripts/zeroshot.sh "$DATASET" "$NAME" all ;;
        LP-CLIP) sh scripts/linearprob.sh "$DATASET" "$NAME" all ;;
        *) for N in $SHOTS; do train "$METHOD" "$N"; done ;;
    esac
done

"$PYTHON" parse_test_res.py --table "$OUTPUT/$DATASET" --format github --chart "$OUTPUT/$DATASET/accuracy.png"
