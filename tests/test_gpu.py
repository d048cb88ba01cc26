"""What needs a GPU: the scripts on it, mixed precision, and agreement with the CPU."""

import pytest
import torch

import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search
import search_vqa
import train_vqa

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SIZES = ["--C", "8", "--L", "4", "--epochs", "1", "--device", "cuda"]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_search_and_found(films, tmp_path, amp):
    result = search.main([*films.flags, *SIZES, "--amp", amp, "--out_dir", str(tmp_path)])
    assert 0 <= result["metrics"]["dev"]["f1"] <= 1
    trained = found.main(["--search_exp_dir", result["folder"], "--epochs", "1", "--batchsize", "8"])
    assert trained["device"].startswith("cuda") and 0 <= trained["metrics"]["test"]["f1"] <= 1


def test_agrees_with_the_cpu(films):
    """Logits and weight gradients of the supernet, backbones included, in evaluation mode."""
    from datasets.mmimdb import open_mmimdb
    from tasks import mmimdb
    from tasks.bmnas.networks import build_search_net
    from util.nested import to_device

    args = search.get_args_parser().parse_args([*films.flags, *SIZES])
    torch.manual_seed(0)
    net = build_search_net(mmimdb.TASK, args, mmimdb.build_backbones(args)).eval()
    batch, found = open_mmimdb(films.folder, "train").read(range(8)), {}
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        net.to(device).zero_grad()
        logits = net(to_device(batch, device))
        logits.sum().backward()
        found[name] = [logits.detach().cpu(), *(p.grad.cpu() for p in net.weights())]
    for on_cpu, on_gpu in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("more", [["--amp", "off"], ["--amp", "bf16"], ["--amp", "fp16"], ["--compile"]])
def test_mmnas_searches_and_trains(easy_vqa, tmp_path, more):
    sizes = ["--hsize", "64", "--enc_blocks", "2", "--dec_blocks", "3", "--batchsize", "16", "--epochs", "2"]
    flags = [*easy_vqa.flags, *sizes, "--device", "cuda", "--out_dir", str(tmp_path)]
    searching = more if more != ["--compile"] else []
    found = search_vqa.main([*flags, *searching, "--alpha_start", "1", "--alpha_every", "2"])
    trained = train_vqa.main([*flags, *more, "--RUN", "train", "--ARCH_PATH", found["folder"]])
    assert trained["device"].startswith("cuda") and 0 <= trained["metrics"]["val"]["accuracy"] <= 1


def test_dataparallel_is_harmless_on_one_gpu(films, tmp_path):
    flags = [*films.flags, *SIZES, "--out_dir", str(tmp_path)]
    runs = [search.main([*flags, *more])["metrics"] for more in ([], ["--parallel"])]
    assert runs[0]["dev"]["loss"] == pytest.approx(runs[1]["dev"]["loss"], rel=1e-3)
