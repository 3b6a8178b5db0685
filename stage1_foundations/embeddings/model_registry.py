"""What mteb's registry of models says about weights: the prompts they were trained with, and the data.

Both are silent traps. A prompt that is missing costs points and raises no error; a test set that was trained on gains
points that no user will see. So the prompts are asserted before anything is measured (`check_prompts`), and every
score on a seen source is marked (`seen`).
"""

from functools import cache

from mteb.models.get_model_meta import get_model_meta
from mteb.models.model_meta import ModelMeta

from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import Encoder

# Our tasks, and the names under which the lists below keep data of the same source.
SAME_SOURCE = {
    "Squad": {"XQuADRetrieval", "SQuAD2.0"},
    "SquadArticles": {"XQuADRetrieval", "SQuAD2.0"},
    "Idioms": {"idioms"},
    "ConstructionFAQ": {"construction-faq", "construction-faq-sv"},
}
# mteb lists only data that are tasks of its own; the rest of a model card's list that matters here.
MODEL_CARDS = {"sentence-transformers/all-MiniLM-L6-v2": {"SQuAD2.0"}}
WHAT_IT_IS = {"XQuADRetrieval": "SQuAD's training part", "SQuAD2.0": "SQuAD 2.0's training part"}


@cache
def registered(origin: str | None) -> ModelMeta | None:
    """mteb's card of a hub id, or None where it has none. Asks no network."""
    try:
        return get_model_meta(origin, fetch_from_hf=False) if origin else None
    except KeyError:
        return None


def registered_prompts(origin: str | None) -> dict[str, str] | None:
    """The prompts of a hub id by our kinds, or None where mteb states none.

    A model with a prompt for both roles (E5) takes the query's for symmetric texts, as its card says; one with a
    prompt for queries alone (BGE) takes none.
    """
    card = registered(origin)
    stated = (card.loader_kwargs.get("model_prompts") or {}) if card else {}
    if not stated:
        return None
    query, passage = stated.get("query", ""), stated.get("document", stated.get("passage", ""))
    return {"query": query, "passage": passage, "symmetric": query if passage else ""}


def check_prompts(encoder: Encoder) -> None:
    """Let nothing be measured under prompts that the weights were not trained with.

    Raises:
        LabError: the encoder's prompts are not those that mteb registers for its weights.
    """
    expected = registered_prompts(encoder.origin)
    if expected is not None and encoder.prompts != expected:
        raise LabError(
            f"{encoder.name} has the prompts {encoder.prompts}, but its weights were trained with {expected}",
            f"--model {encoder.origin}, or the prompts in the folder's config_sentence_transformers.json",
        )


def training_data(encoder: Encoder) -> set[str] | None:
    """Names of what the weights were trained on: mteb's list, the card's, ours; None where nobody says."""
    card, own = registered(encoder.origin), set(encoder.fine_tuned_on)
    if encoder.origin == "":
        return own
    if card is None or card.training_datasets is None:
        return own or None
    return own | card.training_datasets | MODEL_CARDS.get(card.name, set())


def seen(trained_on: list[str], task: str) -> str:
    """Which of the training data are the task's own or of the same source; empty for none."""
    found = sorted((SAME_SOURCE.get(task, set()) | {task}) & set(trained_on))
    return ", ".join(f"{name} ({WHAT_IT_IS[name]})" if name in WHAT_IT_IS else name for name in found)
