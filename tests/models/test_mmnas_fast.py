"""The switch of the fast network, and what it leaves alone. That results agree is tested where the results are."""

import copy

import pytest
import torch

from models.mmnas import fast, fast_layers, heads, layers, net, operations
from models.mmnas.encoder_decoder import EncoderDecoder
from tests.models.test_mmnas_parity import random_batch, small_net


def classes(network):
    return {name: type(module) for name, module in network.named_modules()}


def test_the_fast_network_is_the_same_to_everyone_else():
    """State, names and types; speeding up twice changes nothing more."""
    plain = small_net()
    quick = fast.speed_up(copy.deepcopy(plain))
    assert isinstance(quick, net.MultimodalNet) and type(quick) is fast_layers.MultimodalNet
    assert repr(quick) == repr(plain) and quick.state_dict().keys() == plain.state_dict().keys()
    assert all(issubclass(ours, classes(plain)[name]) for name, ours in classes(quick).items())
    before = classes(quick)
    assert classes(fast.speed_up(quick)) == before


def test_turned_off_it_leaves_the_network_as_it_is(monkeypatch):
    monkeypatch.setattr(fast, "enabled", False)
    network = small_net()
    before = classes(network)
    assert fast.speed_up(network) is network and classes(network) == before


def test_padding_is_left_out_on_a_cpu_alone():
    network, batch = fast.speed_up(small_net()), random_batch([5, 7], [4, 6], 7, 6)
    assert network.embed_words(batch["tokens"])[0].shape == (10, 32)
    network.pack = False
    assert network.embed_words(batch["tokens"])[0].shape == (2, 6, 32)


class LastWord(operations.Residual):
    """An operation that nobody has told `fast` of; it needs padded tensors and a boolean mask."""

    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        last = (~x_mask).sum(1) - 1
        return self.finish(x, x[torch.arange(len(x)), last][:, None].expand_as(x))


class FirstHead(heads.AnswerHead):
    """A head of which the same holds."""

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
    quick, batch = fast.speed_up(copy.deepcopy(plain)), random_batch([5, 7], [4, 6], 7, 6)
    torch.testing.assert_close(quick(batch), plain(batch))
    assert type(quick) is net.MultimodalNet
    assert type(quick.encoder_decoder.dec[0][0].mhatt) is fast_layers.MultiHeadAttention


def test_the_fast_forms_stand_for_the_present_plain_code():
    """See `fast.DIGESTS` for what to do if it fails."""
    kinds = {*fast._TWINS, *fast._METHODS, *(kind for kind in fast._KNOWN if kind.__module__ != fast_layers.__name__)}
    found = {f"{kind.__module__}.{kind.__name__}": fast.digest_of(kind) for kind in kinds - {torch.nn.Dropout}}
    assert found == fast.DIGESTS


def negative(module, x, *args, **kwargs):
    return -x


def shifted(module, x):
    return module.linear(x) - 1


@pytest.mark.parametrize(
    ("kind", "twin_left"),
    [
        (layers.LayerNorm, fast_layers.GuidedAttention),
        (layers.MultiHeadAttention, fast_layers.LayerNorm),
        (operations.GuidedAttention, fast_layers.MultiHeadAttention),
        (operations.FeedForward, fast_layers.GuidedAttention),
        (layers.FC, fast_layers.GuidedAttention),
        (torch.nn.Dropout, fast_layers.LayerNorm),
    ],
)
def test_changed_plain_code_runs_and_the_log_says_so(monkeypatch, caplog, kind, twin_left):
    monkeypatch.setattr(kind, "forward", shifted if kind is layers.FC else negative)
    fast._tell.cache_clear()
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder([["self_att_16"]], [["guided_att_16"], ["feed_forward"]], 32, 0.5)
    plain = net.MultimodalNet(encoder_decoder, heads.AnswerHead(32, 0.5, 7), (11, 6), region_size=9).eval()
    batch = random_batch([5, 7], [4, 6], 7, 6)
    quick = fast.speed_up(copy.deepcopy(plain))
    torch.testing.assert_close(quick(batch), plain(batch))
    assert kind in classes(quick).values() and twin_left in classes(quick).values()
    assert type(quick) is net.MultimodalNet  # padding is computed
    assert f"{kind.__name__} is not the code" in caplog.text


def test_a_run_is_told_of_the_switch_once(caplog):
    fast._tell.cache_clear()
    with caplog.at_level("INFO", "mdarts"):
        fast.speed_up(small_net())
        fast.speed_up(small_net())
    assert caplog.text.count("MDARTS_FAST=off") == 1
