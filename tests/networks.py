"""Complete networks of the original code: built as a fixture says, filled through its names, and compared."""

import torch

from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.bmnas.published import from_published, to_published
from models.genotypes import FusionGenotype
from tests.golden import arch_values

SIZES = ("steps", "multiplier", "node_steps", "node_multiplier")


def genotype_of(golden):
    """The genotype of a found network's fixture; None for a search network."""
    return FusionGenotype.from_dict(golden.spec["genotype"]) if "genotype" in golden.spec else None


def build_network(golden, backbones, pool):
    """The network of a fixture around ``backbones``, with weights as drawn."""
    c, genotype = golden.spec["constructor"], genotype_of(golden)
    features = sum(len(backbone.channels) for backbone in backbones.values())
    if genotype is None:
        fusion = FusionCell.mixed(features, c["C"], c["L"], c["drpt"], **{name: c[name] for name in SIZES})
        used = range(features)
    else:
        fusion = FusionCell.fixed(genotype, features, c["C"], c["L"], c["drpt"])
        used = genotype.used_inputs()
    shape = {"channels": c["C"], "pool": pool, "dropout": c["drpt"], "num_outputs": c["num_outputs"]}
    return FusionNet(backbones, fusion, used, **shape)


def assert_is_the_original(net, golden, names, batch):
    """Logits of ``batch``, after the published state dict went through our loader, and that dict given back.

    Args:
        net: What `build_network` made.
        golden: The fixture.
        names: Our backbone names -> the original's.
        batch: Its inputs, in a batch dict.
    """
    genotype = genotype_of(golden)
    arch = {
        "fusion." + key: value for key, value in net.fusion.state_dict().items() if key.endswith(("logits", "gammas"))
    }
    net.load_state_dict({**from_published(golden.state, names, genotype), **arch})
    for key, parameter in net.arch_parameters().items():
        parameter.data.copy_(arch_values(key, parameter.shape))
    with torch.no_grad():
        golden.assert_output("logits", net.eval()(batch))

    back = to_published(net.state_dict(), names, found=genotype is not None)
    assert set(back) == set(golden.state)
    assert all(torch.equal(back[key], golden.state[key]) for key in back)
    if genotype is not None:
        counts, expected = net.count_parameters(), golden.spec["num_parameters"]
        assert counts["reshape"] == expected["reshape_layers"]
        assert counts["fusion"] == expected["fusion_net"]
        assert counts["classifier"] == expected["central_classifier"]
        assert counts["backbones"] + counts["fusion_part"] + counts["classifier"] == expected["total"]
