"""What of a connector's configuration may be shown: secrets never, references to secrets always."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "********"

_SECRET_NAME = re.compile(
    r"password|passphrase|secret|token|credential|jaas|user\.info"
    # Not every "key": key.converter and the like are what one wants to read in a difference.
    r"|(?:api|access|private|ssl|keystore|certificate)[._-]?key",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\$\{[^${}:]+:[^${}]*\}")
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+(?=@)")
_ASSIGNED = re.compile(
    r"(?i)\b([\w.]*(?:password|passphrase|secret|token|credential)[\w.]*\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&)\"']+)"
)


def is_reference(value: str) -> bool:
    """Say whether the value only names a secret for Connect to look up: `${env:DEBEZIUM_PASSWORD}`."""
    return _REFERENCE.fullmatch(value) is not None


def is_secret(key: str, value: str) -> bool:
    """Say whether this setting holds a secret itself."""
    return bool(value) and _SECRET_NAME.search(key) is not None and not is_reference(value)


def masked(key: str, value: str) -> str:
    """The value as it may be shown."""
    return MASK if is_secret(key, value) else _URL_PASSWORD.sub(rf"\1:{MASK}", value)


def scrubbed(text: str, config: Mapping[str, str] | None = None) -> str:
    """A message of Connect or Debezium without what looks like a secret, or is one in `config`."""
    for key, value in (config or {}).items():
        if is_secret(key, value):
            text = text.replace(value, MASK)
    return _ASSIGNED.sub(_mask_assigned, _URL_PASSWORD.sub(rf"\1:{MASK}", text))


def _mask_assigned(match: re.Match[str]) -> str:
    name, value = match.groups()
    return match[0] if is_reference(value.strip("\"'")) else f"{name}{MASK}"
