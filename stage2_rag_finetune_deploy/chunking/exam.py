"""What the chunkers are examined on: documents, questions, and where in a document the answer stands.

| exam | documents | answers | encoder |
|---|---|---|---|
| technical | READMEs (Markdown and HTML) and modules of installed packages | words of the document | minilm |
| article | SQuAD's paragraphs, joined to the Wikipedia articles that they were taken from | the answer spans | minilm |
| meeting-en, meeting-zh | transcripts written for the course | what was said, in one turn or in several | minilm, e5 |

Answers are offsets into the documents, so a chunker is judged by where it cuts and not by how it spells.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from llama_index.core import Document

import data
from data.meeting_set import Meeting, load_meetings
from data.technical import find_evidence, load_technical
from labkit.progress import error_console
from stage2_rag_finetune_deploy.chunking.readers import make_document
from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.transcript import show_time


@dataclass(frozen=True)
class Question:
    """A question and the places that hold its answer.

    Attributes:
        places: all that is needed for the answer; each of them is a tuple of equivalent spans, of which one suffices.
    """

    id: str
    text: str
    document: str
    places: tuple[tuple[Offsets, ...], ...]


@dataclass(frozen=True)
class Exam:
    """Documents and questions, the encoder that fits their language, and what is not in them (for the report)."""

    name: str
    documents: list[Document]
    questions: list[Question]
    encoder: str
    notes: tuple[str, ...] = ()

    def sample(self, documents: int | None, questions: int | None, seed: int) -> "Exam":
        """A smaller exam: some documents, and some of the questions about them. None keeps all."""
        rng = random.Random(seed)
        kept = self.documents
        if documents is not None and documents < len(kept):
            kept = sorted(rng.sample(kept, documents), key=lambda document: document.id_)
        names = {document.id_ for document in kept}
        asked = [question for question in self.questions if question.document in names]
        if questions is not None and questions < len(asked):
            asked = sorted(rng.sample(asked, questions), key=lambda question: question.id)
        return replace(self, documents=kept, questions=asked)


def technical_exam() -> Exam:
    """Technical documents, by kind: the dispatcher has something to choose from."""
    loaded = load_technical()
    endings = {"markdown": ".md", "html": ".html", "python": ".py"}
    names = {
        name: document.source.rsplit("/", 1)[-1] if document.kind == "python" else document.package
        for name, document in loaded.documents.items()
    }
    documents = {
        name: make_document(f"{name}/{names[name].removesuffix('.py')}{endings[document.kind]}", document.text)
        for name, document in loaded.documents.items()
    }
    questions = []
    for label in loaded.questions:
        document = documents[label.document]
        spans = tuple(find_evidence(document.text, label.evidence))
        if spans:
            questions.append(Question(label.id, label.question, document.id_, (spans,)))
    lost = len(loaded.missing) + len(loaded.questions) - len(questions)
    notes = (f"{lost} questions left out: their evidence is not in the installed versions",) if lost else ()
    return Exam("technical", list(documents.values()), questions, "minilm", notes)


def article_exam() -> Exam:
    """SQuAD's articles as long texts. Questions whose answer stands more than once in its paragraph are left out.

    The set carries a canary: evaluate on it, never train on it (data/README.md).
    """
    squad = data.load_retrieval("squad")
    paragraphs: dict[str, list[str]] = {}
    for passage in squad.corpus:
        paragraphs.setdefault(passage.rpartition("/")[0], []).append(passage)
    texts, starts = {}, {}
    for title, passages in paragraphs.items():
        parts, length = [], 0
        for passage in passages:
            starts[passage] = (title, length)
            parts.append(squad.corpus[passage] + "\n\n")
            length += len(parts[-1])
        texts[title] = "".join(parts)
    questions = []
    for query, text in squad.queries.items():
        (passage, *others), answer = squad.qrels[query], min(squad.answers[query], key=len)
        title, offset = starts[passage]
        if others or squad.corpus[passage].count(answer) != 1:
            continue
        start = offset + squad.corpus[passage].index(answer)
        questions.append(Question(query, text, title, (((start, start + len(answer)),),)))
    documents = [make_document(title, text, "text") for title, text in texts.items()]
    return Exam("article", documents, questions, "minilm")


def meeting_text(meeting: Meeting) -> tuple[str, list[int]]:
    """A meeting as `[hh:mm:ss] Name: words` lines, and where the words of each turn begin."""
    parts, starts, length = [], [], 0
    for turn in meeting.turns:
        head = f"[{show_time(int(turn.start))}] {turn.speaker}: "
        starts.append(length + len(head))
        parts.append(f"{head}{turn.text}\n")
        length += len(parts[-1])
    return "".join(parts), starts


def meeting_exam(language: str) -> Exam:
    """The course's meetings in one language; the evidence of a question is the words quoted in its labels."""
    documents, questions = [], []
    for meeting in load_meetings(language):
        text, starts = meeting_text(meeting)
        documents.append(make_document(meeting.id, text, "transcript"))
        for label in meeting.questions:
            places = []
            for evidence in label.evidence:
                found = [
                    (starts[turn] + at, starts[turn] + at + len(evidence.quote))
                    for turn in range(evidence.first, evidence.last + 1)
                    if (at := meeting.turns[turn].text.find(evidence.quote)) >= 0
                ]
                places.append(tuple(found))
            questions.append(Question(label.id, label.question, meeting.id, tuple(places)))
    return Exam(f"meeting-{language}", documents, questions, "e5" if language == "zh" else "minilm")


EXAMS: dict[str, Callable[[], Exam]] = {
    "technical": technical_exam,
    "article": article_exam,
    "meeting-en": lambda: meeting_exam("en"),
    "meeting-zh": lambda: meeting_exam("zh"),
}


def load_exam(name: str, documents: int | None, questions: int | None, seed: int) -> Exam:
    """An exam by its name, cut down to so many documents and questions (None: all)."""
    exam = EXAMS[name]().sample(documents, questions, seed)
    for note in exam.notes:
        error_console.print(f"{name}: {note}", markup=False, soft_wrap=True)
    return exam
