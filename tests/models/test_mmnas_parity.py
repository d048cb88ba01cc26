"""Complete MMNas networks, fixed and searched, against the original's numbers; batches padded in different ways."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.mmnas import fast_layers
from models.mmnas.architecture import Architecture, load_architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.heads import AnswerHead, GroundingHead
from models.mmnas.net import MultimodalNet
from models.mmnas.published import current_keys, from_published, to_published
from tests.mmnas_golden import (
    ARCHITECTURES,
    PACKED,
    PADDED,
    PLAIN,
    WAYS,
    Golden,
    batch_of,
    build_net,
    filled,
    path_weights,
    sped_up,
    target_of,
)
from tests.paths import active_of, draw, gates_of, set_path
from util.cli import UserError

torch.set_num_threads(1)
FULL = ["full_vqa_mmnas_h128", "full_vqa_mcan_h128", "full_vgd_mmnas_h128", "full_itm_mmnas_h128"]
SUPERNET = Golden("supernet_vqa")
ALPHA = "backnone.cells_{}.0.dag.{}.0.{}"


def block_key(i, name):
    return ALPHA.format("enc", i, name) if i < 12 else ALPHA.format("dec", i - 12, name)


def loss_of(net, batch, target):
    logits = net(batch)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="sum")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FULL)
def test_full_network(name, way):
    golden = Golden(name)
    net, batch = golden.network(way), golden.batch()
    with torch.no_grad():
        out = net(batch)
    out = dict(zip(("scores", "reg"), out, strict=True)) if isinstance(out, tuple) else {"out": out}
    assert set(out) == set(golden.spec["outputs"])
    for key, value in out.items():
        golden.assert_output(key, value)


@pytest.mark.parametrize("way", [PLAIN, PADDED])
@pytest.mark.parametrize("name", FULL)
def test_intermediates(name, way):
    golden = Golden(name)
    net, found = golden.network(way), {}
    modules = {
        "imgfeat_linear": net.region_linear,
        "backnone.cells_enc.0.dag.0.0": net.encoder_decoder.enc[0],
        "backnone.cells_dec.0.dag.0.0": net.encoder_decoder.dec[0],
        "backnone": net.encoder_decoder,
        **dict(net.head.named_children()),
    }
    for key, module in modules.items():
        module.register_forward_hook(lambda module, args, out, key=key: found.__setitem__(key, out))
    with torch.no_grad():
        net(golden.batch())
    for key in golden.spec["intermediates"]:
        if key == "backnone":
            for i, value in enumerate(found[key]):
                golden.assert_output(f"i.backnone.{i}", value)
        else:
            golden.assert_output(f"i.{key}", found[key])


@pytest.mark.parametrize("name", [*FULL, "supernet_vqa"])
def test_state_dicts_translate_both_ways(name):
    golden = Golden(name)
    theirs = {f"module.{key}": value for key, value in filled(golden.spec["state_dict"]).items()}
    net = golden.network()
    net.load_state_dict(from_published(theirs))
    back = to_published(net.state_dict())
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in theirs.items()}
    assert all(torch.equal(back[key], value) for key, value in theirs.items() if "linear_x_rel" not in key)
    if "n_params" in golden.spec:
        assert sum(net.count_parameters().values()) == golden.spec["n_params"]


def test_state_dicts_of_version_0_1_0_still_load():
    """State dicts under the old names load, both directly and inside another module."""
    net, other = small_net(), small_net()
    other.load_state_dict({key: value + 1 for key, value in other.state_dict().items()})
    renamed = {"encoder_decoder": "backbone", "alpha_logits": "alpha_prob"}
    old = net.state_dict()
    for now, then in renamed.items():
        old = {key.replace(now, then): value for key, value in old.items()}
    assert {"backbone.enc.0.0.alpha_prob", "backbone.dec.1.0.operations.guided_att_16.ln.a_2"} <= old.keys()
    assert current_keys(old).keys() == net.state_dict().keys()
    for module, state in ((other, old), (torch.nn.ModuleDict({"a": other}), {f"a.{k}": v for k, v in old.items()})):
        other.load_state_dict({key: value + 1 for key, value in other.state_dict().items()})
        module.load_state_dict(state)
        assert all(torch.equal(other.state_dict()[key], value) for key, value in net.state_dict().items())
    with pytest.raises(RuntimeError, match=r"encoder_decoder\.enc\.0\.0\.alpha_logits"):
        other.load_state_dict({key: value for key, value in old.items() if key != "backbone.enc.0.0.alpha_prob"})


@pytest.mark.parametrize(("task", "unused"), [("vqa", True), ("vgd", False), ("itm", True)])
def test_searched_networks_carry_what_the_original_expects(task, unused):
    """Searched networks for all tasks but grounding have weights for relations of words, which nothing reads."""
    net = build_net(SUPERNET.spec, task)
    theirs = to_published(net.state_dict())
    extra = {"module.linear_x_rel.weight": (64, 3), "module.linear_x_rel.bias": (64,)} if unused else {}
    assert {key: tuple(value.shape) for key, value in theirs.items() if "linear_x_rel" in key} == extra
    assert len(theirs) == len(net.state_dict()) + len(extra)
    ours = from_published(theirs)
    assert ours.keys() == net.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("key", ["fc.weight", "backnone.cells_enc.1.dag.0.0.ln.a_2", "proj"])
def test_unknown_key_is_named(key):
    with pytest.raises(UserError, match=f"has the key '{key}', which is not one of an original MMNas network"):
        from_published({key: torch.zeros(1)})


def test_candidate_beyond_the_list():
    key = "backnone.cells_enc.0.dag.0.0.candidate_ops.2.ln.a_2"
    with pytest.raises(UserError, match="not one of an original"):
        from_published({key: torch.zeros(1)})


class TestSupernet:
    def test_initial_alphas_and_architecture(self):
        net = build_net(SUPERNET.spec)
        for i, gated in enumerate(net.encoder_decoder.gated()):
            assert gated.alpha_logits.tolist() == SUPERNET.spec["initial_alpha_prob"][block_key(i, "alpha_prob")]
            assert gated.alpha_gate.tolist() == SUPERNET.spec["initial_alpha_gate"][block_key(i, "alpha_gate")]
        assert net.genotype() == Architecture.from_dict(SUPERNET.spec["initial_genotype"])

    @pytest.mark.parametrize("way", WAYS)
    def test_derived_architecture_and_its_output(self, way):
        net = SUPERNET.network(way)
        assert net.genotype() == Architecture.from_dict(SUPERNET.spec["genotype_for_rule_fill"])
        weights = SUPERNET.spec["genotype_weights_for_rule_fill"]
        found = net.probabilities()
        for title, key in (("encoder", "w_enc"), ("decoder", "w_dec")):
            rows = [list(row.values()) for row in found[title].values()]
            torch.testing.assert_close(torch.tensor(rows), torch.tensor(weights[key]))
        gates_of(*net.choices()).decide()
        assert [[active] for active in active_of(net)] == SUPERNET.spec["set_chosen_op_active"]
        with torch.no_grad():
            SUPERNET.assert_output("chosen", net(SUPERNET.batch()))

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("mode", ["single", "full", "two"])
    def test_mode(self, mode, way):
        """Output, loss, gradients, and their effect on the architecture parameters."""
        expected = SUPERNET.spec[mode]
        net = SUPERNET.network(way)
        for i, gated in enumerate(net.encoder_decoder.gated()):
            n = len(gated.names)
            active = (7 * i + 3) % n
            set_path(gated.choice, mode, active, [(active + 1 + i % (n - 1)) % n] if mode == "two" else ())
        batch = SUPERNET.batch()
        with torch.no_grad():
            SUPERNET.assert_output(f"{mode}.out", net(batch))
        loss = loss_of(net, batch, target_of(SUPERNET.spec["target_seed"]))
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
        norm = torch.cat([p.grad.flatten() for p in net.weights() if p.grad is not None]).double().norm()
        assert norm.item() == pytest.approx(expected["net_grad_norm"], rel=1e-4)
        self.check_idle(net, expected["net_params_with_zero_grad"])
        if mode != "single":
            self.check_alphas(net, expected, mode)

    def check_idle(self, net, theirs):
        """Parameters with a zero gradient in the original have none here; `path_weights` are all others."""
        idle = {key for key, p in net.named_parameters() if p.grad is None and ".alpha_" not in key}
        state = {key: torch.empty(0) for key in theirs if not key.startswith("linear_x_rel")}
        assert idle == set(from_published(state))
        used = {id(p) for key, p in net.named_parameters() if key not in idle and ".alpha_" not in key}
        assert used == {id(p) for p in path_weights(net)}

    def check_alphas(self, net, expected, mode):
        gates = gates_of(*net.choices(), mode=mode)
        alphas = [choice.logits for choice in gates.choices]
        optimizer = torch.optim.Adam(alphas, lr=0.1, betas=(0.0, 0.999), eps=1e-8)
        self.compare(expected["alpha_gate_grad"], "alpha_gate", [choice.gates.grad for choice in gates.choices])
        gates.finish_backward()
        self.compare(expected["alpha_prob_grad"], "alpha_prob", [alpha.grad for alpha in alphas])
        optimizer.step()
        self.compare(expected["alpha_prob_after_one_adam_step"], "alpha_prob", alphas)
        gates.finish_step()
        if "alpha_prob_after_rescale" in expected:
            self.compare(expected["alpha_prob_after_rescale"], "alpha_prob", alphas)

    def compare(self, expected, name, tensors):
        for i, value in enumerate(tensors):
            torch.testing.assert_close(
                value.detach(), torch.tensor(expected[block_key(i, name)]), rtol=1e-4, atol=1e-4, msg=lambda m: m
            )


class TestTrajectory:
    spec = Golden("trajectory").spec

    def warm_up(self, base, step):
        """The rate of step number ``step`` (from 1) with two steps per epoch."""
        return base * min(1.0, math.ceil(step / 2) / 4)

    def train(self, net, parameters, seed, step, rate, optimizer):
        """Run one step of the original's loop; return loss and gradient norm."""
        optimizer.zero_grad()
        loss = loss_of(net, batch_of(self.spec["input_spec"], seed), target_of(seed + 100))
        loss.backward()
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        return loss.item(), norm.item()

    def prepared(self, way, architecture=None):
        spec = self.spec if architecture else self.spec["search_net_steps"]
        net = build_net(spec, architecture=architecture, way=way).train()
        theirs = {key.removeprefix("module."): value.shape for key, value in to_published(net.state_dict()).items()}
        net.load_state_dict(from_published(filled(theirs.items())))
        # Adam amplifies rounding: after six steps a float32 network is up to 4e-4 away, depending on the processor.
        net.to(torch.float64)
        return net, torch.optim.Adam(net.weights(), lr=0.0, betas=(0.9, 0.98), eps=1e-9)

    @pytest.mark.parametrize("way", [PLAIN, PACKED])
    def test_training_of_a_fixed_network(self, way):
        net, optimizer = self.prepared(way, load_architecture(ARCHITECTURES / "mmnas_vqa.json"))
        assert net.genotype() == Architecture.from_dict(self.spec["cfg"]["GENOTYPE"])
        for i, expected in enumerate(self.spec["steps"]):
            rate = self.warm_up(1.2e-3, i + 1) * (0.2 if i == 7 else 1.0)
            assert rate == pytest.approx(expected["lr"])
            loss, norm = self.train(net, net.weights(), 100 + i, i, rate, optimizer)
            assert loss == pytest.approx(expected["loss"], rel=1e-4)
            assert norm == pytest.approx(expected["grad_norm_before_clip"], rel=1e-3)
            total = net.head.proj.weight.double().sum().item()
            assert total == pytest.approx(expected["proj_weight_sum"], abs=1e-3)
            row = net.embedding.weight[1].double().abs().sum().item()
            assert row == pytest.approx(expected["emb_row1_abs"], abs=1e-3)

    @pytest.mark.parametrize("way", [PLAIN, PACKED])
    def test_network_steps_of_a_search(self, way):
        """With zero gradients for parameters that were not sampled, as in the original."""
        net, optimizer = self.prepared(way)
        probes = {
            "enc0.op0": net.encoder_decoder.enc[0][0].operations["self_att_64"].mhatt.linear_q.weight,
            "enc0.op1": net.encoder_decoder.enc[0][0].operations["feed_forward"].mlp.linear.weight,
            "dec5.op2": net.encoder_decoder.dec[5][0].operations["guided_att_64"].mhatt.linear_v.weight,
        }
        for step, expected in enumerate(self.spec["search_net_steps"]["steps"]):
            for gated, active in zip(net.encoder_decoder.gated(), expected["active"], strict=True):
                set_path(gated.choice, "single", active)
            rate = self.warm_up(4e-3, step + 1)
            loss, norm = self.train(net, net.weights(), 300 + step, step, rate, optimizer)
            assert loss == pytest.approx(expected["loss"], rel=1e-4)
            assert norm == pytest.approx(expected["grad_norm_before_clip"], rel=1e-3)
            for name, (total, absolute) in expected["probes"].items():
                weight = probes[name].detach().double()
                assert weight.sum().item() == pytest.approx(total, abs=1e-4 * absolute)
                assert weight.abs().sum().item() == pytest.approx(absolute, rel=1e-4)


def small_net(names=("self_att_16", "rel_self_att_16", "guided_att_16", "feed_forward"), dropout=0.0, way=PLAIN):
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder.searched(
        32, dropout, num_enc=3, num_dec=5, enc_candidates=("self_att_16", "feed_forward"), dec_candidates=names
    )
    net = MultimodalNet(encoder_decoder, AnswerHead(32, dropout, 7, hidden=16), (11, 6), region_size=9)
    return sped_up(net, way)


def random_batch(counts, lengths, num_regions, num_tokens, seed=0):
    g = torch.Generator().manual_seed(seed)
    total = len(counts)
    regions = torch.rand(total, 12, 9, generator=g) + 0.1
    corner = 50 * torch.rand(total, 12, 2, generator=g)
    boxes = torch.cat([corner, corner + 1 + 50 * torch.rand(total, 12, 2, generator=g)], -1)
    tokens = torch.randint(1, 11, (total, 14), generator=g)
    counts, lengths = torch.tensor(counts), torch.tensor(lengths)
    beyond = torch.arange(12) >= counts[:, None]
    batch = {
        "regions": regions.masked_fill(beyond[..., None], 0.0)[:, :num_regions],
        "boxes": boxes.masked_fill(beyond[..., None], 0.0)[:, :num_regions],
        "tokens": tokens.masked_fill(torch.arange(14) >= lengths[:, None], 0)[:, :num_tokens],
        "counts": counts,
        "image_size": torch.tensor([[100.0, 120.0]]).expand(total, 2),
    }
    return batch


sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 14)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(sizes=sizes, way=st.sampled_from(WAYS), seed=st.integers(0, 99))
def test_padding_to_the_longest_changes_nothing(sizes, way, seed):
    """Logits and gradients of a batch padded to the longest are those of the plain network and full padding."""
    counts, lengths = zip(*sizes, strict=True)
    results = []
    for longest in (False, True):
        net = small_net(way=way if longest else PLAIN)
        draw(net, "full", torch.Generator().manual_seed(seed))
        shape = (max(counts), max(lengths)) if longest else (12, 14)
        logits = net(random_batch(counts, lengths, *shape))
        logits.square().sum().backward()
        gradients = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
        results.append({"logits": logits, **gradients})
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("way", WAYS)
def test_a_question_without_words_and_an_image_without_regions(way):
    """Such a sample attends evenly to all of its padding, and does not affect other samples."""
    net = small_net(way=way).eval()
    both = net(random_batch([5, 0, 7], [4, 6, 0], 12, 14))
    assert both.isfinite().all()
    alone = random_batch([5, 0, 7], [4, 6, 0], 12, 14)
    torch.testing.assert_close(small_net().eval()(alone), both, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net({k: v[:1] for k, v in alone.items()}), both[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["single", "full"])
@pytest.mark.parametrize("way", WAYS)
def test_a_float64_network_is_exact(way, mode):
    """Masks, relations, gates and outputs have its dtype: the effect of padding is within float64's rounding."""
    results = []
    for dtype, shape, own in ((torch.float64, (7, 6), way), (torch.float64, (12, 14), PLAIN), (None, (7, 6), way)):
        net = small_net(("rel_self_att_16", "guided_att_16", "self_att_16"), way=own).to(dtype or torch.float32)
        draw(net, mode, torch.Generator().manual_seed(4))
        batch = random_batch([5, 7, 3], [4, 6, 2], *shape)
        logits = net({key: value.double() if key == "boxes" and dtype else value for key, value in batch.items()})
        assert logits.dtype == (dtype or torch.float32)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in net.parameters() if p.grad is not None)])
    for one, other, single in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(single, other.float(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_regions_are_masked_by_their_number_and_not_by_what_they_hold(way):
    """A region of zeros is a region, and values after an image's own regions are not read."""
    net, batch = small_net(way=way).eval(), random_batch([5, 7], [4, 6], 7, 6)
    batch["regions"][0, 2] = 0.0
    _, mask, _ = net.embed_regions(batch)
    assert (~fast_layers.PaddedSide.of(mask).mask).sum(1).tolist() == [5, 7]
    weights = net.pooling_weights(batch)[1][..., 0]
    assert weights[0, 2] > 0 and not weights[0, 5:].any()
    expected = net(batch)
    batch["regions"][0, 5:], batch["boxes"][0, 5:] = 3.0, 4.0
    torch.testing.assert_close(net(batch), expected)


def test_padding_is_full_only_where_an_operation_needs_it():
    assert not small_net().needs_full_padding
    net = small_net(("std_conv_3", "uniimg_att_32"))
    assert net.needs_full_padding
    assert sped_up(net, PACKED).embed_words(torch.tensor([[3, 0, 0]]))[1].index is None


@pytest.mark.parametrize("way", WAYS)
def test_relations_are_computed_only_for_operations_that_run(monkeypatch, way):
    net, batch = small_net(way=way), random_batch([5, 7], [4, 6], 7, 6)
    calls = []
    original = net.project_relations
    monkeypatch.setattr(net, "project_relations", lambda *args: calls.append(args) or original(*args))
    for gated in net.encoder_decoder.gated():
        set_path(gated.choice, "single", 0)
    net(batch)
    assert not calls
    set_path(net.choices()[-1], "full", 0)
    net(batch)
    assert len(calls) == 1


def test_half_precision_features_are_taken():
    net, batch = small_net().eval(), random_batch([5, 7], [4, 6], 7, 6)
    half = {**batch, "regions": batch["regions"].half()}
    torch.testing.assert_close(net(half), net({**half, "regions": half["regions"].float()}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dropout", [0.0, 1e-4])
def test_bfloat16_autocast(way, dropout):
    """Results are close to float32 and gradients finite in every mode; a little dropout enables the training code."""
    net, batch = small_net(dropout=dropout, way=way), random_batch([5, 7, 0], [4, 6, 3], 7, 6)
    for mode in ("single", "full", "two"):
        draw(net, mode, torch.Generator().manual_seed(1))
        expected = net(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = net(batch)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)
        logits.sum().backward()
        assert all(p.grad.isfinite().all() for p in path_weights(net))


@pytest.mark.parametrize("way", WAYS)
def test_box_features_are_concatenated(way):
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder.fixed(load_architecture(ARCHITECTURES / "mcan.json"), 64, 0.0)
    net = MultimodalNet(encoder_decoder, AnswerHead(64, 0.0, 7), (11, 6), region_size=9, box_feature=8)
    plain, net = net.eval(), sped_up(copy.deepcopy(net), way).eval()
    assert net.region_linear.in_features == 17
    batch = random_batch([5, 7], [4, 6], 7, 6)
    torch.testing.assert_close(net(batch), plain(batch))
    moved = {**batch, "boxes": batch["boxes"] * 1.5}
    assert not torch.allclose(net(batch), net(moved))


@pytest.mark.parametrize("way", WAYS)
def test_pooling_weights_point_at_kept_positions(way):
    net, batch = small_net(way=way).eval(), random_batch([5, 7], [4, 6], 7, 6)
    words, regions = net.pooling_weights(batch)
    assert words.shape == (2, 6, 1) and regions.shape == (2, 7, 1)
    torch.testing.assert_close(words.sum(1), torch.ones(2, 1))
    torch.testing.assert_close(regions.sum(1), torch.ones(2, 1))
    assert not words[0, 4:].any() and not regions[0, 5:].any() and words[0, :4].all()


def test_given_word_vectors_are_copied_and_trained():
    vectors = torch.rand(11, 6)
    net = MultimodalNet(small_net().encoder_decoder, AnswerHead(32, 0.0, 7), vectors, region_size=9)
    assert torch.equal(net.embedding.weight, vectors)
    net.embedding.weight.data.zero_()
    assert vectors.all() and any(p is net.embedding.weight for p in net.weights())


def test_scores_of_grounding_are_logits_for_the_other_loss():
    torch.manual_seed(0)
    head = GroundingHead(32, 0.0, scores_loss="bce").eval()
    x, y = torch.randn(2, 3, 32), torch.randn(2, 5, 32)
    logits, boxes = head(x, y)
    head.scores_loss = "kld"
    scores, same = head(x, y)
    torch.testing.assert_close(scores, logits.log_softmax(-1))
    assert torch.equal(boxes, same) and boxes.shape == (2, 5, 4)


def test_a_network_without_relations_does_not_train_their_projection():
    """In all other cases every parameter is in `weights` and has a gradient."""
    for name, unread in (("mcan", {"relation_linear.weight", "relation_linear.bias"}), ("mmnas_vqa", set())):
        encoder_decoder = EncoderDecoder.fixed(load_architecture(ARCHITECTURES / f"{name}.json"), 64, 0.0)
        net = MultimodalNet(encoder_decoder, AnswerHead(64, 0.0, 7), (11, 6), region_size=9)
        net(random_batch([5, 7], [4, 6], 7, 6)).sum().backward()
        assert {key for key, p in net.named_parameters() if p.grad is None} == unread
        assert {id(p) for p in net.weights()} == {id(p) for p in net.parameters() if p.grad is not None}
        assert net.uses_all_weights() and not net.arch_parameters()
