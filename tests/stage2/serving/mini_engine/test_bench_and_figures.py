"""`bench` and `figures` on a tiny model. Each test names the bug that it catches."""

from dataclasses import replace

import pytest

from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.serving import bench_command as bench
from stage2_rag_finetune_deploy.serving.bench_command import PRESETS
from stage2_rag_finetune_deploy.serving.mini_engine import figures_command
from stage2_rag_finetune_deploy.serving.mini_engine.simulation import Lengths


@pytest.fixture
def small(tiny_base):
    return replace(PRESETS["smoke"], model=tiny_base, dtype="fp32")


def test_both_engines_do_the_same_work(small, tiny_base):
    """Catches: other prompts, cut answers or a padded prompt that changes them: then the speeds mean nothing."""
    work = bench.make_workload(tiny_base, [Lengths(16, 9), Lengths(30, 20), Lengths(21, 1)], 1)
    static, mini = (side(work, small, lambda count: None) for side in (bench.time_static, bench.time_mini))
    assert static.tokens == mini.tokens and [len(each) for each in mini.tokens] == [9, 20, 1]
    with pytest.raises(LabError, match="other lengths"):
        bench.check_answers("x", bench.Timing(1.0, [*mini.tokens[:2], []]), work)


def test_whole_bench(small, runs, capsys):
    """Catches: a ratio the wrong way round, a verdict over a toy, steps missing from the report."""
    bench.run_bench(small, "smoke")
    metrics = read_report(latest_run("stage2", "serving", "bench"))["metrics"]
    speeds = {name: metrics[f"tokens_per_second_{name}"]["value"] for name in ("transformers", "mini")}
    assert metrics["ratio_transformers"]["value"] == pytest.approx(speeds["mini"] / speeds["transformers"])
    assert metrics["ratio_transformers"]["band"] is None
    assert metrics["steps_continuous"]["value"] <= metrics["steps_static"]["value"]
    assert "times the useful tokens/s" in capsys.readouterr().out


def test_the_bar_is_judged_at_cpu_only():
    """Catches: a bar that no preset is held to."""
    config = PRESETS["cpu"]
    assert (config.model, config.requests, config.batch, config.vllm) == (None, 32, 8, True)


@pytest.mark.parametrize(("name", "value"), [("requests", 0), ("batch", 0), ("rounds", -1), ("max_num_seqs", 0)])
def test_impossible_numbers(small, name, value):
    """Catches: a traceback out of a library in place of a line."""
    with pytest.raises(LabError, match=f"--{name.replace('_', '-')} {value}"):
        bench.run_bench(replace(small, **{name: value}), "smoke")


def test_figures(runs):
    """Catches: a figure without the preemption and the shared blocks that it is there to show."""
    trace = figures_command.block_table_figure(runs / "blocks.png")
    assert any((owner == -2).any() for owner in trace.owner) and max(trace.used) == figures_command.BLOCKS
    figures_command.run_figures(figures_command.PRESETS["smoke"], "smoke")
    folder = latest_run("stage2", "serving", "figures")
    assert all((folder / name).stat().st_size > 5000 for name in ("block_table.png", "occupancy.png"))
