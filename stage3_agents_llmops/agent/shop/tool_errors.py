"""Why a tool did nothing, as a code that the agents have words for."""

CODES = ("not_found", "not_allowed", "unconfirmed", "invalid", "conflict", "busy")


class ToolError(Exception):
    """A call that changed nothing.

    Attributes:
        code: `not_found` (no such thing, or another customer's: both look the same), `not_allowed` (the policy; see
            `rule`), `unconfirmed` (the customer has not agreed to exactly this), `invalid` (the arguments do not fit),
            `conflict` (the key was used for something else), `busy` (another process holds the shop; try again).
        message: for logs and developers, not for customers.
        rule: of the policy, where the code is `not_allowed`.
        facts: what the rule looked at, for the answer to the customer.
    """

    def __init__(self, code: str, message: str, rule: str | None = None, facts: dict | None = None) -> None:
        if code not in CODES:
            raise ValueError(f"no error code {code!r}")
        super().__init__(message)
        self.code, self.message, self.rule, self.facts = code, message, rule, facts or {}
