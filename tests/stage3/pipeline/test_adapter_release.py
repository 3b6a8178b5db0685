"""A release whose model is stage 2's LoRA adapter: served beside its service, evaluated, and ended with it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import data
from labkit.errors import LabError
from labkit.files import write_json
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.base_model import load_placed
from stage3_agents_llmops.agent import AgentSettings
from stage3_agents_llmops.agent.model_server import served_release
from stage3_agents_llmops.agent.release import ReleaseFolder
from stage3_agents_llmops.agent.understanding import build_understander
from stage3_agents_llmops.pipeline import package
from stage3_agents_llmops.pipeline.controller import order_of
from stage3_agents_llmops.pipeline.run_command import RunConfig, run_pipeline

BASE = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with an adapter of the real base model; it was never trained, so it answers as the base does."""
    folder = tmp_path_factory.mktemp("adapter")
    model, _ = load_placed(None, "cpu", "fp32")
    lora.inject(model, rank=2, alpha=4, targets=("q_proj",))
    lora.save_adapter(model, folder / "adapter")
    return package.build(folder / "release", adapter=folder / "adapter")


def test_its_service_starts_the_model_and_ends_it(release: Path, tmp_path: Path) -> None:
    settings = AgentSettings(shop=tmp_path / "shop.sqlite", state_dir=tmp_path, release=release, deadline=60.0)
    with served_release(settings) as served:
        models = httpx.get(f"{served.endpoint}/models", trust_env=False, timeout=10, verify=False).json()["data"]
        assert {"base", "tuned"} <= {model["id"] for model in models} and served.model == "tuned"
        understander = build_understander(served, ReleaseFolder.open(release))
        reply = asyncio.run(understander.first.client.chat([{"role": "user", "content": "Hello"}], max_tokens=4))
        assert reply.text and reply.usage["output_tokens"] in range(1, 5)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.endpoint}/models", trust_env=False, timeout=2, verify=False)


def test_who_has_a_server_or_a_classifier_starts_none(release: Path, tmp_path: Path) -> None:
    settings = AgentSettings(shop=tmp_path / "shop.sqlite", state_dir=tmp_path, release=release, endpoint="http://x/v1")
    with served_release(settings) as served:
        assert served is settings
    with served_release(replace(settings, release=None, endpoint=None)) as served:
        assert served.endpoint is None


@pytest.mark.parametrize(("base", "what"), [("", "does not say"), ("/nowhere/model", "not on this machine")])
def test_a_base_that_cannot_be_had_is_said(release: Path, tmp_path: Path, base: str, what: str) -> None:
    import shutil

    broken = shutil.copytree(release, tmp_path / "release")
    write_json(broken / "model" / "model.json", {"kind": "adapter", "base": base})
    settings = AgentSettings(shop=tmp_path / "shop.sqlite", state_dir=tmp_path, release=broken)
    with pytest.raises(LabError, match=what), served_release(settings):
        pass


def test_an_order_names_the_adapter_and_run_refuses_what_is_none(release: Path, tmp_path: Path) -> None:
    assert order_of(adapter=release / "model")["adapter"] == str(release / "model")
    assert data.catalog()[BASE]
    with pytest.raises(LabError, match="no adapter folder"):
        run_pipeline(RunConfig(home=tmp_path, adapter=tmp_path / "none"), "smoke")
    with pytest.raises(LabError, match="has a model already"):
        run_pipeline(RunConfig(home=tmp_path, adapter=release / "model", release=release), "smoke")
