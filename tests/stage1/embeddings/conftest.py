"""A cache of the tests' own, a retrieval set with a secret, and a model small enough to learn it."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab_cli import lab_cli

from data import RetrievalSet
from labkit.assets import cache_root

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from threads, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Embeddings and mteb's results go to a folder of the session; assets stay where they are."""
    assets = cache_root() / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    root = tmp_path_factory.mktemp("cache")
    (root / "assets").symlink_to(assets, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_LAB_CACHE", str(root))
        yield root


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def offline(monkeypatch) -> None:
    """The hub's libraries as without a network: at once, without their retries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage1_foundations.embeddings` without the second process: (exit code, stdout, stderr)."""
    return lab_cli(capsys, "stage1_foundations.embeddings")


CONCEPTS = 40


@pytest.fixture(scope="session")
def secret_set() -> RetrievalSet:
    """240 questions whose passages say the same in other words: `ask7` of a question is `say7` of its passage.

    No word is shared, so BM25 and an untrained encoder are at chance; who learns the 40 pairs of words finds every
    passage, also those of questions that training never saw.
    """
    draw = random.Random(3)
    chosen = [draw.sample(range(CONCEPTS), 4) for _ in range(240)]
    corpus = {f"p{n}": " ".join(f"say{c}" for c in draw.sample(concepts, 4)) for n, concepts in enumerate(chosen)}
    queries = {f"q{n}": " ".join(f"ask{c}" for c in concepts) for n, concepts in enumerate(chosen)}
    return RetrievalSet("secret", "en", corpus, queries, {f"q{n}": {f"p{n}": 1} for n in range(240)})


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A sentence-transformers folder: an untrained BERT of 2 layers and 64 dimensions over the secret set's words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":"]
    words += [f"{side}{number}" for side in ("ask", "say") for number in range(CONCEPTS)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=32)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(
        str(folder / "model"), create_model_card=False
    )
    return folder / "model"


@pytest.fixture
def tiny(tiny_folder):
    """A fresh encoder over that folder."""
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

    return TransformerEncoder(tiny_folder, name="tiny")


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change keys of a JSON file."""

    def edit(path: Path, **changes) -> None:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return edit


@pytest.fixture
def spawn(runs) -> Callable[..., subprocess.Popen]:
    """Start Python in the repository with one thread."""
    started = []

    def start(*words: object, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
