"""Do the answers of a server come from the weights that it says it serves?

A server could look answers up, or pass questions on to another model. So the grader reads the weights itself, runs the
prompt and the served answer through them, and looks whether a greedy choice could have written every token: its logit
is the largest, or within a margin that bfloat16, another kernel or four bits explain.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from milestones.learner_endpoint import STOP
from milestones.learner_model import LearnerFault
from milestones.packed_weights import multiplied_out


def load_weights(folder: Path, adapter: Path | None = None) -> Any:
    """The model of a folder in float32; no code of the folder runs.

    Raises:
        LearnerFault: it cannot be read as a checkpoint.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        quantisation = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
        if quantisation:
            config = AutoConfig.from_pretrained(folder)
            del config.quantization_config
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            tensors = {}
            for path in folder.glob("*.safetensors"):
                tensors |= load_file(path)
            _, strange = model.load_state_dict(multiplied_out(tensors, quantisation), strict=False)
            if strange:
                raise LearnerFault(f"the checkpoint holds unknown tensors, {strange[0]} for one")
            model.tie_weights()
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        if adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
    except LearnerFault:
        raise
    except Exception as error:
        raise LearnerFault(f"the weights cannot be loaded: {type(error).__name__}: {error}"[:300]) from None
    return model.eval()


@torch.inference_mode()
def greedy_share(
    model: Any, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str], max_tokens: int, margin: float
) -> float:
    """Share of the answers of which every token, the end of the turn included, is a greedy one.

    Args:
        max_tokens: what the server was allowed; a shorter answer must have ended by itself.
        margin: by how much a token's logit may lie below the largest.
    """
    end = tokenizer.convert_tokens_to_ids(STOP)
    greedy = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        written = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(written) < max_tokens:
            written.append(end)
        logits = model(torch.tensor([before + written])).logits[0, len(before) - 1 : -1]  # (tokens written, V)
        chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
        greedy += bool((logits.amax(1) - chosen <= margin).all())
    return greedy / len(prompts)
