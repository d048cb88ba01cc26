"""The published relaxation of BM-NAS: every candidate runs, weighted by a softmax (DARTS, Liu et al., ICLR 2019)."""

from search.relaxation import Relaxation


class SoftmaxMixture(Relaxation):
    """out = sum_k softmax(logits)_k o_k.

    Args:
        generator: Unused: nothing is drawn.
    """

    def __init__(self, generator=None):
        super().__init__()

    def weights(self, choice, logits):
        """The softmax over the candidates."""
        return logits.softmax(-1)
