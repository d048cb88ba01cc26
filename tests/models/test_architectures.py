"""Architecture files: the published ones, epochs of a search, and the errors of damaged ones."""

import json
import logging
import random

import pytest

from models.genotypes import load_genotype
from models.mmnas.architecture import (
    Architecture,
    add_epoch,
    check_architecture,
    load_architecture,
    random_architecture,
    repeated,
)
from tests.mmnas_golden import ARCHITECTURES, Golden
from tests.util.test_graph_svg import Picture
from util.cli import UserError

FIXTURES = {
    "mcan": "full_vqa_mcan_h128",
    "mmnas_vqa": "full_vqa_mmnas_h128",
    "mmnas_vgd": "full_vgd_mmnas_h128",
    "mmnas_itm": "full_itm_mmnas_h128",
}
TINY = Architecture((("feed_forward",),), (("guided_att_64",), ("self_att_64", "skip_connect")))


def written(tmp_path, value):
    path = tmp_path / "arch.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.mark.parametrize("name", FIXTURES)
def test_released_architectures(name):
    architecture = load_architecture(ARCHITECTURES / f"{name}.json")
    assert architecture.blocks() == Golden(FIXTURES[name]).spec["cfg"]["GENOTYPE"]
    assert json.loads((ARCHITECTURES / f"{name}.json").read_text()) == {"epoch0": architecture.blocks()}


def test_dict_and_text():
    assert Architecture.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    assert Architecture.from_dict(TINY.blocks()) == TINY and set(TINY.blocks()) == {"enc", "dec"}
    assert TINY.sizes() == {"enc_blocks": 1, "dec_blocks": 2}
    assert str(TINY) == "enc F | dec G S+skip_connect"


class TestEpochs:
    def test_earlier_ones_stay(self, tmp_path):
        path = tmp_path / "arch.json"
        other = Architecture(TINY.dec[1:], TINY.dec)
        for epoch, architecture in ((1, TINY), (10, other), (2, other), (1, other)):
            add_epoch(path, epoch, architecture)
        assert list(json.loads(path.read_text())) == ["epoch1", "epoch2", "epoch10"]
        assert load_architecture(path, 1) == other
        add_epoch(path, 2, TINY)
        assert load_architecture(tmp_path, 2) == TINY

    def test_a_single_one_is_taken_silently(self, tmp_path, caplog):
        add_epoch(tmp_path / "arch.json", 7, TINY)
        with caplog.at_level(logging.INFO, "mdarts"):
            assert load_architecture(tmp_path) == TINY
        assert not caplog.messages

    def test_the_last_of_several_is_named(self, tmp_path, caplog):
        other = Architecture(TINY.enc, TINY.dec[:1])
        for epoch, architecture in ((9, TINY), (10, other)):
            add_epoch(tmp_path / "arch.json", epoch, architecture)
        with caplog.at_level(logging.INFO, "mdarts"):
            assert load_architecture(tmp_path) == other
        assert "has 2 epochs; using the last, epoch 10" in caplog.text

    def test_unknown_epoch(self, tmp_path):
        for epoch in (1, 2, 3, 7):
            add_epoch(tmp_path / "arch.json", epoch, TINY)
        with pytest.raises(UserError, match=r"has no epoch 4; --ARCH_EPOCH can be 1-3, 7$"):
            load_architecture(tmp_path, 4)

    def test_adding_to_what_is_no_architecture_file(self, tmp_path):
        for value in ({"enc": []}, TINY.to_dict()):
            path = written(tmp_path, value)
            with pytest.raises(UserError, match="not an architecture file"):
                add_epoch(path, 1, TINY)
            assert json.loads(path.read_text()) == value


class TestFiles:
    """Every file and folder with an architecture is read by the same function."""

    @pytest.mark.parametrize("value", [TINY.to_dict(), TINY.blocks(), {"epoch0": TINY.blocks()}])
    def test_one_architecture(self, tmp_path, value):
        (tmp_path / "genotype.json").write_text(json.dumps(value))
        for path in (tmp_path, tmp_path / "genotype.json"):
            assert load_architecture(path) == load_architecture(path, 0) == TINY
            with pytest.raises(UserError, match=r"genotype.json has no epoch 3; --ARCH_EPOCH can be 0$"):
                load_architecture(path, 3)

    def test_of_a_search_the_file_of_all_epochs_counts(self, tmp_path):
        other = Architecture(TINY.enc, TINY.dec[:1])
        add_epoch(tmp_path / "arch.json", 1, other)
        (tmp_path / "genotype.json").write_text(json.dumps(TINY.to_dict()))
        assert load_architecture(tmp_path, 1) == other and load_architecture(tmp_path / "genotype.json") == TINY

    def test_a_genotype_of_the_other_family_is_told_in_both(self, tmp_path):
        genotype = ARCHITECTURES.parent / "genotypes" / "mmimdb_example.json"
        with pytest.raises(UserError, match=r"is a genotype of BM-NAS; train it with main_darts_found_") as error:
            load_architecture(genotype)
        assert "\n" not in str(error.value)
        (tmp_path / "genotype.json").write_text(json.dumps(TINY.to_dict()))
        for path in (tmp_path, tmp_path / "genotype.json", ARCHITECTURES / "mcan.json"):
            with pytest.raises(UserError, match=r"is not a genotype: it holds an architecture of MMNas") as error:
                load_genotype(path)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("sizes", [(2, 4), (12, 18), (20, 30), (1, 1)])
def test_mcan_of_any_depth_repeats_its_pattern(sizes):
    enc, dec = ("self_att_64", "feed_forward"), ("self_att_64", "guided_att_64", "feed_forward")
    found = repeated(load_architecture(ARCHITECTURES / "mcan.json"), *sizes)
    assert found.enc == tuple((enc[i % 2],) for i in range(sizes[0]))
    assert found.dec == tuple((dec[i % 3],) for i in range(sizes[1]))


FINE = {"enc": [["feed_forward"]], "dec": [["guided_att_64"]]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not a readable JSON file"),
        ("[]", "not an architecture file"),
        ("{}", "not an architecture file"),
        ({**FINE, "format": "other"}, "its format is 'other'"),
        ({"enc": FINE["enc"]}, "not an architecture file"),
        ({"epoch0": []}, '"epoch0" is not an architecture: an object with the fields "enc" and "dec"'),
        ({"epoch0": {"enc": []}}, 'fields "enc" and "dec"'),
        ({"epoch0": {**FINE, "dec": []}}, r'"dec" is \[\]; a list of blocks'),
        ({"epoch0": {**FINE, "enc": "feed_forward"}}, "\"enc\" is 'feed_forward'; a list of blocks"),
        ({"epoch0": {**FINE, "enc": ["feed_forward"]}}, r"\"enc\"\[0\] is 'feed_forward'; a list of operation names"),
        ({"epoch0": {**FINE, "enc": [[1]]}}, r'"enc"\[0\] is \[1\]; a list of operation names'),
        (
            {"epoch0": {**FINE, "dec": [["relu"]]}},
            r"arch.json \(\"epoch0\"\) names the unknown operation 'relu'; known",
        ),
        (
            {"epoch0": {**FINE, "enc": [["guided_att_64"]]}},
            r"\(\"epoch0\"\): the operation guided_att_64 needs regions",
        ),
    ],
)
def test_damaged_files_are_one_line(tmp_path, value, message):
    with pytest.raises(UserError, match=message) as caught:
        load_architecture(written(tmp_path, value))
    assert "\n" not in str(caught.value) and "arch.json" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.json does not exist; --ARCH_PATH takes"):
        load_architecture(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"arch.json does not exist"):
        load_architecture(tmp_path)


def test_check_names_the_source():
    with pytest.raises(UserError, match=r"^--dec_ops names the unknown operation 'att'"):
        check_architecture(Architecture(TINY.enc, (("att",),)), "--dec_ops")


def test_random_architectures_cover_the_space_and_repeat():
    rng = random.Random(0)
    drawn = {random_architecture(rng, ("self_att_64", "feed_forward"), ("guided_att_64",), 2, 1) for _ in range(60)}
    assert len(drawn) == 4
    assert random_architecture(random.Random(3), "ab", "cd", 5, 6) == random_architecture(
        random.Random(3), "ab", "cd", 5, 6
    )


class TestPicture:
    def test_boxes_arrows_and_readers_of_words(self):
        picture = Picture(TINY.to_svg("tiny"))
        names = {"enc.in", "enc.0.0", "enc.out", "dec.in", "dec.0.0", "dec.1.0", "dec.1.1", "dec.out", "encoded"}
        assert set(picture.nodes) == names
        svg = TINY.to_svg("tiny")
        for pair in ("encoded dec.0.0", "dec.in dec.0.0", "dec.0.0 dec.1.1", "dec.1.0 dec.out", "enc.0.0 enc.out"):
            assert f'data-ends="{pair}"' in svg
        assert svg.count('data-ends="encoded') == 1 and "<title>tiny</title>" in svg

    def test_without_guided_attention_no_words_are_read(self):
        assert "encoded dec" not in Architecture(TINY.enc, TINY.dec[1:]).to_svg()

    @pytest.mark.parametrize("name", FIXTURES)
    def test_every_operation_is_named(self, name):
        architecture = load_architecture(ARCHITECTURES / f"{name}.json")
        svg = architecture.to_svg(name)
        Picture(svg).check()
        for operation in architecture.names():
            expected = sum(block == (operation,) for block in (*architecture.enc, *architecture.dec))
            assert svg.count(f">{operation}</text>") == expected
