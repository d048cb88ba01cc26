"""What needs a GPU: the scripts on it, mixed precision, and agreement with the CPU."""

import pytest
import torch

import main_darts_found_mmimdb as found
import main_darts_searchable_mmimdb as search

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


def test_agrees_with_the_cpu(films, tmp_path):
    """One epoch of a search without dropout: losses within float32 accumulation of the CPU's."""
    flags = [*films.flags, *SIZES, "--drpt", "0", "--out_dir", str(tmp_path)]
    on_gpu, on_cpu = (
        search.main([*flags, "--device", device])["metrics"]["train"]["loss"] for device in ("cuda", "cpu")
    )
    assert on_gpu == pytest.approx(on_cpu, rel=0.05)


def test_dataparallel_is_harmless_on_one_gpu(films, tmp_path):
    flags = [*films.flags, *SIZES, "--out_dir", str(tmp_path)]
    runs = [search.main([*flags, *more])["metrics"] for more in ([], ["--parallel"])]
    assert runs[0]["dev"]["loss"] == pytest.approx(runs[1]["dev"]["loss"], rel=1e-3)
