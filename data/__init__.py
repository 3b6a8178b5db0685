"""The course's data and models.

    data.fetch("smollm2-135m-instruct")   -> Path of the folder in the cache, downloaded when it is absent
    data.load_text("tiny-shakespeare")    -> str
    data.load_retrieval("squad")          -> RetrievalSet: corpus, queries, qrels, answers
    data.load_labelled("question-types")  -> LabelledTexts: texts, labels
    data.load_similarity("lee")           -> SimilarityPairs: first, second, scores
    data.load_bitext("tatoeba-en-es")     -> Bitext: first, second
    data.load_vectors("glove-50d")        -> words and a float32 array
    data.load_answerability()             -> AnswerabilitySet: questions, contexts, answerable
    data.load_parables("en")              -> RetrievalSet: a moral finds its story
    data.load_judged_answers("en")        -> answers with human scores
    data.load_meetings("zh")              -> transcripts with topics and questions
    data.load_technical()                 -> technical documents with questions
    data.load_help_articles("zh")         -> articles of the shop's help centre; load_help_questions: what they answer
    data.load_injections("en")            -> passages with orders for the model in them
    data.load_understanding("customer-service-en", "train")
                                          -> utterances with intent and slots; also -zh, and kwik-e-mart
    data.load_verifiable("chain_sum")     -> questions; data.verify(question, reply) -> 1.0 or 0.0
    data.text_names(), retrieval_names()  -> the names that load_text and load_retrieval know

`python -m data list | fetch | verify | path` does the same from a terminal; README.md has the table.
"""

from data.answerability import AnswerabilitySet, load_answerability, load_parables
from data.catalog import catalog, fetch, get
from data.help_articles import HelpArticle, HelpQuestion, load_help_articles, load_help_questions
from data.injection_set import InjectedPassage, load_injections
from data.judged import JudgedAnswer, load_judged_answers
from data.labelled import Bitext, LabelledTexts, SimilarityPairs, load_bitext, load_labelled, load_similarity
from data.meeting_set import Meeting, load_meetings
from data.retrieval import RetrievalSet, corpus_sha256, load_retrieval, retrieval_names
from data.technical import TechnicalSet, load_technical
from data.texts import load_text, text_names
from data.understanding import Utterance, load_understanding
from data.vectors import load_vectors
from data.verifiable import Question, load_verifiable, verify

__all__ = [
    "AnswerabilitySet",
    "Bitext",
    "HelpArticle",
    "HelpQuestion",
    "InjectedPassage",
    "JudgedAnswer",
    "LabelledTexts",
    "Meeting",
    "Question",
    "RetrievalSet",
    "SimilarityPairs",
    "TechnicalSet",
    "Utterance",
    "catalog",
    "corpus_sha256",
    "fetch",
    "get",
    "load_answerability",
    "load_bitext",
    "load_help_articles",
    "load_help_questions",
    "load_injections",
    "load_judged_answers",
    "load_labelled",
    "load_meetings",
    "load_parables",
    "load_retrieval",
    "load_similarity",
    "load_technical",
    "load_text",
    "load_understanding",
    "load_vectors",
    "load_verifiable",
    "retrieval_names",
    "text_names",
    "verify",
]
