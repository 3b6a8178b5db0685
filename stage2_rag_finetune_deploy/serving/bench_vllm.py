"""vLLM's part of `bench`, run by the Python of .venv-serve: a workload as JSON in, its seconds as JSON out.

    python bench_vllm.py workload.json result.json

workload: {"model", "max_model_len", "max_num_seqs", "dtype", "prompts": [[id, ...], ...], "answers": [length, ...]}
result: {"seconds", "tokens": [[id, ...], ...], "start_seconds", "version"}

Imports nothing of the project: that environment has not what the project needs.
"""

import json
import sys
import time
from pathlib import Path


def main(workload: Path, result: Path) -> None:
    """Load, answer a few requests to warm up, time the workload."""
    started = time.perf_counter()
    import vllm

    asked = json.loads(workload.read_text())
    llm = vllm.LLM(
        asked["model"], dtype=asked["dtype"], enforce_eager=True, max_model_len=asked["max_model_len"],
        max_num_seqs=asked["max_num_seqs"],
    )  # fmt: skip
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    params = [vllm.SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in asked["answers"]]
    warm = [{"prompt_token_ids": list(reversed(each["prompt_token_ids"]))} for each in prompts[:4]]
    llm.generate(warm, vllm.SamplingParams(temperature=0, max_tokens=4, ignore_eos=True), use_tqdm=False)
    ready = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - ready
    tokens = [list(output.outputs[0].token_ids) for output in outputs]
    version = getattr(vllm, "__version__", "unknown")
    answer = {"seconds": seconds, "tokens": tokens, "start_seconds": ready - started, "version": version}
    result.write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
