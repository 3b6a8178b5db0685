"""Month 1 on hand-ins that are honest, broken or dishonest, by the path that a learner's takes."""

import hashlib
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from labkit.files import sha256_file
from labkit.runs import start_run
from milestones import month1
from milestones.criteria import Month
from milestones.drawn_samples import draw_samples
from milestones.grade import FAILED, NOT_MEASURED, NOT_STARTED, PASSED, Context, MonthResult, grade_month
from milestones.held_out_bits import UNKNOWN_BITS, held_out_bits
from milestones.learner_model import LearnerModel
from milestones.reference_corpus import load_reference

pytestmark = pytest.mark.assets
HandIn = Callable[..., Path]


def graded(month: Month, folder: Path) -> MonthResult:
    return grade_month(month1.grade, Context(month, folder, folder / "runs", seed=1))


def run_of(folder: Path) -> Path:
    return (folder / "runs" / "stage1" / "gpt" / "latest-train").resolve()


def fails(result: MonthResult, id: str, words: str) -> None:
    """The check failed with these words in its line, and what follows was not measured."""
    by_id = {check.check.id: check for check in result.checks}
    assert result.status == FAILED, result.message
    assert by_id[id].status == FAILED
    assert words in by_id[id].line
    assert "\n" not in result.problem(id)
    assert by_id["likelihood"].status == NOT_MEASURED
    assert by_id["bits_per_character"].earned == 0
    assert result.next


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("peeks", "sees the future"),
        ("nan", "not finite"),
        ("raises", "index 64 is out of bounds"),
        ("exits", "ended by itself"),
        ("loses text", "does not give back the text"),
        ("small vocabulary", "have the shape"),
    ],
)
def test_misbehaving_model_fails_to_run(hand_in: HandIn, month: Month, behaviour: str, words: str) -> None:
    """Catches: a leak of the next character taken for skill; a hand-in's crash that becomes the grader's."""
    fails(graded(month, hand_in(behaviour)), "runs", words)


def test_hanging_model_is_cut_off(hand_in: HandIn, month: Month) -> None:
    """Catches: a hand-in that never answers, and with it a grading that never ends."""
    start = time.monotonic()
    hurried = replace(month, settings=month.settings | {"answer_limit": 4, "time_limit": 4})
    fails(graded(hurried, hand_in("hangs")), "runs", "too slow or hangs")
    assert time.monotonic() - start < 30


def test_checkpoint_that_differs_from_the_record_is_not_genuine(hand_in: HandIn, month: Month) -> None:
    """Catches: a better model copied over the recorded one."""
    folder = hand_in()
    with open(run_of(folder) / "checkpoint.pt", "ab") as file:
        file.write(b"x")
    fails(graded(month, folder), "genuine", "SHA-256 differs")


def test_report_without_checkpoint_is_not_genuine(hand_in: HandIn, month: Month) -> None:
    """Catches: fine figures written into report.json by hand, with no model behind them."""
    folder = hand_in()
    path = run_of(folder) / "report.json"
    report = json.loads(path.read_text())
    report["metrics"]["val_loss"] = {"value": 1.40, "unit": "nats/char", "band": None, "meaning": ""}
    path.write_text(json.dumps(report))
    (run_of(folder) / "checkpoint.pt").unlink()
    fails(graded(month, folder), "genuine", "which is not there")


def test_checkpoint_outside_the_run_is_not_genuine(hand_in: HandIn, month: Month) -> None:
    """Catches: a report that points at somebody else's checkpoint."""
    folder = hand_in()
    path = run_of(folder) / "report.json"
    report = json.loads(path.read_text())
    report["artefacts"][0]["path"] = "../../../../../elsewhere.pt"
    path.write_text(json.dumps(report))
    fails(graded(month, folder), "genuine", "outside the run's folder")


def test_truncated_checkpoint_fails_in_one_line(hand_in: HandIn, month: Month) -> None:
    """Catches: a traceback, or a grader's error, for a file that was cut off and recorded like that."""
    folder = hand_in()
    checkpoint = run_of(folder) / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:50_000])
    path = run_of(folder) / "report.json"
    report = json.loads(path.read_text())
    report["artefacts"][0]["sha256"] = sha256_file(checkpoint)
    path.write_text(json.dumps(report))
    fails(graded(month, folder), "runs", "truncated")


def test_missing_package_fails_in_one_line(hand_in: HandIn, month: Month) -> None:
    """Catches: grading a hand-in with the instructor's own model code when its own is missing."""
    folder = hand_in()
    (folder / "stage1_foundations" / "gpt" / "checkpoint.py").unlink()
    fails(graded(month, folder), "runs", "stage1_foundations")


def test_damaged_report_is_not_genuine(hand_in: HandIn, month: Month) -> None:
    """Catches: an unreadable report taken for "not started", or for an error of the grader."""
    folder = hand_in()
    (run_of(folder) / "report.json").write_text("{")
    fails(graded(month, folder), "genuine", "is not a run's report")


def test_empty_hand_in_is_not_started(tmp_path: Path, month: Month) -> None:
    """Catches: "failed" for somebody who has not begun."""
    result = graded(month, tmp_path)
    assert (result.status, result.points, result.next) == (NOT_STARTED, 0, "make stage1")


def test_archive_without_links_is_found(hand_in: HandIn, month: Month) -> None:
    """Catches: reliance on `latest-train`, a symbolic link that archives lose."""
    folder = hand_in("nan")
    for link in (folder / "runs" / "stage1" / "gpt").glob("latest*"):
        link.unlink()
    fails(graded(month, folder), "runs", "not finite")


def test_other_text_under_a_known_name_fails(hand_in: HandIn, month: Month) -> None:
    """Catches: a model trained on something easier that calls itself tiny-shakespeare."""
    fails(graded(month, hand_in(text="to be or not to be\n" * 20_000)), "runs", "is not the one")


def test_own_text_that_is_not_handed_in_fails(hand_in: HandIn, month: Month) -> None:
    """Catches: a corpus of one's own that nobody can check against."""
    result = graded(month, hand_in(data_name="poems.txt", source="poems.txt"))
    fails(result, "runs", "poems.txt is not in the hand-in")


def test_own_text_is_found_and_its_size_checked(hand_in: HandIn, month: Month) -> None:
    """Catches: judging by a held-out tenth of a few lines."""
    text = "A small text.\n" * 100
    folder = hand_in(data_name="poems.txt", source="texts/poems.txt", text=text)
    (folder / "poems.txt").write_text(text)
    fails(graded(month, folder), "runs", "poems.txt has 1,400 characters")


def test_honest_model_is_measured_right(
    hand_in: HandIn, month: Month, trigrams: tuple[str, torch.Tensor], tiny: str
) -> None:
    """Catches: a shift between logits and targets, tokens scored twice or never, nats taken for bits."""
    folder = hand_in("prints")
    with LearnerModel(folder, run_of(folder) / "checkpoint.pt") as model:
        corpus = load_reference(model.data, month.settings)
        context = Context(month, folder, folder / "runs", seed=3)
        passages = month1.draw_passages(context, corpus, model.context)
        bits, unknown = held_out_bits(model, passages, context.random("p"), prefixes=8, tolerance=0.001)
    characters, table = trigrams
    nats = 0.0
    for before, passage in passages:
        ids = [characters.index(c) for c in before + passage]
        nats -= sum(float(table[ids[i - 2], ids[i - 1], ids[i]]) for i in range(len(before), len(ids)))
    expected = nats / math.log(2) / sum(len(passage) for _, passage in passages)
    assert unknown == 0
    assert bits == pytest.approx(expected, abs=1e-4)  # float32 logits of about -10
    assert all(len(passage) == 300 and passage not in tiny for _, passage in passages)


def test_own_text_is_measured_against_its_own_last_tenth(hand_in: HandIn, month: Month, tiny: str) -> None:
    """Catches: a text of one's own judged by Shakespeare's numbers, or on the part that was trained on."""
    text = tiny[:250_000].replace("\n", " ")
    folder = hand_in(data_name="poems.txt", source="texts/poems.txt", text=text)
    (folder / "poems.txt").write_text(text)
    context = Context(month, folder, folder / "runs", seed=3)
    with LearnerModel(folder, run_of(folder) / "checkpoint.pt") as model:
        corpus = load_reference(model.data, month.settings, "texts/poems.txt", folder)
        passages = month1.draw_passages(context, corpus, model.context)
        bits, _ = held_out_bits(model, passages, context.random("p"), prefixes=4, tolerance=0.001)
    assert corpus.variant == "other" and not corpus.has_own_numbers
    assert all(before + passage in text[225_000:] for before, passage in passages)
    result = month1.bits_result(context, corpus, bits, passages)
    assert result.unit == "of 5-gram" and "bits/char; 5-gram model" in result.message
    assert 1.0 < result.value < 1.6  # the table counts three characters, and saw line breaks for spaces


def test_characters_that_the_tokenizer_lacks_are_not_free(hand_in: HandIn, tiny: str) -> None:
    """Catches: a vocabulary without the difficult characters that makes the text look easy."""
    folder = hand_in()
    with LearnerModel(folder, run_of(folder) / "checkpoint.pt") as model:
        plain, none = held_out_bits(model, [(tiny[:100], tiny[100:200])], random.Random(1), 4, 0.001)
        accents = [(tiny[:100], tiny[100:150] + "éé" + tiny[150:200])]
        dearer, two = held_out_bits(model, accents, random.Random(1), 4, 0.001)
    assert (none, two) == (0, 2)
    assert dearer * 102 == pytest.approx(plain * 100 + 2 * UNKNOWN_BITS)


@pytest.mark.parametrize(("behaviour", "kept"), [("good cache", True), ("forgetful cache", False)])
def test_samples_follow_the_plain_forward_pass(
    hand_in: HandIn, trigrams: tuple[str, torch.Tensor], behaviour: str, kept: bool
) -> None:
    """Catches: samples from a KV cache that forgets (or writes better than the model does)."""
    folder = hand_in(behaviour)
    with LearnerModel(folder, run_of(folder) / "checkpoint.pt") as model:
        samples = draw_samples(model, 8, 150, 0.8, np.random.default_rng(1), tolerance=0.02)
        again = draw_samples(model, 8, 150, 0.8, np.random.default_rng(1), tolerance=0.02)
    assert samples.cached is kept
    assert [len(text) for text in samples.texts] == [150] * 8
    assert len(set(samples.texts)) == 8
    assert kept is False or again.texts == samples.texts  # --seed draws the same samples again
    characters, table = trigrams
    follows = [
        float(table[characters.index(a), characters.index(b), characters.index(c)])
        for text in samples.texts
        for a, b, c in zip(text, text[1:], text[2:], strict=False)
    ]
    assert np.mean(follows) > -2.2  # nats; drawn at random, the table's own mean would be below -4


def test_untrained_model_of_the_lab_fails(
    tmp_path: Path, month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: points for a model that has learnt nothing; grader and lab drifting apart."""
    from stage1_foundations.gpt.checkpoint import model_state, save_checkpoint
    from stage1_foundations.gpt.model import GPT
    from stage1_foundations.gpt.model_config import model_config
    from stage1_foundations.gpt.tokenizer import build_tokenizer

    text = data.load_text("tiny-shakespeare")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    tokenizer = build_tokenizer("character", text)
    torch.manual_seed(1)
    sizes = {"vocab_size": tokenizer.vocab_size, "context": 64, "layers": 2, "heads": 2, "width": 32}
    model = GPT(model_config("gpt2", **sizes))
    root = Path(month1.__file__).parents[1]
    for package in ("stage1_foundations", "labkit", "data"):
        (tmp_path / package).symlink_to(root / package)
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    with start_run("stage1", "gpt", "train", {"data": "tiny-shakespeare"}, preset="cpu", seed=1) as run:
        save_checkpoint(run.dir / "checkpoint.pt", model_state(model, tokenizer, "tiny-shakespeare", sha256))
        run.artefact("checkpoint.pt", kind="checkpoint")
    result = graded(month, tmp_path)
    by_id = {check.check.id: check for check in result.checks}
    assert result.status == FAILED, result.message
    assert result.points == by_id["runs"].earned == by_id["runs"].check.points
    assert [
        id for id in ("bits_per_character", "real_words", "likelihood") if by_id[id].status == PASSED
    ] == []
    assert by_id["bits_per_character"].value == pytest.approx(6.0, abs=0.2)  # log2 of 64 characters
    assert result.details["kv_cache"] is True
