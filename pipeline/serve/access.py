"""Who may ask what: the name that is asked for, where a page comes from, the token."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SAFE = ("GET", "HEAD")
PUBLIC = ("/login", "/static/")  # what is shown to people who have not said the token


@dataclass(frozen=True)
class Refusal:
    """An answer that is no: an HTTP status, and why."""

    status: int
    what: str
    hint: str | None = None


@dataclass(frozen=True)
class Access:
    """What a request must carry.

    Attributes:
        hosts: the values that the Host header may have, in small letters: a page of another site whose name leads here
            (DNS rebinding) has another.
        token: what must be said; None: nothing.
        port: the cookie is named by it, since browsers give one port's cookies to another.
    """

    hosts: frozenset[str]
    port: int
    token: str | None = field(default=None, repr=False)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @classmethod
    def of(cls, address: str, port: int, names: Iterable[str] = (), token: str | None = None) -> "Access":
        """Of a server that listens at `address`, and that proxies or DNS call `names`."""
        own = LOOPBACK if address in LOOPBACK else (address,)
        hosts = {f"{_bracketed(name)}:{port}" for name in (*own, *names)} | {_bracketed(name) for name in names}
        if port == 80:
            hosts |= {_bracketed(name) for name in own}
        return cls(frozenset(host.lower() for host in hosts), port, token)

    @property
    def cookie(self) -> str:
        """Its name."""
        return f"teachclip-{self.port}"

    @property
    def session(self) -> str:
        """What the cookie holds: proves the token, is not the token, and ends with this server."""
        return hmac.new(self._key, (self.token or "").encode(), hashlib.sha256).hexdigest()

    def refuses(self, method: str, path: str, headers: Mapping[str, list[str]]) -> Refusal | None:
        """Why a request is not answered, or None.

        Args:
            headers: every value of each header, by its name in small letters.
        """
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return Refusal(
                421, "this server does not answer to that name", "ask at the address that it was started with"
            )
        if method not in SAFE and self._from_elsewhere(headers):
            return Refusal(403, "this was asked by a page of another site")
        if self.token is None or path.startswith(PUBLIC) or self._known(headers):
            return None
        return Refusal(
            401, "this server wants its token", "send it in the header Authorization: Bearer, or log in at /login"
        )

    def is_token(self, said: str) -> bool:
        """Compared in constant time."""
        return self.token is not None and hmac.compare_digest(_digest(said), _digest(self.token))

    def _from_elsewhere(self, headers: Mapping[str, list[str]]) -> bool:
        """Whether a browser says that another site's page asks; programs that are no browsers say nothing."""
        sites, origins = headers.get("sec-fetch-site", []), headers.get("origin", [])
        if any(site not in ("same-origin", "none") for site in sites):
            return True
        ours = {f"{scheme}://{host}" for scheme in ("http", "https") for host in self.hosts}
        return any(origin.lower() not in ours for origin in origins)

    def _known(self, headers: Mapping[str, list[str]]) -> bool:
        for value in headers.get("authorization", []):
            scheme, _, said = value.partition(" ")
            if scheme.lower() == "bearer" and self.is_token(said.strip()):
                return True
        for value in headers.get("cookie", []):
            try:
                found = SimpleCookie(value).get(self.cookie)
            except CookieError:
                continue
            if found is not None and hmac.compare_digest(_digest(found.value), _digest(self.session)):
                return True
        return False


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") and name.count(":") > 1 else name


def _digest(text: str) -> bytes:
    """Of equal length whatever is said."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
