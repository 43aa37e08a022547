# shellcheck shell=sh disable=SC2034 # MTCOOP_USAGE is of the scripts that source it
# Sourced by the MTCoOp scripts, which all take these arguments:
MTCOOP_USAGE="DATASET CFG SHOTS CLASS_N_CTX CLASS_CSC TASK_N_CTX TASK_CSC N_CTX CSC PG_TYPE PG_RATIO"

# mtcoop_dir "$@": the folder of their runs, below that of the protocol.
mtcoop_dir() {
    printf '%s\n' "$2_$3shots/cls${4}_csc${5}_task${6}_tsc${7}_nctx${8}_csc${9}_${10}_${11}"
}

# run_mtcoop DIR "$@" -- ARGUMENT...: `run` with the configs and options that those arguments name.
run_mtcoop() {
    mtcoop_run=$1
    shift
    mtcoop_dataset=$1 mtcoop_cfg=$2 mtcoop_shots=$3 mtcoop_class_n_ctx=$4 mtcoop_class_csc=$5 mtcoop_task_n_ctx=$6
    mtcoop_task_csc=$7 mtcoop_n_ctx=$8 mtcoop_csc=$9 mtcoop_pg_type=${10} mtcoop_pg_ratio=${11}
    while [ "$1" != -- ]; do shift; done
    shift
    run "$mtcoop_run" --trainer MTCoOp --dataset-config-file "configs/datasets/$mtcoop_dataset.yaml" \
        --config-file "configs/trainers/MTCoOp/$mtcoop_cfg.yaml" "$@" DATASET.NUM_SHOTS "$mtcoop_shots" \
        TRAINER.MTCOOP.CLASS_N_CTX "$mtcoop_class_n_ctx" TRAINER.MTCOOP.CLASS_CSC "$mtcoop_class_csc" \
        TRAINER.MTCOOP.TASK_N_CTX "$mtcoop_task_n_ctx" TRAINER.MTCOOP.TASK_CSC "$mtcoop_task_csc" \
        TRAINER.MTCOOP.N_CTX "$mtcoop_n_ctx" TRAINER.MTCOOP.CSC "$mtcoop_csc" \
        TRAINER.MTCOOP.PG_TYPE "$mtcoop_pg_type" TRAINER.MTCOOP.PG_RATIO "$mtcoop_pg_ratio"
}
