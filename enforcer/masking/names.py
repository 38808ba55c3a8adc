"""Values that are known by the name beside them: `password=…`, `"api_key": "…"`, `Authorization: …`.

What lives here: the names that are masked by default, and what may stand between a name and its value in headers, addresses,
forms, JSON, YAML, SQL and command lines. What must not: secrets that are known by their own form (formats.py).

All patterns here are matched against lower case.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from capd.enforcer.masking.opening import Opening, Run

HEADERS: Final = (
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-auth-token",
    "x-access-token", "x-amz-security-token", "x-goog-api-key", "x-vault-token", "private-token", "x-gitlab-token",
    "x-github-token", "x-csrf-token", "x-xsrf-token", "x-session-token", "x-refresh-token", "x-auth-key",
    "x-functions-key", "ocp-apim-subscription-key", "x-subscription-token", "x-token", "x-api-token", "x-figma-token",
    "x-consul-token", "x-nomad-token", "x-plex-token", "x-sentry-auth", "x-goog-iam-authorization-token",
    "authentication", "circle-token", "dd-application-key", "deploy-token", "dpop", "fastly-key", "job-token", "set-cookie2",
    "x-auth", "x-authorization", "x-app-token", "x-aws-ec2-metadata-token", "x-clickhouse-key", "x-forwarded-authorization",
    "x-honeycomb-team", "x-insert-key", "x-jfrog-art-api", "x-license-key", "x-original-authorization", "x-parse-master-key",
    "x-postmark-server-token", "x-registry-auth", "x-registry-config", "x-secret", "x-service-token", "x-subject-token",
    "x-tableau-auth", "x-user-token",
)  # fmt: skip
"""Header fields that are masked by default."""
COOKIE_HEADERS: Final = frozenset({"cookie", "set-cookie", "set-cookie2"})
SCHEMES: Final = ("basic", "bearer", "token", "digest", "negotiate", "ntlm", "apikey", "aws4-hmac-sha256")
"""What stays of a credential: how it is used, not what it is."""
KEYS: Final = (
    "password", "passwd", "passphrase", "user_password", "client_secret", "secret_key", "secret_access_key",
    "aws_secret_access_key", "aws_session_token", "private_key", "api_key", "apikey", "api_token", "api_secret",
    "access_token", "refresh_token", "id_token", "auth_token", "session_token", "bearer_token", "secret_token",
    "client_assertion", "x-amz-signature", "x-amz-security-token", "x-goog-signature", "accountkey", "sharedaccesskey",
    "encryption_key", "signing_key", "webhook_secret", "secret", "pwd", "token", "sig", "signature", "auth",
    "password_confirmation", "password_confirm", "password1", "password2", "mysql_pwd", "secret_string",
    "secret_key_base", "code_verifier", "github_token", "gitlab_token", "slack_token", "bot_token", "npm_token", "jwt_secret",
    "app_secret", "shared_secret", "session_secret",
    "authenticity_token", "authorization_token", "client_token", "csrf_token", "csrfmiddlewaretoken", "deploy_token",
    "device_code", "encoded_jit_config", "identity_token", "invite_token", "job_token", "login_token", "master_key",
    "oauth_token", "oauth_token_secret", "private_token", "registration_token", "reset_token", "saml_response",
    "secret_binary", "secret_id", "subscription_key", "user_token", "xsrf_token",
)  # fmt: skip
"""Names of parameters, form fields, JSON members and settings that are masked by default, however deep they are."""
LOOSE: Final = frozenset(
    {
        "password", "password_confirmation", "password_confirm", "password1", "password2", "passwd", "passphrase",
        "secret_key", "secret_access_key", "api_key", "apikey", "client_secret", "access_token", "auth_token", "api_token",
        "refresh_token", "session_token",
    }
)  # fmt: skip
"""Names that say the same with anything before them: `db_password`, `OPENAI_API_KEY`, `dbPassword`."""
_WEAK: Final = frozenset({"secret", "pwd", "token", "sig", "signature", "auth"})
"""Names that are also used for what is no secret: their values have to have 8 characters."""
_ENDS: Final = r"[^\s\"'&,;<>(){}\[\]\\|\x00]"
_END: Final = rf"(?![ \t]{{0,16}}{_ENDS})"
_EMPTY_VALUE: Final = (
    r"(?!(?:\$[0-9]{1,3}|%s|\?|null|none|true|false|undefined|\*{3,64}|\$\{[^{}\s]{0,64}\}|\$\([^()\r\n]{0,64}\)"
    rf"|\{{\{{[^{{}}\r\n]{{0,64}}\}}\}}|<[a-z][a-z0-9_ \-]{{0,64}}>){_END})"
)
"""What stands where a value will be, and is none."""
_BLANKS: Final = r"(?:[ \t]{0,64}(?![ \t\r\n])|[ \t\r\n]{0,64}(?=[bruf]{0,2}\\{0,8}[\"'\[]))"
"""What may stand before a value; ends of lines only before one in quotes, as JSON has it."""
_ASSIGNS: Final = r"(?:=>|:=|:[ \t]{0,2}&?str(?:ing)?[ \t]{0,2}=|={1,3}|:|%(?:25){0,2}3[da])"
_SEPARATES: Final = r"(?:[ \t\r\n,;]|\\{1,4}[rnt]){1,64}"
_NAMED_VALUE: Final = rf"{_SEPARATES}[\"'\\]{{0,8}}value[\"'\\]{{0,8}}[ \t\r\n]{{0,32}}[:=]"
"""`"name": "DB_PASSWORD", "value": "…"`, and the same in YAML and HTML."""
_CLOSES_NAME: Final = r"(?:%22|%(?:25)?5[bd]|[\"'\\\[\]])"
_AFTER_NAME: Final = (
    rf"{_CLOSES_NAME}{{0,8}}(?:(?:[ \t]{{0,64}}|(?<=[\"'])[ \t\r\n]{{0,64}}){_ASSIGNS}|{_NAMED_VALUE}){_BLANKS}"
    r"(?:!![a-z]{1,16}[ \t]{1,4})?"
)
_TRIGGER_AFTER_NAME: Final = rf"{_CLOSES_NAME}*(?:[ \t\r\n]*(?:=|:|%(?:25)*3[da])|[ \t\r\n,;\\rnt\"']+value)"
_QUOTE: Final = r"(?:[bruf$]{1,2}(?=[\"']))?(?P<q>\"\"\"|'''|\\{0,8}[\"']|%22|(?![\"'\\]))"
"""What opens a value: a quote, perhaps escaped; or nothing, when no quote follows."""
_LIST: Final = r"(?P<l>\[[ \t\r\n]{0,64}(?=[bruf]{0,2}\\{0,8}[\"']))"
"""What opens a list of values."""
_BLOCK: Final = r"(?P<b>[|>][+\-]?[0-9]?[ \t]{0,16}\r?\n(?=[ \t]))"
"""What opens a text of several lines in YAML."""


class _Spellings(dict[str, "_Spellings"]):
    """What may come next in a name, and behind it; nothing where a name may be over."""


def alternatives(names: Iterable[str]) -> str:
    """Give a pattern for any of the names, the longest first; `_`, `-` and nothing are the same: apiKey, api_key, api-key.

    What several begin with is written once, which keeps both engines fast.
    """
    return _any_of(_spelled(name) for name in names)


def literally(words: Iterable[str]) -> str:
    """Give a pattern for any of the words as they are, the longest first."""
    return _any_of(map(re.escape, word) for word in words)


def _spelled(name: str) -> Iterator[str]:
    for number, part in enumerate(re.split(r"[_\-]", name.lower())):
        if number:
            yield r"[_\-]?"
        yield from map(re.escape, part)


def _any_of(words: Iterable[Iterable[str]]) -> str:
    root = _Spellings()
    for word in words:
        node = root
        for one in word:
            node = node.setdefault(one, _Spellings())
        node[""] = _Spellings()
    return _written(root)


def _written(node: _Spellings) -> str:
    rest = [one + _written(behind) for one, behind in sorted(node.items()) if one]
    if not rest:
        return ""
    written = rest[0] if len(rest) == 1 else f"(?:{'|'.join(rest)})"
    return f"(?:{written})?" if "" in node else written


def within_ascii(name: str) -> str:
    """Give what the prefilter sees of a name, which is shown no byte beyond ASCII."""
    return name.encode("ascii", "ignore").decode("ascii")


def _literals(names: Iterable[str]) -> tuple[str, ...]:
    """Give for each name its longest part, which is there however the parts are joined."""
    return tuple(sorted({max(re.split(r"[_\-]", name.lower()), key=len) for name in names}))


_LINE_BEGINS: Final = r"(?:(?<![^\r\n])|(?<=[<>] )(?<![^\r\n][<>] ))"
"""Where a line of a head begins, as it is said, or as curl shows it."""
_IN_QUERY: Final = "|".join(rf"(?<=[?&][a-z0-9_.%\[\-]{{{count}}})" for count in range(15))
"""A parameter begins before, with so many characters of its name. A lookbehind has one length, and so many bytes are kept."""
COMMANDS: Final = (
    "sshpass", "redis-cli", "mysql", "docker", "login", "-u ", "-u\t", "curl", "mongo", "ldap", "twine", "az login", "_auth",
    "configure set", "config set", "setx", "set -",
)  # fmt: skip
"""How commands begin that have a password behind an option whose name does not say so."""
_ATTRIBUTES: Final = r"(?:[ \t\r\n]{1,16}[a-z:]{1,16}=(?:\"[^\"<>]{0,96}\"|'[^'<>]{0,96}')){0,2}"
_WORDS: Final = r"(?:[ \t]{1,4}[^\s|;&\"']{1,40}){0,4}[ \t]{1,4}"
_NO_NUMBER: Final = r"(?![0-9]{1,6}(?![0-9a-z]))"
"""Behind a colon that is of a group or a port."""
_ARGUMENTS: Final = r"[\x01-\x09\x0b\x0c\x0e-\x3a\x3c-\x7b\x7d-\x7f]*"
"""What the prefilter sees of words: no byte beyond ASCII."""
_COMMANDS: Final = (
    ("sshpass", r"[ \t]{1,4}-p[ \t]{0,4}"),
    ("redis-cli", rf"{_WORDS}-a[ \t]{{1,4}}"),
    ("docker", rf"[ \t]{{1,4}}login{_WORDS}-p[ \t]{{1,4}}"),
    ("mysql", rf"(?:dump|admin|import)?{_WORDS}-p(?=\S)"),
    ("pass:", r"(?<=[ =]pass:)"),
    ("login", r"[ \t\r\n]{1,8}[^\s]{1,64}[ \t\r\n]{1,8}password[ \t\r\n]{1,8}"),
    ("curl", rf"{_WORDS}-[a-z]{{0,6}}u[ \t]{{0,4}}\\{{0,8}}[\"']?[a-z0-9_.@%+\-]{{1,64}}:{_NO_NUMBER}(?![\"'/])"),
    ("curl", rf"{_WORDS}(?:-[a-z]{{0,6}}b|--cookie)(?:=|[ \t]{{1,4}})(?=\\{{0,8}}[\"']?[^\s\"'=;]{{1,64}}=)"),
    ("mongo", rf"(?:sh|dump|restore|export|import)?{_WORDS}-p[ \t]{{1,4}}"),
    ("ldap", rf"(?:search|modify|add|delete|whoami|passwd){_WORDS}-w[ \t]{{1,4}}"),
    ("twine", rf"{_WORDS}-p[ \t]{{1,4}}"),
    ("az login", rf"{_WORDS}-p[ \t]{{1,4}}"),
    ("_auth", r"[ \t]{0,4}=[ \t]{0,4}(?=[a-z0-9+/=]{8})"),
)
"""How commands begin, and what stands behind that, before the password. `pass:` is of openssl, `login` of .netrc, `_auth` of
.npmrc."""
_BEGIN: Final = tuple(dict.fromkeys(word for word, _ in _COMMANDS))


def _named(names: Collection[str], trigger: str, before: str, behind: str, in_element: str = r"(?<=[<:\"'])") -> list[Opening]:
    anything = alternatives(names)
    if not anything:
        return []
    plain = Opening(
        rule="key",
        kind="credential",
        pattern=f"{before}(?P<n>{anything}){_AFTER_NAME}(?:{_LIST}|{_BLOCK}|{_QUOTE}{_EMPTY_VALUE}){behind}",
        trigger=trigger,
        literals=_literals(names),
        run=Run.BARE,
        after=True,
        named=True,
        begins=anything,
    )
    query = rf"(?:(?<![^?&])|{_IN_QUERY})(?P<n>{anything})(?:\[\]|\]|%5b%5d|%5d){{0,2}}={_EMPTY_VALUE}{behind}"
    element = (
        rf"(?:{in_element}|(?<=<key>))(?P<n>{anything})(?:[\"']?{_ATTRIBUTES}>|</key>[ \t\r\n]{{0,32}}<string>)"
        rf"(?:<!\[cdata\[|(?=[^<>\x00]{{1,200}}<\\?/|[^<>\s\"'`@\x00]{{200}}){behind})"
    )
    pair = (
        r"(?:(?<=[\[(][\"'])|(?<=[\[(]b[\"'])|(?<=[\[(]\\[\"']))"
        rf"(?P<n>{anything})\\{{0,8}}[\"'],[ \t\r\n]{{0,64}}(?=[bruf]{{0,2}}\\{{0,8}}[\"']){_QUOTE}{behind}"
    )
    return [
        replace(plain, pattern=query, run=Run.QUERY),
        plain,
        replace(plain, pattern=element, run=Run.ELEMENT),
        replace(plain, pattern=pair),
    ]


def keys(names: Iterable[str], exact: Collection[str] = ()) -> list[Opening]:
    """Give how values of keys are recognised.

    Args:
        names: keys, some of them among the defaults.
        exact: keys that the operator names; they are masked as they are, however short the value.
    """
    wanted = set(names)
    seen = alternatives(within_ascii(name) for name in {*wanted, *exact})
    # One for all of them: each by itself would make the prefilter slow.
    trigger = rf"(?i-u:(?:{seen})(?:{_TRIGGER_AFTER_NAME}|[\"']?(?:[ \t\r\n]+[a-z:]+=[\"']|>|</key)|\\*[\"'],))"
    return [
        *_named(LOOSE & wanted, trigger, "", "", r"(?<=[<:\"'_.\-a-z0-9])"),
        *_named(sorted(wanted - LOOSE - _WEAK), trigger, r"(?<![a-z0-9])", ""),
        *_named(sorted(_WEAK & wanted), trigger, r"(?<![a-z0-9_.\-])", f"(?={_ENDS}{{8}})"),
        *_named(sorted(exact), trigger, r"(?<![a-z0-9])", ""),
        *_parts({*wanted, *exact} - LOOSE, wanted & LOOSE),
        *(_spoken() if "password" in wanted else []),
    ]


def _parts(names: Collection[str], loose: Collection[str]) -> list[Opening]:
    """Give how parts of a form are recognised (RFC 7578)."""
    everything = alternatives([*names, *loose])
    before = rf"(?:[a-z0-9_.\-\[\]]{{1,64}}(?=(?:{alternatives(loose)}))|[a-z0-9_.\-]{{1,48}}\[)?" if loose else ""
    rest = r"[\]\"']{0,2}(?:;[^\r\n]{0,96})?\r?\n(?:[^\r\n]{1,96}\r?\n){0,4}\r?\n"
    found = Opening(
        rule="key",
        kind="credential",
        pattern=rf"(?<![a-z0-9_\-])name=[\"']?{before}(?P<n>{everything}){rest}",
        trigger=r"(?i-u:name=[\"'a-z0-9_.\[\]\-]*[;\r\n])",
        literals=("name=",),
        run=Run.PART,
        after=True,
        named=True,
        begins="name=",
    )
    return [found] if everything else []


_IDENTIFIED: Final = (
    r"identified[ \t\r\n]{1,4}(?:by|(?:with|via)[ \t\r\n]{1,4}[a-z0-9_]{1,32}[ \t\r\n]{1,4}(?:by|as))"
    r"(?:[ \t\r\n]{1,4}password)?"
)
"""What stands before the password of a user in MySQL's statements."""


def _spoken() -> list[Opening]:
    """Passwords in statements, command lines and the parts of a form."""
    in_statement = Opening(
        rule="key",
        kind="credential",
        pattern=rf"(?P<n>password|{_IDENTIFIED})[ \t\r\n]{{1,8}}e?'",
        trigger=r"(?i-u:password[ \t\r\n]{1,8}(?:e?'|\$)|identified[ \t\r\n])",
        literals=("password", "identified"),
        run=Run.SQL_QUOTED,
        after=True,
        named=True,
    )
    return [
        in_statement,
        replace(in_statement, pattern=rf"(?P<n>{_IDENTIFIED})[ \t\r\n]{{1,8}}(?P<q>\\{{0,8}}\")"),
        replace(in_statement, pattern=r"(?P<n>password)[ \t\r\n]{1,8}\$[a-z_]{0,16}\$(?=[^\s$])", run=Run.DOLLARS),
        replace(
            in_statement,
            pattern=r"(?<![a-z0-9_])--?(?:[a-z0-9]{1,16}-){0,2}"
            r"(?P<n>password|passwd|passphrase|secret|token|api[_\-]?key|oauth2-bearer|storepass|keypass)"
            rf"(?:=|[ \t]{{1,4}}|\\{{0,8}}[\"'],[ \t\r\n]{{0,64}}(?=\\{{0,8}}[\"'])){_QUOTE}(?=[^\s\-|&;\"'+,)])",
            literals=("password", "passwd", "passphrase", "secret", "token", "key", "oauth2-bearer", "storepass", "keypass"),
            trigger=r"(?i-u:-(?:password|passwd|passphrase|secret|token|api[_\-]?key|oauth2-bearer|storepass|keypass)"
            r"(?:[ \t=]|\\*[\"'],))",
            run=Run.BARE,
        ),
        replace(
            in_statement,
            rule="credential",
            pattern=r"(?<![a-z0-9])(?P<n>basic|bearer)[ \t]{1,4}(?=[a-z_~+/.\-]{0,40}[0-9=])(?=[a-z0-9+/=._~\-]{12})",
            trigger=r"(?i-u:(?:basic|bearer)[ \t]+[a-z0-9+/=._~\-]{12})",
            literals=("basic", "bearer"),
            run=Run.BASE64,
        ),
        *_in_commands(in_statement),
    ]


def _in_commands(like: Opening) -> list[Opening]:
    """Passwords in command lines whose options do not name them, and in the names of an environment."""
    behind = "|".join(f"(?<={re.escape(word)}){rest}" for word, rest in _COMMANDS)
    commands = replace(
        like,
        pattern="",
        trigger=r"(?i-u:sshpass[ \t]|redis-cli[ \t]|docker[ \t]+login|mysql(?:dump|admin|import)?[ \t]|pass:"
        rf"|login[ \t\r\n]|curl[ \t]{_ARGUMENTS}-(?:[a-z]*[ub]|-cookie)|(?:mongo|ldap|twine)[a-z]*[ \t]{_ARGUMENTS}-[pw]"
        r"|_auth[ \t]*=)",
        literals=_BEGIN,
        run=Run.BARE,
        begins=literally(_BEGIN),
    )
    return [
        replace(
            like,
            pattern=r"(?<![a-z0-9_\-])(?P<n>-u|--user|--proxy-user)(?:=|[ \t]{1,4})\\{0,8}[\"']?[a-z0-9_.@%+\-]{1,64}:"
            rf"{_NO_NUMBER}(?=[^\s\"'/\\])",
            trigger=r"(?i-u:-u(?:ser)?[ \t=]+[\"'\\]*[a-z0-9_.@%+\-]+:)",
            literals=("-u", "-user"),
            run=Run.BARE,
        ),
        replace(commands, pattern=rf"(?<![a-z0-9_\-])(?P<n>{literally(_BEGIN)})(?:{behind}){_QUOTE}(?=[^\s\"'\\$|&;])"),
        replace(
            like,
            pattern=r"(?<![a-z0-9_\-])(?P<n>setx|set -(?:gx|ux|x)|config(?:ure)? set)[ \t]{1,4}"
            rf"(?:[^\s\"'=]{{0,64}}[_.:])?(?:{alternatives(KEYS)})[ \t]{{1,4}}{_QUOTE}{_EMPTY_VALUE}(?={_ENDS}{{8}})",
            trigger=r"(?i-u:setx[ \t]|set -[gux]+[ \t]|config(?:ure)? set[ \t])",
            literals=("setx", "set -", "config set", "configure set"),
            run=Run.BARE,
            begins="setx|set -|config(?:ure)? set",
        ),
        replace(
            like,
            pattern=r"(?<![a-z0-9_\-])(?P<n>--from-literal)(?:=|[ \t]{1,4})\\{0,8}[\"']?[a-z0-9_.\-]{1,64}=(?=[^\s\"'\\$])",
            trigger=r"(?i-u:--from-literal)",
            literals=("--from-literal",),
            run=Run.BARE,
        ),
        replace(
            like,
            pattern=rf"(?<=[A-Z0-9]_)(?P<n>TOKEN|SECRET|PASS|PWD)[\"'\\]{{0,8}}[ \t]{{0,64}}(?:[=:]|{_NAMED_VALUE})"
            rf"[ \t]{{0,64}}{_QUOTE}{_EMPTY_VALUE}(?={_ENDS}{{8}})",
            trigger=r"_(?:TOKEN|SECRET|PASS|PWD)[\"'\\]*[ \t\r\n,;\\rnt\"']*(?:[=:]|value)",
            literals=("_token", "_secret", "_pass", "_pwd"),
            run=Run.BARE,
            cased=True,
        ),
    ]


def headers(names: Iterable[str]) -> list[Opening]:
    """Give how header fields are recognised in bytes that are not known to be HTTP: logs, command lines, other protocols."""
    ordered = sorted(names)
    cookies = [name for name in ordered if name in COOKIE_HEADERS]
    others = [name for name in ordered if name not in COOKIE_HEADERS]
    openings: list[Opening] = []
    seen = literally(map(within_ascii, ordered))
    scheme = f"(?:(?:{'|'.join(SCHEMES)})[ \\t]{{1,4}})?"
    behind = rf"(?:[\"'\\]{{0,8}}(?:[ \t]{{0,64}}[:=]|{_NAMED_VALUE})|[\"'],){_BLANKS}"
    for group, rest in ((others, scheme), (cookies, "")):
        if not group:
            continue
        anything = literally(group)
        anywhere = Opening(
            rule="header",
            kind="cookie" if group is cookies else "credential",
            pattern=f"(?<![a-z0-9_\\-])(?P<n>{anything}){behind}(?:{_LIST}|{_QUOTE}{rest}{_EMPTY_VALUE})",
            literals=tuple(group),
            trigger=f"(?i-u:(?:{seen})[\"'\\\\]*[ \\t\\r\\n,;\\\\rnt\"']*(?:[:=,]|value))",
            run=Run.LINE_UNQUOTED,
            after=True,
            named=True,
            begins=anything,
        )
        line = rf"{_LINE_BEGINS}(?P<n>{anything})[ \t]{{0,8}}:[ \t]{{0,8}}{rest}(?![\"']){_EMPTY_VALUE}"
        openings += [replace(anywhere, pattern=line, run=Run.FIELD), anywhere]
    return openings


SIGNS_IN: Final = ("auth", "pass", "login", "authenticate", "hello", "acl", "config", "sentinel", "migrate", "command")
"""Commands of protocols whose lines may hold a password."""


def signing_in() -> list[Opening]:
    """Give how passwords are recognised in the lines of protocols that nobody decodes: SMTP, POP3, IMAP, FTP, Redis by hand."""
    line = Opening(
        rule="command",
        kind="credential",
        pattern="",
        trigger=rf"(?i-u:(?:{literally(SIGNS_IN)})[ \t])",
        literals=SIGNS_IN,
        run=Run.LINE,
        after=True,
        named=True,
        begins=literally(SIGNS_IN),
    )
    begin, blanks = r"(?<![^\r\n])", r"[ \t]{1,8}"
    verb = rf"(?:{begin}(?=auth )|(?<=[a-z0-9] )(?=authenticate ))(?P<n>[a-z]+){blanks}"
    return [
        replace(line, pattern=rf"{verb}(?:plain[ \t]{{0,8}}|login[ \t]{{0,8}}[^\s]{{0,200}})\r?\n", run=Run.BASE64_LINES),
        replace(line, pattern=rf"{begin}(?P<n>auth){blanks}(?:(?:plain|login|xoauth2|oauthbearer){blanks})?"),
        replace(line, pattern=rf"{begin}(?P<n>pass){blanks}"),
        replace(line, pattern=rf"(?<=[a-z0-9] )(?P<n>login){blanks}(?:\"[^\"\r\n]{{0,128}}\"|[^\s\"]{{1,128}}){blanks}"),
        replace(line, pattern=rf"(?<=[a-z0-9] )(?P<n>authenticate){blanks}[^\s]{{1,32}}{blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>hello){blanks}[0-9]{blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>acl){blanks}(?:setuser|dryrun){blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>config){blanks}set{blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>sentinel){blanks}(?:set|config){blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>migrate){blanks}"),
        replace(line, pattern=rf"{begin}(?P<n>command){blanks}getkeys(?:andflags)?{blanks}"),
    ]
