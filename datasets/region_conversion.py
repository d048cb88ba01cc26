"""Region features of other projects, TSV files or ``.pth`` files, as a tree of ``.npz`` files in the published form."""

import os
from pathlib import Path

from datasets import grid_files, region_files, region_tsv
from datasets.extractor_files import MOST_REGIONS, stored_shape, write_regions
from datasets.region_files import BadRegions, list_region_files
from datasets.region_packing import check_invalid, form_of
from datasets.region_tsv_packing import fill_from_tsv
from util.cli import UserError
from util.progress import progress


def convert(sources, out, *, skip_invalid=False):
    """Write ``<image id>.npz`` files; those that are there already and whole stay.

    Args:
        sources: Paths of TSV files, or of folders of TSV or ``.pth`` files.
        out: Folder of the ``.npz`` files.
        skip_invalid: Leave out faulty images instead of ending with an error.

    Returns:
        Number of images.

    Raises:
        UserError: a source is none, is faulty, or ``out`` cannot be written.
    """
    out, invalid, ids = Path(out), {}, set()
    forms = {Path(source): form_of(Path(source), "--from_tsv") for source in sources}
    if region_files.ENDING in forms.values():
        source = next(source for source, form in forms.items() if form == region_files.ENDING)
        raise UserError(f"--from_tsv {source} holds .npz files already; give them to the prepare script as they are")
    files = [
        path for source, form in forms.items() if form == region_tsv.ENDING for path in region_tsv.tsv_files(source)
    ]
    if files:
        writer = _TreeWriter(out)
        writer.since = max(map(os.path.getmtime, files))
        ids.update(fill_from_tsv(writer, files, invalid))
    for source in (source for source, form in forms.items() if form == grid_files.ENDING):
        ids.update(_fill_from_grids(source, out, invalid))
    check_invalid(out, invalid, skip_invalid)
    if not ids:
        raise UserError(f"{sources[0]} has no usable features")
    print(f"wrote {out}: {len(ids):,} images")
    return len(ids)


class _TreeWriter:
    """What `fill_from_tsv` adds images to: a folder of files.

    Args:
        folder: The folder.

    Attributes:
        since: Time in seconds; files that are older than their source are written again.
    """

    def __init__(self, folder):
        self.folder, self.since, self._width = folder, 0.0, None

    def stamps(self):
        """None is known: a file does not tell which line it was made of, so that every line is decoded again."""
        return {}

    def add_regions(self, image_id, stamp, regions):
        """Write the file of one image, unless it is there."""
        width = regions.features.shape[1]
        self._width = self._width or width
        if width != self._width:
            raise BadRegions(f"has features of width {width}, the other images {self._width}")
        path = self.folder / f"{image_id}{region_files.ENDING}"
        if stored_shape(path) != regions.features.shape or os.path.getmtime(path) < self.since:
            write_regions(path, regions.features, regions.boxes, regions.height, regions.width)


def _fill_from_grids(source, out, invalid):
    """Write the files of the ``.pth`` files in a folder; returns their ids."""
    files, ids, writer = list_region_files(source, grid_files.ENDING), [], _TreeWriter(out)
    invalid |= {str(source / name): "has no image id in its name" for name in files.others}
    pairs = zip(files.ids.tolist(), files.paths.tolist(), strict=True)
    for image_id, name in progress(pairs, "converting", total=len(files.ids), unit="image"):
        path = source / os.fsdecode(name)
        try:
            regions = grid_files.read_grid(path, MOST_REGIONS)
            writer.since = os.path.getmtime(path)
            writer.add_regions(image_id, "", regions)
            ids.append(image_id)
        except BadRegions as reason:
            invalid[str(path)] = str(reason)
    return ids
