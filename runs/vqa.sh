#!/bin/sh
# MMNas on VQA v2. Trained on train+val+vg, test-dev by the evaluation server: paper 71.24, released checkpoint 71.25.
# Trained on train and scored on val (SPLIT=train): released 67.79. Sources: docs/papers.md.
#   FEATURES=bua-r101-max100 VISUAL_GENOME=vg sh runs/vqa.sh
# ARCH=search searches an architecture first. Hours and memory were not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

DATA=${DATA:-data/vqa}
FEATURES=${FEATURES:-$DATA/bua-r101-max100}
VISUAL_GENOME=${VISUAL_GENOME:-}
SPLIT=${SPLIT:-train+val+vg}
ARCH=${ARCH:-arch/mmnas_vqa.json}

if [ ! -e "$DATA/store/meta.json" ]; then
    need "$DATA/annotations" "put the official questions and annotations there (docs/data.md), or pass DATA=DIR"
    need "$FEATURES" "get region features as described in docs/data.md, and pass FEATURES=DIR"
    set -- --data "$DATA" --features "$FEATURES" --out "$DATA/store"
    [ -z "$VISUAL_GENOME" ] || set -- "$@" --visual_genome "$VISUAL_GENOME"
    "$PYTHON" datasets/prepare_vqa.py "$@"
fi
check --task vqa --data "$DATA"

if [ "$ARCH" = search ]; then
    step search search_vqa.py --data "$DATA"
    ARCH=$(run_of search)
fi
step train train_vqa.py --RUN train --data "$DATA" --ARCH_PATH "$ARCH" --SPLIT "$SPLIT"
step test train_vqa.py --RUN test --CKPT_PATH "$(run_of train)"

show train "67.79 on val with SPLIT=train (released checkpoint)"
echo "upload $(run_of test)/predictions.json to the evaluation server; expected on test-dev: 71.24 with SPLIT=train+val+vg"
