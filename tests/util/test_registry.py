"""Names of users' own classes: they are found or refused in one line, and not added to the suite's list."""

import random
import sys

import pytest
import torch

from models.bmnas.cells import FusionCell
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS, STEP_OPERATIONS, has_weights
from models.genotypes import FusionGenotype, check_genotype, random_genotype
from models.mmnas.architecture import Architecture, check_architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.operations import OPERATIONS
from search.derive import argmax
from search.relaxation import Relaxation
from search.strategies import build_strategy, strategy_name
from util.cli import UserError
from util.registry import is_own, module_key

MODULE = """
from torch import nn
from models.mmnas.operations import Residual
from search.relaxation import SoftmaxMixture

class Product(nn.Module):
    def __init__(self, channels, length, dropout):
        super().__init__()
        self.linear = nn.Linear(length, length)
    def forward(self, x, y):
        return self.linear(x * y)

class Scale(Residual):
    def __init__(self, hsize, dropout, relation_size=64, residual=True, norm=True):
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.linear = nn.Linear(hsize, hsize)
    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        return self.finish(x, self.linear(x))

class Cooled(SoftmaxMixture):
    def __init__(self, generator=None, temperature=2.0):
        super().__init__()
        self.temperature = temperature
    def weights(self, choice, logits):
        return (logits / self.temperature).softmax(-1)

number = 3
"""
SIZES = {"steps": 1, "multiplier": 1, "node_steps": 1, "node_multiplier": 1}


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "classes.py").write_text(MODULE)
    (tmp_path / "own_parts" / "broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_parts.classes"
    for name in [name for name in sys.modules if name.split(".")[0] == "own_parts"]:
        del sys.modules[name]


def test_which_names_are_of_ones_own():
    assert is_own("a:B") and is_own("a.b:C")
    assert not any(is_own(name) for name in ("Sum", "a.b", "a:", ":B", "a:b:c", "a/b:C", "../a:B", "a b:C"))
    assert module_key("Sum") == "Sum" and "." not in module_key("a.b:C")


def test_an_operation_of_bm_nas_is_searched_found_and_read_again(own):
    name = f"{own}:Product"
    assert name in STEP_OPERATIONS and name not in list(STEP_OPERATIONS) and has_weights(name)
    torch.manual_seed(0)
    cell = FusionCell.mixed(3, 4, 3, 0.0, **SIZES, step_ops=(*PUBLISHED_STEP_OPERATIONS, name))
    with torch.no_grad():
        cell.nodes[0].gammas[0, 4] = 5.0
    genotype = FusionGenotype.from_dict(argmax(cell).to_dict())
    assert genotype.steps[0].inner_steps == (name,) and name in genotype.to_svg()
    check_genotype(genotype, STEP_OPERATIONS, 3, "a file")
    found = FusionCell.fixed(genotype, 3, 4, 3, 0.0)
    found([torch.randn(2, 4, 3) for _ in range(3)]).sum().backward()
    again = FusionCell.fixed(genotype, 3, 4, 3, 0.0)
    again.load_state_dict(found.state_dict())
    assert random_genotype(random.Random(0), [name], num_inputs=3, **SIZES).steps[0].inner_steps == (name,)


def test_an_operation_of_mmnas_is_searched_and_found(own):
    name = f"{own}:Scale"
    candidates = {"enc_candidates": ("self_att_16", name), "dec_candidates": (name, "guided_att_16")}
    space = EncoderDecoder.searched(32, 0.0, num_enc=1, num_dec=2, **candidates)
    space(torch.randn(2, 3, 32), torch.randn(2, 4, 32))
    architecture = Architecture(((name,),), ((name,), ("guided_att_16",)))
    check_architecture(architecture, "a file")
    assert name in architecture.to_svg()
    EncoderDecoder.fixed(architecture, 32, 0.0)(torch.randn(2, 3, 32), torch.randn(2, 4, 32))


def test_a_strategy_of_ones_own_has_options(own):
    strategy = build_strategy(f"{own}:Cooled", None, 0, ["temperature=4"])
    assert isinstance(strategy, Relaxation) and strategy.temperature == 4
    with pytest.raises(UserError, match=r"no .heat.; its options and defaults: temperature=2\.0"):
        build_strategy(f"{own}:Cooled", None, 0, ["heat=4"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module:Product", "there is no module no_such_module; put its folder into PYTHONPATH"),
        ("own_parts.none:Product", r"there is no module own_parts\.none"),
        ("own_parts.classes:Missing", r"the module own_parts\.classes has no Missing"),
        ("own_parts.classes:number", r"is not a class derived from torch\.nn"),
        ("own_parts.classes:Cooled", r"is not a class derived from torch\.nn"),
        ("os:system", r"is not a class derived from torch\.nn"),
    ],
)
def test_what_cannot_be_an_operation_is_refused(own, name, told):
    with pytest.raises(UserError, match=told):
        assert name in STEP_OPERATIONS


def test_other_faults_of_a_module_are_not_hidden(own):
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        assert "own_parts.broken:Product" in STEP_OPERATIONS


def test_the_other_family_and_other_words_are_refused(own):
    with pytest.raises(UserError, match=r"derived from models\.mmnas\.operations\.Operation"):
        assert f"{own}:Product" in OPERATIONS
    with pytest.raises(UserError, match=r"derived from search\.relaxation\.Relaxation"):
        build_strategy(f"{own}:Product", None, 0)
    known = "published, drnas, gdas, random-shared, second-order, evolution, random, and module:Class"
    with pytest.raises(Exception, match=f"there is no strategy 'darts'; known: {known}"):
        strategy_name("darts")
    assert "Multiply" not in STEP_OPERATIONS
    with pytest.raises(KeyError):
        STEP_OPERATIONS["Multiply"]
