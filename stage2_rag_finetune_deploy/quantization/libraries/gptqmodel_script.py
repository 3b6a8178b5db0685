"""Runs in the serving environment: python gptqmodel_script.py SETTINGS.json. Imports nothing of the lab."""

import json
import sys
import time
from pathlib import Path

from gptqmodel import GPTQModel, QuantizeConfig


def main(path: str) -> None:
    """Quantise one folder."""
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    order = settings["order"]
    config = QuantizeConfig(
        bits=settings["bits"], group_size=settings["group"], sym=settings["symmetric"], damp_percent=settings["damp"],
        desc_act=order == "act", act_group_aware=order == "group",
    )  # fmt: skip
    model = GPTQModel.load(settings["source"], config, device="cpu")
    examples = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in settings["ids"]]
    start = time.perf_counter()
    model.quantize(examples, batch_size=4)
    seconds = time.perf_counter() - start
    model.save(settings["out"])
    Path(settings["answer"]).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
