"""The engine: requests in, one step at a time, text out. LLM and the server are two ways to turn its handle."""

from dataclasses import dataclass
from pathlib import Path

from labkit.device import choose_device
from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.mini_engine.block_manager import BlockManager
from stage2_rag_finetune_deploy.serving.mini_engine.checkpoint import dtype_of, load_tokenizer
from stage2_rag_finetune_deploy.serving.mini_engine.detokenizer import Detokenizer
from stage2_rag_finetune_deploy.serving.mini_engine.model_runner import ModelRunner
from stage2_rag_finetune_deploy.serving.mini_engine.sampler import fresh_seed
from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Scheduler
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence

MOST_MEMORY = 1 << 30  # bytes for the cache, unless something else is asked for


@dataclass(frozen=True)
class EngineConfig:
    """Options of LLM; the names are vLLM's where vLLM has them.

    Attributes:
        max_model_len: tokens of a prompt and its answer together; None is what the model was trained for.
        num_blocks: of the cache; None is what fits into `kv_cache_bytes`.
        attention: "kernel", "gather" or "auto" (model_runner.py).
        static: batches that are filled only when they are empty, for comparison.
    """

    dtype: str = "auto"
    device: str = "auto"
    adapter: Path | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    block_size: int = 16
    num_blocks: int | None = None
    kv_cache_bytes: int = MOST_MEMORY
    enable_prefix_caching: bool = True
    attention: str = "auto"
    static: bool = False


@dataclass(frozen=True)
class StepOutput:
    """What a step gave one request: a token, the text that can be given out, and whether that was all.

    Attributes:
        finish_reason: "stop" or "length" when it was the last.
        stop_reason: the stop string or stop token that was met; None at the model's own end.
        cached_tokens: of the prompt, found in the prefix cache.
    """

    request_id: str
    token: int | None
    text: str
    finish_reason: str | None
    stop_reason: str | int | None = None
    cached_tokens: int = 0


class Engine:
    """Scheduler, model and detokenizers; `step` computes one batch."""

    def __init__(self, model: str | Path, config: EngineConfig) -> None:
        device = choose_device(config.device)
        folder = Path(model)
        self.runner = ModelRunner(folder, config.adapter, dtype_of(config.dtype, device), device)
        self.tokenizer = load_tokenizer(folder)
        self.config, self.eos_ids = config, self.runner.config.eos_ids
        longest = self.runner.config.longest
        self.max_model_len = config.max_model_len or longest
        if not 0 < self.max_model_len <= longest:
            raise LabError(f"the model knows {longest} positions, not {self.max_model_len}", f"max_model_len={longest}")
        blocks = self._blocks(config)
        self.runner.allocate(blocks.num_blocks, config.block_size, self.max_model_len, config.attention)
        self.scheduler = Scheduler(blocks, config.max_num_seqs, config.max_num_batched_tokens, config.static)
        self.sequences: dict[str, Sequence] = {}
        self._texts: dict[str, Detokenizer] = {}
        self._seeds: dict[str, int] = {}

    def _blocks(self, config: EngineConfig) -> BlockManager:
        """As many blocks as fit, at least enough for one request of the greatest length."""
        least = -(-self.max_model_len // config.block_size)
        wanted = config.max_num_seqs * least
        fitting = config.kv_cache_bytes // (self.runner.bytes_a_token * config.block_size)
        number = min(wanted, fitting) if config.num_blocks is None else config.num_blocks
        if number < least:
            need = least * config.block_size * self.runner.bytes_a_token
            raise LabError(
                f"{number} blocks of {config.block_size} tokens cannot hold a request of {self.max_model_len} tokens",
                f"a cache of {need:,} bytes, or a smaller max_model_len",
            )
        return BlockManager(number, config.block_size, config.enable_prefix_caching)

    def check_prompt(self, prompt_ids: list[int], params: SamplingParams) -> int:
        """How many tokens the answer may have.

        Raises:
            LabError: the prompt is empty or has unknown tokens, or it and the answer that is asked for do not fit; the
                message has the numbers.
        """
        if not prompt_ids:
            raise LabError("the prompt is empty", "at least one token")
        size = self.runner.config.vocab_size
        if not all(0 <= token < size for token in prompt_ids):
            raise LabError("the prompt has a token that the model does not know", f"ids from 0 to {size - 1:,}")
        room, wanted = self.max_model_len - len(prompt_ids), params.max_tokens
        if room < (wanted or 1):
            asked = f" and max_tokens is {wanted:,}" if wanted else ""
            raise LabError(
                f"the context holds {self.max_model_len:,} tokens; the prompt has {len(prompt_ids):,}{asked}",
                "a shorter prompt" + (f", or max_tokens up to {room:,}" if room > 0 else ""),
            )
        return wanted or room

    def add_request(self, request_id: str, prompt_ids: list[int], params: SamplingParams) -> Sequence:
        """Put a request in the line.

        Raises:
            LabError: the prompt is empty, or it and the answer do not fit into the context.
        """
        sequence = Sequence(request_id, list(prompt_ids), params, self.check_prompt(prompt_ids, params))
        self.sequences[request_id] = sequence
        self._texts[request_id] = Detokenizer(self.tokenizer, params.stops)
        self._seeds[request_id] = fresh_seed() if params.seed is None else params.seed
        self.scheduler.add(sequence)
        return sequence

    def abort(self, request_id: str) -> bool:
        """Forget a request and give its blocks back; whether it was still there."""
        sequence = self.sequences.get(request_id)
        if sequence:
            self._end(sequence, "abort")
        return sequence is not None

    @property
    def unfinished(self) -> int:
        """Requests that wait or run."""
        return self.scheduler.unfinished

    def step(self) -> list[StepOutput]:
        """Compute one batch, if there is anything to compute; one output for each request that has a new token."""
        chunks = self.scheduler.schedule()
        if not chunks:
            return []
        tokens = self.runner.run(chunks, self._seeds)
        self.scheduler.commit(chunks, tokens)
        return [self._take(sequence, token) for sequence, token in tokens.items()]

    def _take(self, sequence: Sequence, token: int) -> StepOutput:
        """A token into text; ends the request where it has to end."""
        params, text = sequence.params, self._texts[sequence.request_id]
        text.add(token)
        reason, cause = None, None
        if token in params.stop_token_ids or (token in self.eos_ids and not params.ignore_eos):
            reason, cause = "stop", token if token in params.stop_token_ids else None
        elif text.stopped is not None:
            reason, cause = "stop", text.stopped
        elif len(sequence.output_ids) >= sequence.max_tokens:
            reason = "length"
        if reason:
            text.finish()
            if text.stopped is not None:
                reason, cause = "stop", text.stopped
            self._end(sequence, reason)
        piece = text.new_text(bool(reason))
        return StepOutput(sequence.request_id, token, piece, reason, cause, sequence.cached or 0)

    def _end(self, sequence: Sequence, reason: str) -> None:
        self.scheduler.finish(sequence, reason)
        for known in (self.sequences, self._texts, self._seeds):
            del known[sequence.request_id]

    def encode(self, prompt: str) -> list[int]:
        """Ids of a text, as the tokenizer begins a text."""
        return self.tokenizer(prompt)["input_ids"]

    def warm_up(self) -> None:
        """Compute two tokens, so that everything is compiled before the first request waits for it."""
        prompt = [0] * min(2, self.max_model_len - 1)
        self.add_request("warm-up", prompt, SamplingParams(max_tokens=1, temperature=0, ignore_eos=True))
        while self.unfinished:
            self.step()
        self.scheduler.counters = type(self.scheduler.counters)()
