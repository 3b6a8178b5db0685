"""`deploy`: a real server with a tiny model, and the record that month 3 reads. Each test names its bug."""

import json
import shutil

import pytest

from labkit.checkpoint_hash import checkpoint_sha256
from labkit.runs import read_report
from milestones.month3 import recorded_deployment
from stage2_rag_finetune_deploy.serving.deploy_command import DeployConfig, serve_words


@pytest.fixture
def checkpoint(runs, tiny_base):
    """A merged model where `finetune sft` leaves one."""
    return shutil.copytree(tiny_base, runs / "stage2" / "finetune" / "sft-1" / "merged")


def test_the_record_is_what_the_milestone_reads(cli, runs, checkpoint, tiny_base):
    """Catches: a record that the grader cannot follow, a server that was never asked, one that is still there."""
    code, out, err = cli("deploy", "--preset", "smoke", "--model", checkpoint)
    assert code == 0, err
    run = (runs / "stage2" / "serving" / "latest-deploy").resolve()
    record = json.loads((run / "deployment.json").read_text(encoding="utf-8"))
    assert record == {
        "model": "stage2/finetune/sft-1/merged", "adapter": None, "engine": "mini",
        "sha256": checkpoint_sha256(checkpoint),
    }  # fmt: skip
    deployment = recorded_deployment(runs, run, read_report(run), tiny_base)
    assert deployment.model == checkpoint.resolve() and deployment.adapter is None
    assert f"tuned@sha256:{record['sha256'][:16]}" in out.replace("\n", "")
    assert read_report(run)["metrics"]["seconds_to_ready"]["value"] > 0


def test_a_model_outside_runs_is_refused(cli, runs, tiny_base):
    """Catches: a hand-in without its weights."""
    code, _, err = cli("deploy", "--preset", "smoke", "--model", tiny_base)
    assert code == 2 and "is not under" in err and not (runs / "stage2" / "serving").exists()


def test_an_incomplete_model_is_refused_before_anything_starts(cli, runs, checkpoint):
    """Catches: a server that is started for nothing and fails a minute later."""
    (checkpoint / "config.json").unlink()
    code, _, err = cli("deploy", "--preset", "smoke", "--model", checkpoint)
    assert code == 2 and "config.json" in err and not (runs / "stage2" / "serving").exists()


def test_no_model_names_the_command_that_makes_one(cli):
    """Catches: a traceback for whoever begins at the end."""
    code, _, err = cli("deploy", "--preset", "smoke")
    assert code == 2 and "finetune sft" in err


def test_an_adapter_is_served_on_the_base(tmp_path):
    """Catches: an adapter's folder given as the model."""
    words = serve_words(DeployConfig(adapter=tmp_path), tmp_path, 8123)
    assert words[words.index("--adapter") + 1] == f"tuned={tmp_path}"
    assert words[words.index("--served-name") + 1] == "base" and str(tmp_path) not in words[words.index("--model") + 1]
