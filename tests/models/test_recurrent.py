"""The LSTM in reduced precision, on machines that have such an LSTM and on those that do not."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.mmnas import recurrent
from tasks.mmnas import networks

CPU = torch.device("cpu")
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def lstm_and_input():
    torch.manual_seed(0)
    return nn.LSTM(6, 8, batch_first=True), torch.randn(3, 5, 6)


@pytest.mark.parametrize("dtype", TYPES.values())
def test_the_probe_says_what_a_real_layer_does(dtype):
    lstm, x = lstm_and_input()
    try:
        with torch.autocast("cpu", dtype=dtype):
            lstm(x)[0].float().sum().backward()
        runs = True
    except RuntimeError:
        runs = False
    assert recurrent.lstm_runs("cpu", dtype) == runs


def test_the_probe_draws_no_random_numbers_and_minds_no_surroundings():
    recurrent.lstm_runs.cache_clear()
    torch.manual_seed(0)
    with torch.no_grad():
        first = recurrent.lstm_runs("cpu", torch.bfloat16)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), drawn)
    recurrent.lstm_runs.cache_clear()
    assert recurrent.lstm_runs("cpu", torch.bfloat16) == first


@pytest.mark.parametrize("dtype", TYPES.values())
def test_without_such_an_lstm_it_runs_in_float32(monkeypatch, dtype):
    """Conversely, a precision that this machine supports is used."""
    lstm, x = lstm_and_input()
    expected = lstm(x)[0]
    runs = recurrent.lstm_runs("cpu", dtype)
    with torch.autocast("cpu", dtype=dtype):
        assert recurrent.run_lstm(lstm, x).dtype == (dtype if runs else torch.float32)
        monkeypatch.setattr(recurrent, "lstm_runs", lambda *args: False)
        states = recurrent.run_lstm(lstm, x)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(states, expected)
    states.sum().backward()
    assert all(p.grad.isfinite().all() for p in lstm.parameters())


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_the_log_says_so_in_one_line(monkeypatch, caplog, amp, runs):
    monkeypatch.setattr(networks, "lstm_runs", lambda *args: runs)
    with caplog.at_level(logging.INFO, logger="mdarts"):
        precision = networks.build_precision(SimpleNamespace(amp=amp), CPU)
    assert precision.dtype == TYPES.get(amp)
    lines = [record.getMessage() for record in caplog.records]
    if runs or amp == "off":
        assert not lines
    else:
        assert len(lines) == 1 and f"--amp {amp}" in lines[0] and "LSTM runs in float32" in lines[0]
