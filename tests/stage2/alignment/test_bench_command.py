"""The bench with a tiny model: that it compares like with like. Each test names the bug that it catches."""

import cProfile
from dataclasses import replace

import pytest
import torch

from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.alignment import bench_command as bench
from stage2_rag_finetune_deploy.alignment.bench_command import BenchConfig, Stopwatch, Timing
from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs
from stage2_rag_finetune_deploy.alignment.rollout import sample_groups


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


def positions(act):
    """How many token positions went through the first layer of whatever ran inside."""
    counted = []

    def count(module, inputs, output):
        if type(module).__name__ == "LlamaDecoderLayer" and module.self_attn.layer_idx == 0:
            counted.append(inputs[0].shape[0] * inputs[0].shape[1])

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        act()
    finally:
        handle.remove()
    return sum(counted)


def test_why_it_is_faster(small, questions, build):
    """Catches: a prompt that runs once for each of its answers again. No clock: positions are counted.

    The control does the same work without sharing: each answer comes with its own prompt.
    """
    config, (task, items) = replace(small, group=8), questions
    ours = positions(lambda: bench.time_ours(Timing(), task, items, config, lambda: None))
    theirs = positions(lambda: bench.time_trl(Timing(), task, items, config, lambda: None))
    model, prompts = build(0), [[1, *range(2, 90), number] for number in range(8) for _ in range(8)]
    completions = [[5, 6, 7, 8]] * len(prompts)

    def step(prompts, group):
        sample_groups(model, prompts, group, 4, end_id=-1)
        completion_logprobs(model, prompts, completions, group)

    shared = positions(lambda: step(prompts[::8], 8))
    alone = 8 * sum(positions(lambda row=row: step_alone(model, row, completions[0])) for row in prompts[::8])
    assert theirs > bench.BAR * ours
    assert alone > bench.BAR * shared


def step_alone(model, prompt, completion):
    """Sampling and log-probabilities of one answer."""
    sample_groups(model, [prompt], 1, len(completion), end_id=-1)
    completion_logprobs(model, [prompt], [completion], 1)


def test_other_work_is_not_compared(small, questions):
    """Catches: a ratio over unequal work (the control: TRL with answers of half the length)."""
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
    with pytest.raises(LabError, match=f"--{name} {value}"):
        bench.run_bench(replace(small, **{name: value}), "smoke")
