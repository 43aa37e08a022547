# Sourced by the scripts of methods whose options all come from their config file.
. ./set_env.sh

# run_method TRAINER DATASET CFG SHOTS: one run per seed.
run_method() {
    method=$1
    shift
    usage "DATASET CFG SHOTS" 3 "$@"
    for SEED in $SEEDS; do
        run "$OUTPUT/$1/$method/$2_$3shots/seed$SEED" --trainer "$method" --seed "$SEED" \
            --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/$method/$2.yaml" \
            DATASET.NUM_SHOTS "$3"
    done
}
