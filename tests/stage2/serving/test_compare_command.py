"""Engines side by side, with a tiny model. Each test names the bug that it catches."""

import json
import shutil

import pytest

from labkit.errors import LabError
from labkit.files import write_json
from labkit.runs import latest_run, read_report, start_run
from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving.checkpoint_folder import read_json
from stage2_rag_finetune_deploy.serving.compare_command import (
    MINI,
    PRESETS,
    STATIC,
    CompareConfig,
    Row,
    bars_apply,
    gptq_folder,
    plan_of,
    record,
    require_all_finished,
)
from stage2_rag_finetune_deploy.serving.latency import Record, summarise


@pytest.fixture
def no_vllm(monkeypatch, tmp_path):
    """As if `make setup-serve` had not been run."""
    monkeypatch.setenv(SERVE.variable, str(tmp_path / "gone"))


@pytest.fixture
def quantised(tiny_base, tmp_path):
    """A checkpoint that says it is in GPTQ format."""
    folder = tmp_path / "gptq"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_both_engines_of_the_main_environment(cli, tiny_base, runs, no_vllm):
    """Catches: an engine that answers fewer tokens than asked for, a server left behind, a row that is missing."""
    code, out, err = cli("compare", "--preset", "smoke", "--model", tiny_base)
    assert code == 0, err
    assert "left out: vLLM: vLLM's environment is not there: gone (make setup-serve)" in out
    run = latest_run("stage2", "serving", "compare")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert list(results) == ["transformers, static", "mini engine"]
    first, second = results.values()
    assert first["new_tokens"] == second["new_tokens"] >= 8 and first["finished"] == second["finished"] == 4
    metrics = read_report(run)["metrics"]
    assert metrics["mini engine / static"]["value"] > 0 and metrics["mini engine / static"]["band"] is None
    assert (run / "compare.png").stat().st_size > 5_000


def test_the_bars_belong_to_their_load(tmp_path, monkeypatch):
    """Catches: a bar that nobody checks; one that fails because fewer, shorter requests were asked."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))
    records = [Record(0.0, "finished", token_times=[1.0, 1.5, 2.0], new_tokens=3)]
    for preset, band in (("study", [2.5, None]), ("cpu", None), ("gpu", None)):
        config = PRESETS[preset]
        with start_run("stage2", "serving", "compare", config, preset, 1) as run:
            rows = [Row(name, summarise(records, 1, 1), 0.0) for name in (STATIC, MINI)]
            record(run, rows, bars_apply(config))
        assert read_report(run.dir)["metrics"]["mini engine / static"]["band"] == band


def test_engines_that_are_not_there(tiny_base, no_vllm, quantised):
    """Catches: an engine that was asked for by name and is silently left out."""
    plan, left_out = plan_of(CompareConfig(), tiny_base)
    assert list(plan) == ["transformers, static", "mini engine"] and len(left_out) == 2
    with pytest.raises(LabError, match="environment is not there"):
        plan_of(CompareConfig(engines="mini,vllm"), tiny_base)
    with pytest.raises(LabError, match="there is no engine vlm"):
        plan_of(CompareConfig(engines="vlm"), tiny_base)


def test_the_newest_quantised_checkpoint(tiny_base, runs, quantised):
    """Catches: a merged, an AWQ or an 8-bit folder served as the 4-bit row; an old run in place of the newest."""
    with pytest.raises(LabError, match="nothing was quantised by GPTQ to 4 bits yet"):
        gptq_folder(None)
    with pytest.raises(LabError, match="is not in GPTQ format"):
        gptq_folder(tiny_base)
    place = runs / "stage2" / "quantization" / "quantize-1" / "checkpoint"
    shutil.copytree(quantised, place)
    shutil.copytree(tiny_base, place.with_name("merged"))
    for name, change in (("awq", {"meta": {"method": "awq"}}), ("int8", {"bits": 8, "meta": {"method": "rtn"}})):
        shutil.copytree(quantised, place.with_name(name))  # newer, and in GPTQ's format
        config = read_json(place.with_name(name) / "config.json", "")
        config["quantization_config"] |= change
        write_json(place.with_name(name) / "config.json", config)
    assert gptq_folder(None) == place and gptq_folder(quantised) == quantised


def test_a_refused_request_is_no_figure():
    """Catches: a throughput over the requests that happened to be answered."""
    records = [Record(0.0, "finished"), Record(0.0, "refused", "429 too many")]
    with pytest.raises(LabError, match="mini: 1 of 2 requests refused: 429 too many"):
        require_all_finished("mini", records)
