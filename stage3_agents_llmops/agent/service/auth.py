"""Who is asking: `Authorization: Bearer C1001.kX3...`, a name and the HMAC of it under the service's secret.

The secret lies in the state folder, readable by its owner only. The token carries no time: in the course's shop it
stands for a session that a real shop's login would issue. It never travels in a URL, where access logs would keep it.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.api_error import ApiError

OPERATOR, ADMIN = "operator", "admin"
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    name: str  # a customer's id, "operator" or "admin"

    @property
    def is_operator(self) -> bool:
        """Whether this is a person of the shop."""
        return self.name == OPERATOR

    @property
    def is_admin(self) -> bool:
        """Whether this is a program that deploys."""
        return self.name == ADMIN


class Tokens:
    """Issues and checks tokens."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret

    @classmethod
    def open(cls, folder: Path) -> "Tokens":
        """The secret of a state folder, made at the first call.

        Raises:
            LabError: the file is there but holds no secret.
        """
        path = folder / "service.secret"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            os.replace(temporary, path)
        try:
            secret = bytes.fromhex(path.read_text().strip())
        except ValueError:
            secret = b""
        if len(secret) < 32:
            raise LabError(f"{path} holds no secret", f"rm {path} (every token changes)")
        return cls(secret)

    def issue(self, name: str) -> str:
        """The token of a customer or of the operator."""
        return f"{name}.{self.sign(name)}"

    def sign(self, text: str) -> str:
        """HMAC-SHA256 in URL-safe base64, without padding."""
        digest = hmac.new(self.secret, text.encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def check(self, authorization: str | None) -> Caller:
        """The caller behind an Authorization header.

        Raises:
            ApiError: 401, no token or one that was not issued here.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        name, _, signature = token.strip().partition(".")
        known = scheme.lower() == "bearer" and NAME.fullmatch(name) is not None
        # encoded, because compare_digest refuses text outside ASCII
        if not known or not hmac.compare_digest(signature.encode(), self.sign(name).encode()):
            raise ApiError(401, "the request has no valid token", "Authorization: Bearer TOKEN; GET /demo/customers "
                           "lists some where the demo is on", {"WWW-Authenticate": "Bearer"})  # fmt: skip
        return Caller(name)
