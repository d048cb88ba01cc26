"""Small search spaces for the tests of strategies."""

import torch

from models.bmnas.cells import FusionCell, StepNode
from models.mmnas.encoder_decoder import EncoderDecoder
from search.choice import Choice

SIZES = {"steps": 2, "multiplier": 2, "node_steps": 2, "node_multiplier": 1}
INPUTS, C, L = 4, 4, 3


class Logits(torch.nn.Module):
    """A space of one choice; ``values`` are its logits, float64."""

    def __init__(self, values):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))
        self.choice = Choice("one", [f"op{k}" for k in range(self.logits.shape[-1])], self, "logits")

    def choices(self):
        return [self.choice]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cell(**sizes):
    torch.manual_seed(0)
    return FusionCell.mixed(INPUTS, C, L, 0.0, **(SIZES | sizes)).eval()


def features(seed=0, batch=2, dtype=torch.float32):
    return [torch.randn(batch, C, L, generator=generator(seed + k), dtype=dtype) for k in range(INPUTS)]


def encoder_decoder():
    torch.manual_seed(0)
    names = ("self_att_16", "guided_att_16", "feed_forward")
    sizes = {"num_enc": 2, "num_dec": 3, "enc_candidates": names[::2], "dec_candidates": names}
    return EncoderDecoder.searched(32, 0.0, **sizes).eval()


def drawn_genotype(net):
    """The genotype that corresponds to the drawn pairs and operations of a cell."""
    scores = {}
    for choice in net.choices():
        scores[choice.key] = torch.zeros(choice.logits.shape)
        if not choice.pairs:
            for row, active in enumerate(choice.drawn.active):
                scores[choice.key][row, active] = 1.0
            continue
        start = 0
        for count, (first, second) in zip(choice.pairs.counts, choice.drawn.pairs, strict=True):
            scores[choice.key][start + first, choice.pairs.chosen] = 2.0
            scores[choice.key][start + second, choice.pairs.chosen] = 1.0
            start += count
    return net.discretise(scores)


def found_cell(net, genotype):
    """The found network of a genotype, with the weights of the supernet."""
    fixed = FusionCell.fixed(genotype, INPUTS, C, L, 0.0).eval()
    state = net.state_dict()
    fixed.load_state_dict({key: state[key] for key in fixed.state_dict()})
    assert all(isinstance(node, StepNode) for node in fixed.nodes)
    return fixed
