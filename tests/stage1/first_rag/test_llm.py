"""Each test names the bug that it catches."""

import socket

import pytest
import torch
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate

from labkit.errors import LabError
from stage1_foundations.first_rag.llm import load_llm
from stage1_foundations.first_rag.rag import Rag, RagConfig

QUESTION = "What does the kettle hold?"


@pytest.fixture(scope="module")
def smollm():
    """SmolLM2, short answers."""
    llm = load_llm("smollm2", tokens=8)
    assert llm.model and llm.tokenizer
    return llm


@pytest.mark.assets
def test_the_chat_template_is_there_whichever_door_is_used(smollm, monkeypatch):
    """Catches: `predict` calls `complete(formatted=True)`, and a template put on only inside `complete` is skipped."""
    prompts = []
    inputs = type(smollm)._inputs

    def watched(self, prompt, formatted):
        made = inputs(self, prompt, formatted)
        prompts.append(self.tokenizer.decode(made["input_ids"][0]))
        return made

    monkeypatch.setattr(type(smollm), "_inputs", watched)
    smollm.num_output = 1
    smollm.predict(PromptTemplate("Say {word}."), word="yes")
    smollm.complete("Say yes.")
    smollm.chat([ChatMessage(role="user", content="Say yes.")])
    smollm.num_output = 8
    assert prompts[0] == prompts[1] == prompts[2]
    assert prompts[0].count("<|im_start|>user\nSay yes.<|im_end|>") == 1
    assert prompts[0].endswith("<|im_start|>assistant\n")


@pytest.mark.assets
def test_answers_equal_transformers_greedy_ones(smollm):
    """Catches: prompt tokens left in the answer, a sampled answer, a template with other ids than the tokenizer's."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = smollm.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.inference_mode():
        out = smollm.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    expected = smollm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert expected and smollm.complete(messages[0]["content"]).text == expected
    assert "".join(part.delta for part in smollm.stream_complete(messages[0]["content"])).strip() == expected


@pytest.mark.assets
def test_a_prompt_that_is_too_long(smollm):
    """Catches: a prompt that runs beyond what the model was trained on, and nonsense in return."""
    with pytest.raises(LabError, match="the prompt has .* tokens"):
        smollm.complete("word " * 2100)


# ------------------------------------------------------------------------------------------------ endpoint


@pytest.fixture
def rag(index, embedding, endpoint):
    """The manual, answered by the endpoint."""
    options = RagConfig(mode="compact", threshold=0.3, llm="endpoint", api_base=endpoint.url, model="tiny")
    return Rag(index, embedding, options)


def test_any_openai_compatible_endpoint(rag, endpoint, monkeypatch):
    """Catches: a hard-wired model or address, passages that are not sent, sampling, an answer that loses its source."""
    answer = rag.ask(QUESTION)
    assert (answer.text, answer.citations[0].source) == ("The kettle holds two litres. [1]", "kettle")
    (path, headers, request), *others = endpoint.requests
    assert others == [] and path == "/v1/chat/completions"
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("tiny", 0.0, 64)
    assert headers["Authorization"] == "Bearer none"
    prompt = "".join(message["content"] for message in request["messages"])
    assert QUESTION in prompt and "It switches itself off when the water boils." in prompt


def test_address_and_key_come_from_the_environment(index, embedding, endpoint, monkeypatch):
    """Catches: the variables that every other OpenAI client reads ignored here."""
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    options = RagConfig(mode="compact", threshold=0.3, llm="endpoint", model="tiny")
    Rag(index, embedding, options).ask(QUESTION)
    assert endpoint.requests[0][1]["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "OPENAI_API_KEY"), (404, "--model"), (429, "--llm smollm2"), (500, "--llm smollm2")]
)
def test_an_endpoint_that_refuses(rag, endpoint, status, advice):
    """Catches: a traceback of the HTTP library, an advice that does not fit, minutes of retries."""
    endpoint.status = status
    with pytest.raises(LabError, match="the endpoint refuses: .*the server's own words") as caught:
        rag.ask(QUESTION)
    assert advice in caught.value.try_next and len(endpoint.requests) == 1


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b"{}", b'{"choices": []}', b"[1]", b'{"choices": ['])
def test_an_endpoint_that_speaks_something_else(rag, endpoint, body):
    """Catches: the address of a web page taken for an endpoint, and an AttributeError in return."""
    endpoint.body = body
    with pytest.raises(LabError, match="does not speak OpenAI's protocol"):
        rag.ask(QUESTION)


def test_an_endpoint_that_is_down(index, embedding):
    """Catches: a traceback, or a long wait, when nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    options = RagConfig(mode="compact", threshold=0.3, llm="endpoint", api_base=address, model="tiny")
    with pytest.raises(LabError, match="cannot be reached"):
        Rag(index, embedding, options).ask(QUESTION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "without an address"),
        ({"api_base": "localhost:8000", "model": "x"}, "not a web address"),
        ({"api_base": "http://localhost:8000/v1"}, "without a model"),
    ],
)
def test_an_endpoint_half_described(options, message):
    """Catches: a question sent to OpenAI because the address was forgotten."""
    with pytest.raises(LabError, match=message):
        load_llm("endpoint", **options)
