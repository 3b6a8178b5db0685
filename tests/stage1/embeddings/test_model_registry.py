"""Each test names the bug that it catches."""

import pytest
from mteb.types import PromptType

from data import RetrievalSet
from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import E5_PROMPTS, NO_PROMPTS, PACKAGED, RandomEncoder
from stage1_foundations.embeddings.evaluation import score_task
from stage1_foundations.embeddings.model_registry import (
    check_prompts,
    registered,
    registered_prompts,
    seen,
    training_data,
)
from stage1_foundations.embeddings.mteb_model import MtebEncoder, kind_of, model_meta
from stage1_foundations.embeddings.tasks import HeldOut

E5 = "intfloat/multilingual-e5-small"


class Spy(RandomEncoder):
    """Claims to be some model, and writes down under which prompts mteb asks."""

    def __init__(self, origin: str | None = "", prompts: dict[str, str] | None = None) -> None:
        super().__init__(dimensions=8)
        self.name, self.origin, self.prompts, self.asked = "spy", origin, prompts or NO_PROMPTS, []

    def embed(self, texts, prompt=""):
        """See `Encoder.embed`."""
        self.asked += [prompt + text for text in texts]
        return super().embed(texts, prompt)


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_models_have_the_registered_prompts(name):
    """Catches: a typo in a prompt ("query:" without its blank), which costs points and raises nothing."""
    _, prompts, origin = PACKAGED[name]
    assert registered(origin) is not None
    assert (registered_prompts(origin) or NO_PROMPTS) == prompts


@pytest.mark.parametrize(
    "wrong",
    [NO_PROMPTS, {**E5_PROMPTS, "query": "query:"}, {**E5_PROMPTS, "query": "passage: ", "passage": "query: "}],
    ids=["missing", "no blank", "exchanged"],
)
def test_wrong_prompts_are_caught_before_anything_is_measured(wrong):
    """Catches: E5 evaluated without its prompts: the usual reason why scores are not those of the leaderboard."""
    with pytest.raises(LabError, match="trained with") as caught:
        MtebEncoder(Spy(E5, wrong))
    assert E5 in caught.value.try_next
    check_prompts(Spy(E5, E5_PROMPTS))
    check_prompts(Spy(None, wrong))  # of unknown origin: nobody can say


def test_query_prompt_for_queries_alone_where_a_model_has_only_one():
    """Catches: BGE's instruction put before passages."""
    found = registered_prompts("BAAI/bge-small-en-v1.5")
    assert found["query"].startswith("Represent this sentence") and found["passage"] == found["symmetric"] == ""


def test_mteb_asks_for_the_right_roles():
    """Catches: `prompt_type` ignored, so that passages get the query's prompt."""
    spy = Spy(E5, E5_PROMPTS)
    score_task(spy, HeldOut(RetrievalSet("two", "en", {"p": "a passage", "o": "other"}, {"q": "a question"},
                                         {"q": {"p": 1}})))  # fmt: skip
    assert sorted(set(spy.asked)) == ["passage: a passage", "passage: other", "query: a question"]
    assert kind_of(None) == "symmetric" and kind_of(PromptType.document) == "passage"


def test_training_data_of_known_and_unknown_models():
    """Catches: "nobody says" shown as "nothing"."""
    assert training_data(Spy()) == set()
    assert "XQuADRetrieval" in training_data(Spy(E5, E5_PROMPTS))
    assert "SQuAD2.0" in training_data(Spy(PACKAGED["minilm"][2]))
    assert training_data(Spy("thenlper/gte-small")) is None
    assert training_data(Spy(None)) is None
    tuned = Spy(None)
    tuned.fine_tuned_on = ("idioms",)
    assert training_data(tuned) == {"idioms"} == model_meta(tuned).training_datasets


def test_contamination_is_seen_through_another_name():
    """Catches: SQuAD's questions called unseen because mteb lists them as XQuAD; a hub task's own name missed."""
    listed = sorted(training_data(Spy(E5, E5_PROMPTS)))
    assert "SQuAD's training part" in seen(listed, "Squad")
    assert seen(listed, "HotpotQA") == "HotpotQA"
    assert seen(listed, "AmazonReviews") == "" == seen([], "Squad")
    assert seen(["construction-faq-sv"], "ConstructionFAQ") == "construction-faq-sv"  # the same FAQ in Swedish
