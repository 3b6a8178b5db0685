"""Tasks and preference pairs. Each test names the bug that it catches."""

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.alignment import pairs as pairs_module
from stage2_rag_finetune_deploy.alignment.pairs import drawn_pairs, own_mistakes
from stage2_rag_finetune_deploy.alignment.tasks import TEST_SIZE, load_task


def test_no_test_question_is_trained_on():
    """Catches: a test set that was learnt by heart; seeds that draw the same questions."""
    task = load_task("chain_sum")
    test = {item.messages[1]["content"] for item in task.test(TEST_SIZE)}
    first, second = ({item.messages[1]["content"] for item in task.train(300, seed)} for seed in (1, 2))
    assert not test & (first | second) and first != second
    assert len(test) == TEST_SIZE and len(first) > 200


def test_scores_of_right_and_wrong_replies():
    """Catches: a reward for anything, or for nothing."""
    for name in ("chain_sum", "spell_backward", "word_sorting", "customer-service-en"):
        task = load_task(name)
        first, *others = task.test(8)
        assert task.score(first, first.gold) == 1.0
        assert task.score(first, "") == 0.0
        assert 0.0 in [task.score(first, other.gold) for other in others]


def test_utterances_come_from_their_split():
    """Catches: DPO that learns the test part."""
    task = load_task("customer-service-en")
    train, test = ({item.source.text for item in items} for items in (task.train(10_000, 1), task.test(10_000)))
    assert train and test and not train & test


def test_an_unknown_task_is_named():
    """Catches: a KeyError."""
    with pytest.raises(LabError, match="chain_sums") as error:
        load_task("chain_sums")
    assert "chain_sum" in error.value.try_next


def test_pairs_of_ones_own_mistakes(build, tokenizer, monkeypatch):
    """Catches: a right answer that is rejected, an answer that was cut off, a question without a mistake."""
    task = load_task("chain_sum")
    items = task.train(3, 1)
    right, wrong = items[0].gold, str(int(items[0].gold) + 1)
    said = [
        [right, wrong, right, wrong + "1"],  # its first mistake is taken
        [items[1].gold] * 4,  # knows it
        ["", "7 or so and cut off", "", items[2].gold],  # says nothing, or does not end
    ]
    end = tokenizer.eos_token_id

    class Drawn:
        """What sample_groups returns."""

        truncated = [number == 9 for number in range(12)]

        def texts(self, _):
            """All rows."""
            return [text for group in said for text in group]

    monkeypatch.setattr(pairs_module, "sample_groups", lambda *_: Drawn())
    found = own_mistakes(build(0), tokenizer, task, items, seed=1, samples=4)
    assert end is not None
    assert [(pair.chosen, pair.rejected) for pair in found] == [(right, wrong)]
    assert found[0].messages == items[0].messages


def test_a_random_model_makes_mistakes_of_its_own(build, tokenizer):
    """Catches: a prompt that the model never saw, pairs that cannot be repeated."""
    task = load_task("chain_sum")
    items = task.train(3, 1)
    first, again = (own_mistakes(build(3), tokenizer, task, items, seed=1, samples=8) for _ in range(2))
    assert first == again
    asked = {str(item.messages): item for item in items}
    assert not any(task.score(asked[str(pair.messages)], pair.rejected) for pair in first)


def test_drawn_pairs_have_the_prompt_of_sft():
    """Catches: DPO under another prompt than the model was tuned with."""
    task = load_task("customer-service-en")
    items = task.train(20, 1)
    found = drawn_pairs([item.source for item in items], seed=1)
    assert len(found) >= 15
    known = {str(item.messages): item.gold for item in items}
    assert all(known[str(pair.messages)] == pair.chosen != pair.rejected for pair in found)
