#!/bin/sh
# MMNas on Flickr30K, test, R@1. Image to text / text to image: released checkpoint 77.30 / 60.88 (docs/papers.md).
#   CAPTIONS=f30k_precomp NAMES=dataset_flickr30k.json FEATURES=flickr_bua-r101-fix36 sh runs/itm.sh
# ARCH=search searches an architecture first. Hours and memory were not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

CAPTIONS=${CAPTIONS:-data/itm/f30k_precomp}
NAMES=${NAMES:-data/itm/dataset_flickr30k.json}
FEATURES=${FEATURES:-data/itm/flickr_bua-r101-fix36}
DATA=${DATA:-data/itm}
ARCH=${ARCH:-arch/mmnas_itm.json}

if [ ! -e "$DATA/flickr/meta.json" ]; then
    need "$CAPTIONS" "get the captions as described in docs/data.md, and pass CAPTIONS=DIR"
    need "$NAMES" "get the file as described in docs/data.md, and pass NAMES=FILE"
    need "$FEATURES" "get region features as described in docs/data.md, and pass FEATURES=DIR"
    "$PYTHON" datasets/prepare_itm.py --captions "$CAPTIONS" --json "$NAMES" --features "$FEATURES" --out "$DATA"
fi
check --task itm --data "$DATA"

if [ "$ARCH" = search ]; then
    step search search_itm.py --data "$DATA"
    ARCH=$(run_of search)
fi
step train train_itm.py --RUN train --data "$DATA" --ARCH_PATH "$ARCH"
step test train_itm.py --RUN test --CKPT_PATH "$(run_of train)"

show test "R@1 77.30 image to text, 60.88 text to image (released checkpoint)"
