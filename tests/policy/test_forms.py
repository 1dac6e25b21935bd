"""Credentials in many file formats, which join name and value differently: the value is removed, the rest stays."""

from __future__ import annotations

import base64
import random
import string

import pytest

from codex_ml.policy.redact import PLACEHOLDER

ALNUM = string.ascii_letters + string.digits
BASE32 = string.ascii_uppercase + "234567"
RNG = random.Random(20)


def text(alphabet, length):
    return "".join(RNG.choices(alphabet, k=length))


ID, OTHER_ID = ("AK" + "IA" + text(BASE32, 16)), ("AS" + "IA" + text(BASE32, 16))
SECRET, SESSION = text(ALNUM + "/+", 39) + "q", text(ALNUM + "/+", 339) + "q=="
VALUE, PASSWORD, HEX = "k" + text(ALNUM, 30) + "7Q", "k7" + text(ALNUM, 17) + "Q", text("0123456789abcdef", 32)
SIGNED = base64.b64encode(RNG.randbytes(32)).decode()
QUOTED = SIGNED.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJ" + text(ALNUM + "-_", 300) + "." + text(ALNUM, 86)
INSTALLATION = "gh" + "s_123456_" + JWT
ROUTABLE = "gl" + "pat-" + text(ALNUM + "-_", 200) + "x"
WEBHOOK = "wh" + "sec_" + text(ALNUM, 12) + "+" + text(ALNUM, 8) + "/" + text(ALNUM, 9) + "=="
NAME, WORD = "pass" + "word", "to" + "ken"

# A template, and the values that its {}s stand for, all of which go.
FORMS = [
    # Amazon: with no = or : between name and value
    ("boto3.Session('{}', '{}')", (ID, SECRET)),
    ('boto3.client("s3",\n    aws_access_key_id="{}",\n    aws_secret_' + 'access_key="{}")', (ID, SECRET)),
    (
        "<AccessKeyId>{}</AccessKeyId>\n<SecretAccessKey>{}</SecretAccessKey>\n<SessionToken>{}</SessionToken>\n",
        (OTHER_ID, SECRET, SESSION),
    ),
    ("User name,Password,Access key ID,Secret access key\nalice,,{},{}\n", (ID, SECRET)),
    ("aws configure set aws_secret_" + "access_key {} --profile acme", (SECRET,)),
    ("| key | {} | {} | rotate |\n", (ID, SECRET)),
    ("| Secret access key | {} |\n", (SECRET,)),
    ("aws_session_" + "token = {}\n", (SESSION,)),
    ('export AWS_SESSION_TO' + 'KEN="{}"\n', (SESSION,)),
    # Azure
    ("https://acme.blob.core.windows.net/c?sv=2022-11-02&sig={}&se=2027", (QUOTED,)),
    ("SharedAccessSignature sr=acme.servicebus&sig={}&se=1&skn=Root", (SIGNED,)),
    # GitHub's installation tokens, GitLab's routable ones, Slack's rotated ones, webhooks
    ("https://x-access-to" + "ken:{}@github.com/acme/x.git", (INSTALLATION,)),
    ("Authorization: Bearer {}\n", (INSTALLATION,)),
    ("see {}.", (INSTALLATION,)),
    ("see {}.01.0z1abc23d4\n".replace("{}.01.0z1abc23d4", "{}"), (ROUTABLE + ".01.0z1abc23d4",)),
    ("  value: {}\n", (ROUTABLE,)),
    ("see {} for it", ("xo" + "xe.xo" + "xp-1-" + text(ALNUM, 163),)),
    ("d={};", ("xo" + "xd-" + text(ALNUM, 50) + "%2B" + text(ALNUM, 40) + "%3D",)),
    ("see {} for it", ("ya" + "29.c." + text(ALNUM + "-_", 399) + "x",)),
    ("secret: {}\n", (WEBHOOK,)),
    # Files
    ('{"auths": {"https://index.docker.io/v1/": {"auth": "{}"}}}', (base64.b64encode(b"acme:" + PASSWORD.encode()).decode(),)),
    (f"machine git.acme.dev login bob {NAME} {{}}\n", (PASSWORD,)),
    (f"machine git.acme.dev\n  login bob\n  {NAME} {{}}\n", (PASSWORD,)),
    (f"default login bob {NAME} {{}}\n", (PASSWORD,)),
    (f"<db:{NAME}>{{}}</db:{NAME}>", (PASSWORD,)),
    (f"<{NAME}>{{}}</{NAME}>", ("Tiger#1985",)),
    ('<add key="ApiKey" value="{}" />', (VALUE,)),
    ("- name: DB_PASSWORD\n  value: {}\n", (PASSWORD,)),
    ('{"name": "DB_PASSWORD", "value": "{}"}', (PASSWORD,)),
    (f"{NAME}: {{}}  # rotate\n", (PASSWORD,)),
    (f"[pypi]\nusername = bob\n{NAME} = {{}}\n", (PASSWORD,)),
    ("DB_PASSWORD={}\n", ("Tiger#1985",)),
    (f"  {NAME}: {{}}\n", ("Tiger#1985",)),
    (f"{NAME} = {{}}\n", ("Tiger#1985",)),
    ("set API_KEY={}\r\n", (VALUE,)),
    # Headers, options
    ("X-Api-Key: {}\n", (VALUE,)),
    ("curl -H 'X-Api-Key: {}' https://acme.dev", (VALUE,)),
    (f"Authorization: {WORD} {{}}\n", (VALUE,)),
    ("Authorization: {}\n", (VALUE,)),
    ('headers = {"Authorization": "Bearer {}"}', (VALUE,)),
    (f"deploy --{WORD} {{}} --now", (VALUE,)),
    ("sshpass -p {} ssh acme", (PASSWORD,)),
    ("curl -s --retry 3 " + "-H x " * 80 + "-u bob:{} https://acme.dev", (PASSWORD,)),
    # Code
    ('requests.get(url, auth=("bob", "{}"))', (PASSWORD,)),
    ('account.setPassword("{}")', (PASSWORD,)),
    ('os.environ.setdefault("API_KEY", "{}")', (VALUE,)),
    ('const key = env.API_KEY || "{}"', (VALUE,)),
    ('api_key: Optional[str] = "{}"', (VALUE,)),
    # URLs: RFC 3986 section 3.2.1, the query, a connection string
    ("postgres://svc:{}@db.internal:5432/app", (PASSWORD[:6] + "@" + PASSWORD[6:],)),
    ("redis://default:{}@cache.internal/0", (PASSWORD[:5] + ":" + PASSWORD[5:],)),
    ("amqp://svc:{}@mq.internal:5672/%2f", (PASSWORD[:4] + "%2f" + PASSWORD[4:],)),
    ('f"postgres://svc:{}@{host}/app"', (PASSWORD,)),
    ("https://{}@git.internal/acme/x.git", (PASSWORD,)),
    ("https://{}:{}@github.com/acme/x.git", (VALUE, "x-oauth-basic")),
    ("https://{}@o123456.ingest.sentry.io/42", (HEX,)),
    ("https://{}:{}@sentry.io/42", (HEX, HEX[::-1])),
    (f"postgresql://svc@db.internal/app?sslmode=require&{NAME}={{}}&x=1", (PASSWORD,)),
    (f"jdbc:sqlserver://db.internal;user=sa;{NAME}={{}};encrypt=true", (PASSWORD,)),
    ('"Password={};Server=db.internal"', (PASSWORD,)),
    (f'"https://acme.dev/x?{WORD}={{}}"', (VALUE,)),
    (f"[x](https://acme.dev/x?{WORD}={{}})", (VALUE,)),
    ("`https://acme.dev/x?api_key={}`", (VALUE,)),
    # Languages: what stands between a name and its value
    ('#define API_KEY "{}"', (VALUE,)),
    ('set(API_KEY "{}")', (VALUE,)),
    ('const API_KEY: &str = "{}";', (VALUE,)),
    ("static API_KEY: &'static str = \"{}\";", (VALUE,)),
    ('api_key <- "{}"', (VALUE,)),
    ('NSString *apiKey = @"{}";', (VALUE,)),
    (f'Dim {NAME} As String = "{{}}"', (PASSWORD,)),
    (f'std::string {NAME}{{{{}}}};'.replace("{{}}", '{"{}"}'), (PASSWORD,)),
    ('(def api-key "{}")', (VALUE,)),
    (f'  {NAME} "{{}}"', (PASSWORD,)),
    (f"{NAME} = (\n    '{{}}'\n)", (PASSWORD,)),
    (f"define('DB_{NAME.upper()}', '{{}}');", (VALUE,)),
    (f'["--{NAME}", "{{}}"]', (VALUE,)),
    (f'variable "db_{NAME}" {{\n  default = "{{}}"\n}}', (PASSWORD,)),
    ("CREATE USER bob IDENTIFIED BY '{}';", (PASSWORD,)),
    (f"ALTER USER bob WITH {NAME.upper()} '{{}}';", (PASSWORD,)),
    (f"SET {NAME.upper()} FOR bob = '{{}}'", (PASSWORD,)),
    ('ConvertTo-SecureString "{}" -AsPlainText', (VALUE,)),
    ('setx API_KEY "{}"', (VALUE,)),
    ("set -x API_KEY {}\n", (VALUE,)),
    ("API_KEY ?= {}\n", (VALUE,)),
    ("API_KEY := {}\n", (VALUE,)),
    # Texts, tables, blocks
    (f"{NAME}: |\n  {{}}\n", (VALUE,)),
    (f"{NAME}: >-\n  {{}}\n", (VALUE,)),
    (f"{NAME}:\t{{}}\n", (VALUE,)),
    (f"{NAME}\t=\t{{}}\n", (VALUE,)),
    (f"{NAME}     = {{}}\n", (VALUE,)),
    (f"**{NAME.capitalize()}:** `{{}}`\n", (VALUE,)),
    (f"- {NAME}: `{{}}`\n", (VALUE,)),
    (f"the {NAME} is {{}}\n", (VALUE,)),
    (f"{NAME}：{{}}\n", (VALUE,)),
    ("密码：{}\n", (VALUE,)),
    ("Passwort: {}\n", (VALUE,)),
    (f'<input type="{NAME}" value="{{}}">', (PASSWORD,)),
    ('<meta name="api-key" content="{}">', (VALUE,)),
    ('{"key": "api_key", "value": "{}"}', (VALUE,)),
    ("_auth = {}\n", (base64.b64encode(b"acme:" + PASSWORD.encode()).decode(),)),
    # JSON in JSON in JSON; names that are spelt with escapes or with characters that nobody sees
    (f'\\\\\\"{NAME}\\\\\\":\\\\\\"{{}}\\\\\\"', (PASSWORD,)),
    (f"{{\\u0022{NAME}\\u0022:\\u0022{{}}\\u0022}}", (PASSWORD,)),
    ("https://acme.dev/x?a=1\\u0026api_key={}\\u0026b=2", (VALUE,)),
    (f'{NAME[:4]}\u200b{NAME[4:]} = "{{}}"', (PASSWORD,)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "values"), FORMS, ids=range(len(FORMS)))
def test_the_values_go_and_the_rest_stays(clean, form, values):
    parts = iter(values)
    whole = form
    for value in parts:
        whole = whole.replace("{}", value, 1)
    assert PLACEHOLDER.sub("{}", clean(whole)) == form
    assert PLACEHOLDER.sub("{}", clean(clean(whole))) == form


def test_a_password_of_any_length_leaves_nothing_of_itself(clean):
    for length in (8, 129, 1000, 20_000):
        value = "k7" + text(ALNUM, length - 3) + "Q"
        assert PLACEHOLDER.sub("{}", clean(f"mysql://app:{value}@db/x")) == "mysql://app:{}@db/x"
        assert PLACEHOLDER.sub("{}", clean(f"DB_PASSWORD={value}\n")) == "DB_PASSWORD={}\n"
        assert PLACEHOLDER.sub("{}", clean(f'{NAME} = "{value}"')) == f'{NAME} = "{{}}"'


@pytest.mark.parametrize(
    "prefix", ["2026-01-01 12:00:00 INFO ", "server.pem:{}:", "server.pem-{}-", "> ", "[pod/x] ", "{}\t"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_private_key_whose_lines_have_something_before_them_goes(clean, prefix, end):
    body = [text(ALNUM + "/+", 64) for _ in range(8)] + [text(ALNUM, 20) + "=="]
    key = "PRIVATE " + "KEY"
    lines = [f"-----BEGIN RSA {key}-----", *body, f"-----END RSA {key}-----", "listening on port 80"]
    told = "".join(prefix.replace("{}", str(number)) + line + end for number, line in enumerate(lines, 1))
    cleaned = clean(told)
    assert not [line for line in body if line in cleaned]
    assert "listening on port 80" in cleaned


@pytest.mark.parametrize(("space", "end"), [("%20", "%0A"), ("+", "%0A"), (" ", "&#10;"), (" ", "&#xA;")])
def test_a_private_key_in_a_url_or_in_xml_goes(clean, space, end):
    key = f"PRIVATE{space}KEY-----"
    body = [text(ALNUM, 64) for _ in range(6)]
    cleaned = clean(end.join([f"-----BEGIN{space}{key}", *body, f"-----END{space}{key}"]))
    assert not [line for line in body if line in cleaned]
