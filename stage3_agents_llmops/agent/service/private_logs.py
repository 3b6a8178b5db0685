"""Logs without personal data: the access log has paths and never bodies, and every record passes the PII filter.

Tracebacks are where raw text slips through: an exception's message repeats the value that it choked on. So the filter
is on the handler, which every logger's records pass, and it masks tracebacks too.
"""

import logging

from stage3_agents_llmops.agent.guardrails.pii import PiiFilter

NOISY = ("httpx", "httpcore", "aiosqlite", "asyncio", "bm25s", "sentence_transformers")  # they tell every step


def private_logging(level: int = logging.INFO) -> None:
    """Send everything that is logged in this process to stderr, masked."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(PiiFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
