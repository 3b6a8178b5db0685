"""vLLM itself, in its own environment; left out where that was not made. Each test names the bug that it catches."""

import asyncio
import os
import re
import signal

import pytest

from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving import vllm_command
from stage2_rag_finetune_deploy.serving.arrivals import Request
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_checkpoint
from stage2_rag_finetune_deploy.serving.guided_command import parameters
from stage2_rag_finetune_deploy.serving.load_test import run_load
from stage2_rag_finetune_deploy.serving.memory import GIB, Shape, cache_tokens
from stage2_rag_finetune_deploy.serving.metrics_command import read, total
from stage2_rag_finetune_deploy.serving.openai_client import Client
from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, check_port, free_port, group_members

pytestmark = pytest.mark.skipif(not SERVE.ready(), reason=".venv-serve is not there: make setup-serve")


@pytest.fixture(scope="module")
def vllm(build, tokenizer, tmp_path_factory):
    """vLLM with a small random Llama; heads of 32, the smallest that its attention takes."""
    folder = tmp_path_factory.mktemp("tiny")
    build(0, width=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = check_checkpoint(folder)
    serving = vllm_command.Serving(folder, config, "tiny", port=free_port(), max_model_len=256)
    words, env = vllm_command.command(serving)
    with ServerProcess(words, serving.host, serving.port, "vLLM", 200, env) as server:
        server.config, server.serving = config, serving
        yield server


def test_it_names_its_weights(vllm):
    """Catches: an alias that vLLM does not list: the milestone could not tell what is served."""
    with Client(vllm.url) as client:
        assert client.models() == vllm.serving.names()


def test_cache_is_as_large_as_the_arithmetic_says(vllm):
    """Catches: a formula that only fits one model, or a vLLM that counts otherwise since an update."""
    line = next(line for line in vllm.lines if "KV cache size" in line)
    tokens = int(re.search(r"KV cache size: ([\d,]+) tokens", line)[1].replace(",", ""))
    block = next((int(m[1]) for m in (re.search(r"block_size=(\d+)", line) for line in vllm.lines) if m), 128)
    dtype = "fp32" if vllm_command.served_dtype(vllm.serving, on_cpu=True) == "float32" else "bf16"
    assert tokens == cache_tokens(Shape.of(vllm.config), GIB, block, dtype=dtype)


def test_streams_are_counted(vllm):
    """Catches: tokens lost or sent twice between engine and client, figures that /metrics does not have."""
    requests = [Request(0.0, f"prompt {number}", 3 + number % 5) for number in range(24)]
    records = asyncio.run(run_load(vllm.url, "tiny", requests, None, 60, lambda record: None))
    assert [record.outcome for record in records] == ["finished"] * 24
    assert [record.new_tokens for record in records] == [request.new_tokens for request in requests]
    with Client(vllm.url) as client:
        families = read(client.get("/metrics").text)
    assert total(families, "generation_tokens_total") >= sum(request.new_tokens for request in requests)


def test_a_random_model_held_to_the_schema_begins_a_label(vllm):
    """Catches: `response_format` that is ignored: a random model writes noise then."""
    with Client(vllm.url) as client:
        body = parameters(True, 12)
        answer = client.chat("tiny", [{"role": "user", "content": "where is it?"}], **body)
        noise = client.chat("tiny", [{"role": "user", "content": "where is it?"}], **parameters(False, 12))
    text = answer["choices"][0]["message"]["content"]
    assert re.match(r'\s*\{\s*("(i(n(t(e(n(t(")?)?)?)?)?)?)?)?', text) and text.lstrip().startswith("{"), text
    assert not noise["choices"][0]["message"]["content"].lstrip().startswith('{"i')


def test_killed_while_streaming(vllm):
    """Catches: a client that hangs or takes half an answer for a whole one; the engine's process left behind.

    The last test of this file: it ends the server.
    """

    async def run() -> list:
        load = asyncio.create_task(
            run_load(vllm.url, "tiny", [Request(0.0, "x", 200)] * 64, None, 60, lambda record: None)
        )
        await asyncio.sleep(0.3)
        os.kill(vllm.child.pid, signal.SIGKILL)
        return await load

    records = asyncio.run(run())
    assert {record.outcome for record in records} == {"failed"}
    assert all("gone in the middle" in record.reason or record.reason for record in records)
    group = vllm.child.pid
    vllm.stop()
    assert group_members(group) == []
    check_port("127.0.0.1", vllm.port)
