"""Secrets are hidden in what reaches the disk; everything else is left as it is."""

import base64
import json
from pathlib import Path

import pytest
from worlds import task_file

from agentevolve.config import read_config, write_config
from agentevolve.loop.evolve import evolve
from agentevolve.policy import Policy
from agentevolve.redact import FORMS, HIDDEN, NAMED_FORMS, redact, redacted, secret
from agentevolve.run.folder import Run
from agentevolve.run.journal import Journal

KEY = 'ZxQ81-key.of/an"odd\\kind'


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("SOME_VENDOR_API_KEY", KEY)
    monkeypatch.setenv("ANOTHER_PASSWORD", "short")
    monkeypatch.setenv("A_TOKEN", "trajectory")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"401: {KEY} is not known", f"401: {HIDDEN} is not known"),
        ("https://me:pa55w0rd@host:80/v1", f"https://me:{HIDDEN}@host:80/v1"),
        ("at http://:pa55w0rd@host/ and http://a:b@c", f"at http://:{HIDDEN}@host/ and http://a:{HIDDEN}@c"),
        ("Authorization: Bearer abcdefgh.ijkl-mnop", f"Authorization: Bearer {HIDDEN}"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", f"{{'authorization': 'Basic {HIDDEN}'}}"),
        ('"Authorization":"Bearer abcdefgh.ijkl"', f'"Authorization":"Bearer {HIDDEN}"'),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.e30", f"sent Bearer {HIDDEN}"),
        ("?api_key=0123456789&x=1", f"?api_key={HIDDEN}&x=1"),
        ("api-key: 0123456789", f"api-key: {HIDDEN}"),
        ('{"apiKey": "0123456789"}', f'{{"apiKey": "{HIDDEN}"}}'),
        ("Incorrect API key provided: sk-proj-abcd1234efgh5678.", f"Incorrect API key provided: {HIDDEN}."),
    ],
)
def test_a_secret_is_hidden(text, kept):
    assert redact(text) == kept


def word(n: int) -> str:
    return ("aB3dE5gH7jK9" * 20)[:n]


def hexes(n: int) -> str:
    return ("0a1b2c3d4e5f6789" * 20)[:n]


UUID = "-".join(map(hexes, (8, 4, 4, 4, 12)))
# for each kind what stands before a secret and the secret, in pieces: no scanner is to find one here
EXAMPLES = {
    "password in an address": [("postgres://me:", "pa55" + "w0rd", "@host/db"), ("mongodb+srv://a:", "b" * 9, "@c.d")],
    "user in a Sentry DSN": [("https://", hexes(32), "@o1.ingest.sentry.io/2")],
    "authorization header": [("Authorization: Basic ", word(12)), ("'authorization': 'Bot ", word(30), "'")],
    "bearer token": [("sent Bearer ", word(20))],
    "cookie header": [("Cookie: ", "session=" + word(20)), ('"Set-Cookie": "', "id=" + word(12) + "; Path=/", '"')],
    "named key": [("COHERE_API_KEY=", word(40)), ('{"secret-key": "', word(9), '"}'), ("SharedAccessKey=", word(43), ";")],
    "named token": [
        ("X-Vault-Token: ", word(26)), ("refresh_token=", word(30), "&x=1"), ('client_secret = "', word(20), '"'),
        ('{\\"access_token\\": \\"', word(24), '\\"}'),
    ],
    "password in a connection string": [("Server=db;User Id=me;Password=", "open" + "sesame", ";"), ("a=b;pwd=", "abcd")],
    "password in a libpq string": [("host=db user=me password=", "open" + "sesame", " dbname=x")],
    "AWS secret access key": [("aws_secret = ", word(40)), ("AWS_SECRET_ACCESS_KEY=", word(40))],
    "AWS session token": [("aws_session_token=", word(120)), ("<SessionToken>", word(120), "<")],
    "Azure storage key": [("AccountName=a;AccountKey=", word(86) + "==", ";")],
    "Azure shared access signature": [("?sv=2024&sig=", word(43) + "%3D", "&se=1")],
    "Datadog application key": [("DD-APPLICATION-KEY: ", hexes(40)), ("DATADOG_APP_KEY=", hexes(40))],
    "Fastly key": [("Fastly-Key: ", word(32))],
    "Heroku key as an UUID": [("HEROKU_API_KEY=", UUID), ("heroku login: ", UUID)],
    "PuTTY private key": [("Private-Lines: 2\n", word(64) + "\n" + word(40))],
    "PEM private key": [
        ("a ", "-----BEGIN " + f"{of}PRIVATE KEY-----\n{word(64)}\n{word(9)}=\n-----END {of}PRIVATE KEY-----", " b")
        for of in ("", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ")
    ] + [("cut off: ", "-----BEGIN " + f"PRIVATE KEY-----\\n{word(64)}")],
    "PGP private key": [("", "-----BEGIN PGP " + f"PRIVATE KEY BLOCK-----\n\n{word(64)}\n-----END PGP PRIVATE KEY BLOCK-----")],
    "age key": [("", "AGE-SECRET" + "-KEY-1" + word(58).upper())],
    "JWT": [("token ", "ey" + f"J{word(18)}.ey" + f"J{word(30)}.{word(43)}")],
    "OpenAI, Anthropic, OpenRouter or DeepSeek key": [
        ("", "sk" + f"-{of}{word(40)}") for of in ("", "proj-", "ant-api03-", "or-v1-", "svcacct-")
    ],
    "Groq key": [("", "gs" + f"k_{word(52)}")],
    "xAI key": [("", "xa" + f"i-{word(80)}")],
    "Perplexity key": [("", "pp" + f"lx-{word(48)}")],
    "Replicate token": [("", "r" + f"8_{word(37)}")],
    "Hugging Face token": [("", "h" + f"f_{word(34)}"), ("", "api_" + f"org_{word(34)}")],
    "NVIDIA key": [("", "nv" + f"api-{word(64)}")],
    "Cerebras key": [("", "cs" + f"k-{word(48)}")],
    "LangSmith key": [("", "ls" + f"v2_pt_{hexes(32)}_{hexes(10)}")],
    "Pinecone key": [("", "pc" + f"sk_{word(6)}_{word(63)}")],
    "GitHub token": [("", f"gh{of}" + f"_{word(36)}") for of in "pousr"],
    "GitHub fine-grained token": [("", "github" + f"_pat_{word(22)}_{word(59)}")],
    "GitLab token": [("", f"gl{of}" + f"-{word(20)}") for of in ("pat", "dt", "rt", "cbt", "ptt", "ft", "soat", "agent")],
    "Atlassian token": [("", "AT" + f"ATT3xFf{word(180)}=A1B2C3D4")],
    "Bitbucket app password": [("", "AT" + f"BB{word(32)}")],
    "AWS access key id": [("id ", of + "IA" + "AB3DE5GH7JKQ" + "XY2Z") for of in ("AK", "AS")],
    "Amazon Bedrock key": [("", "AB" + f"SK{word(124)}==")],
    "Google API key": [("?key=", "AI" + f"za{word(35)}")],
    "Google OAuth token": [("", "ya" + f"29.{word(60)}")],
    "Google OAuth refresh token": [("", "1/" + f"/0{word(60)}")],
    "Google OAuth client secret": [("", "GOC" + f"SPX-{word(28)}")],
    "Azure client secret": [("", "abc" + f"8Q~{word(34)}")],
    "Azure DevOps token": [("", word(76) + "AZ" + f"DO{word(4)}")],
    "Alibaba access key id": [("", "LT" + f"AI{word(20)}")],
    "DigitalOcean token": [("", f"do{of}_" + f"v1_{hexes(64)}") for of in "por"],
    "Heroku key": [("", "HR" + f"KU-AA{word(58)}")],
    "Cloudflare origin key": [("", "v1" + f".0-{hexes(24)}-{hexes(146)}")],
    "Terraform Cloud token": [("", word(14) + ".atlas" + f"v1.{word(67)}")],
    "Pulumi token": [("", "pu" + f"l-{hexes(40)}")],
    "HashiCorp Vault token": [("", f"hv{of}" + f".{word(90)}") for of in "sbr"],
    "Doppler token": [("", "dp" + f".st.dev.{word(43)}")],
    "1Password token": [("", "ops_" + f"eyJ{word(200)}")],
    "Tailscale key": [("", "ts" + f"key-auth-{word(12)}-{word(24)}")],
    "Docker Hub token": [("", "dckr" + f"_pat_{word(27)}")],
    "Databricks token": [("", "da" + f"pi{hexes(32)}-2")],
    "Supabase key": [("", "sb" + f"p_{hexes(40)}"), ("", "sb_" + f"secret_{word(31)}")],
    "PlanetScale token": [("", "psc" + f"ale_tkn_{word(43)}")],
    "Airtable token": [("", "pa" + f"t{word(14)}.{hexes(64)}")],
    "npm token": [("//registry.npmjs.org/:_authToken=", "np" + f"m_{word(36)}")],
    "PyPI token": [("", "py" + f"pi-AgEIcHlwaS5vcmc{word(120)}")],
    "RubyGems key": [("", "ruby" + f"gems_{hexes(48)}")],
    "NuGet key": [("", "oy" + f"2{word(43).lower()}")],
    "Slack token": [("", f"xox{of}" + f"-1234567890-{word(24)}") for of in "bpas"] + [("", "xa" + f"pp-1-A0B1-123-{hexes(64)}")],
    "Slack webhook": [("https://hooks.slack.com/services/", "T0001/" + f"B0002/{word(24)}")],
    "Discord token": [("", "MT" + f"{word(24)}.{word(6)}.{word(38)}")],
    "Discord webhook": [("https://discord.com/api/webhooks/123456789012345678/", word(68))],
    "Telegram bot token": [("/bot ", "123456789" + f":AA{word(33)}")],
    "Stripe key": [("", f"{of}k_" + f"live_{word(24)}") for of in "sr"] + [("", "sk_" + f"test_{word(24)}")],
    "Stripe webhook secret": [("", "wh" + f"sec_{word(32)}")],
    "Square token": [("", "EA" + f"AA{word(60)}"), ("", "sq" + f"0csp-{word(43)}")],
    "Facebook token": [("", "EA" + f"AC{word(150)}")],
    "Shopify token": [("", f"shp{of}" + f"_{hexes(32)}") for of in ("at", "ca", "pa", "ss")],
    "Twilio key": [("", "S" + f"K{hexes(32)}")],
    "SendGrid key": [("", "S" + f"G.{word(22)}.{word(43)}")],
    "Mailgun key": [("", "ke" + f"y-{hexes(32)}")],
    "Mailchimp key": [("", hexes(32) + "-u" + "s12")],
    "Brevo key": [("", "xkey" + f"sib-{hexes(64)}-{word(16)}")],
    "HubSpot token": [("", "pa" + f"t-na1-{UUID}")],
    "Dropbox token": [("", "s" + f"l.u.{word(140)}")],
    "Sentry token": [("", "snt" + f"rys_{word(100)}"), ("", "snt" + f"ryu_{hexes(64)}")],
    "New Relic key": [("", "NR" + f"AK-{word(27).upper()}"), ("", "NR" + f"JS-{hexes(19)}")],
    "Dynatrace token": [("", "dt0" + f"c01.{word(24).upper()}.{word(64).upper()}")],
    "Grafana token": [("", "gl" + f"sa_{word(32)}_{hexes(8)}"), ("", "gl" + f"c_{word(80)}")],
    "SonarQube token": [("", f"sq{of}" + f"_{hexes(40)}") for of in "upa"],
    "Linear key": [("", "lin" + f"_api_{word(40)}")],
    "Notion token": [("", "nt" + f"n_{word(46)}"), ("", "sec" + f"ret_{word(43)}")],
    "Figma token": [("", "fi" + f"gd_{word(43)}")],
    "Postman key": [("", "PM" + f"AK-{hexes(24)}-{hexes(34)}")],
    "Asana token": [("", "2/1" + f"{'0123456789' * 2}"[:15] + f":{hexes(32)}")],
    "Contentful token": [("", "CF" + f"PAT-{word(43)}")],
}  # fmt: skip
HOUSE = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for pattern in ("*.md", "environments/**/*.py", "tasks/*.yaml", "examples/*", "agentevolve/**/*.py", "agentevolve/prompts/*")
    for path in HOUSE.glob(pattern)
    if path.suffix in (".md", ".py", ".yaml", ".jinja", ".csv") and path.name != "redact.py"
)


@pytest.mark.parametrize(
    ("kind", "example"), [(kind, one) for kind, examples in EXAMPLES.items() for one in examples], ids=lambda one: str(one)[:24]
)
def test_each_kind_of_secret_is_hidden_wherever_it_stands(kind, example):
    before, kept, after = (*example, "")[:3]
    assert any(form.pattern.search("".join(example)) for form in (*NAMED_FORMS, *FORMS) if form.kind == kind), "by its own form"
    for left, right in (("", ""), ("it said: ", ", and went on"), ('{"a": "', '"}'), ("x\n", "\ny"), ("x\\n", "\\ny")):
        found = redact(f"{left}{before}{kept}{after}{right}")
        assert kept not in found and HIDDEN in found and redact(found) == found, found
        assert found.startswith(left), found
        assert found.endswith(right) or not right.startswith("\n") or kind.startswith("P"), (
            found
        )  # a key that is cut off: all of it


def test_every_kind_has_an_example():
    kinds = {form.kind for form in (*NAMED_FORMS, *FORMS)}
    assert kinds == set(EXAMPLES) and len(kinds) >= 45


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_real_text_is_left_as_it_is(path):
    text = path.read_text("utf-8")
    found = redact(text)
    changed = [line for line, kept in zip(text.splitlines(), found.splitlines(), strict=False) if line != kept]
    assert found == text, changed[:3]


@pytest.mark.parametrize(
    "text",
    [
        "", "Corridor two: the lamp is left.", "the key is under the mat; take key", "a bearer of international bad news came",
        "authorization of basic understanding", "http://host:80/v1 and user@host", "sk-learn-and-something-else",
        "the risk-0123456789abcdefgh",
        "short", "trajectory", "see https://a.b/c:d@e", "a\nb\t\\ \ud800 道",
        hexes(32), hexes(40), hexes(64), f"sha256:{hexes(64)}", UUID, f"id={UUID}", "cache-" + "key-" + hexes(32),
        base64.b64encode(b"the quick brown fox jumps over the lazy dog " * 9).decode(),
        "access_token = response.json()['access_token']", "token = secrets.token_urlsafe(32)", "client_secret = os.environ['A1']",
        "the secret: find the lamp in room 12", "cookie: bake for 12 minutes; eat", "the password is swordfish; take it",
        "tokens=12345678901234567", "skating-1234567890123456789", "task-sk-1", "pattern.abc", "-----BEGIN CERTIFICATE-----\nMII",
        '{"name": "get_key", "arguments": {"key": "value", "token_count": 12345678901234567}}',
    ],
)  # fmt: skip
def test_other_text_is_left_as_it_is(text):
    assert redact(text) == text


def test_a_value_is_hidden_whatever_it_is_in():
    secret("given by an option")
    value = {"kind": "trajectory", "key": "where the lamp is", "api_key": "not-known-before", "max_tokens": 5, "n": None}
    value |= {"turns": [{"observation": f"{KEY}!"}, ["given by an option"]], KEY: 1.5}
    assert redacted(value) == {
        "kind": "trajectory", "key": "where the lamp is", "api_key": HIDDEN, "max_tokens": 5, "n": None,
        "turns": [{"observation": f"{HIDDEN}!"}, [HIDDEN]], HIDDEN: 1.5,
    }  # fmt: skip


def test_a_long_text_without_secrets_costs_little():
    for text in (
        "a.b-c://" * 100_000,
        "authorization " * 50_000,
        "sk-" * 300_000,
        "bearer " * 100_000,
        "api_key" + " " * 500_000,
        "eyJ" * 100_000,
        "eyJ.eyJ." * 50_000,
        "host= password= " * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 20_000,
        "token=token_" * 50_000,
        f"q~ .atlasv1. -us azdo {'a' * 300_000}",
    ):
        assert len(redact(text)) >= 7


def test_a_journal_never_holds_a_secret_and_every_line_is_json(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    said = f"RuntimeError: {KEY}\\{KEY}\n{json.dumps(KEY)} Authorization: Bearer abcdefghij\\n"
    journal.append({"kind": "fact", "name": "a", "data": said}, {"kind": "fact", "name": "b", "data": [said]})
    text = journal.path.read_text()
    assert KEY not in text and json.dumps(KEY)[1:-1] not in text and "abcdefghij" not in text
    assert [line["name"] for line in journal.read()] == ["a", "b"]


def test_a_password_in_an_address_is_hidden_and_the_same_run_goes_on(tmp_path):
    policy = Policy(model="random", api_base="http://me:pa55w0rd%21@127.0.0.1:9/v1")
    for _ in range(2):
        run = Run(tmp_path / "r", quiet=True)
        run.settle("policy", policy.model_dump(mode="json"))
        run.once("said", lambda: "401 for pa55w0rd! and pa55w0rd%21")
        run.close()
    assert "pa55w0rd" not in (tmp_path / "r" / "journal.jsonl").read_text()


def test_a_password_in_a_config_is_hidden_and_the_same_config_goes_on(tmp_path):
    (tmp_path / "evolve.yaml").write_text(
        f"tasks: {task_file(tmp_path, length=2)}\nmodel: random\napi_base: http://me:pa55w0rd@127.0.0.1:9/v1\n"
        "train: {tasks: 2}\nsettings: {samples: 1, reflections: 0, rows: 0}\nval: {tasks: 2}\narms: [base]\n"
    )
    config = read_config(tmp_path / "evolve.yaml")
    write_config(config, tmp_path / "again.yaml")
    assert f"http://me:{HIDDEN}@127.0.0.1:9/v1" in (tmp_path / "again.yaml").read_text()
    for resume in (False, True):
        evolve(config, tmp_path / "r", resume=resume, quiet=True)
    assert "pa55w0rd" not in "".join(path.read_text() for path in (tmp_path / "r").glob("*.*"))
