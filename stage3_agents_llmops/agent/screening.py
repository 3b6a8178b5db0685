"""What a message goes through before it enters the graph, and so before anything keeps it.

Control characters go, injections are taken out, phone numbers, e-mails, IDs and cards are masked. A checkpoint is a
file that outlives the conversation; what never gets into the state cannot leak from it.
"""

import unicodedata
from typing import Any

from stage3_agents_llmops.agent.guardrails.injection import screen_message
from stage3_agents_llmops.agent.guardrails.pii import mask_pii
from stage3_agents_llmops.agent.run_context import tell
from stage3_agents_llmops.agent.understanding.language import ORDER_NUMBER, language_of


def screen(text: str, limit: int) -> dict[str, Any]:
    """The message as the graph may have it.

    Args:
        limit: characters; what is longer is cut, and the cut is a finding.

    Returns:
        text (screened and masked), shown (masked, as the customer sees it again), findings, pii (kind -> count),
        blocked, cut, language (None where the message has no words).
    """
    plain = "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs"))
    plain = plain.strip()
    cut, plain = len(plain) > limit, plain[:limit]
    screened = screen_message(plain)
    masked = mask_pii(screened.text)
    words = any(letter.isalpha() for letter in ORDER_NUMBER.sub(" ", plain))
    return {
        "text": masked.text,
        "shown": mask_pii(plain).text,
        "findings": list(screened.findings),
        "pii": {kind: count for kind, count in mask_pii(plain).found},
        "blocked": screened.blocked,
        "cut": cut,
        "language": language_of(plain) if words else None,
    }


def tell_findings(incoming: dict[str, Any]) -> None:
    """The guardrail events of a message."""
    for finding in incoming["findings"]:
        tell("guardrail", stage="message", finding=finding, action="blocked" if incoming["blocked"] else "removed")
    for kind in incoming["pii"]:
        tell("guardrail", stage="pii", finding=kind, action="masked")
    if incoming["cut"]:
        tell("guardrail", stage="message", finding="too_long", action="cut")
