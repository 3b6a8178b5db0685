"""The prompt of the understanding task: the same for the base model, the tuned one, the served one and the grader."""

SYSTEM = {
    "en": 'Answer in JSON: {"intent": ..., "slots": {...}}',
    "zh": '用JSON回答：{"intent": ..., "slots": {...}}',
}


def prompt_messages(text: str, language: str = "en") -> list[dict[str, str]]:
    """A system message of one line, and what the customer wrote."""
    return [{"role": "system", "content": SYSTEM[language]}, {"role": "user", "content": text}]
