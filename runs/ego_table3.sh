#!/bin/sh
# BM-NAS, Table 3: EgoGesture, accuracy on test. Paper: RGB 93.75, depth 94.03, BM-NAS 94.96 +- 0.07.
#   FRAMES=EgoGesture LABELS=labels-final-revised1 sh runs/ego_table3.sh
# Search, from the paper: 20.67 GPU hours (Table 8). The rest was not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

FRAMES=${FRAMES:-EgoGesture}
LABELS=${LABELS:-labels-final-revised1}
DATA=${DATA:-EgoGesture_packed}
CHECKPOINTS=${CHECKPOINTS:-checkpoints/ego}
SEEDS=${SEEDS:-2}
MICRO_BATCH=${MICRO_BATCH:-8}

if [ ! -e "$DATA/meta.json" ]; then
    need "$FRAMES" "get them as described in docs/data.md, and pass FRAMES=DIR"
    need "$LABELS" "get them as described in docs/data.md, and pass LABELS=DIR"
    "$PYTHON" datasets/prepare_ego.py --dir "$FRAMES" --labels "$LABELS" --out "$DATA"
fi
check --task ego --data "$DATA"

# The released backbones if they are there, otherwise ours.
rgb=$CHECKPOINTS/egogesture_resnext_1.0x_RGB_32_acc_94.01245.pth
depth=$CHECKPOINTS/egogesture_resnext_1.0x_Depth_32_acc_93.61060.pth
if [ ! -e "$rgb" ]; then
    step rgb main_unimodal_ego.py --datadir "$DATA" --modality rgb
    rgb=$(run_of rgb)
    show rgb "93.75 (Table 3)"
fi
if [ ! -e "$depth" ]; then
    step depth main_unimodal_ego.py --datadir "$DATA" --modality depth
    depth=$(run_of depth)
    show depth "94.03 (Table 3)"
fi
step search main_darts_searchable_ego.py --recipe ego-1 --datadir "$DATA" --rgb_cp "$rgb" --depth_cp "$depth"
for seed in $SEEDS; do
    step "found-$seed" main_darts_found_ego.py --recipe ego-1 --search_exp_dir "$(run_of search)" \
        --micro_batch "$MICRO_BATCH" --seed "$seed"
done

show search "98.87 on dev (Table 8)"
for seed in $SEEDS; do
    show "found-$seed" "94.96 +- 0.07 (Table 3)"
done
