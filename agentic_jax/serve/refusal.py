"""What a client is told whose request is not served."""

from collections.abc import Mapping
from typing import Any

# Kinds of errors in the format of OpenAI, by status.
_KINDS = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  409: 'conflict_error',
  429: 'rate_limit_error',
}


class Refusal(Exception):
  """A request is refused, and why; the body is in the format of OpenAI."""

  def __init__(
    self,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    """Says why.

    Args:
      status: of HTTP.
      message: what was wanted, what came, what to do.
      param: the field of the request that is at fault.
      code: a word for programs.
      headers: of the answer.
    """
    super().__init__(message)
    self.status, self.message = status, message
    self.param, self.code = param, code
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    """The error as OpenAI writes it."""
    kind = 'invalid_request_error' if self.status < 500 else 'server_error'
    return {
      'error': {
        'message': self.message,
        'type': _KINDS.get(self.status, kind),
        'param': self.param,
        'code': self.code,
      }
    }
