"""Nothing in ordinary files is a credential: hashes, lock files, patches, models' names, minified code, pictures."""

from __future__ import annotations

import base64
import random
import string
import uuid

import pytest

WORDS = [
    "auth", "token", "secret", "key", "api", "client", "core", "utils", "cloud", "aws", "azure", "github", "stripe", "datadog",
    "password", "vault", "sentry",
]  # fmt: skip
HEX, ALNUM = "0123456789abcdef", string.ascii_letters + string.digits


def pick(rng, alphabet, length):
    return "".join(rng.choices(alphabet, k=length))


def sha(rng, bits=256):
    return pick(rng, HEX, bits // 4)


def sri(rng, bits=512):
    return f"sha{bits}-" + base64.b64encode(rng.randbytes(bits // 8)).decode()


def version(rng, parts=3):
    return ".".join(str(rng.randrange(40)) for _ in range(parts))


def name(rng):
    return "-".join(rng.sample(WORDS, rng.choice((1, 2, 3))))


def model(rng):
    organisation = rng.choice(
        ["meta-llama", "Qwen", "HuggingFaceTB", "mistralai", "google", "EleutherAI", "allenai", "bigcode"]
    )
    family = rng.choice(["Llama", "Qwen", "SmolLM", "Mistral", "gemma", "pythia", "OLMo", "starcoder"])
    return f"{organisation}/{family}-{version(rng)}-{rng.randrange(1, 80)}B-{rng.choice(['Instruct', 'Base', 'Chat', 'it', 'v0.3'])}"


# File -> one entry of it.
FILES = {
    "requirements.lock": lambda r: f"{name(r)}=={version(r, 4)} \\\n    --hash=sha256:{sha(r)} \\\n    --hash=sha256:{sha(r)}\n",
    "package-lock.json": lambda r: (
        f'    "node_modules/{name(r)}": {{\n      "version": "{version(r)}",\n      "resolved": '
        f'"https://registry.acme.org/{name(r)}/-/{name(r)}-{version(r)}.tgz",\n      "integrity": "{sri(r)}"\n    }},\n'
    ),
    "yarn.lock": lambda r: f'"{name(r)}@^{version(r)}":\n  version "{version(r)}"\n  resolved "https://x.org/{name(r)}.tgz#{sha(r, 160)}"\n'
    f"  integrity {sri(r)}\n",
    "pnpm-lock.yaml": lambda r: f"  /{name(r)}@{version(r)}:\n    resolution: {{integrity: {sri(r)}}}\n    engines: {{node: '>=10'}}\n",
    "Cargo.lock": lambda r: f'[[package]]\nname = "{name(r)}"\nversion = "{version(r)}"\nchecksum = "{sha(r)}"\n\n',
    "go.sum": lambda r: f"github.com/acme/{name(r)} v{version(r)} h1:{base64.b64encode(r.randbytes(32)).decode()}\n",
    "poetry.lock": lambda r: f'    {{file = "{name(r)}-{version(r)}.tar.gz", hash = "sha256:{sha(r)}"}},\n',
    "Gemfile.lock": lambda r: f"    {name(r)} ({version(r, 4)})\n  revision: {sha(r, 160)}\n",
    "composer.lock": lambda r: f'"reference": "{sha(r, 160)}",\n"shasum": "{sha(r, 160)}",\n"content-hash": "{sha(r, 128)}",\n',
    "flake.lock": lambda r: f'"narHash": "{sri(r, 256)}",\n"rev": "{sha(r, 160)}",\n',
    "dvc.lock": lambda r: f"    - path: data/{name(r)}\n      hash: md5\n      md5: {sha(r, 128)}.dir\n      size: {r.randrange(10**9)}\n",
    "git log": lambda r: f"commit {sha(r, 160)}\nMerge: {sha(r, 28)} {sha(r, 28)}\n    Fix {name(r)} ({sha(r, 28)})\n",
    "patch": lambda r: (
        f"index {sha(r, 28)}..{sha(r, 28)} 100644\n--- a/{name(r)}.py\n+++ b/{name(r)}.py\n@@ -{r.randrange(999)},7 +{r.randrange(999)},9 @@\n"
        f"+{r.randrange(10**8)}\n-{r.randrange(10**9)}\n+{r.randrange(10**7)},{r.randrange(99)}\n+    total += {r.randrange(10**9)}\n"
    ),
    "workflow": lambda r: f"    - uses: actions/{name(r)}@{sha(r, 160)} # v{version(r)}\n      key: ${{{{ runner.os }}}}-{name(r)}-{sha(r, 64)}\n",
    "Dockerfile": lambda r: f"FROM ghcr.io/acme/{name(r)}:{version(r, 4)}@sha256:{sha(r)}\nARG {name(r).upper().replace('-', '_')}_VERSION={version(r)}\n",
    "image": lambda r: f'<img src="data:image/png;base64,{base64.b64encode(r.randbytes(900)).decode()}" alt="{name(r)}">\n',
    "script": lambda r: f'<script src="https://cdn.acme.dev/{name(r)}@{version(r)}/x.js" integrity="{sri(r, 384)}" crossorigin></script>\n',
    "minified": lambda r: (
        f"!function(e,t){{var n=e.{pick(r, string.ascii_lowercase, 2)}Token,r=t.apiKey||null,o=function(){{return n?t.secret:e.password}};"
        f'e.setToken(n),e.key="{pick(r, string.ascii_lowercase, 6)}Key",t["__{pick(r, string.ascii_lowercase, 9)}__"]=o}}(this);\n'
    ),
    "source map": lambda r: '{"mappings":"' + "".join(f"{pick(r, ALNUM, 5)},{pick(r, HEX, 4)};" for _ in range(30)) + '","names":["apiKey"]}\n',
    "uuids": lambda r: f'token = "{uuid.UUID(int=r.getrandbits(128))}"\nid: {uuid.UUID(int=r.getrandbits(128))}\n',
    "models": lambda r: (
        f'tokenizer = "{model(r)}"\ntoken = "{model(r)}"\ntoken_model: str = "{model(r)}"\nsecret_name = "{name(r)}/{version(r)}"\n'
        f'AutoTokenizer.from_pretrained("{model(r)}", token=token, revision="{sha(r, 160)}")\n'
    ),
    "code": lambda r: (
        "token = tokenizer.eos_token\ntoken: str = tokenizer.eos_token_id\napi_key: Optional[SecretStr] = None\n"
        'password = getpass.getpass("Password 2: ")\nsecret = config["providers"]["acme"].secret_key\n'
        f'key = "model.layers.{r.randrange(40)}.self_attn.q_proj.weight"\nheaders = {{"Authorization": f"Bearer {{token}}"}}\n'
        f"token = next(tokens)  # {sha(r, 160)}\nAPI_KEY=${{ACME_API_KEY_{r.randrange(9)}}}\n"
        f'secret_path = "/run/secrets/{name(r)}_{r.randrange(99)}.json"\n'
        f'token_file="data/tokens/{name(r)}_{r.randrange(10**6)}.bin"\n'
        "self._auth = lookup_client_auth(self)\nurl_auth = get_auth_from_url(url)\n_auth = settings.auth_header_v2\n"
        "parts = splitpasswd('user+1:a+b')\nthe password is required here\nUnexpected token \"end_of_file_marker\"\n"
        'the columns identified by "aOrderBy"\npassword "must hold 8 characters"\n#define TOKEN_ENDPOINT "oauth2/token/introspection"\n'
    ),
    "addresses": lambda r: f"mov rax, [rbx +{r.randrange(10**8)}]\n0x{sha(r, 64)}: call main+0x{sha(r, 16)}\n#{sha(r, 24)} [rbp+{r.randrange(10**6)}]\n",
    "keys": lambda r: f"ssh-ed25519 {base64.b64encode(b'AAA' + r.randbytes(48)).decode()} build@ci\nfingerprint SHA256:{base64.b64encode(r.randbytes(32)).decode().rstrip('=')}\n",
    "digests": lambda r: f'token_digest = "sha256:{sha(r)}"\npassword_hash = "$2b$12${pick(r, ALNUM, 53)}"\netag: "{sha(r, 128)}"\n',
    "numbers with points": lambda r: (
        f'    NAME = ObjectIdentifier("2.5.29.{r.randrange(99)}")\npkcs8_oid = "1.3.101.{r.randrange(100, 200)}"; certOid = "1.2.840.{r.randrange(256)}"\n<!-- 4.4.{r.randrange(30)}.{r.randrange(30)} x -->\n'
        f"Guile {version(r, 4)}-5a{r.randrange(9)}e\nversions less than 2.8.{r.randrange(30)}.{r.randrange(9)}\nrow[2400::{r.randrange(2, 99)}], std::x[2600::3], f(x)[2048::16]\n"
        f"net 85.{r.randrange(255)}.0.0, 2a01:4f8:{r.randrange(999)}::/48, 3fff:{r.randrange(999)}::1, 3ffe::{r.randrange(1, 99)}\n"
    ),
    "vendors": lambda r: f"# datadog {version(r)}, commit {sha(r, 160)}\nsentry release: {name(r)}@{version(r)}+{sha(r, 28)}\ntwilio/{name(r)}:{version(r)}\n",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_no_line_of_it_is_a_credential_or_a_person(scanner, file):
    rng = random.Random(file)
    text = "".join(FILES[file](rng) for _ in range(200))
    assert [(f.rule, text[max(0, f.start - 40) : f.end + 10]) for f in scanner.scan(text)] == []
