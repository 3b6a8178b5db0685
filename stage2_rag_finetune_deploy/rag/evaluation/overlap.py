"""What an answer shares with a reference, by the libraries the field uses: ROUGE, BLEU, exact match, F1.

    rouge       rouge (a Python port of Lin 2004's script), F of 1-grams, 2-grams and the longest common subsequence
    BLEU        nltk's corpus BLEU with smoothing (method 1 of Chen and Cherry 2014), and sacrebleu's beside it
    EM, F1      SQuAD's (Rajpurkar et al. 2016)

Both BLEUs are the same formula on other tokens: nltk counts what it is given, sacrebleu cuts the text itself, by one
public rule, so that figures of two papers compare (Post 2018). Chinese has no spaces: here a Chinese character is a
token, and so is a run of Latin letters or digits.
"""

import re
from collections.abc import Sequence

from stage1_foundations.first_rag.evaluation import normalise, word_f1

TOKEN = re.compile(r"[㐀-鿿]|[^\W㐀-鿿]+")
SACREBLEU_TOKENS = {"en": "13a", "zh": "zh"}


def tokens(text: str) -> list[str]:
    """Lower-case words, Chinese characters one by one, no punctuation."""
    return TOKEN.findall(text.lower())


def rouge_scores(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F of rouge-1, rouge-2 and rouge-l, 0 to 1; an answer without a word scores 0.

    Raises:
        ValueError: not as many answers as references, or none.
    """
    check_pairs(answers, references)
    from rouge import Rouge

    pairs = [(" ".join(tokens(a)), " ".join(tokens(r))) for a, r in zip(answers, references, strict=True)]
    whole = [pair for pair in pairs if all(pair)]
    rows = Rouge().get_scores(*map(list, zip(*whole, strict=True))) if whole else []
    return {name: sum(row[name]["f"] for row in rows) / len(pairs) for name in ("rouge-1", "rouge-2", "rouge-l")}


def bleu_scores(answers: Sequence[str], references: Sequence[str], language: str = "en") -> dict[str, float]:
    """Corpus BLEU by nltk and by sacrebleu, both 0 to 1 (sacrebleu itself prints 0 to 100).

    Raises:
        ValueError: not as many answers as references, or none.
    """
    check_pairs(answers, references)
    import sacrebleu
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    by_nltk = corpus_bleu(
        [[tokens(reference)] for reference in references], [tokens(answer) for answer in answers],
        smoothing_function=SmoothingFunction().method1,
    )  # fmt: skip
    by_sacrebleu = sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize=SACREBLEU_TOKENS[language])
    return {"bleu-nltk": float(by_nltk), "bleu-sacrebleu": by_sacrebleu.score / 100}


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 when the answer is one of the gold answers after SQuAD's normalisation, else 0."""
    return float(normalise(answer) in {normalise(gold) for gold in golds})


def overlap_table(answers: Sequence[str], references: Sequence[str], language: str = "en") -> dict[str, float]:
    """All measures of this module over one list of answers."""
    check_pairs(answers, references)
    pairs = list(zip(answers, references, strict=True))
    return {
        **rouge_scores(answers, references),
        **bleu_scores(answers, references, language),
        "exact match": sum(exact_match(answer, [reference]) for answer, reference in pairs) / len(pairs),
        "F1": sum(word_f1(answer, [reference]) for answer, reference in pairs) / len(pairs),
    }


def check_pairs(answers: Sequence[str], references: Sequence[str]) -> None:
    """Raises ValueError when there is nothing to compare, or not one reference an answer."""
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers and {len(references)} references")
