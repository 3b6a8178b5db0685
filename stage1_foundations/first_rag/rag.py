"""The parts put together: retriever, gate, synthesizer; a question in, an answer with citations out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer, get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore

from labkit.errors import LabError
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.evidence import NO_EVIDENCE, EvidenceGate, default_threshold, grounded
from stage1_foundations.first_rag.index_folder import load_index, read_manifest
from stage1_foundations.first_rag.llm import SmolLM, load_llm
from stage1_foundations.first_rag.retriever import FusionRetriever
from stage1_foundations.first_rag.synthesizer import ExtractiveSynthesizer
from stage1_foundations.first_rag.words import WordWeights, best_sentence, split_words

LLM_MODES = ("compact", "refine", "tree_summarize", "accumulate")
MODES = ("extract", *LLM_MODES)
RETRIEVERS = ("fusion", "vector")
LONGEST_QUESTION = 300, 2000  # words, characters
# the default prompts are written for large models; a small one follows one short order at the end
QA_PROMPT = PromptTemplate(
    "{context_str}\n\nQuestion: {query_str}\nAnswer in one short sentence, only with facts from the text above. "
    "If the text does not answer the question, write: no evidence."
)
REFINE_PROMPT = PromptTemplate(
    "{context_msg}\n\nQuestion: {query_str}\nAnswer so far: {existing_answer}\n"
    "Repeat the answer, or correct it with facts from the text above, in one short sentence."
)


@dataclass(frozen=True)
class Citation:
    """A passage that an answer rests on. `number` from 1 is the mark in the answer; `quote` its best sentence."""

    number: int
    source: str
    quote: str
    text: str
    score: float


@dataclass(frozen=True)
class Answer:
    """What the RAG says: `text`, the passages it rests on, and how much evidence there was."""

    question: str
    text: str
    evidence: float
    citations: list[Citation] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether it says that there is no evidence."""
        return not self.citations


@dataclass(frozen=True)
class RagConfig:
    """How to answer. Every field is an option of `ask` and `trace`, too; a threshold of None is the encoder's own."""

    mode: str = "extract"
    retriever: str = "fusion"
    top_k: int = 3
    threshold: float | None = None
    llm: str = "smollm2"
    api_base: str | None = None
    model: str | None = None
    tokens: int = 64


class Rag:
    """A query engine over an index.

    Args:
        index: from `build_index` or `load_index`.
        embedding: the model that made it.
        config: the parts to use.
        llm: a model that is there already; by default the one that `config` names, loaded when a mode needs it.

    Raises:
        LabError: unknown part, k below 1, or an endpoint without an address.
    """

    def __init__(
        self, index: VectorStoreIndex, embedding: LabEmbedding, config: RagConfig, llm: LLM | None = None
    ) -> None:
        if config.top_k < 1:
            raise LabError(f"--top-k {config.top_k}", "--top-k 3")
        self.index, self.embedding, self.config = index, embedding, config
        self.weights = WordWeights(node.get_content() for node in index.docstore.docs.values())
        needs_llm = config.mode in LLM_MODES
        self.llm = (llm or load_llm(config.llm, config.api_base, config.model, config.tokens)) if needs_llm else None
        # A ServiceContext with models, splitter and callbacks used to go from hand to hand; 0.10 deprecated it, and
        # since 0.11 its constructor raises. Settings, one object for the whole process, took its place; a part that is
        # given its own model, as the retriever and the synthesizer below, does not look at it.
        Settings.embed_model = embedding
        if self.llm is not None:
            Settings.llm = self.llm
        threshold = default_threshold(embedding.model_name) if config.threshold is None else config.threshold
        self.gate = EvidenceGate(self.weights, threshold)
        self.engine = RetrieverQueryEngine(
            retriever=self._retriever(),
            response_synthesizer=self._synthesizer(),
            node_postprocessors=[self.gate],
        )

    @classmethod
    def open(cls, folder: Path, config: RagConfig, encoder: str | None = None) -> "Rag":
        """The RAG over a persisted index, with the encoder that made it unless another is asked for.

        Raises:
            LabError: no index, a damaged one, or one made by another model.
        """
        embedding = LabEmbedding(encoder or read_manifest(folder).encoder)
        return cls(load_index(folder, embedding), embedding, config)

    def ask(self, question: str) -> Answer:
        """Answer a question from the documents, or say that there is no evidence.

        Raises:
            LabError: no question, one that is too long, or an endpoint that fails.
        """
        check_question(question)
        with prompt_errors():
            response = self.engine.query(question)
        return self.answer(question, response)

    def warm_up(self) -> None:
        """Load the models, so that the first question's milliseconds are its own."""
        self.embedding.encoder.encode_now(["warm up"], "query")
        if isinstance(self.llm, SmolLM):
            _ = self.llm.model, self.llm.tokenizer

    def retrieve(self, question: str) -> list[NodeWithScore]:
        """What the retriever finds, before the gate."""
        return self.engine.retriever.retrieve(question)

    def _retriever(self) -> BaseRetriever:
        if self.config.retriever == "vector":
            return self.index.as_retriever(similarity_top_k=self.config.top_k)
        return FusionRetriever(self.index, self.embedding, self.config.top_k)

    def _synthesizer(self) -> BaseSynthesizer:
        if self.llm is None:
            return ExtractiveSynthesizer(self.weights)
        # prompts are measured with the model's own tokenizer; by default it would be GPT-3.5's
        counter = self.llm.count_tokens if isinstance(self.llm, SmolLM) else None
        helper = PromptHelper.from_llm_metadata(self.llm.metadata, tokenizer=counter)
        return get_response_synthesizer(
            llm=self.llm, response_mode=self.config.mode, prompt_helper=helper, text_qa_template=QA_PROMPT,
            refine_template=REFINE_PROMPT, summary_template=QA_PROMPT,
        )  # fmt: skip

    def answer(self, question: str, response: RESPONSE_TYPE) -> Answer:
        """LlamaIndex's response as an answer with numbered citations.

        An extractive answer names its passage itself. Each statement of a model is given the passage that holds most
        of its words; one whose words no passage holds counts as invented and is not shown.
        """
        nodes = response.source_nodes
        strength = self.gate.latest
        text = (response.response or "").strip()
        if not nodes or not text or text == NO_EVIDENCE:
            return refusal(question, strength)
        if self.llm is None:
            position = int(re.search(r"\[(\d+)\]$", text)[1]) - 1
            return Answer(question, text, strength, [cite(position, nodes, text[: text.rindex(" [")])])
        texts = [item.node.get_content() for item in nodes]
        shown, citations = [], {}
        for statement in statements(text):
            position = grounded(statement, texts, self.weights)
            if position is not None and not says_no_evidence(statement):
                quote = best_sentence(statement, [texts[position]], self.weights)[1]
                shown.append(f"{statement} [{position + 1}]")
                citations.setdefault(position, cite(position, nodes, quote))
        if not shown:
            return refusal(question, strength)
        return Answer(question, "\n".join(shown), strength, list(citations.values()))


def statements(text: str) -> list[str]:
    """What a model wrote, in parts: `accumulate` lists an answer a node, every other mode gives one."""
    parts = re.split(r"(?:^|\n-+\n)Response \d+: ", text)
    return [part.strip() for part in parts if part.strip()]


@contextmanager
def prompt_errors() -> Iterator[None]:
    """Raises LabError where a prompt does not fit into the model's window; other errors pass."""
    try:
        yield
    except ValueError as error:
        if not re.search("context size|Chunk size", str(error)):
            raise
        raise LabError("the question fills the model's window", "a shorter question, or fewer --tokens") from error


def refusal(question: str, strength: float) -> Answer:
    """The answer that there is no evidence."""
    return Answer(question, NO_EVIDENCE, strength)


def cite(position: int, nodes: list[NodeWithScore], quote: str) -> Citation:
    """A citation of the node at `position`, numbered from 1."""
    item = nodes[position]
    source = str(item.node.metadata.get("source", item.node.ref_doc_id))
    return Citation(position + 1, source, quote, item.node.get_content(), float(item.score or 0.0))


def says_no_evidence(text: str) -> bool:
    """Whether a model's answer is that there is none."""
    return "no evidence" in " ".join(split_words(text))


def check_question(question: str) -> None:
    """Raises LabError for a question without words, and for one that no prompt has room for."""
    words = len(split_words(question))
    if words == 0:
        raise LabError("the question is empty", 'ask "What does a lambda expression yield?"')
    if words > LONGEST_QUESTION[0] or len(question) > LONGEST_QUESTION[1]:
        limits = f"{LONGEST_QUESTION[0]} words and {LONGEST_QUESTION[1]:,} characters are the limit"
        raise LabError(f"the question has {words} words and {len(question):,} characters; {limits}", "a shorter one")
