"""The bench with a tiny model: that it compares like with like. Each test names the bug that it catches."""

import cProfile

import pytest

from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.alignment import bench_command as bench
from stage2_rag_finetune_deploy.alignment.bench_command import BenchConfig, Stopwatch, Timing


@pytest.fixture(scope="module")
def small(tiny_base):
    """Options for the tiny model."""
    return BenchConfig(model=tiny_base, steps=1, rounds=1, batch=2, group=2, tokens=4, dtype="fp32", trl_dtype="fp32")


@pytest.fixture
def questions(small):
    """A task with answers of four tokens, and its questions."""
    task = bench.VerifiableTask("chain_sum")
    task.new_tokens = small.tokens
    return task, task.train(3 * small.batch, seed=1)


def test_whole_bench(small, runs, capsys):
    """Catches: a side that samples other answers than the other: more, fewer, shorter, or of other questions."""
    bench.run_bench(small, "smoke")
    report = read_report(latest_run("stage2", "alignment", "bench"))
    metrics = {name: each["value"] for name, each in report["metrics"].items()}
    assert metrics["ratio"] == pytest.approx(metrics["step_seconds_trl"] / metrics["step_seconds_here"])
    assert report["metrics"]["ratio"]["band"] is None  # no verdict over a toy
    assert "times TRL's steps a second" in capsys.readouterr().out


def test_both_sides_do_what_was_asked(small, questions):
    """Catches: an end of turn that cuts answers short, a prompt that TRL tokenises otherwise, a step left out."""
    for side in (bench.time_ours, bench.time_trl):
        timing, steps = Timing(), []
        side(timing, *questions, small, lambda steps=steps: steps.append(1))
        prompts = sum(len(bench.load_base(small.model)[1].apply_chat_template(
            item.messages, add_generation_prompt=True)["input_ids"]) for item in questions[1])  # fmt: skip
        assert timing.tokens == small.group * (prompts + len(questions[1]) * small.tokens)
        assert len(timing.seconds) == small.steps and len(steps) == small.steps + 2
        assert all(timing.phases[phase] > 0 for phase in bench.PHASES), timing.phases
        assert sum(timing.phases.values()) > 0 < timing.memory


def test_other_work_is_not_compared(small, questions):
    """Catches: a ratio over unequal work (the control: TRL with answers of half the length)."""
    from dataclasses import replace

    ours, theirs = Timing(), Timing()
    bench.time_ours(ours, *questions, small, lambda: None)
    bench.time_trl(theirs, *questions, replace(small, tokens=2), lambda: None)
    with pytest.raises(LabError, match="not the same work"):
        bench.same_work(ours, theirs)


def test_stopwatch_counts_neither_the_first_step_nor_the_profiled_one():
    """Catches: the first step's warming up in the median, the profiler's own time in it."""
    timing, counted = Timing(), []
    watch = Stopwatch(timing, 3, lambda: counted.append(len(timing.seconds)))
    for _ in range(5):
        watch()
    assert counted == [0, 1, 2, 3, 3]
    assert len(timing.seconds) == 3 and set(timing.phases) == {*bench.PHASES, "all else"}


def test_phases_leave_nothing_out():
    """Catches: a phase counted twice, a rest that is not the rest."""
    profile = cProfile.Profile()
    profile.enable()
    sorted(range(10))
    profile.disable()
    assert bench.phases_of(profile, 2.5) == dict.fromkeys(bench.PHASES, 0.0) | {"all else": 2.5}


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("group", 1), ("tokens", 0), ("batch", -1)])
def test_impossible_numbers(small, name, value):
    """Catches: a traceback out of a library in place of a line."""
    from dataclasses import replace

    with pytest.raises(LabError, match=f"--{name} {value}"):
        bench.run_bench(replace(small, **{name: value}), "smoke")
