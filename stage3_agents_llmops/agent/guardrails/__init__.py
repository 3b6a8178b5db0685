"""What stands between the world and the agents: orders to the model, personal data, claims that nothing supports."""

from stage3_agents_llmops.agent.guardrails.grounding import Grounding, check_grounding
from stage3_agents_llmops.agent.guardrails.injection import Screened, screen_message, screen_passage
from stage3_agents_llmops.agent.guardrails.pii import Masked, PiiFilter, mask_pii

__all__ = [
    "Grounding",
    "Masked",
    "PiiFilter",
    "Screened",
    "check_grounding",
    "mask_pii",
    "screen_message",
    "screen_passage",
]
