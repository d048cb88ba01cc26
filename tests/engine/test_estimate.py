"""Estimates of memory and arithmetic agree with counts by hand and with a real step."""

import pytest
import torch
from torch import nn

from engine.estimate import Simulation, flops_per_second, report, seconds_to_read
from engine.updates import Precision

pytestmark = pytest.mark.usefixtures("narrow_backbones")

CPU = torch.device("cpu")


def simulate(work, net=None, batch_size=64):
    """Phase of ``work(simulation, net)``."""
    with Simulation(CPU, Precision(), batch_size, 1) as simulation:
        if net is not None:
            simulation.adopt(net)
        simulation.measure("work", lambda: work(simulation, net), samples=2 * batch_size)
    return simulation.phases[0]


def test_a_forward_without_gradients_holds_weights_input_and_output():
    def forward(simulation, net):
        with torch.no_grad():
            net(simulation.batch({"x": torch.zeros(1, 256)})["x"])

    phase = simulate(forward, nn.Linear(256, 512))
    # 64 inputs, 64 outputs, weights and bias; each is already a multiple of 512 bytes.
    assert phase.peak_bytes == 4 * (64 * 256 + 64 * 512 + 256 * 512 + 512)
    assert phase.flops == 2 * (2 * 64 * 256 * 512)


def test_freed_tensors_count_no_longer():
    def chain(simulation, net):
        x = torch.zeros(1000, 128)
        for _ in range(10):
            x = x + 1

    assert simulate(chain).peak_bytes == 2 * 4 * 1000 * 128


def test_adams_moments_are_held():
    net = nn.Linear(256, 512)
    with Simulation(CPU, Precision(), 8, 1) as simulation:
        simulation.adopt(net)
        before = simulation.memory.now
        simulation.hold_adam(net.parameters())
        assert simulation.memory.now == 3 * before == 3 * 4 * (256 * 512 + 512)


def test_backward_costs_twice_the_forward():
    def step(simulation, net):
        net(simulation.batch({"x": torch.zeros(1, 256)})["x"]).sum().backward()

    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    # The input of the first layer needs no gradient.
    assert simulate(step, net).flops == 2 * (2 * 64 * 256 * 256) * (2 + 3)


def test_nothing_is_computed_for_sizes_that_no_machine_has():
    def forward(simulation, net):
        net(simulation.batch({"x": torch.zeros(1, 3, 64, 64)})["x"])

    phase = simulate(forward, nn.Conv2d(3, 64, 3, padding=1), batch_size=10**9)
    assert phase.peak_bytes > 10**9 * 64 * 64 * 64 * 4


def test_half_precision_takes_less():
    def forward(simulation, net):
        with simulation.precision.autocast(), torch.no_grad():
            net(simulation.batch({"x": torch.zeros(1, 4)})["x"])

    peaks = {}
    for amp in ("off", "bf16"):
        net = nn.Linear(4, 1024)
        with Simulation(CPU, Precision(amp, CPU), 4096, 1) as simulation:
            simulation.adopt(net)
            simulation.measure("forward", lambda net=net: forward(simulation, net), 4096)
        peaks[amp] = simulation.phases[0].peak_bytes
    assert peaks["bf16"] < 0.55 * peaks["off"]


def test_shared_tensors_stay_shared():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    with Simulation(CPU, Precision(), 8, 1) as simulation:
        simulation.adopt(net)
        assert net[0].weight is net[1].weight and net[0].weight.requires_grad


def test_reading_is_timed_only_where_something_is_read():
    class Data:
        reads = 0

        def __len__(self):
            return 3

        def read(self, rows, only):
            self.reads += len(rows)

    data = Data()
    assert seconds_to_read(data, []) == 0 and data.reads == 0
    assert seconds_to_read(data, ["x"]) > 0 and data.reads == 9


def test_the_table(capsys):
    with Simulation(CPU, Precision(), 4, 2) as simulation:
        simulation.measure("steps", lambda: torch.zeros(4, 4) @ torch.zeros(4, 4), 8, read_seconds=7.0)
    result = report(simulation, rate=128.0)
    (row,) = result["phases"]
    assert row["flops"] == 2 * 128 and row["compute_seconds"] == 2.0 and row["read_seconds"] == 3.5
    assert "| steps | 8 | 0.00 GiB |" in capsys.readouterr().out


def test_the_probe_measures_something():
    assert flops_per_second(CPU, Precision()) > 1e8


@pytest.mark.parametrize("flags", [[], ["--cache_features", "off"], ["--micro_batch", "2"]])
def test_every_script_estimates_and_leaves_nothing(films, tmp_path, flags, capsys):
    import main_darts_found_mmimdb as found
    import main_darts_searchable_mmimdb as search
    import main_unimodal_mmimdb as unimodal

    scripts = ((search, []), (found, ["--genotype", "random"]), (unimodal, ["--modality", "image"]))
    for script, more in scripts[: 1 if flags else 3]:
        result = script.main([*films.flags, *flags, *more, "--estimate", "--out_dir", str(tmp_path / "runs")])
        assert result["kind"] == "estimate" and all(row["peak_bytes"] > 0 for row in result["phases"])
    assert not (tmp_path / "runs").exists()
    assert "weight steps, an epoch" in capsys.readouterr().out
