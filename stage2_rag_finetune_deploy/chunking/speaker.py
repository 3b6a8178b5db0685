"""By speaker: a meeting is cut between turns, never inside one unless it must be; who and when go into the metadata.

    {"speakers": "Mei Lin, Ravi Menon", "time": "00:00:21", "until": "00:00:33"}

A turn in a meeting is short ("Against?"), and most mean nothing alone: one turn a chunk is the worst of all chunkers
that were measured. So turns that follow each other share a chunk, a question with its answer.
"""

from collections.abc import Callable

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import fit
from stage2_rag_finetune_deploy.chunking.sentences import Offsets, sentence_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser
from stage2_rag_finetune_deploy.chunking.transcript import Script, show_time

SPEAKERS, TIME, UNTIL = "speakers", "time", "until"
Group = tuple[int, int]  # the first turn, and the one behind the last


class TurnParser(SpanParser):
    """What speaker and topic chunkers share: pieces that are turns, and chunks with speakers and times."""

    def turn_pieces(self, script: Script, pieces: list[Offsets]) -> tuple[list[Offsets], list[int], int]:
        """Turns (or what takes their place) cut until they fit, their sizes, and the cap less a repeated name."""
        names = [f"{name}:" for name in script.speakers]
        room = self.cap - max(self.counter.sizes(names), default=0) - 1
        room = max(room, self.cap // 2)
        fitted = fit(script.text, pieces, room, self.counter)
        return [piece for piece, _ in fitted], [size for _, size in fitted], room

    def span(self, script: Script, start: int, end: int) -> Span:
        """A part of the script as a chunk; one that begins inside a turn repeats the speaker's name."""
        said = script.text[start:end]
        start += len(said) - len(said.lstrip())  # a part that begins with a line end belongs to the next turn
        said = said.strip()
        spoken, raw = script.spoken(start, start + len(said)), script.raw(start, end)
        if spoken[0].speaker and not script.begins_turn(start):
            said = f"{spoken[0].speaker}: {said}"
        names = dict.fromkeys(turn.speaker for turn in spoken if turn.speaker)
        times = [turn.seconds for turn in spoken if turn.seconds is not None]
        metadata = {SPEAKERS: ", ".join(names)}
        if times:
            metadata |= {TIME: show_time(times[0]), UNTIL: show_time(times[-1])}
        return Span(*raw, metadata, said)


class SpeakerParser(TurnParser):
    """Chunks of whole turns.

    Args:
        join_below: a chunk takes the next turn as long as it is smaller than this; 0: one turn a chunk; None: always,
            up to the cap.
        whole_turns: False cuts between any two sentences: the control that shows what the turns themselves are worth.
        overlap: up to so many tokens of whole turns stand again at the start of the next chunk.
    """

    join_below: int | None = Field(default=None, ge=0)
    whole_turns: bool = Field(default=True)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        script = Script(document.get_content())
        between = script.turns if self.whole_turns else sentence_offsets(script.text)
        pieces, sizes, room = self.turn_pieces(script, between)

        def fits(first: int, last: int) -> bool:
            return self.counter.size(script.text[pieces[first][0] : pieces[last - 1][1]]) <= room

        below = self.cap if self.join_below is None else self.join_below
        joined = join_turns(sizes, below, room - self.overlap)  # what the turns before will need stays free
        groups = [part for group in joined for part in halve(group, fits)]
        return [self.span(script, pieces[first][0], pieces[last - 1][1])
                for first, last in reach_back(groups, sizes, self.overlap, fits)]  # fmt: skip


# exercise: chunking.join_turns
def join_turns(sizes: list[int], join_below: int, cap: int) -> list[Group]:
    """Turns in groups: a group takes the next turn while it is smaller than `join_below` and the turn fits.

    Args:
        sizes: of the turns, none over the cap.

    Returns:
        (first, last + 1) of each group, one after the other.
    """
    groups: list[Group] = []
    first = total = 0
    for number, size in enumerate(sizes):
        if number > first and (total >= join_below or total + size > cap):
            groups.append((first, number))
            first, total = number, 0
        total += size
    return [*groups, (first, len(sizes))] if sizes else []
# end exercise


def halve(group: Group, fits: Callable[[int, int], bool]) -> list[Group]:
    """The group, in halves where the tokens of its text are more than the sum over its turns, and too many."""
    first, last = group
    if last - first == 1 or fits(first, last):
        return [group]
    middle = (first + last) // 2
    return halve((first, middle), fits) + halve((middle, last), fits)


def reach_back(groups: list[Group], sizes: list[int], overlap: int, fits: Callable[[int, int], bool]) -> list[Group]:
    """Each group with as many of the turns before it as are together no larger than the overlap, and fit."""
    reached = []
    for first, last in groups:
        shared, start = 0, first
        while start > 0 and shared + sizes[start - 1] <= overlap and fits(start - 1, last):
            start, shared = start - 1, shared + sizes[start - 1]
        reached.append((start, last))
    return reached
