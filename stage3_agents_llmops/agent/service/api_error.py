"""Every refusal has one form: `{"error": "what is wrong", "try": "what to do next"}`, a few with a `code`."""

from collections.abc import Mapping


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of the HTTP answer.
        message: what is wrong.
        try_next: what to do next.
        headers: more of them, such as Retry-After.
        code: one word for programs, where the status alone does not say what to do.
    """

    def __init__(
        self, status: int, message: str, try_next: str, headers: Mapping[str, str] | None = None, code: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.try_next, self.headers = status, message, try_next, dict(headers or {})
        self.code = code

    def body(self) -> dict[str, str]:
        """As JSON."""
        return {"error": self.message, "try": self.try_next} | ({"code": self.code} if self.code else {})


def unknown(what: str, name: str) -> ApiError:
    """404, word for word the same for what does not exist and for what belongs to somebody else."""
    return ApiError(404, f"there is no {what} {name}", f"GET /threads lists your conversations; a {what} may be over")
