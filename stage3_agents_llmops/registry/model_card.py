"""The README.md of a release on a hub: what it is, how good it is, where it comes from, how to run it.

The block between the two `---` is read by the hub (search, licence, results table); the rest by people. All of it is
generated from the manifest, because a card that is written by hand is out of date with the second release.
Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import re

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from labkit.errors import LabError
from labkit.timing import human_size
from stage3_agents_llmops.registry.release import PARTS, Manifest, Release

LANGUAGES = ["en", "zh"]
CONFIGS = {"adapter_config.json": "peft", "config.json": "transformers"}
MEANINGS = {"model": "the tuned model or adapter", "rag": "settings and index of the retrieval",
            "graph": "prompts and agent graph"}  # fmt: skip


def card_data(release: Release, repo: str, licence: str, base_model: str | None) -> ModelCardData:
    """The block that the hub reads. Every metric of the release is an entry of its results table."""
    manifest = release.manifest
    dataset = next(iter(manifest.lineage.data), manifest.name)
    results = [
        EvalResult(task_type="text-generation", dataset_type=dataset, dataset_name=dataset, metric_type=name,
                   metric_value=value)
        for name, value in sorted(manifest.metrics.items())
    ]  # fmt: skip
    return ModelCardData(
        language=LANGUAGES, license=licence, library_name=_library(manifest), base_model=base_model,
        tags=["release", "customer-service", f"release-{release.sha256[:12]}"],
        model_name=repo.split("/")[-1] if results else None, eval_results=results or None,
    )  # fmt: skip


def model_card(release: Release, repo: str, licence: str = "apache-2.0", base_model: str | None = None) -> str:
    """The whole README.md.

    Raises:
        LabError: a name that no repository can have.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise LabError(f"{repo!r} is no repository", "--repo OWNER/NAME")
    manifest = release.manifest
    text = f"""---
{card_data(release, repo, licence, base_model).to_yaml()}
---
# {manifest.name}, release {release.sha256[:12]}

{_escaped(manifest.note) or "A release of the customer service: model, retrieval and prompts, versioned as one."}

## What is in it

{_parts(manifest)}

`release.json` lists every file with its SHA-256; the SHA-256 of the list is `{release.sha256}`.

## How to use it

The whole release, with every file checked:

```bash
python -m stage3_agents_llmops.registry pull --repo {repo} --revision release-{release.sha256[:12]} --target FOLDER
```

{_alone(manifest, repo, base_model)}## Evaluation

{_metrics(manifest)}

## Where it comes from

{_lineage(manifest)}

## Limits

It was tuned for the questions of one shop and measured on them only. Use it with the retrieval and the prompts that it
was released with: each of them alone was not evaluated.
"""
    return ModelCard(text, ignore_metadata_errors=False).content


def _library(manifest: Manifest) -> str | None:
    """Which library opens the model, by the file that each of them looks for; None: the course's own code."""
    paths = {file.path for file in manifest.files}
    return next((library for name, library in CONFIGS.items() if f"model/{name}" in paths), None)


def _alone(manifest: Manifest, repo: str, base_model: str | None) -> str:
    """How to open the model without the rest, where a library can."""
    lines = {
        "peft": ["from peft import PeftModel", "from transformers import AutoModelForCausalLM",
                 f'base = AutoModelForCausalLM.from_pretrained("{base_model or "OWNER/BASE-MODEL"}")',
                 f'model = PeftModel.from_pretrained(base, "{repo}", subfolder="model")'],
        "transformers": ["from transformers import AutoModelForCausalLM, AutoTokenizer",
                         f'model = AutoModelForCausalLM.from_pretrained("{repo}", subfolder="model")',
                         f'tokenizer = AutoTokenizer.from_pretrained("{repo}", subfolder="model")'],
    }.get(_library(manifest))  # fmt: skip
    return "\n".join(["The model alone:", "", "```python", *lines, "```", "", ""]) if lines else ""


def _parts(manifest: Manifest) -> str:
    rows = ["| part | content | files | size | SHA-256 |", "|---|---|---|---|---|"]
    for part in PARTS:
        files = [file for file in manifest.files if file.path.startswith(f"{part}/")]
        size = human_size(sum(file.bytes for file in files))
        rows.append(f"| `{part}/` | {MEANINGS[part]} | {len(files)} | {size} | `{manifest.part_sha256(part)[:12]}` |")
    return "\n".join(rows)


def _metrics(manifest: Manifest) -> str:
    if manifest.lineage.evaluation is None:
        return "**This release was not evaluated.**"
    rows = [f"| {_escaped(name)} | {value:g} |" for name, value in sorted(manifest.metrics.items())]
    table = "\n".join(["| metric | value |", "|---|---|", *rows, ""]) if rows else ""
    return f"{table}\nThe whole report is `evaluation.json` (SHA-256 `{manifest.lineage.evaluation[:12]}`)."


def _lineage(manifest: Manifest) -> str:
    lineage = manifest.lineage
    rows = [f"- data: {_escaped(name)}, SHA-256 `{sha256}`" for name, sha256 in sorted(lineage.data.items())]
    facts = {"code": lineage.commit, "training run": lineage.run, "replaces release": lineage.parent}
    rows += [f"- {name}: `{value}`" for name, value in facts.items() if value]
    return "\n".join(rows) or "Nothing was recorded."


def _escaped(text: str) -> str:
    """Text from outside in one line of Markdown: no table, no HTML, no second heading."""
    return re.sub(r"([\\`*_|<>#\[\]])", r"\\\1", " ".join(text.split()))
