"""Each test names the bug that it catches. Nothing here needs LLaMA-Factory; test_llamafactory_tool.py does."""

import json
import re
from pathlib import Path

import pytest
import yaml

import data
from data.customer_service.prompt import prompt_messages
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import (
    llamafactory_command,
    llamafactory_config,
    llamafactory_data,
    llamafactory_environment,
    llamafactory_reward,
)

ROOT = Path(__file__).parents[3]
FILES = sorted(llamafactory_config.FOLDER.rglob("*.yaml"))
TRAINED = ["dpo_lora", "kto_lora", "reward_lora", "sft_lora", "sft_qlora"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


# ---------------------------------------------------------------------------------------------------- configurations


def test_both_sizes_have_the_same_configurations():
    """Catches: a stage that exists for the small model only."""
    small, large = llamafactory_config.configs("cpu"), llamafactory_config.configs("gpu")
    assert list(small) == list(large) == sorted([*TRAINED, "grpo_trl", "merge_lora"])
    assert all("Qwen2.5-7B-Instruct" in large[name].read_text(encoding="utf-8") for name in ("sft_lora", "merge_lora"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configurations_are_in_one_style_and_name_known_data(path):
    """Catches: a data set that dataset_info.json does not have; a comment line that no longer says what the file is."""
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    assert text.startswith("# ") and "### model" in text
    banners = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    order = ["model", "method", "dataset", "generation", "export", "output", "train", "eval"]
    assert banners == sorted(banners, key=order.index)
    info = llamafactory_data.read_info(llamafactory_config.FOLDER)
    names = [settings.get("dataset"), settings.get("eval_dataset")]
    assert all(name in info for name in names if name)
    if path.stem in TRAINED:
        assert settings["stage"] == {"reward": "rm"}.get(path.stem.split("_")[0], path.stem.split("_")[0])
        assert settings["finetuning_type"] == "lora"
        assert ("quantization_bit" in settings) == path.stem.endswith("qlora")


def test_every_listed_data_set_can_be_made():
    """Catches: a name in dataset_info.json that `prepare` does not write, and the other way round."""
    info = llamafactory_data.read_info(llamafactory_config.FOLDER)
    assert set(info) == set(llamafactory_data.builders())
    assert all(entry["file_name"] == f"{name}.jsonl" for name, entry in info.items())


def test_unknown_configuration_names_the_nearest():
    """Catches: a traceback for a misspelt name."""
    with pytest.raises(LabError) as caught:
        llamafactory_config.find_config("sft_lor.yaml", "cpu")
    assert caught.value.try_next == "sft_lora.yaml"


def test_a_file_of_ones_own_is_taken(tmp_path):
    """Catches: only the course's own configurations accepted."""
    path = tmp_path / "mine.yaml"
    path.write_text("stage: sft\n", encoding="utf-8")
    assert llamafactory_config.find_config(str(path), "cpu") == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: sft\nlora_rank: [8\n", r"bad\.yaml line 3"),
        ("stage: sft\n  lora_rank: 8\n", r"bad\.yaml line 2"),
        ("- stage\n", "holds no settings"),
        ("", "holds no settings"),
        ("stage: grpo\n", "no GRPO stage"),
        ("num_generations: 8\n", "no GRPO stage"),
    ],
)
def test_broken_yaml(tmp_path, text, message):
    """Catches: a YAML error as a traceback, without its line; a GRPO file that the tool refuses without saying why."""
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=message):
        llamafactory_config.read_config(path)


def test_overrides_are_read_as_yaml_reads_them():
    """Catches: numbers and booleans as text, `no` as a boolean; a word without = that is dropped."""
    assert llamafactory_config.parse_overrides("max_steps=20 bf16=false learning_rate=1.0e-4 template=qwen") == {
        "max_steps": 20, "bf16": False, "learning_rate": 1e-4, "template": "qwen"}  # fmt: skip
    settings = llamafactory_config.parse_overrides("eval_strategy=no plot_loss=false max_steps=5")
    assert settings["eval_strategy"] == "no"
    assert llamafactory_config.as_words(settings) == ['eval_strategy="no"', "plot_loss=false", "max_steps=5"]
    with pytest.raises(LabError, match="max_steps is no setting"):
        llamafactory_config.parse_overrides("max_steps")


def test_model_folder_missing(runs, tmp_path):
    """Catches: a path that the tool would look for on the hub."""
    for name in ("runs/stage2/finetune/latest-llamafactory-merge_lora/model", str(tmp_path / "gone"), "./gone", ""):
        with pytest.raises(LabError, match="folder is missing") as caught:
            llamafactory_config.model_path(name, "merge first")
        assert caught.value.try_next == "merge first"
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match=r"config\.json is missing"):
        llamafactory_config.model_path(str(tmp_path / "empty"), "")
    assert llamafactory_config.model_path("Qwen/Qwen2.5-7B-Instruct", "") == "Qwen/Qwen2.5-7B-Instruct"


def test_adapter_for_another_base(runs):
    """Catches: an adapter merged into weights that it was not trained on."""
    folder = runs / "stage2" / "adapter"
    with pytest.raises(LabError, match="no adapter in runs/stage2/adapter"):
        llamafactory_config.adapter_path("runs/stage2/adapter", "/models/a", "train first")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/b"}', encoding="utf-8")
    with pytest.raises(LabError, match="belongs to /models/b, not to /models/a"):
        llamafactory_config.adapter_path("runs/stage2/adapter", "/models/a", "")
    assert llamafactory_config.adapter_path("runs/stage2/adapter", "/models/b", "") == str(folder)


# -------------------------------------------------------------------------------------------------------------- data


def test_conversation_is_the_prompt_of_the_lab_and_the_label():
    """Catches: another prompt than the one the model is asked with later; a label that is not its JSON."""
    utterance = data.load_understanding("customer-service-zh", "train")[0]
    record = llamafactory_data.conversation(utterance, utterance.label)
    said = [message for message in prompt_messages(utterance.text, utterance.language) if message["role"] != "system"]
    assert [turn["value"] for turn in record["conversations"][:-1]] == [message["content"] for message in said]
    assert record["conversations"][-1] == {"from": "gpt", "value": utterance.label}
    assert json.loads(utterance.label)["intent"] == utterance.intent


def test_prepare_writes_what_the_list_names(tmp_path):
    """Catches: a column of dataset_info.json that the records do not have; thumbs that all point one way."""
    counts = llamafactory_data.prepare(tmp_path)
    info = llamafactory_data.read_info(tmp_path)
    for name, entry in info.items():
        records = [json.loads(line) for line in (tmp_path / entry["file_name"]).read_text("utf-8").splitlines()]
        assert len(records) == counts[name] > 100
        assert all(set(entry["columns"].values()) <= set(record) for record in records)
        if entry.get("ranking"):
            assert all(record["chosen"] != record["rejected"] for record in records)
        if "kto_tag" in entry["columns"]:
            assert abs(sum(record["good"] for record in records) - len(records) / 2) < 1
    llamafactory_data.check_names(info, tmp_path)
    with pytest.raises(LabError, match="customer_servic_en is not in") as caught:
        llamafactory_data.check_names(["customer_servic_en"], tmp_path)
    assert caught.value.try_next.startswith("customer_service")
    (tmp_path / "customer_service_en.jsonl").unlink()
    with pytest.raises(LabError, match="has no file"):
        llamafactory_data.check_names(["customer_service_en"], tmp_path)


def test_a_wrong_line_is_named(tmp_path):
    """Catches: "DatasetGenerationError" from the tool, a minute later and without the line."""
    path = tmp_path / "own.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n\n{"instruction": "a"\n', encoding="utf-8")
    with pytest.raises(LabError, match=r"own\.jsonl, line 3: not JSON"):
        llamafactory_data.read_records(path)
    path.write_text('{"instruction": "a", "output": "b"}\n\n', encoding="utf-8")
    assert llamafactory_data.read_records(path) == [{"instruction": "a", "output": "b"}]
    (tmp_path / "own.json").write_text('[{"instruction": "a"},\n {"output": ]', encoding="utf-8")
    with pytest.raises(LabError, match=r"own\.json, line 2: not JSON"):
        llamafactory_data.read_records(tmp_path / "own.json")


def test_what_the_tool_would_cut_is_counted(tmp_path, tokenizer):
    """Catches: samples that lose their labels in silence; both answers of a pair counted as one long one."""
    tokenizer.save_pretrained(tmp_path)
    turns = [{"from": "h", "value": "x" * 9}]
    pair = {"id": "y" * 50, "conversations": turns, "chosen": {"value": "c" * 10}, "rejected": {"value": "r" * 5}}
    alpaca = {"instruction": "i" * 12, "input": "", "output": "o" * 9}
    count = [llamafactory_data.count_too_long([pair, alpaca], tmp_path / "tokenizer.json", limit)
             for limit in (19, 20, 21)]  # fmt: skip
    assert count == [2, 1, 0]


def test_list_of_data_sets_missing_or_broken(tmp_path):
    """Catches: a traceback from json."""
    with pytest.raises(LabError, match=r"no dataset_info\.json"):
        llamafactory_data.check_names(["x"], tmp_path)
    (tmp_path / "dataset_info.json").write_text("{", encoding="utf-8")
    with pytest.raises(LabError, match="is not JSON"):
        llamafactory_data.check_names(["x"], tmp_path)


def test_reward_reads_texts_and_conversations():
    """Catches: the reward of a conversation always 0; the columns of other samples mixed up."""
    replies = ["It is 7.", [{"role": "assistant", "content": "3 + 4 = 8"}], [{"role": "assistant", "content": "-2"}]]
    assert llamafactory_reward.exact_answer(replies, answer=["7", "7", "-2"], prompts=None) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_grpo_configuration_is_read_by_trl(preset, monkeypatch):
    """Catches: a setting that TRL no longer has, a reward that it cannot import."""
    from importlib import import_module

    from trl import GRPOConfig
    from trl.scripts.grpo import make_parser

    path = llamafactory_config.configs(preset)["grpo_trl"]
    words = ["--config", str(path), "--use_cpu", "true", "--bf16", "false"]
    script, training, model, mixture = make_parser().parse_args_and_config(words, fail_with_unknown_args=True)
    assert isinstance(training, GRPOConfig) and training.num_generations == 8 and model.use_peft
    assert mixture.datasets[0].data_files.endswith("chain_sum.jsonl")
    module, _, name = script.reward_funcs[0].rpartition(".")
    assert getattr(import_module(module), name) is llamafactory_reward.exact_answer


def test_grpo_configuration_with_a_wrong_name_is_refused(tmp_path):
    """Catches: a parser that takes anything, so that the test above could not fail."""
    from trl.scripts.grpo import make_parser

    path = tmp_path / "wrong.yaml"
    path.write_text(llamafactory_config.configs()["grpo_trl"].read_text("utf-8") + "num_generation: 8\n", "utf-8")
    with pytest.raises(ValueError, match="num_generation"):
        make_parser().parse_args_and_config(["--config", str(path)], fail_with_unknown_args=True)


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("llamafactory", ""),
        ("llamafactory train sft_lora.yaml", "--verb train --yaml sft_lora.yaml"),
        ("llamafactory train sft_lora.yaml --preset smoke", "--verb train --yaml sft_lora.yaml --preset smoke"),
        ("llamafactory --verb list", "--verb list"),
    ],
)
def test_words_as_the_tool_has_them(words, options):
    """Catches: `train sft_lora.yaml` refused, although the tool itself is called so."""
    assert llamafactory_command.with_words(words.split()) == ["llamafactory", *options.split()]


def test_settings_after_the_file():
    """Catches: settings lost, or taken for the name of a file."""
    words = llamafactory_command.with_words(["llamafactory", "train", "sft_lora.yaml", "max_steps=5", "bf16=false"])
    assert words[-2:] == ["--set", "max_steps=5 bf16=false"]
    assert llamafactory_command.with_words(["sft", "max_steps=5"]) == ["sft", "max_steps=5"]
    with pytest.raises(LabError, match="unexpected word more"):
        llamafactory_command.with_words(["llamafactory", "train", "a.yaml", "more"])


def run(verb, name, preset="cpu", settings=""):
    config = llamafactory_command.LlamafactoryConfig(verb=verb, yaml=name, set=settings)
    llamafactory_command.run_llamafactory(config, preset)


def test_environment_absent_or_half_made(runs, tmp_path, monkeypatch):
    """Catches: a FileNotFoundError from subprocess; an environment that is being filled taken for a finished one."""
    folder = tmp_path / "lf"
    monkeypatch.setenv(llamafactory_environment.VARIABLE, str(folder))
    with pytest.raises(LabError, match="environment is not there: lf") as caught:
        run("train", "sft_lora")
    assert caught.value.try_next == "make setup-llamafactory"
    assert not runs.exists()
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "llamafactory-cli").touch()
    assert llamafactory_environment.environment() == folder
    (tmp_path / "lf.unfinished").touch()
    with pytest.raises(LabError, match="not there"):
        llamafactory_environment.environment()


def test_stand_in_only_where_torchaudio_is_missing(tmp_path):
    """Catches: the stand-in in front of a real torchaudio; this process's own path inherited."""
    assert llamafactory_environment.variables(tmp_path)["PYTHONPATH"] == str(llamafactory_environment.STAND_IN)
    (tmp_path / "lib" / "python3.11" / "site-packages" / "torchaudio").mkdir(parents=True)
    assert "PYTHONPATH" not in llamafactory_environment.variables(tmp_path)
    assert (llamafactory_environment.STAND_IN / "torchaudio.py").is_file()


def test_verb_and_file_do_not_match(runs):
    """Catches: `export` with a training file, which the tool takes and then does something else."""
    with pytest.raises(LabError, match=r"sft_lora\.yaml is for train, not for export"):
        run("export", "sft_lora")
    with pytest.raises(LabError, match=r"merge_lora\.yaml is for export, not for train"):
        run("train", "merge_lora")


def test_list_needs_nothing(runs, tmp_path, monkeypatch, capsys):
    """Catches: a list that only works once everything is installed."""
    monkeypatch.setenv(llamafactory_environment.VARIABLE, str(tmp_path / "gone"))
    run("list", "")
    text = capsys.readouterr().out
    assert all(f"{name}.yaml" in text for name in llamafactory_config.configs()) and "make setup-llamafactory" in text


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("{'loss': '1.25', 'grad_norm': '2', 'learning_rate': '1e-3', 'epoch': '0.1'}", {"loss": 1.25, "epoch": 0.1}),
        ("{'eval_loss': 0.5, 'epoch': 1.0}", {"validation loss": 0.5, "epoch": 1.0}),
        ("{'train_runtime': '17.5', 'train_loss': '1.2', 'epoch': '1'}", None),
        ("{'loss': open('x'), 'epoch': 1}", None),
        ("{'loss': '1.25', 'epoch'", None),
        ("Traceback (most recent call last):", None),
    ],
)
def test_loss_lines(line, values):
    """Catches: a line that is evaluated as code; numbers that newer versions print as text."""
    assert llamafactory_command.loss_line(line) == values


def test_reason_is_the_last_line_that_names_an_error():
    """Catches: the farewell of a library in the place of the error."""
    lines = ["Traceback (most recent call last):", "  raise ValueError", "ValueError: no such template", "", "bye"]
    assert llamafactory_environment.reason(lines) == "ValueError: no such template"
    assert llamafactory_environment.reason(["killed", ""]) == "killed"
    assert llamafactory_environment.reason([]) == "it printed nothing"


# --------------------------------------------------------------------------------------------------------------- lock


def test_lock_is_of_no_machine_and_has_the_same_torch():
    """Catches: an index address, CUDA's packages or torchaudio in the lock; another torch than the labs'."""
    text = (ROOT / "requirements" / "llamafactory.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    assert not re.search(r"https?://|file:|/tmp|\+cpu", text)
    assert not [name for name in pins if re.match(r"nvidia|cuda|triton|torchaudio|torchvision", name)]
    main = (ROOT / "requirements" / "main.txt").read_text(encoding="utf-8")
    assert pins["torch"] == re.search(r"^torch==(\S+)", main, re.MULTILINE)[1]
    asked = (ROOT / "requirements" / "llamafactory.in").read_text(encoding="utf-8")
    for name, version in re.findall(r"^([\w-]+)==(\S+)", asked, re.MULTILINE):
        assert pins[name] == version, f"{name}: make lock"
