"""`anatomy`: figures of what is inside a trained model.

    attention.png     which earlier characters each head reads
    positions.png     what the position encodings look like to attention
    feed_forward.png  what each part of the feed-forward layers does to one token
    context.png       how much the loss falls as the model sees more of the text
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.ticker import ScalarFormatter
from torch import Tensor
from torch.nn import functional as F

from labkit.cli import option
from labkit.errors import LabError
from labkit.plots import new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, shown, start_run
from stage1_foundations.gpt import position_encoding
from stage1_foundations.gpt.checkpoint import load_model, read_checkpoint
from stage1_foundations.gpt.corpus import encode_part, load_corpus
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.sample_command import latest_checkpoint
from stage1_foundations.gpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class AnatomyConfig:
    """Which model, and which text it reads."""

    checkpoint: Path | None = option(None, "checkpoint or run folder; the latest training run if not given")
    data: str | None = option(None, "corpus to measure on; the model's own if not given")
    text: str | None = option(None, "text whose attention is drawn; the validation part's beginning if not given")
    length: int = option(24, "tokens of it that are drawn")


def run_anatomy(config: AnatomyConfig, preset: str) -> None:
    """Draw the figures into a run folder."""
    path = config.checkpoint or latest_checkpoint()
    model, tokenizer = load_model(path)
    saved = read_checkpoint(path)
    corpus = load_corpus(config.data or saved.get("config", {}).get("data") or saved["data"]["name"])
    text = config.text or (corpus.validation.partition("\n")[2] or corpus.validation).lstrip()  # from a line's start
    ids = tokenizer.encode(text)[: min(config.length, model.config.context)]
    if len(ids) < 2:
        raise LabError("--text is shorter than two tokens", '--text "To be, or not to be"')
    tokens = torch.tensor([ids])
    labels = [visible(tokenizer.decode([i])) for i in ids]
    validation = encode_part(tokenizer, corpus.validation, model.config.context, "validation")
    figures = {
        "attention.png": ("which earlier characters each head reads", draw_attention, (model, tokens, labels)),
        "positions.png": ("position encodings as attention sees them", draw_positions, (model,)),
        "feed_forward.png": ("what each part of the feed-forward does to one token", draw_feed_forward,
                             (model, tokenizer, tokens)),
        "context.png": ("loss against the number of characters seen", draw_context, (model, validation)),
    }  # fmt: skip
    with start_run("stage1", "gpt", "anatomy", config, preset=preset) as run, torch.inference_mode():
        for name, (caption, draw, arguments) in progress(list(figures.items()), description="anatomy"):
            run.figure(draw(*arguments, run.dir / name), caption)
        learn(run, model, tokens)
        console.print(f"four figures in {shown(run.dir)}", markup=False)


def visible(token: str) -> str:
    """A token as a label: line breaks and spaces can be seen."""
    return repr(token)[1:-1].replace(" ", "_")


def attention_weights(model: GPT, tokens: Tensor) -> Tensor:
    """Every head's weights on one text: (layers, heads, T, T)."""
    for block in model.blocks:
        block.attention.explicit = block.attention.keep_weights = True
    model(tokens)
    weights = torch.stack([block.attention.weights[0] for block in model.blocks])
    for block in model.blocks:
        block.attention.keep_weights, block.attention.weights = False, None
    return weights


def draw_attention(model: GPT, tokens: Tensor, labels: list[str], path: Path) -> Path:
    """A grid of layers x heads; a row is a query, a column a key, white is the masked future."""
    weights = attention_weights(model, tokens)
    layers, heads, length = weights.shape[:3]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = weights.masked_fill(future, float("nan"))
    size = {"width": 2.2 * heads, "height": 2.2 * layers}
    fig, axes = new_figure(layers, heads, **size, squeeze=False, sharex=True, sharey=True)
    step = -(-length // 24)  # more labels than that run into one another
    for layer in range(layers):
        for head in range(heads):
            axis = axes[layer, head]
            axis.imshow(weights[layer, head].numpy(), cmap="viridis", vmin=0, vmax=1)
            axis.grid(False)
            axis.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
            axis.set_xticks(range(0, length, step), labels[::step], fontsize=6)
            axis.set_yticks(range(0, length, step), labels[::step], fontsize=6)
            axis.tick_params(length=0, pad=1)
    fig.suptitle("Attention: row = the character that asks, column = the character it reads", fontsize=10)
    return save_figure(fig, path)


def head_summary(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Of every head: mean distance it looks back, and weight on the character just before. (layers, heads) each."""
    length = weights.shape[-1]
    distance = torch.arange(length)[:, None] - torch.arange(length)
    mean_distance = (weights * distance.clamp(min=0)).sum(-1).mean(-1)
    previous = weights.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)
    return mean_distance, previous


def draw_positions(model: GPT, path: Path) -> Path:
    """The four encodings; the model's own learned vectors where it has them."""
    fig, axes = new_figure(1, 4, width=13, height=3.2)
    axes[0].imshow(position_encoding.sinusoidal_table(64, 64).T.numpy(), aspect="auto", cmap="RdBu")
    axes[0].set(title="sinusoidal: added to the token", xlabel="position", ylabel="feature")
    cos, sin = position_encoding.rope_table(128, 64)
    query = torch.ones(1, 1, 1, 64)
    turned = position_encoding.apply_rope(query.expand(1, 1, 128, 64), cos, sin)[0, 0]
    axes[1].plot((turned @ turned[0] / 64).numpy())
    axes[1].set(title="RoPE: equal q and k, turned", xlabel="distance", ylabel="score / score at 0")
    slopes = position_encoding.alibi_slopes(4)
    bias = position_encoding.alibi_bias(1, 128, slopes)[:, 0].flip(-1)
    for head in range(4):
        axes[2].plot(bias[head].numpy(), label=f"head {head + 1}")
    axes[2].set(title="ALiBi: added to the score", xlabel="distance", ylabel="bias")
    axes[2].legend()
    if model.config.position == "learned":
        vectors = F.normalize(model.position_embedding.weight, dim=-1)
        axes[3].imshow((vectors @ vectors.T).numpy(), cmap="RdBu", vmin=-1, vmax=1)
        axes[3].set(title="learned here: cosine of two positions", xlabel="position", ylabel="position")
    else:
        turned_by_feature = cos[:, ::4]
        axes[3].imshow(turned_by_feature.T.numpy(), aspect="auto", cmap="RdBu")
        axes[3].set(title="RoPE: cosine of the angles", xlabel="position", ylabel="every fourth pair of features")
    for axis in (axes[0], axes[3]):
        axis.grid(False)
    return save_figure(fig, path)


def feed_forward_trace(model: GPT, tokens: Tensor) -> list[dict[str, Tensor]]:
    """For every layer and the last token: hidden units before and after the bend, the stream before and after."""
    trace: list[dict[str, Tensor]] = []
    hooks = []
    for block in model.blocks:
        entry: dict[str, Tensor] = {}
        trace.append(entry)

        def keep_before(module, args, out, entry=entry):
            entry["before_bend"] = out[0, -1]

        def keep_out(module, args, out, entry=entry):
            entry["after_bend"], entry["added"] = args[0][0, -1], out[0, -1]

        def keep_stream(module, args, out, entry=entry):
            entry["after"] = out[0, -1]

        hooks += [
            block.feed_forward.up.register_forward_hook(keep_before),
            block.feed_forward.down.register_forward_hook(keep_out),
            block.register_forward_hook(keep_stream),
        ]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return trace


def next_token_logits(model: GPT, stream: Tensor) -> Tensor:
    """The logit lens: what the model would say if it stopped here. (C,) -> (V,)."""
    return model.head(model.final_norm(stream))


def draw_feed_forward(model: GPT, tokenizer: Tokenizer, tokens: Tensor, path: Path) -> Path:
    """Before the bend, after it, and what the layer's output makes more likely."""
    trace = feed_forward_trace(model, tokens)
    layers = len(trace)
    fig, axes = new_figure(3, layers, width=2.4 * layers, height=7.2, squeeze=False)
    for layer, entry in enumerate(trace):
        axes[0, layer].hist(entry["before_bend"].numpy(), bins=40)
        active = (entry["after_bend"].abs() > 1e-3).float().mean().item()
        axes[0, layer].set_title(f"layer {layer + 1}: before the bend", fontsize=8)
        axes[1, layer].hist(entry["after_bend"].numpy(), bins=40, color="C1", log=True)
        axes[1, layer].set_title(f"after it: {active:.0%} of units not zero", fontsize=8)
        gain = next_token_logits(model, entry["after"]).log_softmax(-1) - next_token_logits(
            model, entry["after"] - entry["added"]
        ).log_softmax(-1)
        best = gain.topk(min(8, len(gain)))
        names = [visible(tokenizer.decode([i])) for i in best.indices.tolist()]
        axes[2, layer].barh(range(len(names)), best.values.numpy(), color="C2")
        axes[2, layer].set_yticks(range(len(names)), names, fontsize=8)
        axes[2, layer].invert_yaxis()
        axes[2, layer].set_title("next tokens it favours most", fontsize=8)
        axes[2, layer].set_xlabel("change of log-probability", fontsize=8)
    before = tokenizer.decode(tokens[0, -12:].tolist())
    fig.suptitle(f"What each part of the feed-forward does to the last token of {before!r}", fontsize=10)
    return save_figure(fig, path)


def loss_by_position(model: GPT, validation: Tensor, blocks: int = 64) -> Tensor:
    """Mean loss at every position of the context: (context,)."""
    context = model.config.context
    blocks = min(blocks, (len(validation) - 1) // context)
    ids = validation[: blocks * context].view(blocks, context)
    targets = validation[1 : blocks * context + 1].view(blocks, context)
    losses = [
        F.cross_entropy(model(i).float().transpose(1, 2), t, reduction="none")
        for i, t in zip(ids.split(8), targets.split(8), strict=True)
    ]
    return torch.cat(losses).mean(0)


def draw_context(model: GPT, validation: Tensor, path: Path) -> Path:
    """Loss against position, on a logarithmic axis, averaged over neighbouring positions."""
    losses = loss_by_position(model, validation)
    edges = [2**n for n in range(len(losses).bit_length()) if 2**n < len(losses)] + [len(losses)]
    bins = [losses[a - 1 : b - 1] for a, b in zip(edges, edges[1:], strict=False)]
    fig, axis = new_figure()
    middles = [(a * b) ** 0.5 for a, b in zip(edges, edges[1:], strict=False)]
    axis.plot(middles, [part.mean().item() for part in bins], marker="o")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set(
        xlabel="characters seen", ylabel="nats per token", title="More context, better guesses (validation text)"
    )
    return save_figure(fig, path)


def learn(run: Run, model: GPT, tokens: Tensor) -> None:
    """One sentence about the heads."""
    distance, previous = head_summary(attention_weights(model, tokens))
    layer, head = divmod(int(previous.argmax()), model.config.heads)
    run.metric("previous_token_head", previous.max().item(), "", meaning="largest mean weight on the character before")
    run.metric("mean_distance", distance.mean().item(), "tokens", meaning="how far heads look back on average")
    run.learnt(
        f"Head {head + 1} of layer {layer + 1} puts {previous.max():.0%} of its weight on the character just before."
    )
    run.next("python -m stage1_foundations.gpt sample")
