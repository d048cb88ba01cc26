"""One pass over TSV files of region features, line by line, into a store or a tree of ``.npz`` files; resumable."""

from datasets.region_files import BadRegions
from datasets.region_tsv import about_rows, read_rows, regions_of
from util.cli import UserError
from util.progress import progress


def fill_from_tsv(writer, files, invalid):
    """Add the images of TSV files that are not in yet.

    An image may stand there several times. Lines of the same content count once, and a damaged line does no harm where
    another one of its image is whole; both are told of.

    Args:
        writer: `RegionStoreWriter`, or another with ``stamps()``, ``add_regions()`` and ``folder``.
        files: Paths of the files.
        invalid: dict place -> reason, to which lines that cannot be used are added.

    Returns:
        list of the ids of all images that are in.

    Raises:
        UserError: a file cannot be read, is of another form, or has changed since it was packed.
    """
    filling = _Filling(writer)
    for path in files:
        rows = progress(read_rows(path), f"packing {path.name}", total=about_rows(path), unit="image")
        for row in rows:
            filling.take(path, row)
    harmless = [one for one in filling.damaged if one[0] in filling.seen]
    lost = {place: reason for number, place, reason in filling.damaged if number not in filling.seen}
    invalid |= filling.twice | lost
    if filling.repeated:
        print(f"note: {filling.repeated:,} lines repeat an image and are left out")
    if harmless:
        _, place, reason = harmless[0]
        print(
            f"note: {len(harmless):,} damaged lines of images that other lines have whole are left out, first {place}:"
            f" {reason}"
        )
    return list(filling.seen)


class _Filling:
    """The state of a pass over the files.

    seen: dict image id -> stamp of its line in this pass.
    damaged: list of (image id or None, place, reason).
    twice: dict place -> reason of lines with other features of an image that was seen before.
    repeated: Number of lines of the same content as one before.
    """

    def __init__(self, writer):
        self._writer, self._before = writer, writer.stamps()
        self.seen, self.damaged, self.twice, self.repeated = {}, [], {}, 0

    def take(self, path, row):
        """Add the image of a `Row` of the file ``path``, unless it is in."""
        known, before = self.seen.get(row.image_id), self._before.get(row.image_id)
        if known == row.stamp:
            self.repeated += 1
            return
        if known is None and before == row.stamp:
            self.seen[row.image_id] = row.stamp
            return
        place = f"{path} line {row.number}" + ("" if row.image_id is None else f" (image {row.image_id})")
        try:
            regions = regions_of(row)
            if known is not None:
                self.twice[place] = "has other features than an earlier line of the same image"
                return
            if before is not None:
                raise UserError(f"{place} has changed since it was packed; delete {self._writer.folder} and pack again")
            self._writer.add_regions(row.image_id, row.stamp, regions)
        except BadRegions as reason:
            self.damaged.append((row.image_id, place, str(reason)))
        else:
            self.seen[row.image_id] = row.stamp
