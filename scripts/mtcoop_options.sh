# Sourced by the MTCoOp scripts, which all take these arguments:
MTCOOP_USAGE="DATASET CFG SHOTS CLASS_N_CTX CLASS_CSC TASK_N_CTX TASK_CSC N_CTX CSC PG_TYPE PG_RATIO"

# mtcoop_dir "$@": the folder of their runs, below that of the protocol.
mtcoop_dir() {
    echo "$2_$3shots/cls${4}_csc${5}_task${6}_tsc${7}_nctx${8}_csc${9}_${10}_${11}"
}

# run_mtcoop DIR "$@" -- ARGUMENT...: `run` with the configs and options that those arguments name.
run_mtcoop() {
    mtcoop_run=$1
    shift
    mtcoop_configs="configs/datasets/$1.yaml configs/trainers/MTCoOp/$2.yaml"
    mtcoop_options="DATASET.NUM_SHOTS $3 TRAINER.MTCOOP.CLASS_N_CTX $4 TRAINER.MTCOOP.CLASS_CSC $5
        TRAINER.MTCOOP.TASK_N_CTX $6 TRAINER.MTCOOP.TASK_CSC $7 TRAINER.MTCOOP.N_CTX $8 TRAINER.MTCOOP.CSC $9
        TRAINER.MTCOOP.PG_TYPE ${10} TRAINER.MTCOOP.PG_RATIO ${11}"
    while [ "$1" != -- ]; do shift; done
    shift
    # shellcheck disable=SC2086 # the options are words
    run "$mtcoop_run" --trainer MTCoOp --dataset-config-file ${mtcoop_configs% *} --config-file ${mtcoop_configs#* } \
        "$@" $mtcoop_options
}
