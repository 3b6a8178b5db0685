"""What a message means: requests, intents, slots, answers to a confirmation, the language."""

from stage3_agents_llmops.agent.understanding.language import language_of
from stage3_agents_llmops.agent.understanding.replies import reply_kind
from stage3_agents_llmops.agent.understanding.requests import split_requests
from stage3_agents_llmops.agent.understanding.slots import find_slots
from stage3_agents_llmops.agent.understanding.understander import Understander, Understanding, build_understander

__all__ = [
    "Understander",
    "Understanding",
    "build_understander",
    "find_slots",
    "language_of",
    "reply_kind",
    "split_requests",
]
