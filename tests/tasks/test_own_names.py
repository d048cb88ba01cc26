"""Columns with any names: they are prepared, searched on, trained on, predicted and exported."""

import csv

import pytest
import torch

import export
import main_darts_found_own as found
import main_darts_searchable_own as search
import main_unimodal_own as unimodal
import predict_own
from datasets.own.inputs import input_name
from datasets.prepare_own import main as prepare_own
from models.backbone_net import BackboneNet
from tests.tasks.test_own import FAST, SIZES
from util.cli import UserError

TEXTS = ("type", "keys", "title.en", "a b/c", "größe", "id", "2020")
NAMES = ("type_", "keys_", "title_en", "a_b_c", "größe", "id_", "column_2020")
ENCODERS = [f"{name}=words:8" for name in NAMES]


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """(flags of a run on the prepared table, the table)."""
    folder = tmp_path_factory.mktemp("names")
    with open(folder / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*TEXTS, "genre"])
        writer.writerows(
            [[f"{('calm', 'loud')[row % 2]} {row % 5}"] * len(TEXTS) + ["ab"[row % 2]] for row in range(40)]
        )
    data = folder / "data"
    facts = prepare_own(
        ["--table", str(folder / "t.csv"), "--text", ",".join(TEXTS), "--label", "genre", "--out", str(data)]
    )
    assert tuple(facts["modalities"]) == NAMES
    return ["--datadir", str(data), "--out_dir", str(folder / "runs"), *SIZES, "--epochs", "1"], folder / "t.csv"


def test_every_script_works(awkward, tmp_path):
    flags, table = awkward
    searched = search.main([*flags, *FAST, "--encoder", *ENCODERS])
    result = found.main([*flags, "--search_exp_dir", searched["folder"]])
    late = found.main([*flags, "--fusion", "late", "--encoder", *ENCODERS])
    alone = unimodal.main(
        [
            *flags[: flags.index("--C")],
            *flags[flags.index("--C") + 2 :],
            "--modality",
            "type_",
            "--encoder",
            "type_=words:8",
        ]
    )
    found.main(
        [*flags, "--fusion", "late", "--encoder", *ENCODERS[1:], "--encoder_weights", f"type_={alone['folder']}"]
    )
    for one in (result, late):
        out = tmp_path / "out.csv"
        assert predict_own.main(["--run", one["folder"], "--table", str(table), "--out", str(out)]) == 40
    given = [f"{name}=calm 1" for name in NAMES]
    assert predict_own.main(["--run", late["folder"], "--input", *given])[0][0] in "ab"
    state = torch.load(f"{late['folder']}/best.pth", weights_only=True)["net"]
    assert {key.split(".")[1] for key in state if key.startswith("backbones.")} == set(NAMES)


@pytest.mark.slow
def test_networks_are_exported(awkward, tmp_path):
    flags, _ = awkward
    late = found.main([*flags, "--fusion", "late", "--encoder", *ENCODERS])
    about = export.main(["--run", late["folder"], "--out", str(tmp_path / "net.pt2")])
    assert [one["name"] for one in about["inputs"]][::2] == [f"{name}.values" for name in NAMES]


def test_a_name_that_a_network_has_itself_is_refused():
    with pytest.raises(UserError, match="an input of a network cannot be called 'type'"):
        BackboneNet({"type": torch.nn.Identity()}, (1, 1), None)


def test_a_column_becomes_a_name():
    assert [input_name(text) for text in ("poster", "x_features", "_x", "")] == [
        "poster",
        "x_features_",
        "column__x",
        "column_",
    ]
