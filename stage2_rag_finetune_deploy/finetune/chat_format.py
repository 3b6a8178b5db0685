"""Messages to ids with the model's own chat template, and which of the ids are learnt.

    <|im_start|>user\\nwhere is KM1?<|im_end|>\\n<|im_start|>assistant\\n{"intent": ...}<|im_end|>
    ------------------- labels are -100 ------------------------------ ---- learnt ----------

The prompt is tokenised by itself, as it is when the model is served; so no token crosses the border. The token that
ends the turn is learnt as well: a model that never saw it does not stop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabError

IGNORE = -100  # what torch's cross_entropy leaves out
Message = Mapping[str, str]


class TooLong(LabError):
    """A sample with more tokens than the limit; to be counted, not cut."""


@dataclass(frozen=True)
class Encoded:
    """One sample: ids, and labels of the same length with IGNORE where nothing is learnt."""

    ids: list[int]
    labels: list[int]

    @property
    def prompt_length(self) -> int:
        """Where the response begins."""
        return next((place for place, label in enumerate(self.labels) if label != IGNORE), len(self.ids))

    @property
    def prompt(self) -> list[int]:
        """The ids before the response."""
        return self.ids[: self.prompt_length]

    @property
    def response(self) -> list[int]:
        """The ids of the response, the end of the turn included."""
        return self.ids[self.prompt_length :]


def render(tokenizer: Any, messages: Sequence[Message], prompt: bool) -> str:
    """The text of messages under the chat template; with `prompt` up to where an answer begins.

    Raises:
        LabError: no template, one that is broken, or one that leaves out what was said.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise LabError("the tokenizer has no chat template", "a chat model, or tokenizer.chat_template = ...")
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    except Exception as error:  # jinja's own errors, and raise_exception() inside a template
        raise LabError(f"wrong chat template: {str(error)[:120]}", "the template that came with the model") from None
    if missing := [message["role"] for message in messages if message["content"].strip() not in text]:
        raise LabError(f"wrong chat template: it leaves out what {missing[0]} said", "the model's own template")
    return text


# exercise: finetune.encode
def encode(
    tokenizer: Any, messages: Sequence[Message], response: str | None = None, max_length: int = 512
) -> Encoded:
    """Messages, and the response where there is one, as ids and labels.

    Prompt and response are tokenised apart. Learnt are the response's tokens up to the end of the turn and including
    it, and nothing of what the template writes after that.

    Raises:
        TooLong: more than `max_length` tokens.
        LabError: a response without tokens, or a template that does not continue the prompt or never ends a turn.
    """
    prompt = render(tokenizer, messages, prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    labels = [IGNORE] * len(ids)
    if response is not None:
        if not tokenizer(response.strip(), add_special_tokens=False)["input_ids"]:
            raise LabError("a label without tokens: there is nothing to learn from it", "python -m data validate FILE")
        whole = render(tokenizer, [*messages, {"role": "assistant", "content": response}], prompt=False)
        if not whole.startswith(prompt):
            raise LabError("wrong chat template: the answer does not continue the prompt", "the model's own template")
        rest = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
        end = tokenizer.eos_token_id
        if end not in rest:
            raise LabError(f"wrong chat template: no {tokenizer.eos_token} ends the turn", "the model's own template")
        rest = rest[: rest.index(end) + 1]
        ids, labels = ids + rest, labels + rest
    if len(ids) > max_length:
        raise TooLong(f"{len(ids)} tokens are more than {max_length}", f"--max-length {len(ids)}")
    return Encoded(ids, labels)
# end exercise


def collate(rows: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """Samples as one batch, padded on the right: input_ids, attention_mask, labels, each (B, T) int64."""
    width = max(len(row.ids) for row in rows)

    def padded(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*value, *[fill] * (width - len(value))] for value in values])

    return {
        "input_ids": padded([row.ids for row in rows], pad_id),
        "attention_mask": padded([[1] * len(row.ids) for row in rows], 0),
        "labels": padded([row.labels for row in rows], IGNORE),
    }
