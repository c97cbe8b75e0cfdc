"""What the server answers where it does not do what it was asked: a status, a code for programs, a line for people."""

from typing import Any


class Refusal(Exception):  # noqa: N818 - an answer, no fault
    """An answer other than the one asked for; the message says in one line what is wrong, and the cure."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, " ".join(message.split()), retry_after

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})
