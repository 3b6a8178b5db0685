"""What is learnt and what is not. Each test names the bug that it catches."""

import copy

import pytest

from data.customer_service.prompt import prompt_messages
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.chat_format import IGNORE, TooLong, collate, encode


def test_only_the_response_is_learnt(tokenizer):
    """Catches: a loss on the prompt, an end of turn that is not learnt, the template's last line break learnt."""
    sample = encode(tokenizer, prompt_messages("where is KM1?"), '{"intent": "x"}')
    learnt = [label for label in sample.labels if label != IGNORE]
    assert tokenizer.decode(learnt) == '{"intent": "x"}<|im_end|>'
    assert sample.ids[sample.prompt_length :] == learnt and len(sample.ids) == len(sample.labels)
    assert encode(tokenizer, prompt_messages("where is KM1?")).ids == sample.ids[: sample.prompt_length]
    prompt = tokenizer.decode(sample.ids[: sample.prompt_length])
    assert prompt.endswith("where is KM1?<|im_end|>\n<|im_start|>assistant\n")


def test_long_samples_are_refused_not_cut(tokenizer):
    """Catches: a label that is cut off in silence."""
    messages = prompt_messages("a" * 50)
    length = len(encode(tokenizer, messages, "label").ids)
    assert len(encode(tokenizer, messages, "label", max_length=length).ids) == length
    with pytest.raises(TooLong, match=str(length)):
        encode(tokenizer, messages, "label", max_length=length - 1)


@pytest.mark.parametrize("label", ["", "  \n"])
def test_a_label_without_tokens(tokenizer, label):
    """Catches: samples of which nothing is learnt."""
    with pytest.raises(LabError, match="without tokens"):
        encode(tokenizer, prompt_messages("hello"), label)


@pytest.mark.parametrize(
    "template, words",
    [
        (None, "no chat template"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "leaves out"),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}>>{% endif %}",
         "does not continue"),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "ends the turn"),
        ("{{ raise_exception('no system messages') }}", "no system messages"),
        ("{% for m in messages %}", "wrong chat template"),
    ],
)  # fmt: skip
def test_wrong_templates(tokenizer, template, words):
    """Catches: training on text that the template has mangled."""
    broken = copy.deepcopy(tokenizer)
    broken.chat_template = template
    with pytest.raises(LabError, match=words):
        encode(broken, prompt_messages("where is it?"), "label")


def test_collate_pads_on_the_right(tokenizer):
    """Catches: padding that is learnt or attended to."""
    rows = [encode(tokenizer, prompt_messages(text), "ok") for text in ("a", "abc")]
    batch = collate(rows, tokenizer.pad_token_id)
    assert batch["input_ids"].shape == batch["labels"].shape == (2, len(rows[1].ids))
    assert batch["attention_mask"].sum(1).tolist() == [len(row.ids) for row in rows]
    assert batch["labels"][0, -2:].tolist() == [IGNORE, IGNORE]
    assert batch["input_ids"][0, : len(rows[0].ids)].tolist() == rows[0].ids
