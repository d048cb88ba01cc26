#!/bin/sh
# MMNas on RefCOCO, RefCOCO+ and RefCOCOg: accuracy at IoU 0.5. Released checkpoints, from docs/papers.md:
# 83.66 / 87.25 / 78.78 (val / testA / testB), 74.48 / 81.00 / 65.15, and 74.59 / 75.42 (val / test).
#   REFER=data/refer FEATURES=bua-r101-fix100 sh runs/vgd.sh
# ARCH=search searches an architecture on RefCOCO first. Hours and memory were not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

REFER=${REFER:-data/refer}
DATA=${DATA:-data/vgd}
FEATURES=${FEATURES:-$DATA/bua-r101-fix100}
DATASETS=${DATASETS:-refcoco refcoco+ refcocog}
ARCH=${ARCH:-arch/mmnas_vgd.json}

for dataset in $DATASETS; do
    if [ ! -e "$DATA/$dataset/meta.json" ] || [ ! -e "$DATA/store/meta.json" ]; then
        need "$REFER" "get the official files as described in docs/data.md, and pass REFER=DIR"
        need "$FEATURES" "get region features as described in docs/data.md, and pass FEATURES=DIR"
        "$PYTHON" datasets/prepare_vgd.py --dataset "$dataset" --refer "$REFER" --features "$FEATURES" --out "$DATA"
    fi
done
check --task vgd --data "$DATA"

if [ "$ARCH" = search ]; then
    step search search_vgd.py --data "$DATA" --DATASET refcoco
    ARCH=$(run_of search)
fi
for dataset in $DATASETS; do
    step "$dataset" train_vgd.py --RUN train --data "$DATA" --DATASET "$dataset" --ARCH_PATH "$ARCH"
done

for dataset in $DATASETS; do
    case $dataset in
        refcoco) expected="83.66 / 87.25 / 78.78" ;;
        refcoco+) expected="74.48 / 81.00 / 65.15" ;;
        *) expected="74.59 / 75.42" ;;
    esac
    show "$dataset" "$expected (released checkpoint)"
done
