"""Numbers that carry a checksum: cards, bank accounts, national numbers.

What lives here: how they are written, and who checks them (python-stdnum). What must not: numbers that nothing can check.

On by default are those whose form and checksum together are so strong that other numbers rarely have them. The share that does
is in docs/masking.md. An eleven-digit number with one check digit (PESEL, BSN) may be had by asking for it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, cast

from capd.enforcer.masking.opening import Opening

_NO_DIGIT_BEFORE: Final = r"(?<![0-9A-Za-z.])"
_NO_DIGIT_AFTER: Final = r"(?![0-9A-Za-z])(?!\.[0-9])"
_NO_LETTER_BEFORE: Final = r"(?<![0-9A-Za-z])"
_NO_LETTER_AFTER: Final = r"(?![0-9A-Za-z])"

CARD: Final = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2(?:2[2-9]|[3-6][0-9]|7[01])[0-9]{13}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11,13}|6(?:011|5[0-9]{2}|4[4-9][0-9])[0-9]{12}|35(?:2[89]|[3-8][0-9])[0-9]{12}"
    r"|62[0-9]{14,17}"
)
"""Beginnings and lengths of the card schemes that are used for paying; other numbers may pass the checksum as well."""
COUNTRIES: Final = (
    "AD|AE|AL|AT|AZ|BA|BE|BG|BH|BI|BR|BY|CH|CR|CY|CZ|DE|DJ|DK|DO|EE|EG|ES|FI|FO|FR|GB|GE|GI|GL|GR|GT|HR|HU|IE|IL|IQ|IS|IT|JO|KW"
    "|KZ|LB|LC|LI|LT|LU|LV|LY|MC|MD|ME|MK|MN|MR|MT|MU|NI|NL|NO|OM|PK|PL|PS|PT|QA|RO|RS|RU|SA|SC|SD|SE|SI|SK|SM|SO|ST|SV|TL|TN|TR"
    "|UA|VA|VG|XK"
)
_DIGITS_11: Final = r"[0-9]{6}[ \-]?[0-9]{5}"
_CARD_FORM: Final = (
    r"[2-6][0-9]{12,18}|[2-6][0-9]{3} [0-9]{4} [0-9]{4} [0-9]{1,7}|[2-6][0-9]{3}-[0-9]{4}-[0-9]{4}-[0-9]{1,7}"
    r"|3[0-9]{3}[ \-][0-9]{6}[ \-][0-9]{4,5}"
)
_FISCAL_FORM: Final = r"[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]"
_FORMS: Final = {
    "card": (_CARD_FORM, "stdnum.luhn", True),
    "iban": (rf"(?:{COUNTRIES})[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?", "stdnum.iban", True),
    "it.codicefiscale": (_FISCAL_FORM, "stdnum.it.codicefiscale", True),
    "fi.hetu": (r"[0-3][0-9][01][0-9]{3}[+\-ABCDEFYXWVU][0-9]{3}[0-9A-Y]", "stdnum.fi.hetu", True),
    "no.fodselsnummer": (_DIGITS_11, "stdnum.no.fodselsnummer", True),
    "fr.nir": (r"[12378] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", "stdnum.fr.nir", True),
    "cn.ric": (r"[1-9][0-9]{5}(?:18|19|20)[0-9]{9}[0-9X]", "stdnum.cn.ric", True),
    "be.nn": (r"[0-9]{2}\.?[0-9]{2}\.?[0-9]{2}[ \-]?[0-9]{3}\.?[0-9]{2}", "stdnum.be.nn", False),
    "br.cpf": (r"[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}", "stdnum.br.cpf", False),
    "es.dni": (r"[0-9]{8}-?[A-Z]", "stdnum.es.dni", False),
    "se.personnummer": (r"(?:[0-9]{2})?[0-9]{6}[+\-][0-9]{4}", "stdnum.se.personnummer", False),
    "pl.pesel": (r"[0-9]{11}", "stdnum.pl.pesel", False),
    "nl.bsn": (r"[0-9]{9}", "stdnum.nl.bsn", False),
    "us.ssn": (r"[0-9]{3}-[0-9]{2}-[0-9]{4}", "stdnum.us.ssn", False),
}  # fmt: skip
_TRIGGERS: Final = {
    "card": r"[2-6][0-9]{12}|[2-6][0-9]{3}[ \-][0-9]{4}",
    "iban": rf"(?:{COUNTRIES})[0-9]{{2}} ?[A-Z0-9]{{4}} ?[A-Z0-9]{{4}}",
    "fr.nir": r"[12378] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3}",
    "cn.ric": r"[1-9][0-9]{5}(?:18|19|20)[0-9]{4}",
}
"""Shorter ones for the prefilter, which counts slowly."""
NAMES: Final = tuple(_FORMS)
DEFAULT: Final = tuple(name for name, (_, _, strong) in _FORMS.items() if strong)


EXAMPLES: Final = {
    "card": "4111111111111111",
    "iban": "GR1601101050000010547023795",
    "it.codicefiscale": "RCCMNL83S18D969H",
    "fi.hetu": "131052-308T",
    "no.fodselsnummer": "15108695088",
    "fr.nir": "295109912611193",
    "cn.ric": "360426199101010071",
    "be.nn": "85073003328",
    "br.cpf": "39053344705",
    "es.dni": "54362315K",
    "se.personnummer": "8803200016",
    "pl.pesel": "44051401359",
    "nl.bsn": "111222333",
    "us.ssn": "536904399",
}
"""A valid number of each kind, as its documentation gives it."""


def prepare() -> None:
    """Load all that checking needs, also the tables of python-stdnum: a role without rights may not reach them later."""
    for name, number in EXAMPLES.items():
        valid(name, number.encode("ascii"))


def identifier(name: str) -> Opening:
    """Give how a number is recognised; `valid` has the last word."""
    form = _FORMS[name][0]
    digits = form[0] in "[("
    before, after = (_NO_DIGIT_BEFORE, _NO_DIGIT_AFTER) if digits else (_NO_LETTER_BEFORE, _NO_LETTER_AFTER)
    return Opening(
        rule=f"identifier {name}", kind="identifier", pattern=f"{before}(?:{form}){after}", trigger=_TRIGGERS.get(name, form)
    )


def valid(rule: str, found: bytes) -> bool:
    """Say whether what has the form of an identifier passes its check."""
    name = rule.removeprefix("identifier ")
    number = found.decode("ascii")
    if name == "card":
        number = number.replace(" ", "").replace("-", "")
        if CARD.fullmatch(number) is None or len(set(number)) == 1:
            return False
    checker = _checker(name)
    try:
        return checker(number)
    except LookupError:  # stdnum.cn.ric: the province is one, and never had such a county
        return False


@lru_cache(maxsize=len(_FORMS))
def _checker(name: str) -> Callable[[str], bool]:
    # A module of python-stdnum is imported when its form is met for the first time: `capd mask` and readers need few of them.
    return cast("Callable[[str], bool]", importlib.import_module(_FORMS[name][1]).is_valid)
