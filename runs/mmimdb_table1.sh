#!/bin/sh
# BM-NAS, Table 1: MM-IMDB, weighted F1 on test. Paper: text 57.54, image 49.21, BM-NAS 62.92 +- 0.03.
#   HDF5=multimodal_imdb.hdf5 sh runs/mmimdb_table1.sh
# Search, from the paper: 0.89 (Table 5) or 1.24 (Table 8) GPU hours. The rest was not measured: see docs/reproduce.md.
. "$(dirname "$0")/common.sh"

HDF5=${HDF5:-multimodal_imdb.hdf5}
DATA=${DATA:-BM-NAS_dataset/mmimdb/dataset}
SEEDS=${SEEDS:-2}

if [ ! -e "$DATA/meta.json" ]; then
    need "$HDF5" "get it as described in docs/data.md, and pass HDF5=FILE"
    "$PYTHON" datasets/prepare_mmimdb.py --hdf5 "$HDF5" --out "$DATA"
fi
check --task mmimdb --data "$DATA"

step text main_unimodal_mmimdb.py --datadir "$DATA" --modality text
step image main_unimodal_mmimdb.py --datadir "$DATA" --modality image --freeze_backbones
step search main_darts_searchable_mmimdb.py --recipe mmimdb-1 --datadir "$DATA" --text_cp "$(run_of text)"
for seed in $SEEDS; do
    step "found-$seed" main_darts_found_mmimdb.py --recipe mmimdb-1 --search_exp_dir "$(run_of search)" --seed "$seed"
done

show text "57.54 (Table 1)"
show image "49.21 (Table 1)"
show search "53.44 on dev (Table 8)"
for seed in $SEEDS; do
    show "found-$seed" "62.92 +- 0.03 (Table 1)"
done
