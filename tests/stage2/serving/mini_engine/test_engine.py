"""The engine with a model, against transformers. Each test names the bug that it catches."""

import json
import shutil

import pytest
import torch

import data
from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.mini_engine import SamplingParams

PROMPTS = [
    "Where is my parcel?", "a", "The quick brown fox jumps over the lazy dog. " * 3, "你好，我的订单在哪里？",
    "Where is my parcel? I want it today.", "x" * 48, "🙂 thanks",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(engine_of, tiny_base, by_transformers):
    """What transformers answers to PROMPTS: 20 tokens each."""
    ids = [engine_of().engine.encode(prompt) for prompt in PROMPTS]
    return by_transformers(tiny_base, ids, 20)


@pytest.mark.parametrize("options", [
    {"attention": "kernel"}, {"attention": "gather"}, {"attention": "gather", "block_size": 4},
    {"attention": "kernel", "block_size": 32}, {"max_num_batched_tokens": 7}, {"max_num_seqs": 1},
    {"static": True, "max_num_seqs": 3}, {"enable_prefix_caching": False},
], ids=str)  # fmt: skip
def test_greedy_equals_transformers_token_for_token(engine_of, greedy, expected, options):
    """Catches: a wrong position, mask, slot or block; a neighbour in the batch that leaks; a chunk computed twice."""
    outputs = engine_of(**options).generate(PROMPTS, greedy())
    assert [output.outputs[0].token_ids for output in outputs] == expected
    assert all(output.finished and output.outputs[0].finish_reason == "length" for output in outputs)


@pytest.mark.parametrize("attention", ["gather", "kernel"])
def test_preempted_and_resumed_gives_the_same_tokens(engine_of, greedy, expected, attention):
    """Catches: tokens lost or computed at other positions after the cache was full (nano-vllm's #144)."""
    llm = engine_of(attention=attention, num_blocks=11, block_size=16, max_model_len=170, enable_prefix_caching=True)
    outputs = llm.generate(PROMPTS, greedy())
    assert llm.engine.scheduler.counters.preemptions > 0
    assert [output.outputs[0].token_ids for output in outputs] == expected


def test_a_prefix_hit_gives_the_same_tokens(engine_of, greedy, expected):
    """Catches: shared blocks read at the wrong place, or overwritten by the second reader."""
    llm = engine_of()
    for _ in range(2):
        outputs = llm.generate(PROMPTS, greedy())
        assert [output.outputs[0].token_ids for output in outputs] == expected
    assert [output.num_cached_tokens for output in outputs] == [
        (len(output.prompt_token_ids) - 1) // 16 * 16 for output in outputs]  # fmt: skip


def test_seeded_sampling_does_not_depend_on_the_batch(engine_of):
    """Catches: a generator shared by the batch: other neighbours, a preemption or a cut prompt change the answer."""
    params = SamplingParams(temperature=1.0, top_p=0.9, top_k=50, seed=7, max_tokens=20, ignore_eos=True)
    alone = engine_of().generate(PROMPTS[0], params)[0].outputs[0].token_ids
    crowd = [params] + [SamplingParams(seed=i, max_tokens=20, ignore_eos=True) for i in range(len(PROMPTS) - 1)]
    for options in ({}, {"num_blocks": 11, "max_model_len": 170}, {"max_num_batched_tokens": 5}):
        assert engine_of(**options).generate(PROMPTS, crowd)[0].outputs[0].token_ids == alone
    other = SamplingParams(temperature=1.0, top_p=0.9, top_k=50, seed=8, max_tokens=20, ignore_eos=True)
    assert engine_of().generate(PROMPTS[0], other)[0].outputs[0].token_ids != alone


@pytest.mark.parametrize("attention", ["gather", "kernel"])
def test_many_ragged_requests_each_get_their_own_answer(engine_of, greedy, attention):
    """Catches: numbers written beside a buffer, which only some neighbours notice."""
    prompts = [f"{i} request {i * i}" for i in range(40)]
    one_by_one = engine_of(attention="gather", max_num_seqs=1, enable_prefix_caching=False)
    crowded = engine_of(attention=attention, max_num_seqs=8, num_blocks=18)
    answers = [[each.outputs[0].token_ids for each in llm.generate(prompts, greedy(12))]
               for llm in (one_by_one, crowded)]  # fmt: skip
    assert answers[0] == answers[1]


def test_narrow_heads_are_gathered(engine_of, greedy, build, tokenizer, tmp_path, by_transformers):
    """Catches: a kernel that works on 16 numbers let loose on heads of 8."""
    build(0, width=32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    llm = engine_of(tmp_path)
    ids = [llm.engine.encode(prompt) for prompt in PROMPTS]
    assert [each.outputs[0].token_ids for each in llm.generate(PROMPTS, greedy())] == by_transformers(tmp_path, ids, 20)
    with pytest.raises(LabError, match="the attention kernel wants"):
        engine_of(tmp_path, attention="kernel")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory, tokenizer):
    """A tiny random Qwen2: biases on query, key and value, a head of its own, another RoPE base."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("qwen")
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=False, initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_qwen2_too(engine_of, greedy, qwen, by_transformers):
    """Catches: biases forgotten, the embedding used for a head that is not tied, RoPE's base not read."""
    llm = engine_of(qwen)
    ids = [llm.engine.encode(prompt) for prompt in PROMPTS]
    assert [each.outputs[0].token_ids for each in llm.generate(PROMPTS, greedy())] == by_transformers(qwen, ids, 20)


def test_gptq_checkpoints_are_unpacked(engine_of, greedy, build, tiny_base, tmp_path, by_transformers):
    """Catches: codes unpacked along the other side, zeros off by one, groups taken in their order on disk."""
    from safetensors.torch import save_file

    from stage2_rag_finetune_deploy.quantization.grid import Scheme, round_to_nearest
    from stage2_rag_finetune_deploy.quantization.packing import to_tensors

    packed, plain = (shutil.copytree(tiny_base, tmp_path / name) for name in ("packed", "plain"))
    model, tensors = build(0, width=64), {}
    for name, parameter in model.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "o_proj.weight")):
            layer = round_to_nearest(parameter, Scheme(bits=4, group=32))
            parameter.copy_(layer.weights())
            tensors |= {name.replace("weight", key): each.contiguous() for key, each in to_tensors(layer).items()}
        elif name != "lm_head.weight":
            tensors[name] = parameter.clone()
    model.save_pretrained(plain)
    save_file(tensors, packed / "model.safetensors", {"format": "pt"})
    config = json.loads((packed / "config.json").read_text())
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    llm = engine_of(packed)
    ids = [llm.engine.encode(prompt) for prompt in PROMPTS]
    tokens = [each.outputs[0].token_ids for each in llm.generate(PROMPTS, greedy())]
    assert tokens == by_transformers(plain, ids, 20) != by_transformers(tiny_base, ids, 20)


@pytest.mark.parametrize("change", [
    {"architectures": ["GPT2LMHeadModel"]}, {"hidden_act": "gelu"}, {"quantization_config": {"quant_method": "awq"}},
    {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
], ids=str)  # fmt: skip
def test_what_it_cannot_compute_is_refused(engine_of, tiny_base, tmp_path, change):
    """Catches: another model's weights run through this forward pass, with nonsense as the answer."""
    folder = shutil.copytree(tiny_base, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(LabError, match="the mini engine"):
        engine_of(folder)


def test_an_adapter_is_merged_as_peft_does(engine_of, greedy, build, tiny_base, tokenizer, tmp_path, by_transformers):
    """Catches: alpha / rank wrong, A and B the wrong way round, an adapter that is read and not used."""
    from peft import LoraConfig, get_peft_model

    adapted = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "o_proj", "down_proj"])
    model = get_peft_model(build(0, width=64), adapted)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    llm = engine_of(adapter=tmp_path / "adapter")
    ids = [llm.engine.encode(prompt) for prompt in PROMPTS]
    tokens = [each.outputs[0].token_ids for each in llm.generate(PROMPTS, greedy())]
    assert tokens == by_transformers(tmp_path / "merged", ids, 20)
    assert tokens != by_transformers(tiny_base, ids, 20)


def test_bfloat16_is_near_float32(engine_of, tiny_base):
    """Catches: a packed weight or a 16-bit kernel that computes something else. Bound: a few times bfloat16's 2^-8."""
    logits = {}
    for dtype, attention in (("fp32", "gather"), ("bf16", "kernel"), ("bf16", "gather")):
        engine = engine_of(dtype=dtype, attention=attention).engine
        seen = []
        head = engine.runner.model.head
        engine.runner.model.head = lambda x, head=head, seen=seen: seen.append(head(x)) or seen[-1]
        engine.add_request("a", engine.encode(PROMPTS[2]), SamplingParams(max_tokens=1, temperature=0))
        engine.step()
        logits[dtype, attention] = seen[0][0].float()
    exact = logits.pop(("fp32", "gather"))
    for near in logits.values():
        assert (near - exact).abs().max() < 0.03 * exact.abs().max()


def test_too_long_and_empty_prompts(engine_of, greedy):
    """Catches: an answer cut short without a word, a request that waits for ever, blocks kept after a refusal."""
    llm = engine_of()
    with pytest.raises(LabError, match="holds 256 tokens; the prompt has 250 and max_tokens is 20"):
        llm.generate(["fits", {"prompt_token_ids": [1] * 250}], greedy(20))
    with pytest.raises(LabError, match="the prompt is empty"):
        llm.generate([{"prompt_token_ids": []}], greedy())
    assert llm.engine.unfinished == 0
    free = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    assert len(llm.generate([{"prompt_token_ids": [1] * 250}], free)[0].outputs[0].token_ids) == 6
    with pytest.raises(LabError, match="cannot hold a request of 256 tokens"):
        engine_of(num_blocks=15)
    with pytest.raises(LabError, match="1024 positions, not 4096"):
        engine_of(max_model_len=4096)


@pytest.mark.parametrize("change", [
    {"max_tokens": 0}, {"max_tokens": -3}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -2},
    {"n": 2}, {"stop": ""}, {"stop": ["x"] * 17}, {"stop": "x" * 201}, {"seed": 2**63}, {"temperature": float("nan")},
], ids=str)  # fmt: skip
def test_impossible_parameters(change):
    """Catches: a parameter that is silently ignored or that fails in the middle of a batch."""
    with pytest.raises(LabError, match=f"^{next(iter(change))} cannot be"):
        SamplingParams(**change)


@pytest.mark.assets
def test_smollm2_equals_transformers(engine_of, greedy, by_transformers):
    """Catches: what only the real sizes show: 9 heads over 3, 30 layers, a head of 64, a vocabulary of 49,152."""
    folder = data.fetch("smollm2-135m-instruct")
    llm = engine_of(folder, kv_cache_bytes=64 << 20)
    prompts = ["Where is my parcel?", "The capital of France is", "def fibonacci(n):"]
    ids = [llm.engine.encode(prompt) for prompt in prompts]
    tokens = [each.outputs[0].token_ids for each in llm.generate(prompts, greedy(12))]
    assert tokens == by_transformers(folder, ids, 12)
