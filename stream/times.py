"""Times as people and shops write them."""

from datetime import UTC, datetime


def iso_ms(text: str) -> int:
    """An ISO-8601 time in ms; one without a zone is UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
