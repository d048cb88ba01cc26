"""Switching the fast network on, and what it must not change. Other tests check that its results agree."""

import copy

import pytest
import torch

from models.mmnas import fast_cpu, heads, net, operations
from models.mmnas.encoder_decoder import EncoderDecoder
from tests.models.test_mmnas_parity import random_batch, small_net


def classes(network):
    return {name: type(module) for name, module in network.named_modules()}


def test_the_fast_network_is_the_same_to_everyone_else():
    """State, names and dtypes stay, and speeding up a second time changes nothing."""
    plain = small_net()
    fast = fast_cpu.speed_up(copy.deepcopy(plain))
    assert isinstance(fast, net.MultimodalNet) and type(fast) is fast_cpu.MultimodalNet
    assert repr(fast) == repr(plain) and fast.state_dict().keys() == plain.state_dict().keys()
    assert all(issubclass(ours, classes(plain)[name]) for name, ours in classes(fast).items())
    before = classes(fast)
    assert classes(fast_cpu.speed_up(fast)) == before


def test_turned_off_it_leaves_the_network_as_it_is(monkeypatch):
    monkeypatch.setattr(fast_cpu, "enabled", False)
    network = small_net()
    before = classes(network)
    assert fast_cpu.speed_up(network) is network and classes(network) == before


def test_padding_is_left_out_on_a_cpu_alone():
    network, batch = fast_cpu.speed_up(small_net()), random_batch([5, 7], [4, 6], 7, 6)
    assert network.embed_words(batch["tokens"])[0].shape == (10, 32)
    network.pack = False
    assert network.embed_words(batch["tokens"])[0].shape == (2, 6, 32)


class LastWord(operations.Residual):
    """An operation that `fast_cpu` does not know; it needs padded tensors and a boolean mask."""

    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        last = (~x_mask).sum(1) - 1
        return self.finish(x, x[torch.arange(len(x)), last][:, None].expand_as(x))


class FirstHead(heads.AnswerHead):
    """A head that `fast_cpu` does not know."""

    def forward(self, x, y, x_mask=None, y_mask=None):
        return self.proj(self.proj_norm(self.attflat_x.linear_merge(x[:, 0] + y[:, 0]))) + y_mask.sum(1, keepdim=True)


@pytest.mark.parametrize("unknown", ["operation", "head"])
def test_unknown_parts_are_given_padded_tensors_and_boolean_masks(monkeypatch, unknown):
    monkeypatch.setitem(operations.OPERATIONS, "last_word", LastWord)
    decoder = ["guided_att_16", "rel_self_att_16", *(["last_word"] if unknown == "operation" else [])]
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder([["self_att_16"]], [[name] for name in decoder], 32, 0.0)
    head = (FirstHead if unknown == "head" else heads.AnswerHead)(32, 0.0, 7)
    plain = net.MultimodalNet(encoder_decoder, head, (11, 6), region_size=9).eval()
    fast, batch = fast_cpu.speed_up(copy.deepcopy(plain)), random_batch([5, 7], [4, 6], 7, 6)
    torch.testing.assert_close(fast(batch), plain(batch))
    assert type(fast) is net.MultimodalNet
    assert type(fast.encoder_decoder.dec[0][0].mhatt) is fast_cpu.MultiHeadAttention
