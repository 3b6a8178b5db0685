"""LLaMA-Factory itself, in its own environment; left out where that was not made. Each test names its bug."""

import json
import shutil

import pytest

import data
from data.customer_service.prompt import prompt_messages
from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.finetune import llamafactory_command, llamafactory_config, llamafactory_environment

try:
    llamafactory_environment.environment()
    ABSENT = ""
except LabError as error:
    ABSENT = f"{error.message}: {error.try_next}"
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)

FILES = [path for path in sorted(llamafactory_config.FOLDER.rglob("*.yaml")) if path.stem != llamafactory_config.GRPO]
# Twice: as a YAML, and as words on its command line. Only there it holds a value against its type and choices.
PARSE = """
import contextlib, io, json, sys
from omegaconf import OmegaConf
from llamafactory.hparams import get_infer_args, get_train_args
answers = {}
for path in sys.argv[1:]:
    settings = OmegaConf.to_container(OmegaConf.load(path))
    said = io.StringIO()
    try:
        read = get_infer_args if "export_dir" in settings else get_train_args
        if read is get_train_args:
            settings["use_cpu"] = True  # or bf16 is refused where there is no GPU
        read(settings)
        with contextlib.redirect_stderr(said):
            read([word for name, value in settings.items() for word in ("--" + name, str(value))])
        answers[path] = ""
    except (Exception, SystemExit) as error:
        answers[path] = f"{type(error).__name__}: {error} {said.getvalue()[-300:]}"
print(json.dumps(answers))
"""
BROKEN = {
    "stage": ("stage: sft", "stage: grpo"),
    "unknown": ("lora_rank: 8", "lora_rnak: 8"),
    "method": ("finetuning_type: lora  ", "finetuning_type: lore  "),
    "number": ("lora_rank: 8", "lora_rank: sixteen"),
    "eval": ("eval_dataset: customer_service_en_validation\n", ""),
}
ENCODE = """
import json, sys
from transformers import AutoTokenizer
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments
folder, conversations, variants = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
answers = {}
for name, options in variants.items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = get_template_and_fix_tokenizer(tokenizer, DataArguments(**options))
    for number, messages in enumerate(conversations):
        system = "".join(message["content"] for message in messages if message["role"] == "system")
        said = [message for message in messages if message["role"] != "system"]
        prompt, answer = template.encode_oneturn(tokenizer, said, system or None)
        answers[f"{name}/{number}"] = [prompt, answer]
    template.default_system = ""
print(json.dumps(answers))
"""


def answer_of(code, *words):
    """The JSON on the last line that Python code prints in LLaMA-Factory's environment."""
    done = llamafactory_environment.run_python(code, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """What the tool's own parser says of each configuration, and of broken ones: one start for all."""
    folder = tmp_path_factory.mktemp("broken")
    text = (llamafactory_config.FOLDER / "sft_lora.yaml").read_text(encoding="utf-8")
    for name, (old, new) in BROKEN.items():
        assert old in text
        (folder / f"{name}.yaml").write_text(text.replace(old, new), encoding="utf-8")
    broken = sorted(folder.glob("*.yaml"))
    answers = answer_of(PARSE, *map(str, [*FILES, *broken]))
    return {str(path): answers[str(path)] for path in FILES}, {path.stem: answers[str(path)] for path in broken}


def test_every_configuration_is_parsed(parsed):
    """Catches: a setting that LLaMA-Factory 0.9.5 does not know, or a combination that it refuses."""
    assert parsed[0] == dict.fromkeys(map(str, FILES), "")


def test_broken_configurations_are_refused(parsed):
    """Catches: a check that lets everything pass, as the tool does with `stage: grpo` and `lora_rank: sixteen`."""
    assert set(parsed[1]) == set(BROKEN)
    assert all(parsed[1].values()), parsed[1]
    assert "grpo" in parsed[1]["stage"] and "sixteen" in parsed[1]["number"] and "lora_rnak" in parsed[1]["unknown"]


@pytest.mark.assets
def test_template_gives_the_tokens_of_the_models_own_chat_template():
    """Catches: the wrong-template trap: a model trained on other tokens than those it is asked with."""
    from transformers import AutoTokenizer

    folder = data.fetch("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    utterances = data.load_understanding("customer-service-en", "test")[:20]
    utterances += data.load_understanding("customer-service-zh", "test")[:20]
    talks = [[*prompt_messages(utterance.text, utterance.language), {"role": "assistant", "content": utterance.label}]
             for utterance in utterances]  # fmt: skip
    talks += [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi\n"},
               {"role": "assistant", "content": "Hello."}]]  # fmt: skip
    talks += [[{"role": "user", "content": "No system message."}, {"role": "assistant", "content": "No."}]]
    settings = llamafactory_config.read_config(llamafactory_config.FOLDER / "sft_lora.yaml")
    right = {name: settings[name] for name in ("template", "default_system")}
    variants = {"right": right, "no system": {"template": right["template"]}, "other": {"template": "alpaca"}}
    answers = answer_of(ENCODE, str(folder), json.dumps(talks), json.dumps(variants))

    def own(number, end=None):
        return tokenizer.apply_chat_template(talks[number][:end], add_generation_prompt=end is not None,
                                             return_dict=False)  # fmt: skip

    for number in range(len(talks)):
        prompt, answer = answers[f"right/{number}"]
        assert prompt == own(number, -1)
        assert prompt + answer == own(number)
    assert answers[f"no system/{len(talks) - 1}"][0] != own(-1, -1)  # chatml has no default system message
    assert answers[f"other/{len(talks) - 1}"][0] != own(-1, -1)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A Llama of two layers with SmolLM2's tokenizer, as a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder, source = tmp_path_factory.mktemp("tiny"), data.fetch("smollm2-135m-instruct")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(source / name, folder)
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=49_152, tie_word_embeddings=True)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.assets
def test_train_then_merge(tiny_model, tmp_path, monkeypatch, capsys):
    """Catches: a run without a report, an adapter that is not found again, a merged model with another template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))

    def tool(verb, name, settings):
        config = llamafactory_command.LlamafactoryConfig(verb=verb, yaml=name, set=settings)
        llamafactory_command.run_llamafactory(config, "smoke")

    model = f"model_name_or_path={tiny_model}"
    tool("train", "sft_lora", f"{model} learning_rate=1.0e-2 logging_steps=1")
    report = read_report(latest_run("stage2", "finetune", "llamafactory-sft_lora"))
    assert report["status"] == "finished" and report["metrics"]["steps"]["value"] == 2
    assert [entry["kind"] for entry in report["artefacts"]] == ["adapter"]
    assert {entry["name"] for entry in report["data"]} >= {"customer_service_en"}
    assert "step 1 of 2" in capsys.readouterr().out
    tool("export", "merge_lora", model)
    merged = latest_run("stage2", "finetune", "llamafactory-merge_lora") / "model"
    talk = [{"role": "user", "content": "Where is my parcel?"}]
    old, new = AutoTokenizer.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(merged)
    assert new.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == old.apply_chat_template(
        talk, tokenize=False, add_generation_prompt=True)  # fmt: skip
    before = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    after = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])
    assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)


@pytest.mark.assets
def test_what_the_tool_refuses_is_one_line(tiny_model, tmp_path, monkeypatch):
    """Catches: the tool's traceback as the lab's; a report that says finished; the reason lost."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))
    settings = f"model_name_or_path={tiny_model} template=smolm"
    config = llamafactory_command.LlamafactoryConfig(verb="train", yaml="sft_lora", set=settings)
    with pytest.raises(LabError, match="Template smolm does not exist") as caught:
        llamafactory_command.run_llamafactory(config, "smoke")
    (folder,) = tmp_path.glob("stage2/finetune/llamafactory-sft_lora-*")
    assert read_report(folder)["status"] == "failed"
    assert str(folder / "log.txt") in caught.value.try_next
