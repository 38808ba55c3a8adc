"""Secrets that are known by their own form: tokens with a prefix, key blocks, passwords in addresses.

What lives here: one line for each form. What must not: names of fields (names.py), checksums (identifiers.py).

Every form has at least a prefix and so many characters that prose and random bytes do not have it by chance.
"""

from __future__ import annotations

import re
from typing import Final

from capd.enforcer.masking.opening import Opening, Run

_BEFORE: Final = r"(?<![A-Za-z0-9_])"
_COUNTED: Final = re.compile(r"\]\{[0-9]{2}\}")
_BEFORE_PART: Final = r"(?<![A-Za-z0-9])"


def _token(rule: str, core: str, *literals: str, run: Run = Run.WORD) -> Opening:
    # The first few of so many characters are enough to look closely; counting them all makes the prefilter slow.
    trigger = _COUNTED.sub(r"]{4}", core)
    return Opening(rule=f"format {rule}", kind="secret", pattern=_BEFORE + core, trigger=trigger, literals=literals, run=run)


FORMATS: Final = (
    Opening(
        rule="format private key",
        kind="secret",
        pattern=r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
        trigger=r"-----BEGIN ",
        literals=("-----begin ",),
        run=Run.PEM,
        after=True,
    ),
    Opening(
        rule="format password in address",
        kind="credential",
        pattern=r"://[^\s/?#@:\"'<>\\\x00]{0,128}:(?=[^\s/?#@\"'<>\x00]{1,200}@)",
        trigger=r"://[^\s/?#@:]*:[^\s/?#@]+@",
        literals=("://",),
        run=Run.USERINFO,
        after=True,
    ),
    _token("JSON web token", r"eyJ[A-Za-z0-9_\-]{6}", "eyj", run=Run.DOTTED),
    _token("AWS access key", r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}", "akia", "asia", "abia", "acca"),
    _token("GitHub token", r"gh[pousr]_[A-Za-z0-9]{30}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _token("GitHub token", r"github_pat_[A-Za-z0-9_]{22}", "github_pat_"),
    _token(
        "GitLab token",
        r"gl(?:pat|dt|rt|ptt|soat|cbt|ft)-[A-Za-z0-9_\-]{20}",
        "glpat-",
        "gldt-",
        "glrt-",
        "glptt-",
        "glsoat-",
        "glcbt-",
        "glft-",
    ),
    _token("Slack token", r"xox[abeoprs]-[A-Za-z0-9\-]{10}", "xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"),
    _token("Slack token", r"xapp-[0-9]-[A-Za-z0-9\-]{10}", "xapp-"),
    Opening(
        rule="format Slack webhook",
        kind="secret",
        pattern=r"hooks\.slack\.com/(?:services|workflows)/(?=[A-Za-z0-9_/]{20})",
        trigger=r"hooks\.slack\.com/",
        literals=("hooks.slack.com/",),
        run=Run.BASE64,
        after=True,
    ),
    _token("Stripe key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10}", "k_live_", "k_test_"),
    _token("Stripe key", r"whsec_[A-Za-z0-9+/=]{20}", "whsec_", run=Run.BASE64),
    _token("Anthropic key", r"sk-ant-[A-Za-z0-9_\-]{16}", "sk-ant-"),
    _token("OpenAI key", r"sk-[A-Za-z0-9_\-]{20}", "sk-"),
    _token("Google API key", r"AIza[A-Za-z0-9_\-]{35}", "aiza"),
    _token("Google OAuth token", r"ya29\.[A-Za-z0-9_\-]{20}", "ya29."),
    _token("npm token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token("PyPI token", r"pypi-[A-Za-z0-9_\-]{40}", "pypi-"),
    _token("Hugging Face token", r"hf_[A-Za-z0-9]{30}", "hf_"),
    _token("SendGrid key", r"SG\.[A-Za-z0-9_\-]{20}\.", "sg.", run=Run.DOTTED),
    _token("DigitalOcean token", r"do[opr]_v1_[a-f0-9]{64}", "doo_v1_", "dop_v1_", "dor_v1_"),
    _token("HashiCorp Vault token", r"hv[sbr]\.[A-Za-z0-9_\-]{24}", "hvs.", "hvb.", "hvr."),
    _token("age key", r"AGE-SECRET-KEY-1[0-9A-Z]{50}", "age-secret-key-1"),
)


def of_the_operator(name: str, pattern: str) -> Opening:
    """Give a form that the configuration adds; the pattern was checked (patterns.py)."""
    return Opening(
        rule=f"format {name}", kind="secret", pattern=_BEFORE_PART + f"(?:{pattern})", trigger=pattern, run=Run.NOTHING
    )
