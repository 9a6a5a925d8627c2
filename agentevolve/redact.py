"""Secrets are hidden in what reaches the disk: keys from the environment or an option, and what has the form of a secret.

The forms are a table of our own: a kind's name, marks without which no text has it, and a pattern. Only what has a distinctive
shape is in it: a bare run of hex digits may be anything, and is hidden only where a name beside it says what it is. The scanners
that there are (detect-secrets, gitleaks) look through files for a person, by entropy too; here each text is changed as it is
written, so a false alarm would damage what is remembered, and a clean text may cost no more than a search for each mark.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

HIDDEN = "[secret]"
SHORTEST = 8  # characters of a secret
SHORT = 64  # characters of a text that is likely to be seen again
NAMES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS")  # how an environment variable's name ends that holds one
# words that a journal is made of: no secret, even where a variable holds one of them
WORDS = frozenset({"trajectory", "terminated", "truncated", "assistant", "reflection", "workflow"})
NAMED = re.compile(r"(?:api|access|secret|auth)[_-]?(?:key|token)$|secret$|password$|credentials$|authorization$", re.IGNORECASE)
VALUE = r"""[^\s"'\\&,;}]"""
TOKEN = r"[\w./+~=-]"
START = r"(?:(?<![\w-])|(?<=\\[nrt]))"  # not within a word; after an escaped line end, as in JSON
CODE = r"(?![\w.]{0,200}[(\[])(?![A-Za-z_]+(?:\.[A-Za-z_]+)+(?![\w.]))"  # a call, an index, a dotted name: no value
SHORTEST_WORD = 15  # characters of a word that may hold a secret known by its shape
LONG = re.compile(rf"""[^\s"',;(){{}}<>]{{{SHORTEST_WORD},}}""")
HEX, WORD = "[0-9a-f]", "[A-Za-z0-9]"


class Form(NamedTuple):
    """What a kind of secret looks like, and what stands instead of it; no text has it without the `mark`, in lower case."""

    kind: str
    mark: str
    pattern: re.Pattern[str]
    instead: str


def _forms(*kinds: tuple[str, str, str]) -> tuple[Form, ...]:
    """The forms of the kinds, each a name, the marks of which a text must have one, and a pattern whose group 1 stays."""
    made = []
    for kind, marks, pattern in kinds:
        form = re.compile(pattern)
        made += [Form(kind, mark, form, rf"\1{HIDDEN}" if form.groups else HIDDEN) for mark in marks.split()]
    return tuple(made)


NAMED_FORMS = _forms(  # known by what stands before them
    ("password in an address", "://", r"""(?i)(://[^\s/:@"']{0,200}:)[^\s/"']{1,500}(?=@)"""),
    ("user in a Sentry DSN", "://", rf"(://){HEX}{{32}}(?=@)"),
    (
        "authorization header",
        "authorization",
        rf"(?i)(authorization\W{{1,6}}(?:(?:bearer|basic|token|bot|apikey)\s+)?){VALUE}{{{SHORTEST},}}",
    ),
    ("bearer token", "bearer", rf"(?i)(\bbearer\s+)(?={VALUE}*\d){VALUE}{{16,}}"),
    (
        "cookie header",
        "cookie",
        r"""(?i)(cookie["']?\s{0,3}:\s{0,3}["']?)(?=[^\s;"'=]{1,60}=[^\s;"']{8})[^\r\n"'\\]{1,8000}""",
    ),
    (
        "named key",
        "apikey api_key api-key accesskey access_key access-key secretkey secret_key secret-key",
        rf"(?i)((?:api|access|secret)[_-]?key\W{{0,2}}\s*[:=]\W{{0,3}}){CODE}{VALUE}{{{SHORTEST},}}",
    ),
    (
        "named token",
        "token secret",
        r"""([TtSs](?i:oken|ecret)\\?["']?\s?[:=]\s{0,3}\\?["']?)"""
        rf"(?={TOKEN}{{0,200}}\d){CODE}{TOKEN}{{16,}}",
    ),
    ("password in a connection string", "password pwd", r"""(?i)(;\s{0,3}(?:password|pwd)\s{0,3}=\s{0,3})[^;"'\s]{4,}"""),
    ("password in a libpq string", "password", r"""(host=[^\n]{1,300}?\bpassword=)[^\s"']{4,}"""),
    ("AWS secret access key", "aws", r"""(?i)(aws_?secret\w{0,20}["']?\s{0,3}[:=]\s{0,3}["']?)[\w/+]{40}"""),
    (
        "AWS session token",
        "session_token sessiontoken",
        r"""(?i)(session_?token["']?\s{0,3}[:=>]\s{0,3}["']?)[A-Za-z0-9/+=]{100,}""",
    ),
    ("Azure storage key", "accountkey", r"(?i)(accountkey=)[A-Za-z0-9+/]{60,}={0,2}"),
    ("Azure shared access signature", "sig=", r"([?&;]sig=)[A-Za-z0-9%/+]{43,}(?:%3[Dd]|=)?"),
    (
        "Datadog application key",
        "dd_app dd-app datadog",
        rf"(?i)((?:dd|datadog)[_-]app(?:lication)?[_-]key\W{{1,5}}){HEX}{{40}}",
    ),
    ("Fastly key", "fastly", r"(?i)(fastly[_-](?:api[_-])?(?:key|token)\W{1,5})[\w-]{32}"),
    ("Heroku key as an UUID", "heroku", rf"(?i)(heroku[\w .-]{{0,20}}\W{{1,5}}){HEX}{{8}}(?:-{HEX}{{4}}){{3}}-{HEX}{{12}}"),
    ("PuTTY private key", "private-lines", r"(Private-Lines: \d{1,3}\s{1,3})[A-Za-z0-9+/=\s\\]{40,}"),
    (
        "PEM private key",
        "private",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:(?!-----)[\s\S]){0,20000}(?:-----END [A-Z0-9 ]{0,60}-----)?",
    ),
    (
        "PGP private key",
        "private",
        r"-----BEGIN PGP PRIVATE KEY BLOCK-----(?:(?!-----)[\s\S]){0,50000}(?:-----END [A-Z ]{0,60}-----)?",
    ),
)
FORMS = _forms(  # known by their own shape: one word, all within LONG
    ("age key", "age-secret-key-", r"AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{58,}"),
    ("JWT", "eyj", START + r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{10,}"),
    ("OpenAI, Anthropic, OpenRouter or DeepSeek key", "sk-", START + r"sk-(?=[\w-]{0,200}\d)[\w-]{16,}"),
    ("Groq key", "gsk_", rf"gsk_{WORD}{{40,}}"),
    ("xAI key", "xai-", rf"xai-{WORD}{{60,}}"),
    ("Perplexity key", "pplx-", rf"pplx-{WORD}{{40,}}"),
    ("Replicate token", "r8_", rf"r8_{WORD}{{37}}"),
    ("Hugging Face token", "hf_ api_org_", rf"(?:hf|api_org)_{WORD}{{30,}}"),
    ("NVIDIA key", "nvapi-", r"nvapi-[\w-]{60,}"),
    ("Cerebras key", "csk-", rf"csk-{WORD}{{40,}}"),
    ("LangSmith key", "lsv2_", rf"lsv2_(?:pt|sk)_{HEX}{{32}}_{HEX}{{10}}"),
    ("Pinecone key", "pcsk_", r"pcsk_\w{50,}"),
    ("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", rf"gh[pousr]_{WORD}{{36,}}"),
    ("GitHub fine-grained token", "github_pat_", r"github_pat_\w{40,}"),
    (
        "GitLab token",
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent- gloas- glimt- glffct-",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas|imt|ffct)-[\w.-]{20,}",
    ),
    ("Atlassian token", "atatt3 atctt3", r"AT(?:ATT|CTT)3[\w=+/-]{60,}"),
    ("Bitbucket app password", "atbb", rf"ATBB{WORD}{{28,}}"),
    ("AWS access key id", "akia asia abia acca", rf"{START}(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}(?!{WORD})"),
    ("Amazon Bedrock key", "absk", r"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    ("Google API key", "aiza", r"AIza[\w-]{35}"),
    ("Google OAuth token", "ya29.", r"ya29\.[\w-]{20,}"),
    ("Google OAuth refresh token", "1//0", START + r"1//0[\w-]{40,}"),
    ("Google OAuth client secret", "gocspx-", r"GOCSPX-[\w-]{28}"),
    ("Azure client secret", "q~", START + r"[A-Za-z0-9_~.]{3}\dQ~[\w~.-]{31,34}"),
    ("Azure DevOps token", "azdo", rf"{START}{WORD}{{76}}AZDO{WORD}{{4}}"),
    ("Alibaba access key id", "ltai", rf"{START}LTAI{WORD}{{20}}(?!{WORD})"),
    ("DigitalOcean token", "dop_v1_ doo_v1_ dor_v1_", rf"do[opr]_v1_{HEX}{{64}}"),
    ("Heroku key", "hrku-", r"HRKU-[\w-]{36,}"),
    ("Cloudflare origin key", "v1.0-", START + rf"v1\.0-{HEX}{{24}}-{HEX}{{146}}"),
    ("Terraform Cloud token", ".atlasv1.", START + rf"{WORD}{{14}}\.atlasv1\.[\w-]{{60,}}"),
    ("Pulumi token", "pul-", rf"pul-{HEX}{{40}}"),
    ("HashiCorp Vault token", "hvs. hvb. hvr.", r"hv[sbr]\.[\w-]{24,}"),
    ("Doppler token", "dp.", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}"),
    ("1Password token", "ops_eyj", r"ops_eyJ[\w+/=-]{100,}"),
    ("Tailscale key", "tskey-", r"tskey-[a-z]{2,20}-[\w-]{16,}"),
    ("Docker Hub token", "dckr_pat_ dckr_oat_", r"dckr_[op]at_[\w-]{27,}"),
    ("Databricks token", "dapi", rf"dapi{HEX}{{32}}(?:-\d)?"),
    ("Supabase key", "sbp_ sb_secret_", rf"(?:sbp_{HEX}{{40}}|sb_secret_[\w-]{{20,}})"),
    ("PlanetScale token", "pscale_", r"pscale_(?:tkn|pw|oauth)_[\w.=-]{32,}"),
    ("Airtable token", "pat", rf"pat{WORD}{{14}}\.{HEX}{{64}}"),
    ("npm token", "npm_", rf"npm_{WORD}{{36}}"),
    ("PyPI token", "pypi-age", r"pypi-AgE[\w-]{50,}"),
    ("RubyGems key", "rubygems_", rf"rubygems_{HEX}{{48}}"),
    ("NuGet key", "oy2", START + r"oy2[a-z0-9]{43}(?![a-z0-9])"),
    ("Slack token", "xox xapp-", r"(?:xox[abeoprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{10,}"),
    ("Slack webhook", "hooks.slack.com", r"(hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/-]{20,}"),
    ("Discord token", "mt mj mz nd nt nj nz od ot", r"[MNO][TDjz][\w-]{21,26}\.[\w-]{6}\.[\w-]{27,40}(?![\w-])"),
    ("Discord webhook", "/api/webhooks/", r"(/api/webhooks/\d{15,20}/)[\w-]{60,}"),
    ("Telegram bot token", ":aa", START + r"\d{8,10}:AA[\w-]{33}(?![\w-])"),
    ("Stripe key", "k_live_ k_test_", rf"[sr]k_(?:live|test)_{WORD}{{16,}}"),
    ("Stripe webhook secret", "whsec_", r"whsec_[A-Za-z0-9+/=]{24,}"),
    ("Square token", "eaaa sq0", START + r"(?:EAAA[\w-]{60}|sq0(?:atp|csp|idp)-[\w-]{22,43})(?![\w-])"),
    ("Facebook token", "eaa", rf"{START}EAA{WORD}{{100,}}"),
    ("Shopify token", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("Twilio key", "sk", rf"{START}SK{HEX}{{32}}(?!{WORD})"),
    ("SendGrid key", "sg.", r"SG\.[\w-]{22}\.[\w-]{43}"),
    ("Mailgun key", "key-", rf"{START}key-{HEX}{{32}}(?!{WORD})"),
    ("Mailchimp key", "-us", rf"{START}{HEX}{{32}}-us\d{{1,2}}(?!{WORD})"),
    ("Brevo key", "xkeysib-", rf"xkeysib-{HEX}{{64}}-{WORD}{{16}}"),
    ("HubSpot token", "pat-", rf"pat-(?:na|eu|ap)\d-{HEX}{{8}}(?:-{HEX}{{4}}){{3}}-{HEX}{{12}}"),
    ("Dropbox token", "sl.", START + r"sl\.[\w.-]{100,}"),
    ("Sentry token", "sntrys_ sntryu_", r"sntry[su]_[\w+/=]{50,}"),
    ("New Relic key", "nrak- nrii- nrjs- nraa- nrra-", r"NR(?:AK|II|JS|AA|RA)-[\w-]{19,}"),
    ("Dynatrace token", "dt0c01.", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("Grafana token", "glsa_ glc_", rf"(?:glsa_{WORD}{{32}}_{HEX}{{8}}|glc_[A-Za-z0-9+/=]{{32,}})"),
    ("SonarQube token", "squ_ sqp_ sqa_", rf"sq[upa]_{HEX}{{40}}"),
    ("Linear key", "lin_api_ lin_oauth_", rf"lin_(?:api|oauth)_{WORD}{{32,}}"),
    ("Notion token", "ntn_ secret_", rf"(?:ntn_{WORD}{{40,}}|secret_{WORD}{{43}}(?!{WORD}))"),
    ("Figma token", "figd_ figo_ figu_", r"fig[dou]_[\w-]{40,}"),
    ("Postman key", "pmak-", rf"PMAK-{HEX}{{24}}-{HEX}{{34}}"),
    ("Asana token", "1/1 2/1", rf"{START}[12]/1\d{{15}}(?:/1\d{{15}})?:{HEX}{{32}}"),
    ("Contentful token", "cfpat-", r"CFPAT-[\w-]{43}"),
)
_given: set[str] = set()
_seen: tuple[int, tuple[str, ...]] = (-1, ())


def secret(value: str) -> None:
    """Hide this value from now on, for as long as the process lives."""
    global _seen
    _given.add(value)
    _seen = (-1, ())


def secret_in(address: str | None) -> str | None:
    """The address, or several with commas between, whose passwords, if they have any, are hidden from now on."""
    for one in (address or "").split(","):
        if "@" in one and (password := urlsplit(one.strip()).password):
            secret(password)
            secret(unquote(password))
    return address


def redact(text: str) -> str:
    """The text without secrets."""
    return (_redacted_again if len(text) <= SHORT else _redacted)(text, _values())


def _redacted(text: str, values: tuple[str, ...]) -> str:
    for value in values:
        if value in text:
            text = text.replace(value, HIDDEN)
    low = text.lower()
    text = _without(NAMED_FORMS, low, text)
    words = " ".join(LONG.findall(" ".join([word for word in low.split() if len(word) >= SHORTEST_WORD])))
    return _without(FORMS, words, text) if words else text


_redacted_again = functools.lru_cache(maxsize=4_096)(_redacted)  # names of fields and actions, said over and over


def _without(forms: Iterable[Form], low: str, text: str) -> str:
    """The text without what has one of the forms, as far as its mark is in `low`."""
    for _, mark, pattern, instead in forms:
        if mark in low:
            text = pattern.sub(instead, text)
    return text


def redacted(value: Any) -> Any:
    """The JSON value with every text in it redacted; a text whose key is the name of a secret is hidden whole."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): HIDDEN if _holds_secret(key, one) else redacted(one) for key, one in value.items()}
    return [redacted(one) for one in value] if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """The JSON value redacted, with half surrogate pairs written out: no reader of UTF-8 takes them."""
    return _whole(redacted(value))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(one) for key, one in value.items()}
    return [_whole(one) for one in value] if isinstance(value, list) else value


def _holds_secret(key: str, value: Any) -> bool:
    return isinstance(value, str) and len(value) >= SHORTEST and bool(NAMED.search(key))


def _values() -> tuple[str, ...]:
    """The secrets that are known by value, the longest first; the environment is read again when its size has changed."""
    global _seen
    if _seen[0] != len(os.environ):
        found = {value for name, value in os.environ.items() if name.upper().endswith(NAMES)} | _given
        kept = [value for value in found if len(value) >= SHORTEST and value not in WORDS]
        _seen = (len(os.environ), tuple(sorted(kept, key=len, reverse=True)))
    return _seen[1]
