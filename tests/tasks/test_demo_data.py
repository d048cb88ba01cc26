"""The data that ``--demo`` makes by itself, in a folder where nothing was yet."""

import functools

import pytest

import search_itm
import search_vgd
from datasets.demo.scenes import make
from tasks.mmnas import flags


@pytest.mark.parametrize("order", [(search_itm, search_vgd), (search_vgd, search_itm)], ids=["itm", "vgd"])
def test_scenes_are_made_where_nothing_was_and_completed_for_another_task(order, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for script in order:
        few = functools.partial(make, train=4, scored=2, matched=2)
        monkeypatch.setattr(f"tasks.{script.TASK.name}.make", few)
        args = flags.parse_search(script.TASK, script.get_args_parser(), ["--demo"], script.DEMO)
        assert len(script.TASK.open_search(args)["train"]) > 0
