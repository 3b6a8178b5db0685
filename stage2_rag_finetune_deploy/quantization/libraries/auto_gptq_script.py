"""Runs in AutoGPTQ's environment: python auto_gptq_script.py SETTINGS.json. Imports nothing of the lab."""

import json
import sys
import time
from pathlib import Path

import torch
from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig
from transformers import PreTrainedTokenizerFast


def main(path: str) -> None:
    """Quantise one folder."""
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    config = BaseQuantizeConfig(
        bits=settings["bits"], group_size=settings["group"], sym=settings["symmetric"], damp_percent=settings["damp"],
        desc_act=settings["order"] == "act",
    )  # fmt: skip
    model = AutoGPTQForCausalLM.from_pretrained(settings["source"], config, torch_dtype=torch.float16)
    examples = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
                for ids in settings["ids"]]  # fmt: skip
    start = time.perf_counter()
    model.quantize(examples)
    seconds = time.perf_counter() - start
    model.save_quantized(settings["out"], use_safetensors=True)
    PreTrainedTokenizerFast.from_pretrained(settings["source"]).save_pretrained(settings["out"])
    Path(settings["answer"]).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
