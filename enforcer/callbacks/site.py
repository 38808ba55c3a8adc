"""What the listener answers: requests in, replies out.

What lives here: paths, methods, who may have sent a request, statuses, pages. What must not: sockets, HTTP's framing, deciding:
the desk is asked.

A GET changes nothing, since whatever sees a link may fetch it: previews of chat tools, scanners of mail. What decides is a POST
with a word from the page that the GET gave, which no other site can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from capd.enforcer.approvals.state import State
from capd.enforcer.callbacks import page, slack
from capd.enforcer.callbacks.address import DEFAULT_PORTS, port_of
from capd.enforcer.callbacks.facts import became, what
from capd.enforcer.callbacks.generic import LINKS
from capd.enforcer.callbacks.link import TOKEN_CHARACTERS_MAX, Says
from capd.enforcer.callbacks.signature import is_from_slack
from capd.enforcer.callbacks.slack_action import Press, read_press

SLACK: Final = "/slack/"
"""Begins the path at which Slack tells what was pressed; the webhook's name follows."""
FORM: Final = "application/x-www-form-urlencoded"
FORM_FIELDS_MAX: Final = 8
SHOWN: Final = "shown"
DECIDED: Final = "decided"
IGNORED: Final = "ignored"
"""What Slack tells and nothing follows from."""
STATUSES: Final = {
    "LinkForgedError": HTTPStatus.NOT_FOUND,
    "LinkExpiredError": HTTPStatus.GONE,
    "LinkUsedError": HTTPStatus.GONE,
    "AlreadyDecidedError": HTTPStatus.GONE,
    "LinkElsewhereError": HTTPStatus.CONFLICT,
    "LinkUnconfirmedError": HTTPStatus.FORBIDDEN,
    "NotAnApproverError": HTTPStatus.FORBIDDEN,
    "SelfApprovalError": HTTPStatus.FORBIDDEN,
    "ApprovalsUnwritableError": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""By the class of what the desk refuses with; for others it is 500."""
TITLES: Final = {
    "LinkForgedError": "This link is not valid",
    "LinkExpiredError": "This link has expired",
    "LinkUsedError": "This link was used",
    "AlreadyDecidedError": "This was decided already",
    "LinkElsewhereError": "This link is for something else",
    "LinkUnconfirmedError": "Use the button",
    "ApprovalsUnwritableError": "Nothing was decided",
}


class Ask(Protocol):
    """Asks the desk."""

    def __call__(self, verb: str, **fields: object) -> Mapping[str, Any]:
        """Give its answer; `refused` in it is the class of why it did not do it, and nothing changed.

        Raises:
            OSError: it does not answer.
        """


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request of HTTP.

    Attributes:
        method: as sent.
        target: as sent.
        fields: header fields by their names in lower case; one that came twice has both values, with a comma.
        body: all of it.
    """

    method: str
    target: str
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered.

    Attributes:
        status: of HTTP.
        why: for the counts: `shown`, `decided`, `ignored`, or why it was refused.
        body: HTML, or nothing.
        words: of a refusal, the same without markup.
        tell: what Slack is to be told after that: webhook, address, message; None: nothing.
        allow: methods that there are, with 405.
    """

    status: HTTPStatus
    why: str = ""
    body: str = ""
    words: str = ""
    tell: tuple[str, str, Mapping[str, Any]] | None = None
    allow: str = ""


class Site:
    """Everything below one public address. It keeps nothing, so that several threads may ask it."""

    def __init__(
        self, base_url: str, slack_secrets: Mapping[str, bytes], host: str, ask: Ask, wall: Callable[[], float]
    ) -> None:
        """Take what it works with.

        Args:
            base_url: public address, without a slash at its end.
            slack_secrets: signing secrets by webhook.
            host: name of this host.
            ask: asks the desk.
            wall: time in seconds since 1970.
        """
        self._base = urlsplit(base_url)
        self._secrets, self._host, self._ask, self._wall = slack_secrets, host, ask, wall

    def answer(self, asked: Asked) -> Reply:
        """Answer a request."""
        if not self._is_for_us(asked.fields.get("host", "")):
            return self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "host", "This is not the address of these pages")
        path = asked.target
        if not path.startswith(f"{self._base.path}/"):
            return self._refuse(HTTPStatus.NOT_FOUND, "path", "There is nothing here")
        path = path.removeprefix(self._base.path)
        if path.startswith(LINKS):
            return self._link(asked, path.removeprefix(LINKS))
        if path.startswith(SLACK):
            return self._slack(asked, path.removeprefix(SLACK))
        return self._refuse(HTTPStatus.NOT_FOUND, "path", "There is nothing here")

    def _is_for_us(self, given: str) -> bool:
        """Say whether a Host field names the public address: another name may lead here by a trick of DNS."""
        try:
            found = urlsplit(f"//{given}")
            port = found.port or DEFAULT_PORTS[self._base.scheme]
        except ValueError:
            return False
        ours = (self._base.hostname, port_of(self._base))
        return (found.hostname, port) == ours and "@" not in given

    # -- links -----------------------------------------------------------------------------------------------------------------

    def _link(self, asked: Asked, token: str) -> Reply:
        if len(token) > TOKEN_CHARACTERS_MAX:
            return self._refuse(HTTPStatus.NOT_FOUND, "LinkForgedError", TITLES["LinkForgedError"])
        if asked.method in {"GET", "HEAD"}:
            return self._show(token)
        if asked.method != "POST":
            return self._not_allowed("GET, HEAD, POST")
        if not self._is_from_our_page(asked.fields):
            return self._refuse(HTTPStatus.FORBIDDEN, "origin", "The answer does not come from the page of this link")
        try:
            form = _form(asked)
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST, "form", "This is no form")
        given = {"token": token, "confirm": form.get(page.CONFIRM, ""), "reason": form.get(page.REASON, "")}
        return self._done(self._asked("use_link", **given))

    def _show(self, token: str) -> Reply:
        found = self._asked("link", token=token)
        if isinstance(found, Reply):
            return found
        link = found["link"]
        shown = page.asking(found["request"], Says(link["says"]), link["approver"], link["confirm"])
        return Reply(status=HTTPStatus.OK, why=SHOWN, body=shown)

    def _done(self, found: Mapping[str, Any] | Reply) -> Reply:
        if isinstance(found, Reply):
            return found
        request = found["request"]
        words = f"Request {request['id']} {became(request)}: {what(request)}"
        return Reply(status=HTTPStatus.OK, why=DECIDED, body=page.told("Done", words))

    def _is_from_our_page(self, fields: Mapping[str, str]) -> bool:
        """Say whether a browser, if it is one, sends a form of our own page (Fetch, Origin; Fetch Metadata, Sec-Fetch-Site)."""
        ours = f"{self._base.scheme}://{self._base.netloc}".lower()
        return fields.get("origin", ours).lower() == ours and fields.get("sec-fetch-site", "same-origin") == "same-origin"

    # -- Slack -----------------------------------------------------------------------------------------------------------------

    def _slack(self, asked: Asked, webhook: str) -> Reply:
        if asked.method != "POST":
            return self._not_allowed("POST")
        secret = self._secrets.get(webhook)
        if secret is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "path", "There is nothing here")
        if not is_from_slack(secret, asked.fields, asked.body, self._wall()):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "slack_signature", "Slack did not sign this, or not lately")
        try:
            press = read_press(asked.body)
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST, "form", "This is no interaction of Slack")
        return Reply(status=HTTPStatus.OK, why=IGNORED) if press is None else self._press(webhook, press)

    def _press(self, webhook: str, press: Press) -> Reply:
        """Take a press. Slack shows the same for every status but 200: what is wrong is told by a message."""
        found = self._asked("press", token=press.value, webhook=webhook, user=press.user)
        if isinstance(found, Reply):
            why, message = found.why, slack.whispered(found.words)
        else:
            why = DECIDED
            request = found["request"]
            waits = request["state"] == State.PENDING
            message = slack.whispered(slack.outcome(request, self._host)) if waits else slack.replaced(request, self._host)
        return Reply(status=HTTPStatus.OK, why=why, tell=(webhook, press.answer_url, message))

    # -- both ------------------------------------------------------------------------------------------------------------------

    def _asked(self, verb: str, **fields: object) -> Mapping[str, Any] | Reply:
        """Ask the desk; give its answer, or the reply to a refusal."""
        try:
            found = self._ask(verb, **fields)
        except OSError:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "unreachable", "capd does not answer: nothing was decided")
        why = found.get("refused")
        if why is None:
            return found
        return self._refuse(
            STATUSES.get(why, HTTPStatus.INTERNAL_SERVER_ERROR),
            why,
            TITLES.get(why, "This does not count"),
            f"{found['message']}. {found['hint']}",
        )

    def _refuse(self, status: HTTPStatus, why: str, title: str, words: str = "") -> Reply:
        told = words or title
        return Reply(status=status, why=why, body=page.told(title, told), words=told)

    def _not_allowed(self, allow: str) -> Reply:
        return Reply(
            status=HTTPStatus.METHOD_NOT_ALLOWED,
            why="method",
            body=page.told("Not here", f"{allow} are answered here"),
            allow=allow,
        )


def _form(asked: Asked) -> dict[str, str]:
    """Read a form.

    Raises:
        ValueError: it is none.
    """
    if asked.fields.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise ValueError("another type")
    pairs = parse_qs(asked.body.decode("utf-8"), keep_blank_values=True, strict_parsing=True, max_num_fields=FORM_FIELDS_MAX)
    if any(len(values) != 1 for values in pairs.values()):
        raise ValueError("a field twice")
    return {name: values[0] for name, values in pairs.items()}
