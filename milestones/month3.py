"""Month 3: the learner's model, tuned and deployed, beats the base model.

genuine    the newest `serving deploy` recorded a checkpoint under runs/, unchanged and of the base's shape
served     the hand-in's command serves it and the base: it says which weights, streams, and answers 16 clients at once
weights    the answers are what a greedy choice writes with these weights (weights_agree.py)
gain       exact match on utterances made for this grading: tuned minus base, same prompt, same decoding
p_value    McNemar's exact test over the same utterances
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from labkit.checkpoint_hash import checkpoint_sha256, served_id
from labkit.errors import LabError
from milestones.grade import FAILED, CheckResult, Context
from milestones.hidden_utterances import hidden_utterances, hidden_voices
from milestones.label_reply import first_object, is_exact, mcnemar_p
from milestones.learner_endpoint import LearnerEndpoint
from milestones.learner_model import LearnerFault
from milestones.month1 import stopped
from milestones.submission import shown
from milestones.weights_agree import greedy_share, load_weights

DEPLOY = "python -m stage2_rag_finetune_deploy.serving deploy"
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
BASE = "COURSE_LAB_BASE"  # a folder, where the base is not the course's small model
LIMITS = ("threads", "start_limit", "answer_limit", "time_limit")


@dataclass(frozen=True)
class Deployment:
    """What is to be served: `model` with `adapter` on it, if there is one; `sha256` is that of the tuned part."""

    model: Path
    adapter: Path | None
    engine: str
    sha256: str


def grade(context: Context) -> list[CheckResult]:
    """See the module's docstring. Raises NotStarted when there is no run."""
    try:
        folder, report = context.newest_run()
        base = base_folder(context.month.settings)
        deployment = recorded_deployment(context.runs, folder, report, base)
        voices = hidden_voices(context.month.settings["language"], "test")
    except LabError as error:
        return stopped(context, "genuine", error.message, advice=error.try_next or context.month.start)
    context.details |= {"run": shown(folder, context.submission), "seed": context.seed}
    results = [context.result("genuine", 1.0)]
    count = context.month.settings["utterances"]
    utterances = hidden_utterances(voices, context.random("utterances"), count)
    with tempfile.TemporaryDirectory(prefix="month3-") as scratch:
        try:
            for result in served_results(context, deployment, base, utterances, Path(scratch)):
                results.append(result)
        except LearnerFault as fault:
            reason = str(fault).replace(f"{context.submission}/", "")
            results += stopped(context, context.month.checks[len(results)].id, reason)
    return [replace(r, advice=context.month.improve) if r.status == FAILED else r for r in results]


def base_folder(settings: Mapping[str, Any]) -> Path:
    """The base model: the course's, or the folder that COURSE_LAB_BASE names."""
    return Path(os.environ[BASE]).expanduser() if BASE in os.environ else data.fetch(settings["base"])


def recorded_deployment(runs: Path, folder: Path, report: Mapping[str, Any], base: Path) -> Deployment:
    """What the run deployed, its files checked.

    Raises:
        LabError: no record, a checkpoint that is elsewhere, gone or another one, or that of another model.
    """
    try:
        record = json.loads((folder / "deployment.json").read_text(encoding="utf-8"))
        words = {name: record[name] for name in ("model", "adapter", "engine", "sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        raise LabError("the newest `deploy` recorded no deployment", DEPLOY) from None
    if not any(entry["path"] == "deployment.json" for entry in report["artefacts"]):
        raise LabError("the run's report does not know its deployment.json", DEPLOY)
    tuned = (runs / str(words["adapter"] or words["model"])).resolve()
    if not tuned.is_relative_to(runs.resolve()) or not tuned.is_dir():
        raise LabError("the deployed checkpoint is not a folder under runs/", DEPLOY)
    if checkpoint_sha256(tuned) != words["sha256"]:
        raise LabError("the checkpoint is not the one that was deployed (SHA-256 differs)", DEPLOY)
    if words["engine"] not in ("mini", "vllm"):
        raise LabError("the deployment's engine is neither mini nor vllm", DEPLOY)
    if words["adapter"]:
        return Deployment(base, tuned, words["engine"], words["sha256"])
    if shape(tuned) != shape(base):
        raise LabError(f"the checkpoint has another shape than the base model ({', '.join(SHAPE)})", DEPLOY)
    return Deployment(tuned, None, words["engine"], words["sha256"])


def shape(folder: Path) -> list[Any]:
    """What makes two checkpoints the same kind of model."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return [config.get(name) for name in SHAPE]
    except (OSError, ValueError, AttributeError):
        raise LabError(f"{folder.name}/config.json cannot be read", DEPLOY) from None


def served_results(
    context: Context, deployment: Deployment, base: Path, utterances: Sequence[Utterance], scratch: Path
) -> Iterator[CheckResult]:
    """Everything that needs the servers, in the order of criteria.toml. Raises LearnerFault."""
    from transformers import AutoTokenizer

    settings = context.month.settings
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = [
        tokenizer.apply_chat_template(
            prompt_messages(each.text, each.language), tokenize=False, add_generation_prompt=True
        )
        for each in utterances
    ]
    parts = {"base": Deployment(base, None, deployment.engine, checkpoint_sha256(base)), "tuned": deployment}
    replies = {}
    for name, part in parts.items():
        context.say(f"the {name} model: {len(prompts)} hidden utterances")
        streamed, replies[name] = asked(context, name, part, prompts, scratch)
        # A prefix that is cached by now is added up in another order: a near tie may go the other way.
        if streamed != replies[name][0] and agreement(settings, part, tokenizer, prompts, [streamed]) < 1:
            raise LearnerFault(f"the {name} model's streamed answer is not the same answer in pieces")
    yield context.result("served", 1.0, f"{settings['clients']} clients at once, streamed, by hash")
    context.say("the weights")
    shares = {name: agreement(settings, part, tokenizer, prompts, replies[name]) for name, part in parts.items()}
    message = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    yield context.result("weights", min(shares.values()), f"{message} of {settings['checked']} answers each")
    yield from compared(context, utterances, replies)


def asked(
    context: Context, name: str, part: Deployment, prompts: Sequence[str], scratch: Path
) -> tuple[str, list[str]]:
    """Start a server, ask it everything, end it: the first answer as it was streamed, and all answers.

    Raises:
        LearnerFault: it does not do what a deployed model does.
    """
    settings = context.month.settings
    longest, limits = settings["max_tokens"], {key: settings[key] for key in LIMITS}
    options = {"engine": part.engine, "adapter": part.adapter}
    with LearnerEndpoint(context.submission, part.model, name, scratch, **options, **limits) as endpoint:
        if served_id(name, part.sha256) not in endpoint.models():
            raise LearnerFault(f"/v1/models does not list {served_id(name, part.sha256)}")
        pieces = endpoint.stream(prompts[0], longest)
        streamed = "".join(pieces)
        if len([piece for piece in pieces if piece]) < min(2, len(streamed)):
            raise LearnerFault("a streamed answer did not come in pieces")
        return streamed, endpoint.complete_all(prompts, longest, settings["clients"])


def agreement(
    settings: Mapping[str, Any], part: Deployment, tokenizer: Any, prompts: Sequence[str], replies: Sequence[str]
) -> float:
    """Share of the first answers that these weights would have given. Raises LearnerFault."""
    replies = replies[: settings["checked"]]
    model = load_weights(part.model, part.adapter)
    limits = settings["max_tokens"], settings["logit_margin"]
    return greedy_share(model, tokenizer, prompts[: len(replies)], replies, *limits)


def compared(
    context: Context, utterances: Sequence[Utterance], replies: Mapping[str, Sequence[str]]
) -> Iterator[CheckResult]:
    """The two figures that decide."""
    exact = {
        name: [is_exact(reply, gold) for reply, gold in zip(given, utterances, strict=True)]
        for name, given in replies.items()
    }
    base, tuned = (sum(exact[name]) / len(utterances) for name in ("base", "tuned"))
    valid = sum(first_object(reply) is not None for reply in replies["tuned"]) / len(utterances)
    context.details |= {"exact_base": round(base, 4), "exact_tuned": round(tuned, 4), "json_tuned": round(valid, 4)}
    context.details["samples"] = [
        f"{gold.text}\n{replies['tuned'][place]}" for place, gold in list(enumerate(utterances))[:3]
    ]
    message = f"exact match {base:.1%} -> {tuned:.1%} on {len(utterances)} hidden utterances; {valid:.0%} hold JSON"
    yield context.result("gain", tuned - base, message)
    yield context.result("p_value", mcnemar_p(exact["base"], exact["tuned"]), "McNemar, exact")
