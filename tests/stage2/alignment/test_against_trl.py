"""The losses beside TRL's own trainers, on the same batch of the same tiny model in float32.

TRL's `compute_loss` gets padded ids and returns a loss; here the same ids go through logprobs.py and losses.py. So
these tests hold for both files. Each test names the bug that it catches.
"""

import pytest
import torch

from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs
from stage2_rag_finetune_deploy.alignment.losses import (
    dpo_loss,
    group_advantages,
    grpo_loss,
    sft_loss,
    zero_std_share,
)

QUESTIONS = ["1 + 1 =", "What is 20 + 3?", "4 + 5 + 6 =", "Hello"]
ANSWERS = [("2", "three"), ("23", "It is 20 + 3, of course."), ("15", "1"), ("Good morning!", "no")]
BETA, CLIP, GROUP = 0.1, 0.2, 4
# Both sides sum the same float32 numbers in another order: a prompt that runs once or in every row, padding left,
# right or between. Log-probabilities of a whole answer are of the order of 100, their rounding of 1e-5.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}
SETTINGS = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False}


def close(ours, theirs):
    """Equal but for the order of sums."""
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), **TOLERANCE)


def unpadded(ids, mask):
    """Rows of ids without what the mask (B, T) leaves out."""
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def gradients(loss, model):
    """Of all parameters, by name."""
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


# ---------------------------------------------------------------------------------------------------------------- DPO


@pytest.fixture(scope="module")
def dpo(build, tokenizer, tmp_path_factory):
    """A function: a DPOTrainer whose policy and reference differ, and one of its batches."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    datasets.disable_progress_bars()

    def make(**settings):
        rows = [
            {"prompt": [{"role": "user", "content": question}],
             "chosen": [{"role": "assistant", "content": chosen}],
             "rejected": [{"role": "assistant", "content": rejected}]}
            for question, (chosen, rejected) in zip(QUESTIONS, ANSWERS, strict=True)
        ]  # fmt: skip
        config = DPOConfig(
            output_dir=str(tmp_path_factory.mktemp("dpo")), beta=BETA, per_device_train_batch_size=4, **SETTINGS,
            **settings,
        )  # fmt: skip
        trainer = DPOTrainer(
            build(1), build(2), config, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
        )
        trainer.model.eval()
        return trainer, next(iter(trainer.get_train_dataloader()))

    return make


def by_hand(model, batch):
    """Per-token log-probabilities and mask of a DPO batch, chosen and rejected row by row, with TRL's own ids."""
    attended, answers = batch["attention_mask"], batch["completion_mask"]
    prompts = unpadded(batch["input_ids"], attended - answers)
    completions = unpadded(batch["input_ids"], answers)
    half = len(prompts) // 2  # TRL stacks all chosen answers on all rejected ones
    pairs = [answer for number in range(half) for answer in (completions[number], completions[half + number])]
    return completion_logprobs(model, prompts[:half], pairs, group=2)


def sums(logprobs):
    """(chosen, rejected), each (B,)."""
    return logprobs.sum(1).view(-1, 2).unbind(1)


def test_dpo_is_trls(dpo):
    """Catches: any difference in loss, margins, rewards or gradients from TRL's DPOTrainer."""
    trainer, batch = dpo()
    model, reference = trainer.model, trainer.ref_model
    theirs = trainer.compute_loss(model, batch)
    expected = gradients(theirs, model)
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    chosen, rejected = sums(by_hand(model, batch)[0])
    with torch.no_grad():
        start_chosen, start_rejected = sums(by_hand(reference, batch)[0])
    loss, margins = dpo_loss(chosen, rejected, start_chosen, start_rejected, BETA)
    close(loss, theirs)
    close(margins.mean(), logged["rewards/margins"])
    close((margins > 0).float().mean(), logged["rewards/accuracies"])
    close(BETA * (chosen - start_chosen).mean(), logged["rewards/chosen"])
    close(BETA * (rejected - start_rejected).mean(), logged["rewards/rejected"])
    close(chosen.mean(), logged["logps/chosen"])
    close(rejected.mean(), logged["logps/rejected"])
    ours = gradients(loss, model)
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)
    # and the comparison can fail: each of these is a mistake that one makes
    for wrong in (
        dpo_loss(rejected, chosen, start_rejected, start_chosen, BETA),
        dpo_loss(chosen, rejected, start_chosen * 0, start_rejected * 0, BETA),
        dpo_loss(chosen, rejected, start_chosen, start_rejected, 1.1 * BETA),
    ):
        with pytest.raises(AssertionError):
            close(wrong[0], theirs)


def test_dpo_with_an_sft_term_is_trls(dpo):
    """Catches: an SFT term over both answers, or averaged over answers in place of tokens."""
    trainer, batch = dpo(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.3])
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, batch)
        logprobs, mask = by_hand(trainer.model, batch)
        loss, _ = dpo_loss(*sums(logprobs), *sums(by_hand(trainer.ref_model, batch)[0]), BETA)
    close(loss + 0.3 * sft_loss(logprobs[0::2], mask[0::2]), theirs)
    with pytest.raises(AssertionError):
        close(loss + 0.3 * sft_loss(logprobs, mask), theirs)


# --------------------------------------------------------------------------------------------------------------- GRPO


@pytest.fixture(scope="module")
def grpo(build, tokenizer, tmp_path_factory):
    """A function: a GRPOTrainer, and the rewards that its verifier gives, in order."""
    import datasets
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    folder = tmp_path_factory.mktemp("policy")
    build(1).save_pretrained(folder)  # with a beta TRL reads the reference from where the policy came from
    given = [1.0, 0.0, 0.0, 1.0, *[0.1] * 4, 3.0, 1.0, 0.5, 0.0, *[0.0] * 4]

    def reward(completions, **_):
        return given[: len(completions)]

    def make(**settings):
        config = GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("grpo")), per_device_train_batch_size=len(given),
            per_device_eval_batch_size=len(given), num_generations=GROUP, max_completion_length=6, epsilon=CLIP,
            **SETTINGS, **settings,
        )  # fmt: skip
        rows = datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": each}]} for each in QUESTIONS])
        policy = AutoModelForCausalLM.from_pretrained(folder)
        trainer = GRPOTrainer(policy, reward, config, rows, processing_class=tokenizer)
        trainer.model.eval()
        return trainer, rows, torch.tensor(given)

    return make


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_are_trls(grpo, scale):
    """Catches: another standard deviation or epsilon than TRL's; its frac_reward_zero_std counted otherwise."""
    trainer, rows, given = grpo(scale_rewards=scale)
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    # a group of four times 0.1: TRL divides the mean's rounding by 1e-4, here it is nothing
    torch.testing.assert_close(
        group_advantages(given, GROUP, scale == "group"), batch["advantages"], rtol=1e-5, atol=1e-4
    )
    assert zero_std_share(given, GROUP) == trainer._metrics["eval"]["frac_reward_zero_std"][-1] == 0.5
    biased = given.view(-1, GROUP) - given.view(-1, GROUP).mean(1, keepdim=True)
    biased = biased / (given.view(-1, GROUP).std(1, correction=0, keepdim=True) + 1e-4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(biased.flatten(), batch["advantages"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("loss_type", "average"), [("dapo", "tokens"), ("bnpo", "tokens"), ("grpo", "sequences")])
@pytest.mark.parametrize(("beta", "correct"), [(0.0, True), (0.04, True), (0.04, False)])
def test_grpo_is_trls(grpo, build, loss_type, average, beta, correct):
    """Catches: any difference in loss, clipping, KL or gradients from TRL's GRPOTrainer.

    The old policy is another model, so that ratios leave [0.8, 1.2] on both sides.
    """
    trainer, rows, given = grpo(loss_type=loss_type, beta=beta, use_bias_correction_kl=correct)
    model, old_model, reference_model = trainer.model, blend(build(1), build(4), 0.05), build(2)
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    lengths = 1 + torch.arange(len(given)) % 6  # were they all of one length, both averages would be one
    mask = batch["completion_mask"].bool() & (torch.arange(6) < lengths[:, None])
    batch["completion_mask"], batch["num_items_in_batch"] = mask.int(), mask.sum()
    prompts = unpadded(batch["prompt_ids"], batch["prompt_mask"])[::GROUP]
    completions = unpadded(batch["completion_ids"], mask)
    with torch.no_grad():
        old, reference = (
            completion_logprobs(each, prompts, completions, GROUP)[0] for each in (old_model, reference_model)
        )
    batch["old_per_token_logps"], batch["ref_per_token_logps"] = old, reference
    theirs = trainer._compute_loss(model, batch)
    expected = gradients(theirs, model)
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    logprobs, ours_mask = completion_logprobs(model, prompts, completions, GROUP)
    assert torch.equal(ours_mask, mask)
    advantages = group_advantages(given, GROUP)
    measured = reference if beta else None
    loss, figures = grpo_loss(logprobs, old, advantages, mask, CLIP, beta, measured, average, correct)
    close(loss, theirs)
    assert 0.05 < figures["clip_ratio"] < 0.95
    assert logged["clip_ratio/low_mean"] > 0 < logged["clip_ratio/high_mean"]
    close(figures["clip_ratio"], logged["clip_ratio/region_mean"])
    assert ("kl" in figures) == ("kl" in logged) == bool(beta)
    if beta:
        close(figures["kl"], logged["kl"])
    for name, gradient in gradients(loss, model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)
    # and the comparison can fail
    other = "sequences" if average == "tokens" else "tokens"
    logprobs, rest = logprobs.detach(), (reference, average, correct)
    wrong_ones = [
        grpo_loss(logprobs, old, advantages, mask, CLIP, beta, reference, other, correct),
        grpo_loss(logprobs, old, advantages, mask, 2 * CLIP, beta, *rest),
        grpo_loss(logprobs, old, -advantages, mask, CLIP, beta, *rest),
        grpo_loss(logprobs, old, advantages, mask, CLIP, beta + 0.01, *rest),
        grpo_loss(old, logprobs, advantages, mask, CLIP, beta, *rest),
    ]
    if beta:
        wrong_ones.append(grpo_loss(logprobs, old, advantages, mask, CLIP, beta, reference, average, not correct))
    for wrong in wrong_ones:
        with pytest.raises(AssertionError):
            close(wrong[0], theirs)


@torch.no_grad()
def blend(model, other, share):
    """A model a little on the way to another one, in place."""
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.lerp_(theirs, share)
    return model
