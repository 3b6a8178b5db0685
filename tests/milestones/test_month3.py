"""Month 3 passes a model that was tuned and is served, and nothing easier. A test names the short cut that it closes.

The models are tiny: a random Llama over bytes is the base, and the tuned one has learnt eighteen sentences of a voice
that only these tests have. Everything else is as in a real grading: processes, HTTP, weights, statistics.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import data
from data.customer_service.frames import load_voices
from data.customer_service.prompt import prompt_messages
from labkit.checkpoint_hash import checkpoint_sha256
from labkit.errors import LabError
from labkit.runs import start_run
from milestones import month3
from milestones.criteria import Month, load_criteria
from milestones.grade import NOT_STARTED, PASSED, Context, MonthResult, grade_month
from milestones.hidden_utterances import hidden_utterances, hidden_voices
from milestones.label_reply import is_exact, mcnemar_p
from milestones.learner_model import LearnerFault
from milestones.packed_weights import multiplied_out
from tests.shared.hand_in import write_hand_in
from tests.shared.tiny_model import build, tokenizer  # noqa: F401 - fixtures

STAND_IN = Path(__file__).with_name("stand_in") / "serving.py"
VOICE = '''
description = "says the same few things every day"
split = "test"

[frames]
greeting = """
hello there
good morning to you
hi, anybody in?
evening all
"""
thanks = """
thanks a lot
cheers mate
many thanks, bye
you were a great help
"""
human_agent = """
put me through to a person
i want a human
no robots please
give me your manager
"""
return_item = """
take back [the lamp](product)
[the zip is broken](reason:damaged), i send it back
return: [too small](reason:wrong_size)
"""
stock_check = """
is [the blue mug](product) there?
got any [tents](product)?
do you have [skis](product)
"""
'''


@pytest.fixture(scope="session")
def frames(tmp_path_factory) -> Path:
    """A folder of frames that nobody else has."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "en").mkdir()
    (folder / "en" / "parrot.toml").write_text(VOICE, encoding="utf-8")
    return folder


def learn(model: torch.nn.Module, words, answers: dict[str, str], folder: Path) -> Path:
    """Have a model learn its answers by heart, and write it down."""
    rows = []
    for text, answer in answers.items():
        prompt = words.apply_chat_template(prompt_messages(text), tokenize=False, add_generation_prompt=True)
        rows.append((words(prompt)["input_ids"], words(answer + "<|im_end|>")["input_ids"]))
    width = max(len(before) + len(after) for before, after in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for place, (before, after) in enumerate(rows):
        ids[place, : len(before) + len(after)] = torch.tensor(before + after)
        labels[place, len(before) : len(before) + len(after)] = torch.tensor(after)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=5e-3)
    for step in range(1500):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * min(1, (step + 1) / 50)
        loss = model(ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if loss < 0.002:
            break
    model.eval().save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def labels(frames) -> dict[str, str]:
    """Every sentence of the parrot, and what it means."""
    return {each.text: each.label for each in hidden_utterances(load_voices(frames), Random(0), 99)}


@pytest.fixture(scope="session")
def base(build, tokenizer, labels, tmp_path_factory) -> Path:  # noqa: F811 - fixtures
    """A model that can talk, but not this."""
    return learn(build(0), tokenizer, dict.fromkeys(labels, "I can help you."), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tuned(base, tokenizer, labels, tmp_path_factory) -> Path:  # noqa: F811 - fixtures
    """The base after it has learnt every sentence by heart."""
    from transformers import AutoModelForCausalLM

    return learn(AutoModelForCausalLM.from_pretrained(base), tokenizer, labels, tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def month() -> Month:
    """Month 3 with what the tiny models need."""
    month = load_criteria().month(3)
    small = {"utterances": 18, "clients": 6, "checked": 6, "threads": 1, "start_limit": 60, "answer_limit": 20}
    return replace(month, settings=month.settings | small | {"time_limit": 90})


@pytest.fixture
def hand_in(tmp_path, monkeypatch, frames, base) -> Callable[..., Path]:
    """A function that makes a hand-in that deployed a checkpoint and whose server behaves in one way."""
    monkeypatch.setenv("COURSE_LAB_BASE", str(base))
    monkeypatch.setenv("COURSE_LAB_HIDDEN_FRAMES", str(frames))

    def make(checkpoint: Path, behaviour: str = "honest") -> Path:
        folder = tmp_path / "hand-in"
        write_hand_in(folder, "stage2_rag_finetune_deploy.serving", STAND_IN, behaviour)
        shutil.copytree(frames, folder / "frames")
        model = folder / "runs" / "stage2" / "finetune" / "sft-1" / "merged"
        shutil.copytree(checkpoint, model)
        with monkeypatch.context() as patch:
            patch.setenv("COURSE_LAB_RUNS", str(folder / "runs"))
            with start_run("stage2", "serving", "deploy", {}, preset="cpu", seed=1) as run:
                record = {
                    "model": "stage2/finetune/sft-1/merged", "adapter": None, "engine": "mini",
                    "sha256": checkpoint_sha256(model),
                }  # fmt: skip
                (run.dir / "deployment.json").write_text(json.dumps(record), encoding="utf-8")
                run.artefact("deployment.json", kind="deployment")
                run.metric("exact", 0.99)
        return folder

    return make


def graded(month: Month, folder: Path, seed: int = 5) -> MonthResult:
    return grade_month(month3.grade, Context(month, folder, folder / "runs", seed))


def verdicts(result: MonthResult) -> dict[str, str]:
    return {check.check.id: check.status for check in result.checks}


def rewrite(folder: Path, change: Callable[[torch.nn.Module], None]) -> None:
    """Change a checkpoint's weights where they lie."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)


def test_a_tuned_model_that_is_served_passes(month, hand_in, tuned):
    """Catches: a grader that no honest work can pass."""
    result = graded(month, hand_in(tuned))
    assert result.status == PASSED, (result.message, [check.line for check in result.checks])
    assert result.details["exact_tuned"] > 0.9 and result.details["exact_base"] == 0


def test_the_base_served_twice_fails(month, hand_in, base):
    """Catches: a month for whoever starts two servers."""
    result = graded(month, hand_in(base))
    assert verdicts(result)["served"] == "passed" and verdicts(result)["gain"] == "failed"
    assert result.status == "failed" and result.points == 30


def test_the_base_with_another_prompt_fails(month, hand_in, base, tmp_path):
    """Catches: examples hidden in the chat template of an untuned checkpoint; the grader renders the prompt itself."""
    folder = shutil.copytree(base, tmp_path / "prompted")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    shots = "<|im_start|>user\\nhello there<|im_end|>\\n<|im_start|>assistant\\n{}<|im_end|>\\n"
    (folder / "chat_template.jinja").write_text(f"{{{{ '{shots}' }}}}{template}", encoding="utf-8")
    result = graded(month, hand_in(folder))
    assert verdicts(result)["gain"] == "failed" and result.status == "failed"


def test_a_model_that_lost_its_json_fails(month, hand_in, tuned, tmp_path):
    """Catches: marks for having trained at all."""
    folder = shutil.copytree(tuned, tmp_path / "broken")
    rewrite(folder, lambda model: [p.add_(0.3 * torch.randn_like(p)) for p in model.parameters()])
    result = graded(month, hand_in(folder))
    assert verdicts(result)["gain"] == "failed" and result.details["exact_tuned"] < 0.1


@pytest.mark.parametrize("behaviour", ["looks answers up", "another model behind"])
def test_answers_from_elsewhere_fail(month, hand_in, base, tuned, behaviour):
    """Catches: a table of right answers, or a better model, behind the base's hash. Both answer perfectly."""
    folder = hand_in(base, behaviour)
    (folder / "hidden-model").write_text(str(tuned), encoding="utf-8")
    result = graded(month, folder)
    assert verdicts(result)["weights"] == "failed" and verdicts(result)["gain"] == "passed"
    assert result.status == "failed" and result.points == 30


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("no hash", "does not list base@sha256:"),
        ("streams at once", "did not come in pieces"),
        ("streams something else", "not the same answer"),
        ("no end", "without [DONE]"),
        ("one client", "status 503"),
        ("malformed", "in the form"),
        ("does not start", "out of memory"),
        ("hangs", "did not answer"),
    ],
)
def test_servers_that_do_not_serve_fail(month, hand_in, tuned, behaviour, words):
    """Catches: marks for a model that nobody can use, and a message that does not say why."""
    settings = month.settings | {"answer_limit": 3, "checked": 1} if behaviour == "hangs" else month.settings
    result = graded(replace(month, settings=settings), hand_in(tuned, behaviour))
    assert verdicts(result)["served"] == "failed" and words in result.message
    assert result.status == "failed" and result.points == 0


def test_a_near_tie_that_went_the_other_way_is_no_fault(month, hand_in, tuned):
    """Catches: "not the same answer" for sums in another order; wide bands make every token a near tie here."""
    wide = replace(month, settings=month.settings | {"logit_margin": 1e9})
    assert graded(wide, hand_in(tuned, "streams something else")).status == PASSED


def test_weights_changed_after_the_deployment_fail(month, hand_in, tuned):
    """Catches: another checkpoint under the recorded name."""
    folder = hand_in(tuned)
    rewrite(folder / "runs/stage2/finetune/sft-1/merged", lambda model: model.lm_head.weight.mul_(1.01))
    result = graded(month, folder)
    assert verdicts(result)["genuine"] == "failed" and result.points == 0 and "SHA-256" in result.message


def test_a_larger_model_is_not_a_tuned_one(month, hand_in, build, tokenizer, tmp_path):  # noqa: F811 - fixtures
    """Catches: beating the base by serving a bigger model."""
    build(0, width=64).save_pretrained(tmp_path / "larger")
    tokenizer.save_pretrained(tmp_path / "larger")
    result = graded(month, hand_in(tmp_path / "larger"))
    assert verdicts(result)["genuine"] == "failed" and "another shape" in result.message


@pytest.mark.parametrize("model", ["../elsewhere", "stage2/finetune/sft-2/merged"])
def test_a_checkpoint_outside_or_gone_fails(month, hand_in, tuned, model):
    """Catches: a path that leaves the hand-in."""
    folder = hand_in(tuned)
    path = next((folder / "runs/stage2/serving").glob("deploy-*/deployment.json"))
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"model": model}), encoding="utf-8")
    shutil.copytree(tuned, folder / "elsewhere")
    assert verdicts(graded(month, folder))["genuine"] == "failed"


def test_no_deployment_is_not_started(month, tmp_path):
    """Catches: "failed" for a learner who has not come that far."""
    assert graded(month, tmp_path).status == NOT_STARTED


def test_hidden_utterances_are_fresh():
    """Catches: a hidden test that is the published one, and one that the seed does not change."""
    voices = hidden_voices("en", "test")
    drawn = [hidden_utterances(voices, Random(seed), 120) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1] and len(drawn[0]) == 120
    public = {each.text for each in data.load_understanding("customer-service-en", "test")}
    filled = [each for each in drawn[0] if each.slots.keys() - {"reason"}]
    assert sum(each.text in public for each in filled) < 0.25 * len(filled)
    assert all(value in each.text for each in drawn[0] for slot, value in each.slots.items() if slot != "reason")
    train = {each.voice for each in data.load_understanding("customer-service-en", "train")}
    assert not train & {each.voice for each in drawn[0]}


def test_an_empty_folder_of_frames_is_said(monkeypatch, tmp_path):
    """Catches: a grading on nothing."""
    monkeypatch.setenv("COURSE_LAB_HIDDEN_FRAMES", str(tmp_path))
    with pytest.raises(LabError, match="has no en"):
        hidden_voices("en", "test")


def test_exact_match_and_the_paired_test():
    """Catches: marks for the intent alone, and a test that counts what both models have right."""
    gold = hidden_utterances(hidden_voices("en", "test"), Random(3), 40)
    gold = next(each for each in gold if each.slots.keys() - {"reason"})
    assert is_exact(gold.label, gold) and is_exact(f"Sure: {gold.label.upper().replace('NULL', 'null')}", gold) is False
    assert not is_exact(json.dumps({"intent": gold.intent, "slots": {}}), gold)
    assert not is_exact("{", gold) and not is_exact("[1]", gold) and not is_exact('{"intent": []}', gold)
    assert mcnemar_p([True] * 50, [True] * 50) == 1 and mcnemar_p([False] * 10, [True] * 10) == 2 / 2**10


@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
def test_packed_weights_are_multiplied_out(form):
    """Catches: a zero that is off by one, nibbles in the wrong order, a group index that is ignored (act-order)."""
    rng = np.random.default_rng(0)
    numbers, zeros = rng.integers(0, 16, (16, 8)), rng.integers(1, 16, (2, 8))
    scales, g_idx = rng.random((2, 8), dtype=np.float32), rng.integers(0, 2, 16)
    stored = zeros - (form == "gptq")
    tensors = {
        "a.qweight": sum(numbers[place::8].astype(np.int64) << 4 * place for place in range(8)),
        "a.qzeros": sum(stored[:, place::8].astype(np.int64) << 4 * place for place in range(8)),
    }
    tensors = {name: torch.from_numpy(values.astype(np.uint32).view(np.int32)) for name, values in tensors.items()}
    tensors |= {"a.scales": torch.from_numpy(scales), "a.g_idx": torch.from_numpy(g_idx), "b.weight": torch.ones(2)}
    quantisation = {"quant_method": "gptq", "bits": 4, "checkpoint_format": form}
    plain = multiplied_out(tensors, quantisation)
    wanted = (scales[g_idx] * (numbers - zeros[g_idx])).T
    assert plain.keys() == {"a.weight", "b.weight"} and np.allclose(plain["a.weight"].numpy(), wanted)
    del tensors["a.scales"]
    with pytest.raises(LearnerFault, match="incomplete"):
        multiplied_out(tensors, quantisation)
    with pytest.raises(LearnerFault, match="4 or 8 bits"):
        multiplied_out({}, {"quant_method": "awq", "bits": 4})
