"""While an architecture is derived, backbone features are computed once, and all scores are equal bit for bit."""

import functools
import json
from pathlib import Path

import pytest

import main_darts_searchable_own as search
from engine import kept_batches
from models.bmnas.fusion_net import FusionNet
from tests.tasks import test_own

CHOSEN = ["--encoder", "numbers=mlp:8", "text=words:8", "track=conv:8,8", "--epochs", "1", "--steps", "1"]


def scores_of(flags, monkeypatch, limit):
    """Scores of a derivation that may keep ``limit`` bytes, and the number of encoder passes in it."""
    counts = {"extract": 0, "kept": 0}
    extract, kept = FusionNet.extract, kept_batches.features_kept

    def counted(*args):
        counts["extract"] += 1
        return extract(*args)

    def limited(scorer, net):
        counts["extract"] = 0
        return kept(scorer, net, limit)

    with monkeypatch.context() as patch:
        patch.setattr(FusionNet, "extract", counted)
        patch.setattr("search.derive.features_kept", limited)
        run = Path(search.main([*flags, *CHOSEN])["folder"])
    return json.loads((run / "derivation.json").read_text())["scores"], counts["extract"]


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_encoders_that_were_trained_compute_once_in_a_derivation(tmp_path, monkeypatch, amp):
    flags = [*test_own.write(tmp_path), "--amp", amp]
    run = functools.partial(scores_of, flags, monkeypatch)
    (kept, few), (computed, many) = run(None), run(0)
    assert kept == computed and len(kept) > 5
    # Two batches of dev, and three trained encoders plus precomputed layers, which are only read.
    assert few == 2 * 4 and many == few * len(kept)
