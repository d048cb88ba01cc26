#!/bin/sh
# MMNas on the real pictures and questions of easy-VQA, which come with its Python package: search, train, score.
#   sh runs/easy_vqa.sh
# Measured here, two CPU cores: 100.00 on 9,673 test questions in 18 minutes (docs/experiments.md).
. "$(dirname "$0")/common.sh"

step search search_vqa.py --demo --lr 1e-3 --epochs 16 --alpha_start 8
check --task vqa --data demo/vqa
step train train_vqa.py --demo --RUN='train' --ARCH_PATH="$(run_of search)" --lr 1e-3 --batchsize 64 --epochs 25 --lr_decay_epochs 18 22

show train "100.00 (docs/experiments.md)"
