"""`ask "where is KM204817?"`: one utterance, the tuned model's reply, and the base's beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data.customer_service.prompt import prompt_messages
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.finetune.base_model import load_base
from stage2_rag_finetune_deploy.finetune.export import newest_merged
from stage2_rag_finetune_deploy.finetune.generation import generate


@dataclass(frozen=True)
class AskConfig:
    """Options of `ask`."""

    text: str = option("", "what the customer writes")
    language: str = option("en", "of the system message", ("en", "zh"))
    model: Path | None = option(None, "folder of the tuned model; none is the newest run's")
    base: bool = option(True, "ask the base model, too")


def with_text(words: list[str]) -> list[str]:
    """`ask "where is it?"` as an option."""
    if len(words) > 1 and words[0] == "ask" and not words[1].startswith("-"):
        return ["ask", "--text", words[1], *words[2:]]
    return words


def run_ask(config: AskConfig, preset: str) -> None:
    """Print the replies."""
    if not config.text.strip():
        raise LabError("nothing was asked", 'python -m stage2_rag_finetune_deploy.finetune ask "where is KM204817?"')
    folders = {"tuned": config.model or newest_merged()} | ({"base": None} if config.base else {})
    prompt = prompt_messages(config.text, config.language)
    for name, folder in folders.items():
        model, tokenizer = load_base(folder, torch.float32)
        reply = generate(model, tokenizer, [prompt], max_new_tokens=96)[0]
        console.print(f"{name:5}  {reply}", markup=False, soft_wrap=True)
