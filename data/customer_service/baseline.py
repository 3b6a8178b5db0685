"""What counting letters reaches: TF-IDF of character n-grams and logistic regression, on intents and reasons.

    python -m data.customer_service.baseline

The floor for any model: a fine-tuned one that does not beat it has learnt nothing from its pretraining.
"""

import sys

from data.understanding import Utterance, load_understanding
from labkit.cli import Parser
from labkit.errors import guarded


def accuracy(train: list[tuple[str, str]], test: list[tuple[str, str]], language: str) -> float:
    """Share of the test texts that get their label; each item is (text, label)."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second, and only this function needs it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grams = (
        {"analyzer": "char_wb", "ngram_range": (1, 5)}
        if language == "en"
        else {"analyzer": "char", "ngram_range": (1, 3)}
    )
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **grams), LogisticRegression(C=10, max_iter=2000))
    model.fit(*zip(*train, strict=True))
    predicted = model.predict([text for text, _ in test])
    return sum(guess == label for guess, (_, label) in zip(predicted, test, strict=True)) / len(test)


def reasons(items: list[Utterance]) -> list[tuple[str, str]]:
    """Text and reason of those that have one."""
    return [(item.text, item.slots["reason"]) for item in items if "reason" in item.slots]


def baseline(language: str) -> dict[str, float]:
    """Accuracy on the test split: of the intent, and of the reason where there is one."""
    train, test = (load_understanding(f"customer-service-{language}", split) for split in ("train", "test"))
    intents = [[(item.text, item.intent) for item in items] for items in (train, test)]
    return {
        "intent": accuracy(*intents, language),
        "reason": accuracy(reasons(train), reasons(test), language),
    }


def main(argv: list[str]) -> None:
    """Print both languages."""
    Parser(prog="python -m data.customer_service.baseline", allow_abbrev=False).parse_words(argv)
    for language in ("en", "zh"):
        scores = baseline(language)
        print(f"{language}: intent {scores['intent']:.1%}, reason {scores['reason']:.1%}")


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
