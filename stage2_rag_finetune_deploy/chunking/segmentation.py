"""Are the topics found those that a person sees? The chance of a wrong answer to "do these turns belong together?"

Pk (Beeferman et al. 1999) slides a window of half a topic's length over the meeting and asks at every place whether
its two ends lie in the same segment; it is the share of places where labels and chunker disagree. 0 is perfect; cuts
at equal distances, which know only how many topics there are, show what must be beaten.
"""

from collections.abc import Collection, Sequence

import numpy as np

from data.meeting_set import Meeting, load_meetings
from stage1_foundations.embeddings.encoders import Encoder
from stage2_rag_finetune_deploy.chunking.sizes import load_counter
from stage2_rag_finetune_deploy.chunking.topic import TopicParser, topic_shifts


def pk(reference: Sequence[int], found: Sequence[int], turns: int) -> float:
    """Beeferman's Pk of two segmentations.

    Args:
        reference, found: the turns that begin a segment, the first turn of all left out.
        turns: how many there are.
    """
    window = max(1, round(turns / (len(reference) + 1) / 2))
    numbers = []
    for borders in (reference, found):
        begins = np.zeros(turns, int)
        begins[list(borders)] = 1
        numbers.append(np.cumsum(begins))  # the segment of each turn
    together = [segment[:-window] == segment[window:] for segment in numbers]
    return float((together[0] != together[1]).mean())


def topic_errors(encoder: Encoder, meetings: Collection[str]) -> dict[str, float]:
    """Mean Pk over the meetings with these ids: of the topic chunker, of cuts at equal distances, of none at all."""
    errors: dict[str, list[float]] = {"topic": [], "even": [], "none": []}
    for meeting in (meeting for meeting in load_meetings() if meeting.id in meetings):
        labels, count = [topic.first for topic in meeting.topics[1:]], len(meeting.turns)
        step = count / (len(labels) + 1)
        errors["topic"].append(pk(labels, found_shifts(meeting, encoder), count))
        errors["even"].append(pk(labels, [round(step * n) for n in range(1, len(labels) + 1)], count))
        errors["none"].append(pk(labels, [], count))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def found_shifts(meeting: Meeting, encoder: Encoder) -> list[int]:
    """The turns where the topic chunker, at its own settings, sees a new topic begin."""
    fields, counter = TopicParser.model_fields, load_counter(encoder)
    texts = [f"{turn.speaker}: {turn.text}" for turn in meeting.turns]
    vectors, sizes = encoder.encode(texts, "symmetric"), np.array(counter.sizes(texts), np.float32)
    return topic_shifts(vectors, sizes, fields["block"].default, fields["depth"].default)
