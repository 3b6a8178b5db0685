"""The hidden test of month 3: sentences of people that no training split has, filled afresh for every grading.

The sentences are the test split's frames; names, streets, dates, amounts and order numbers are drawn with the grading's
seed, so that no answer can be learnt by heart from the published test set. An instructor who has frames of their own
(data/customer_service/README.md says how they are written) names their folder in COURSE_LAB_HIDDEN_FRAMES: then
the sentences are new to everybody.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

from data.customer_service.frames import FOLDER, Voice, load_voices
from data.customer_service.generate import fill, fillings
from data.understanding import Utterance
from labkit.errors import LabError

VARIABLE = "COURSE_LAB_HIDDEN_FRAMES"


def hidden_voices(language: str, split: str) -> list[Voice]:
    """The voices of a split, from the course's frames or the instructor's.

    Raises:
        LabError: the instructor's folder is not there, or a frame in it is wrong.
    """
    folder = Path(os.environ.get(VARIABLE) or FOLDER).expanduser()
    try:
        voices = [voice for voice in load_voices(folder) if (voice.language, voice.split) == (language, split)]
    except ValueError as error:
        raise LabError(f"{VARIABLE}: {error}", "data/customer_service/README.md: how a frame is written") from None
    if not voices:
        raise LabError(f"{VARIABLE}: {folder} has no {language}/*.toml of the split {split}", f"unset {VARIABLE}")
    return voices


def hidden_utterances(voices: Sequence[Voice], rng: Random, count: int) -> list[Utterance]:
    """`count` frames at most, drawn without putting back, each filled once."""
    frames = [(voice, frame) for voice in voices for frame in voice.frames]
    chosen = rng.sample(frames, min(count, len(frames)))
    utterances = []
    for voice, frame in chosen:
        text, slots, _ = fill(frame, next(fillings(frame, voice, 1, rng)))
        utterances.append(Utterance(frame.id, text, frame.intent, slots, voice.language, voice.name))
    return utterances
