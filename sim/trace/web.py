"""What of the web is used: http and https, through the proxies of the environment, nothing else."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from sim.errors import InputError, shown

if TYPE_CHECKING:
    from http.client import HTTPMessage, HTTPResponse


def check_url(url: str) -> None:
    """Raises `InputError` unless *url* is http or https, has a host and no credentials."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0  # asking for it raises
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise InputError(f"{shown(url, 200)}: not an address of http or https; none other is used")
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{parts.hostname}: an address with credentials in it; none are sent")


def opened(request: Request, timeout_s: float, redirects: int) -> HTTPResponse:
    """The answer to *request*, after at most so many *redirects*.

    Raises `InputError` for a redirect that is not followed, and what urllib raises.
    """
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(), HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(), _Redirects(redirects),
    ):  # fmt: skip
        opener.add_handler(handler)
    return cast("HTTPResponse", opener.open(request, timeout=timeout_s))


class _Redirects(HTTPRedirectHandler):
    """Follows so many redirects, to http or https only and never from https to http."""

    max_repeats = max_redirections = 1000  # counted here instead

    def __init__(self, most: int) -> None:
        self.left = most

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """The next request; raises `InputError`."""
        self.left -= 1
        try:
            if self.left < 0:
                what = "sent on too often; the server is set up wrongly"
                raise InputError(f"{req.full_url}: {what}")
            check_url(newurl)
            if req.type == "https" and not newurl.startswith("https:"):
                raise InputError(f"{req.full_url}: sent on from https to http; not followed")
        except InputError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def why(error: object) -> str:
    """*error* in a few words on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(text.splitlines()[0], 120).strip("'")
