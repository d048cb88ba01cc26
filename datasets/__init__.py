"""Data sets: commands that prepare data, and packages with the readers and the small demo data behind them."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings

# Old name -> new name of the modules of version 0.1.0.
MOVED = {
    "blob_journal": "storage.blobs",
    "contact_sheet": "regions.drawing",
    "demo_easy_vqa": "demo.mmimdb_rows",
    "demo_ego": "demo.ego",
    "demo_ego_gestures": "demo.ego_gestures",
    "demo_mmimdb": "demo.mmimdb",
    "demo_ntu": "demo.ntu",
    "demo_ntu_scenes": "demo.ntu_clips",
    "demo_scenes": "demo.scenes",
    "demo_scenes_captions": "demo.scene_words",
    "demo_scenes_files": "demo.scene_files",
    "demo_scenes_flags": "demo.scenes_flags",
    "demo_scenes_pictures": "demo.scene_pictures",
    "demo_scenes_questions": "demo.scene_words",
    "demo_scenes_words": "demo.scene_words",
    "demo_synthetic_mmimdb": "demo.mmimdb_rows",
    "ego_annotation": "ego.annotation",
    "ego_clips": "ego.frames",
    "ego_frames": "ego.frames",
    "ego_labels": "ego.annotation",
    "ego_pack": "ego.pack",
    "extractor_files": "regions.files",
    "extractor_weights": "regions.networks",
    "extractors": "regions.extractors",
    "frame_store": "storage.frames",
    "grid_files": "regions.grid",
    "itm_files": "itm.files",
    "itm_negatives": "itm.negatives",
    "itm_scan": "itm.files",
    "mmimdb_hdf5": "mmimdb.official",
    "mmimdb_splits": "mmimdb.official",
    "mmimdb_store": "mmimdb.store",
    "ntu_names": "ntu.names",
    "ntu_skeleton": "ntu.skeleton",
    "ntu_sources": "ntu.sources",
    "ntu_store": "ntu.store",
    "ntu_tree": "ntu.tree",
    "ntu_video": "ntu.video",
    "one_sample": "regions.samples",
    "packing_flags": "regions.flags",
    "pictures": "storage.pictures",
    "pixel_regions": "regions.pixels",
    "refer_files": "vgd.refer",
    "region_conversion": "regions.packing",
    "region_files": "regions.files",
    "region_packing": "regions.packing",
    "region_picture": "regions.drawing",
    "region_samples": "regions.samples",
    "region_store": "regions.store",
    "region_tsv": "regions.tsv",
    "region_tsv_packing": "regions.tsv",
    "torch_extractors": "regions.networks",
    "vgd_files": "vgd.files",
    "video_files": "ntu.video",
    "video_scaling": "ntu.scaling",
    "vqa_answers": "vqa.answers",
    "vqa_files": "vqa.files",
    "vqa_samples": "vqa.dataset",
    "vqa_tables": "vqa.answers",
    "vqa_text": "text.vocabulary",
    "vqa_writing": "vqa.files",
    "word_vectors": "text.word_vectors",
    "worker_pool": "storage.workers",
}


class _MovedModules(importlib.abc.PathEntryFinder, importlib.abc.Loader):
    """Finds the modules of version 0.1.0 under their old names; importing one returns the module of the new name."""

    # Stands behind the folder in this package's path, so that only names that the folder lacks are looked for here.
    entry = f"modules of {__name__} in version 0.1.0"

    def __init__(self, entry):
        if entry != self.entry:
            raise ImportError(f"{entry} is another place")

    def find_spec(self, name, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name.rpartition(".")[2] in MOVED else None

    def exec_module(self, module):
        new = f"{__name__}.{MOVED[module.__name__.rpartition('.')[2]]}"
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        # The import system returns this module instead of the empty one that it created.
        sys.modules[module.__name__] = importlib.import_module(new)


sys.path_hooks.append(_MovedModules)
__path__.append(_MovedModules.entry)


def lazy_exports(package, home, names):
    """Make a module-level ``__getattr__`` that imports an exported name on first use.

    Args:
        package: Full name of the package.
        home: Module in the package that defines most of the names. In version 0.1.0 it had the package's name, so its
            other names still resolve, with a DeprecationWarning. None if there was no such module.
        names: dict exported name -> module in the package that defines it.

    Returns:
        The function: name -> value. It raises AttributeError for unknown names.
    """

    def get(name):
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        # `from package import module` looks up the attribute before it imports the module.
        if home is None or name.startswith("__") or importlib.util.find_spec(f"{package}.{name}"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{home}"), name)
        warnings.warn(f"{package}.{name} is now {package}.{home}.{name}", DeprecationWarning, stacklevel=2)
        return value

    return get
