"""What the scripts of every BM-NAS task share: flags, networks, data, and the recipes themselves.

A task is a module (`tasks.mmimdb`, `tasks.ntu`, `tasks.ego`) that states

- ``NUM_FEATURES``, ``INPUT_NAMES``: number and names of the features that a fusion may read;
- ``LAST_INPUTS``: index of each modality's last feature, for late fusion;
- ``MODALITIES``: modality -> whether its network may stay as it starts, so that only a head is trained on it;
- ``PUBLISHED_NAMES``: our backbone names -> the original's prefixes in a state dict;
- ``TRAINED``: value of ``--train_on`` -> splits that a pass of updates goes over, one after the other;
- ``LATER_WINS_TIES``: which of two epochs with equal scores is selected;
- ``MULTILABEL``: whether a label is a row of zeros and ones instead of a class;
- ``DEMO``, ``DEMO_DATA``: small settings, and what to give `datasets.make_demo` for their data;
- ``INHERITED``: flags of its own that a found script takes over from the search;

and has ``criterion(outputs, batch)``, ``metric(args)``, ``pool(args)``, ``search_splits(args)``,
``open_split(args, split)``, ``build_backbones(args, weights=None)`` and ``build_unimodal_backbone(args)``.
Heavy imports stand inside the functions, so that `--help` answers at once.
"""
