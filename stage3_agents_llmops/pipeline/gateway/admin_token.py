"""The gateway's administrators are programs: whoever can read a file of its owner's may move customers."""

import hmac
import os
import secrets
from pathlib import Path

from labkit.errors import LabError

FILE = "token"


def admin_token(folder: Path) -> str:
    """The token of a gateway's folder, made at the first call; only the owner can read the file.

    Raises:
        LabError: others can read it, or it is empty.
    """
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        os.replace(temporary, path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise LabError(f"others can read {path}", f"chmod 600 {path}")
    token = path.read_text().strip()
    if len(token) < 32:
        raise LabError(f"{path} holds no token", f"rm {path} (the gateway makes another one)")
    return token


def allowed(authorization: str | None, token: str) -> bool:
    """Whether a request carries `Authorization: Bearer TOKEN`."""
    scheme, _, given = (authorization or "").strip().partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
