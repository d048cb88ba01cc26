"""What a resumed run may change: paths, its length, and how it is computed; and runs of earlier versions."""

import importlib
import json
import logging
import re

import pytest

from engine.arguments import RecipeParser, parse_args, positive_int
from engine.resuming import PLACES, check_inputs
from util.cli import UserError

STAGES = ("darts_searchable", "darts_found", "unimodal")
BILEVEL = [f"main_{stage}_{task}" for stage in STAGES for task in ("mmimdb", "ntu", "ego")]
SUPERNET = [f"{kind}_{task}" for kind in ("search", "train") for task in ("vqa", "vgd", "itm")]
# Words that suggest that a flag is a path.
PLACE = re.compile(r"dir|path|_cp$|_weights$|^data$|features$|annotation|^genotype$|vectors|checkpoint", re.IGNORECASE)
# These flags match, but are not paths.
NO_PLACES = {"backbone_weights", "cache_features"}


def parser_of(script):
    return importlib.import_module(script).get_args_parser()


def saved_run(folder, parser, **changes):
    """Create a run folder with the arguments of a run without flags."""
    folder.mkdir()
    values = {**vars(parser.parse_args([])), **changes}
    (folder / "args.json").write_text(json.dumps({name: value for name, value in values.items() if value != "gone"}))
    return folder


@pytest.mark.parametrize("script", BILEVEL + SUPERNET)
def test_every_place_may_change(script, tmp_path):
    parser = parser_of(script)
    actions = [action for action in parser._actions if action.dest != "resume"]
    places = {action.dest: action.option_strings[0] for action in actions if action.metavar in PLACES}
    sounds = {action.dest for action in actions if PLACE.search(action.dest)} - NO_PLACES
    assert sounds <= set(places), "without a metavar of PLACES a flag's value may not change"
    assert {"data", "datadir"} & set(places)
    folder = saved_run(tmp_path / "run", parser)
    moved = [word for flag in places.values() for word in (flag, f"elsewhere/{flag}")]
    args = parse_args(parser_of(script), ["--resume", str(folder), *moved])
    assert all(getattr(args, name) == f"elsewhere/{flag}" for name, flag in places.items())


@pytest.mark.parametrize("script", ["main_darts_searchable_ntu", "search_vgd", "train_itm"])
def test_what_decides_nothing_may_change_and_is_told(script, tmp_path, caplog):
    parser = parser_of(script)
    free = {"epochs": 500, "patience": 7, "num_workers": 1, "device": "cpu", "backbone_batch": 3}
    free |= {"cache_features": "ram", "eval_pairs": 9, "eval_captions": 9, "GPU": "1"}
    known = vars(parser.parse_args([]))
    free = {name: value for name, value in free.items() if name in known}
    folder = saved_run(tmp_path / "run", parser)
    with caplog.at_level(logging.INFO, "mdarts"):
        words = [word for name, value in free.items() for word in (f"--{name}", str(value))]
        args = parse_args(parser_of(script), ["--resume", str(folder), *words])
    assert {name: getattr(args, name) for name in free} == free
    assert f"--epochs 500 (was {known['epochs']})" in caplog.text


def test_what_decides_may_not(tmp_path):
    parser = parser_of("train_vgd")
    folder = saved_run(tmp_path / "run", parser)
    with pytest.raises(UserError, match=r"but got --hsize 64 \(was 512\), --DATASET refcoco\+ \(was None\)") as error:
        parse_args(parser, ["--resume", str(folder), "--DATASET", "refcoco+", "--hsize", "64", "--data", "elsewhere"])
    assert "elsewhere" not in str(error.value)


class TestEarlierVersions:
    def test_flags_that_it_lacked_take_their_defaults(self, tmp_path, caplog):
        parser = parser_of("search_vqa")
        folder = saved_run(tmp_path / "run", parser, unsampled="gone", alpha_every="gone", epochs=7)
        with caplog.at_level(logging.INFO, "mdarts"):
            args = parse_args(parser_of("search_vqa"), ["--resume", str(folder)])
        assert (args.unsampled, args.alpha_every, args.epochs) == ("keep_momentum", 5, 7)
        assert "lacks some flags; they have their defaults: alpha_every = 5, unsampled = keep_momentum" in caplog.text

    def test_they_may_not_be_chosen_now(self, tmp_path):
        parser = parser_of("search_vqa")
        folder = saved_run(tmp_path / "run", parser, unsampled="gone")
        with pytest.raises(UserError, match=r"--unsampled freeze \(was keep_momentum\)"):
            parse_args(parser, ["--resume", str(folder), "--unsampled", "still"])

    def test_the_demo_does_not_choose_them_either(self, tmp_path):
        """The demo settings of this version may include a flag that the earlier version did not have."""
        parser = RecipeParser("A script.")
        parser.add_argument("--resume", metavar="RUN_DIR")
        parser.add_argument("--demo", action="store_true")
        parser.add_argument("--width", type=positive_int, default=9)
        (tmp_path / "args.json").write_text('{"demo": true}')
        args = parse_args(parser, ["--resume", str(tmp_path), "--demo"], demo={"width": 2})
        assert args.width == 9

    def test_flags_that_nobody_knows_are_refused(self, tmp_path):
        folder = saved_run(tmp_path / "run", parser_of("search_vqa"), newest=1)
        with pytest.raises(UserError, match=r"another script or a later version made that run \(flags newest\)"):
            parse_args(parser_of("search_vqa"), ["--resume", str(folder)])


def test_a_choice_that_is_none_is_refused(tmp_path):
    folder = saved_run(tmp_path / "run", parser_of("search_vqa"), amp="fp8")
    with pytest.raises(UserError, match=r"args\.json: amp is 'fp8' \(expected one of off, bf16, fp16\); restore"):
        parse_args(parser_of("search_vqa"), ["--resume", str(folder)])


class TestInputs:
    def test_the_same_pass(self, caplog):
        check_inputs("run", {"train data": "a"}, {"train data": "a", "val data": "b"}, {})
        assert caplog.text == ""

    @pytest.mark.parametrize("now", [{"train data": "b"}, {}, {"val data": "a"}])
    def test_others_are_named_with_their_flag(self, now):
        with pytest.raises(UserError, match=r"--resume run: the train data differs .* path with --data, or start a n"):
            check_inputs("run", {"train data": "a"}, now, {"train data": "--data"})

    def test_an_earlier_version_noted_none(self, caplog):
        with caplog.at_level(logging.INFO, "mdarts"):
            check_inputs("run", None, {"train data": "b"}, {})
        assert "was made by an earlier version, which did not record its inputs: assumed to be the same" in caplog.text
