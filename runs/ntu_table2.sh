#!/bin/sh
# BM-NAS, Table 2: NTU RGB+D 60, cross-subject accuracy on test. Paper: video 83.91, skeleton 85.24, BM-NAS 90.48 +- 0.24.
#   VIDEOS=nturgb+d_rgb SKELETONS=nturgb+d_skeletons sh runs/ntu_table2.sh
# Search, from the paper: 38.6 (Table 5) or 53.68 (Table 8) GPU hours. The rest was not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

VIDEOS=${VIDEOS:-nturgb+d_rgb}
SKELETONS=${SKELETONS:-nturgb+d_skeletons}
DATA=${DATA:-BM-NAS_dataset/NTU}
CHECKPOINTS=${CHECKPOINTS:-checkpoints/ntu}
SEEDS=${SEEDS:-2}
# Samples per forward and backward pass of the final training, which trains the backbones too; 0: the whole batch.
MICRO_BATCH=${MICRO_BATCH:-8}

if [ ! -e "$DATA/meta.json" ]; then
    need "$VIDEOS" "get it as described in docs/data.md, and pass VIDEOS=DIR"
    need "$SKELETONS" "get them as described in docs/data.md, and pass SKELETONS=DIR"
    "$PYTHON" datasets/prepare_ntu.py --dir "$VIDEOS" --skeletons "$SKELETONS" --out "$DATA"
fi
check --task ntu --data "$DATA"

# The released backbones if they are there, otherwise ours.
rgb=$CHECKPOINTS/rgb_8frames_83.91.checkpoint
skeleton=$CHECKPOINTS/skeleton_32frames_85.24.checkpoint
if [ ! -e "$rgb" ]; then
    step rgb main_unimodal_ntu.py --datadir "$DATA" --modality rgb
    rgb=$(run_of rgb)
    show rgb "83.91 (Table 2)"
fi
if [ ! -e "$skeleton" ]; then
    step skeleton main_unimodal_ntu.py --datadir "$DATA" --modality skeleton
    skeleton=$(run_of skeleton)
    show skeleton "85.24 (Table 2)"
fi
step search main_darts_searchable_ntu.py --recipe ntu-1 --datadir "$DATA" --rgb_cp "$rgb" --ske_cp "$skeleton"
for seed in $SEEDS; do
    step "found-$seed" main_darts_found_ntu.py --recipe ntu-1 --search_exp_dir "$(run_of search)" \
        --micro_batch "$MICRO_BATCH" --seed "$seed"
done

show search "94.48 on dev (Table 8)"
for seed in $SEEDS; do
    show "found-$seed" "90.48 +- 0.24 (Table 2)"
done
