"""Secrets that are known by their own form: tokens with a prefix, key blocks, passwords in addresses.

What lives here: one line for each form. What must not: names of fields (names.py), checksums (identifiers.py).

Every form has at least a prefix and so many characters that prose and random bytes do not have it by chance.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from capd.enforcer.masking.opening import Opening, Run
from capd.enforcer.masking.own_pattern import needs

_BEFORE: Final = r"(?:(?<![A-Za-z0-9_])|(?<=[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xff][A-Za-z0-9])|(?<=\n[A-Z0-9]))"
"""Nothing of a word; one letter or digit behind what is none of a text is a byte of a binary format, a length or a type."""
_COUNTED: Final = re.compile(r"\]\{[0-9]{2}\}")
_BEFORE_PART: Final = r"(?<![A-Za-z0-9])"

_IN_USERINFO: Final = r"\x01-\x08\x0e-\x1f!\"$-.0-9;->A-\x7f"
_IN_ADDRESS: Final = Opening(
    rule="format password in address",
    kind="credential",
    pattern=r":(?:\\{0,4}/){2}[^\s/?#@:\"'<>\\\x00]{0,128}:(?=[^\s/?#@\"'<>\x00]{1,200}@)",
    trigger=rf"(?-u::(?:\\*/){{2}}[{_IN_USERINFO}]*:[{_IN_USERINFO}:]*@)",
    literals=("://", ":\\/"),
    run=Run.USERINFO,
    after=True,
)


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
    # Where there are two, the last @ is before the host: then that is hidden too.
    replace(
        _IN_ADDRESS,
        pattern=r":(?:\\{0,4}/){2}[^\s/?#@:\"'<>\\\x00]{0,128}:(?=[^\s/?#@\"'<>\x00]{1,100}@[^\s/?#@\"'<>\x00]{0,100}@)",
        run=Run.AUTHORITY,
    ),
    _IN_ADDRESS,
    replace(
        _IN_ADDRESS,
        rule="format token in address",
        pattern=r":(?:\\{0,4}/){2}(?=[A-Za-z_\-]{0,64}[0-9])(?=[A-Za-z0-9_\-]{20,200}@)",
        trigger=r"(?-u::(?:\\*/){2}[A-Za-z0-9_\-]{4}[A-Za-z0-9_\-]*@)",
    ),
    replace(
        _IN_ADDRESS,
        pattern=r"(?i:%3a%2f%2f)[^\s/?#@:%\"'<>\\\x00]{0,128}%3[aA](?=[^\s/?#@:&\"'<>\\\x00]{1,200}%40)",
        trigger=r"(?i-u:%3a%2f%2f)",
        literals=("%3a%2f%2f",),
        run=Run.PERCENT_USERINFO,
    ),
    _token("JSON web token", r"eyJ[A-Za-z0-9_\-]{6}", "eyj", run=Run.DOTTED),
    Opening(
        rule="format password hash",
        kind="secret",
        pattern=rf"{_BEFORE}\$(?:apr1|2[abxy]|[1569y]|argon2(?:id|i|d)|scrypt|pbkdf2-sha(?:1|256|512))\$[A-Za-z0-9./+=,$\-]{{16}}",
        trigger=r"\$(?:apr1|2[abxy]|[1569y]|argon2[id]+|scrypt|pbkdf2-sha[0-9]+)\$",
        literals=("$apr1$", "$2", "$1$", "$5$", "$6$", "$9$", "$y$", "$argon2", "$scrypt$", "$pbkdf2-"),
        run=Run.HASH,
    ),
    _token("password hash", r"SCRAM-SHA-256\$[0-9]{1,8}:[A-Za-z0-9+/=]{8}", "scram-sha-256$", run=Run.HASH),
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
    _token("Google client secret", r"GOCSPX-[A-Za-z0-9_\-]{20}", "gocspx-"),
    _token("Groq key", r"gsk_[A-Za-z0-9]{30}", "gsk_"),
    _token("xAI key", r"xai-[A-Za-z0-9]{40}", "xai-"),
    _token("Perplexity key", r"pplx-[A-Za-z0-9]{40}", "pplx-"),
    _token("NVIDIA key", r"nvapi-[A-Za-z0-9_\-]{40}", "nvapi-"),
    _token("Docker token", r"dckr_(?:pat|oat)_[A-Za-z0-9_\-]{20}", "dckr_pat_", "dckr_oat_"),
    _token("Grafana token", r"gl(?:sa|c)_[A-Za-z0-9+/=]{24}", "glsa_", "glc_", run=Run.BASE64),
    _token("Atlassian token", r"ATATT3[A-Za-z0-9_\-=]{40}", "atatt3", run=Run.BASE64),
    _token("Shopify token", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}", "shpat_", "shpca_", "shppa_", "shpss_"),
    _token("npm token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _token("PyPI token", r"pypi-[A-Za-z0-9_\-]{40}", "pypi-"),
    _token("Hugging Face token", r"hf_[A-Za-z0-9]{30}", "hf_"),
    _token("SendGrid key", r"SG\.[A-Za-z0-9_\-]{22}", "sg.", run=Run.DOTTED),
    _token("DigitalOcean token", r"do[opr]_v1_[a-f0-9]{64}", "doo_v1_", "dop_v1_", "dor_v1_"),
    _token("HashiCorp Vault token", r"hv[sbr]\.[A-Za-z0-9_\-]{24}", "hvs.", "hvb.", "hvr."),
    Opening(
        rule="format Kubernetes token",  # of a WebSocket, as the name of a protocol
        kind="secret",
        pattern=r"base64url\.bearer\.authorization\.k8s\.io\.(?=[A-Za-z0-9_\-]{8})",
        trigger=r"base64url\.bearer\.authorization\.k8s\.io\.",
        literals=("base64url.bearer.authorization.k8s.io.",),
        run=Run.BASE64,
        after=True,
    ),
    # These stand in the paths of requests, whose host is in another field.
    replace(
        _IN_ADDRESS,
        rule="format Slack webhook",
        kind="secret",
        pattern=r"/services/T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/(?=[A-Za-z0-9]{20})",
        trigger=r"/services/T[A-Z0-9]+/B",
        literals=("/services/t",),
        run=Run.WORD,
    ),
    replace(
        _IN_ADDRESS,
        rule="format Discord webhook",
        kind="secret",
        pattern=r"/webhooks/[0-9]{16,20}/(?=[A-Za-z0-9_\-]{40})",
        trigger=r"/webhooks/[0-9]",
        literals=("/webhooks/",),
        run=Run.WORD,
    ),
    replace(
        _IN_ADDRESS,
        rule="format Telegram token",
        kind="secret",
        pattern=r"(?<=[0-9]{8}):(?=AA[A-Za-z0-9_\-]{30})",
        trigger=r"[0-9]:AA[A-Za-z0-9_\-]",
        literals=(":aa",),
        run=Run.WORD,
    ),
    _token("1Password token", r"ops_eyJ[A-Za-z0-9_\-]{40}", "ops_eyj"),
    _token("Brevo key", r"xkeysib-[a-f0-9]{40}", "xkeysib-"),
    _token("CircleCI token", r"CCI(?:PAT|PRJ)_[A-Za-z0-9_]{20}", "ccipat_", "cciprj_"),
    _token("Databricks token", r"dapi[a-f0-9]{32}", "dapi"),
    _token("Doppler token", r"dp\.(?:audit|ct|pt|sa|scim|st)\.[A-Za-z0-9_.\-]{40}", "dp.", run=Run.DOTTED),
    _token("Figma token", r"figd_[A-Za-z0-9_\-]{32}", "figd_"),
    _token("Fly token", r"(?:fm[12][ar]?|fo1)_[A-Za-z0-9+/=_\-]{40}", "fm1", "fm2", "fo1_", run=Run.BASE64),
    _token("Google refresh token", r"1//0[A-Za-z0-9_\-]{32}", "1//0"),
    _token("LangSmith key", r"lsv2_(?:pt|sk)_[a-f0-9]{30}", "lsv2_"),
    _token("Linear key", r"lin_(?:api|oauth)_[A-Za-z0-9]{32}", "lin_api_", "lin_oauth_"),
    _token("New Relic key", r"NRAK-[A-Z0-9]{24}", "nrak-"),
    _token("Notion token", r"ntn_[A-Za-z0-9]{40}", "ntn_"),
    _token("Pinecone key", r"pcsk_[A-Za-z0-9_]{40}", "pcsk_"),
    _token("Postman key", r"PMAK-[a-f0-9]{24}", "pmak-"),
    _token("Pulumi token", r"pul-[a-f0-9]{40}", "pul-"),
    _token("Replicate token", r"r8_[A-Za-z0-9]{32}", "r8_"),
    _token("RubyGems key", r"rubygems_[a-f0-9]{48}", "rubygems_"),
    _token("Sentry token", r"sntry[su]_[A-Za-z0-9+/=_]{30}", "sntrys_", "sntryu_", run=Run.BASE64),
    _token("Square token", r"sq0(?:atp|csp)-[A-Za-z0-9_\-]{22}", "sq0atp-", "sq0csp-"),
    _token("Supabase token", r"(?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_\-]{20})", "sbp_", "sb_secret_"),
    _token("Tailscale key", r"tskey-(?:api|auth|client|scim|webhook)-[A-Za-z0-9]{6}", "tskey-"),
    _token("Tavily key", r"tvly-[A-Za-z0-9_\-]{20}", "tvly-"),
    _token("age key", r"AGE-SECRET-KEY-1[0-9A-Z]{50}", "age-secret-key-1"),
)


def of_the_operator(name: str, pattern: str) -> Opening:
    """Give a form that the configuration adds; the pattern was checked (patterns.py)."""
    return Opening(
        rule=f"format {name}",
        kind="secret",
        pattern=_BEFORE_PART + f"(?:{pattern})",
        trigger=needs(pattern).trigger,
        run=Run.NOTHING,
    )
