"""Tests of the benchmark of the tutorials' recurrent nets."""

import importlib
import json

import hw3tf


def test_nets_are_built_with_both_layers_and_agree(benchmarks, tmp_path, capsys):
    """Tiny batches through the real program."""
    program = importlib.import_module("tutorials.nets")
    fused = hw3tf.layers.GRU
    program.main(["--quick", "--json", str(tmp_path / "nets.json")])
    assert hw3tf.layers.GRU is fused
    nets = json.loads((tmp_path / "nets.json").read_text())["nets"]
    assert list(nets) == ["tutorial 4, bidirectional GRU"]
    for net in nets.values():
        # Not 0: the sums are in another order, so one of them is the fused layer.
        assert 0 < net["difference"] < 1e-5
        for what in ("training", "inference"):
            assert set(net[what]) == set(program.KINDS)
            assert all(0 < t["best"] <= t["median"] for t in net[what].values())
    assert "| tutorial 4, bidirectional GRU, a training step |" in " ".join(
        capsys.readouterr().out.split()
    )
