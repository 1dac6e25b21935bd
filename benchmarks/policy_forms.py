"""Names that mean a secret, and the forms in which files join a name and its value; multiplied by each other.

Used by policy.py, which prints the recall of each form, and by tests/policy/test_names_and_forms.py, which demands all.
Every value is made at run time, so this file holds nothing in the shape of a secret.
"""

from __future__ import annotations

import base64
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

ALNUM = string.ascii_letters + string.digits
SAMPLE = re.compile(r"(?i)x{4}|0{7}|(.)\1{6}|example|dummy|sample|insert|here\b|0123456789|1234567890|abcdefgh")

# Names after which a person may have chosen the value, and names of generated values. Words are joined as each form
# does it: db_password, DB_PASSWORD, dbPassword, db-password.
PASSWORDS = (
    "password", "passwd", "passphrase", "pwd", "db password", "admin password", "mysql root password", "smtp pass",
    "user pwd", "redis password", "keystore password", "password 2", "password prod",
)  # fmt: skip
SECRETS = (
    "api key", "apikey", "access token", "auth token", "client secret", "secret key", "secret", "token",
    "refresh token",
    "jwt secret", "signing key", "encryption key", "webhook secret", "app secret", "bot token", "private key",
    "session secret", "consumer secret", "secret key base", "service key", "master key", "license key", "api key prod",
    "token v2", "api secret", "shared secret", "bearer token", "admin key", "access key", "credentials",
)  # fmt: skip

# Form -> (how its names are joined, the text). NAME and VALUE stand for themselves, USER for a user.
FORMS = {
    # Environments, shells, containers
    ".env": ("upper", "NAME=VALUE\n"),
    ".env quoted": ("upper", 'NAME="VALUE"\n'),
    ".env single quotes": ("upper", "NAME='VALUE'\n"),
    ".env with spaces": ("upper", "NAME = VALUE\n"),
    ".env comment": ("upper", "NAME=VALUE  # rotate\n"),
    ".env lower case": ("snake", "name=x\nNAME=VALUE\nother=1\n"),
    "export": ("upper", "export NAME=VALUE\n"),
    "export quoted": ("upper", 'export NAME="VALUE"\n'),
    "export and go on": ("upper", "export NAME=VALUE; ./run\n"),
    "prefix of a command": ("upper", "NAME=VALUE ./run --fast\n"),
    "default in a shell": ("upper", 'x="${NAME:-VALUE}"\n'),
    "csh": ("upper", "setenv NAME VALUE\n"),
    "fish": ("upper", "set -gx NAME VALUE\n"),
    "cmd": ("upper", "set NAME=VALUE\r\n"),
    "cmd quoted": ("upper", 'set "NAME=VALUE"\r\n'),
    "powershell": ("upper", '$env:NAME = "VALUE"\n'),
    "powershell variable": ("camel", "$NAME = 'VALUE'\n"),
    "Dockerfile ENV": ("upper", "ENV NAME=VALUE\n"),
    "Dockerfile ENV old": ("upper", "ENV NAME VALUE\n"),
    "Dockerfile ENV quoted": ("upper", 'ENV NAME "VALUE"\n'),
    "Dockerfile ARG": ("upper", "ARG NAME=VALUE\n"),
    "Dockerfile two": ("upper", "ENV A=1 NAME=VALUE B=2\n"),
    "docker run": ("upper", "docker run -e NAME=VALUE -p 80:80 acme/x\n"),
    "docker build": ("upper", "docker build --build-arg NAME=VALUE .\n"),
    "systemd": ("upper", 'Environment="NAME=VALUE"\n'),
    "systemd bare": ("upper", "Environment=NAME=VALUE\n"),
    "Makefile": ("upper", "NAME := VALUE\n"),
    "Makefile default": ("upper", "NAME ?= VALUE\n"),
    "Procfile": ("upper", "web: NAME=VALUE gunicorn app\n"),
    "crontab": ("upper", "0 4 * * * NAME=VALUE /usr/bin/backup\n"),
    # Compose, Kubernetes, CI
    "compose map": ("upper", "    environment:\n      NAME: VALUE\n"),
    "compose list": ("upper", "    environment:\n      - NAME=VALUE\n"),
    "compose list quoted": ("upper", '    environment:\n      - "NAME=VALUE"\n'),
    "kubernetes": ("upper", "        - name: NAME\n          value: VALUE\n"),
    "kubernetes quoted": ("upper", '        - name: NAME\n          value: "VALUE"\n'),
    "kubernetes single": ("upper", "        - name: 'NAME'\n          value: 'VALUE'\n"),
    "kubernetes value first": ("upper", "        - value: VALUE\n          name: NAME\n"),
    "kubernetes value first quoted": ("upper", '        - value: "VALUE"\n          name: "NAME"\n'),
    "kubernetes comment": ("upper", "        - name: NAME  # from the vault\n          value: VALUE\n"),
    "kubernetes flow": ("upper", "        - {name: NAME, value: VALUE}\n"),
    "kubernetes flow quoted": ("upper", '        - {name: "NAME", value: "VALUE"}\n'),
    "stringData": ("kebab", "stringData:\n  NAME: VALUE\n"),
    "helm": ("camel", "auth:\n  NAME: VALUE\n"),
    "helm --set": ("camel", "helm install x ./x --set auth.NAME=VALUE --wait\n"),
    "GitHub workflow": ("upper", "        env:\n          NAME: VALUE\n"),
    "GitHub workflow with": ("kebab", "        with:\n          NAME: VALUE\n"),
    "GitLab variables": ("upper", "variables:\n  NAME: 'VALUE'\n"),
    "CI echo": ("upper", 'echo "NAME=VALUE" >> $GITHUB_ENV\n'),
    "Jenkins": ("upper", "environment {\n  NAME = 'VALUE'\n}\n"),
    "Ansible": ("snake", "  vars:\n    NAME: VALUE\n"),
    "Ansible arguments": ("snake", "  mysql_user: name=bob NAME=VALUE state=present\n"),
    "task definition": ("upper", '{"environment": [{"name": "NAME", "value": "VALUE"}]}'),
    "task definition value first": ("upper", '{"environment": [{"value": "VALUE", "name": "NAME"}]}'),
    "task definition on lines": ("upper", '      {\n        "name": "NAME",\n        "value": "VALUE"\n      }\n'),
    "parameter": ("upper", '{"ParameterKey": "NAME", "ParameterValue": "VALUE"}'),
    # YAML, ini, properties, TOML, HCL
    "YAML": ("snake", "NAME: VALUE\n"),
    "YAML indented": ("snake", "db:\n  NAME: VALUE\n  port: 1\n"),
    "YAML comment": ("snake", "NAME: VALUE  # rotate\n"),
    "YAML double quotes": ("snake", 'NAME: "VALUE"\n'),
    "YAML single quotes": ("snake", "NAME: 'VALUE'\n"),
    "YAML quoted key": ("snake", '"NAME": VALUE\n'),
    "YAML flow": ("snake", "db: {user: bob, NAME: VALUE}\n"),
    "YAML flow first": ("snake", "db: {NAME: VALUE, user: bob}\n"),
    "YAML list": ("snake", "- NAME: VALUE\n"),
    "YAML tag": ("snake", "NAME: !!str VALUE\n"),
    "YAML anchor": ("snake", "NAME: &pw VALUE\n"),
    "YAML block": ("snake", "NAME: |\n  VALUE\n"),
    "YAML folded": ("snake", "NAME: >-\n  VALUE\n"),
    "YAML next line": ("snake", "NAME:\n  VALUE\n"),
    "YAML wide": ("snake", "NAME:      VALUE\n"),
    "YAML no end of line": ("snake", "NAME: VALUE"),
    "ini": ("snake", "[db]\nNAME = VALUE\n"),
    "ini tight": ("snake", "[db]\nNAME=VALUE\n"),
    "ini colon": ("snake", "[db]\nNAME : VALUE\n"),
    "ini tight colon": ("snake", "[db]\nNAME:VALUE\n"),
    "ini comment": ("snake", "[db]\nNAME = VALUE ; old\n"),
    "ini commented out": ("snake", "; NAME = VALUE\n"),
    "ini wide": ("snake", "NAME            = VALUE\n"),
    "ini tab": ("snake", "NAME\t=\tVALUE\n"),
    ".pypirc": ("snake", "[pypi]\nusername = bob\nNAME = VALUE\n"),
    "properties": ("dotted", "spring.datasource.NAME=VALUE\n"),
    "properties colon": ("dotted", "spring.datasource.NAME: VALUE\n"),
    "properties space": ("dotted", "app.NAME VALUE\n"),
    "TOML": ("snake", 'NAME = "VALUE"\n'),
    "TOML literal": ("snake", "NAME = 'VALUE'\n"),
    "TOML multi-line": ("snake", 'NAME = """VALUE"""\n'),
    "TOML inline table": ("snake", 'db = { user = "bob", NAME = "VALUE" }\n'),
    "HCL": ("snake", '  NAME = "VALUE"\n'),
    "HCL aligned": ("snake", '  NAME           = "VALUE"\n'),
    "HCL map": ("snake", '  tags = { NAME : "VALUE" }\n'),
    "HCL variable": ("snake", 'variable "NAME" {\n  default = "VALUE"\n}\n'),
    "HCL variable typed": ("snake", 'variable "NAME" {\n  type    = string\n  default = "VALUE"\n}\n'),
    "tfvars": ("snake", 'NAME="VALUE"\n'),
    "terraform block": ("upper", '  env {\n    name  = "NAME"\n    value = "VALUE"\n  }\n'),
    "nginx": ("snake", "proxy_set_header NAME VALUE;\n"),
    "redis.conf": ("snake", "requirepass VALUE\n"),
    "registry": ("camel", '"NAME"="VALUE"\r\n'),
    # JSON
    "JSON": ("snake", '{"NAME": "VALUE"}'),
    "JSON tight": ("camel", '{"user":"bob","NAME":"VALUE","port":1}'),
    "JSON on lines": ("camel", '{\n  "NAME": "VALUE",\n  "port": 1\n}\n'),
    "JSON value on the next line": ("camel", '{\n  "NAME":\n    "VALUE"\n}\n'),
    "JSON in JSON": ("snake", r'{"body": "{\"NAME\": \"VALUE\"}"}'),
    "JSON in JSON in JSON": ("snake", r'{"a": "{\"b\": \"{\\\"NAME\\\": \\\"VALUE\\\"}\"}"}'),
    "JSON escapes": ("snake", r"{\u0022NAME\u0022:\u0022VALUE\u0022}"),
    "JSON list": ("snake", '{"NAME": ["VALUE"]}'),
    "JSON object": ("snake", '{"NAME": {"value": "VALUE"}}'),
    "JSON single quotes": ("snake", "{'user': 'bob', 'NAME': 'VALUE'}"),
    "JSON5": ("camel", "{NAME: 'VALUE', port: 1}"),
    "pair in a list": ("kebab", '["NAME", "VALUE"]'),
    "tuples": ("kebab", "[('NAME', 'VALUE'), ('x', 'y')]"),
    # XML
    "XML element": ("camel", "<NAME>VALUE</NAME>"),
    "XML namespace": ("camel", "<db:NAME>VALUE</db:NAME>"),
    "XML element on lines": ("camel", "<NAME>\n    VALUE\n</NAME>\n"),
    "XML element with attributes": ("camel", '<NAME type="text" xml:lang="en">VALUE</NAME>'),
    "XML CDATA": ("camel", "<NAME><![CDATA[VALUE]]></NAME>"),
    "XML attribute": ("camel", '<db user="bob" NAME="VALUE" port="1"/>'),
    "XML attribute single quotes": ("camel", "<db NAME='VALUE'/>"),
    "web.config": ("camel", '<add key="NAME" value="VALUE" />'),
    "spring property": ("camel", '<property name="NAME" value="VALUE"/>'),
    "property element": ("camel", '<property name="NAME">VALUE</property>'),
    "property value element": ("camel", '<property name="NAME"><value>VALUE</value></property>'),
    "property name and value": ("dotted", "<property><name>NAME</name><value>VALUE</value></property>"),
    "hadoop": ("dotted", "<property>\n  <name>fs.NAME</name>\n  <value>VALUE</value>\n</property>\n"),
    "value first": ("camel", '<add value="VALUE" key="NAME" />'),
    "plist": ("camel", "<key>NAME</key>\n<string>VALUE</string>\n"),
    "android strings": ("snake", '<string name="NAME">VALUE</string>'),
    "meta": ("kebab", '<meta name="NAME" content="VALUE">'),
    "input": ("snake", '<input type="hidden" name="NAME" value="VALUE">'),
    # HTTP
    "header": ("title", "X-NAME: VALUE\n"),
    "header CRLF": ("title", "GET / HTTP/1.1\r\nX-NAME: VALUE\r\nHost: x\r\n"),
    "header in curl": ("title", "curl -H 'X-NAME: VALUE' https://acme.dev\n"),
    "header in curl, double quotes": ("title", 'curl -H "X-NAME: VALUE" https://acme.dev\n'),
    "header in code": ("title", 'headers = {"X-NAME": "VALUE"}'),
    "header call": ("title", 'request.setHeader("X-NAME", "VALUE");'),
    "header add": ("title", "headers.append('X-NAME', 'VALUE')"),
    "header []": ("title", 'req.headers["X-NAME"] = "VALUE"'),
    "header tight": ("title", "X-NAME:VALUE\n"),
    "query": ("snake", "https://acme.dev/x?a=1&NAME=VALUE&b=2"),
    "query last": ("snake", "curl 'https://acme.dev/x?NAME=VALUE'"),
    "query fragment": ("snake", "https://acme.dev/x#NAME=VALUE&type=bearer"),
    "query in HTML": ("snake", '<a href="https://acme.dev/x?a=1&amp;NAME=VALUE&amp;b=2">'),
    "query quoted": ("snake", "https%3A%2F%2Facme.dev%2Fx%3Fa%3D1%26NAME%3DVALUE%26b%3D2"),
    "form body": ("snake", "curl -d 'user=bob&NAME=VALUE' https://acme.dev\n"),
    "form part": ("snake", 'Content-Disposition: form-data; name="NAME"\r\n\r\nVALUE\r\n'),
    "cookie": ("snake", "Set-Cookie: NAME=VALUE; Path=/; HttpOnly\n"),
    "log": ("snake", "2026-01-01 12:00:00 INFO login user=bob NAME=VALUE from=x\n"),
    "log colon": ("snake", "2026-01-01 12:00:00 DEBUG NAME: VALUE, user: bob\n"),
    "log json": ("snake", "INFO {'user': 'bob', 'NAME': 'VALUE'}\n"),
    # Code
    "Python": ("snake", 'NAME = "VALUE"\n'),
    "Python single quotes": ("snake", "NAME='VALUE'\n"),
    "Python constant": ("upper", 'NAME: Final = "VALUE"\n'),
    "Python annotated": ("snake", 'NAME: str = "VALUE"\n'),
    "Python optional": ("snake", 'NAME: Optional[str] = "VALUE"\n'),
    "Python union": ("snake", 'NAME: str | None = "VALUE"\n'),
    "Python attribute": ("snake", 'self.NAME = "VALUE"\n'),
    "Python private": ("snake", 'self._NAME = "VALUE"\n'),
    "Python bytes": ("snake", "NAME = b'VALUE'\n"),
    "Python raw": ("snake", 'NAME = r"VALUE"\n'),
    "Python f": ("snake", 'NAME = f"VALUE"\n'),
    "Python triple": ("snake", 'NAME = """VALUE"""\n'),
    "Python keyword": ("snake", 'connect(host="x", NAME="VALUE", port=1)\n'),
    "Python keyword on lines": ("snake", 'connect(\n    user="bob",\n    NAME="VALUE",\n)\n'),
    "Python default": ("snake", 'def connect(host, NAME="VALUE"):\n'),
    "Python default annotated": ("snake", 'def connect(host: str, NAME: str = "VALUE") -> None:\n'),
    "Python parentheses": ("snake", 'NAME = (\n    "VALUE"\n)\n'),
    "Python call": ("snake", 'NAME = SecretStr("VALUE")\n'),
    "Python comparison": ("snake", 'if NAME == "VALUE":\n'),
    "Python encode": ("snake", 'NAME = "VALUE".encode()\n'),
    "Python dict()": ("snake", 'dict(user="bob", NAME="VALUE")\n'),
    "Python item": ("upper", 'app.config["NAME"] = "VALUE"\n'),
    "Python os.environ": ("upper", 'os.environ["NAME"] = "VALUE"\n'),
    "Python getenv": ("upper", 'os.getenv("NAME", "VALUE")\n'),
    "Python getenv keyword": ("upper", 'os.getenv("NAME", default="VALUE")\n'),
    "Python environ.get": ("upper", 'x = os.environ.get("NAME", "VALUE")\n'),
    "Python environ or": ("upper", 'x = os.environ.get("NAME") or "VALUE"\n'),
    "Python setdefault": ("upper", "os.environ.setdefault('NAME', 'VALUE')\n"),
    "Python argparse": ("kebab", 'parser.add_argument("--NAME", default="VALUE")\n'),
    "Python argparse typed": ("kebab", 'parser.add_argument("--NAME", type=str, default="VALUE")\n'),
    "Python click": ("kebab", "@click.option('--NAME', default='VALUE', help='x')\n"),
    "Python Field": ("snake", 'NAME: str = Field(default="VALUE")\n'),
    "Python Field positional": ("snake", 'NAME: str = Field("VALUE", min_length=3)\n'),
    "Python getattr": ("snake", 'getattr(settings, "NAME", "VALUE")\n'),
    "Python setattr": ("snake", 'setattr(settings, "NAME", "VALUE")\n'),
    "Python doctest": ("snake", '>>> connect(NAME="VALUE")\n'),
    "Python monkeypatch": ("upper", 'monkeypatch.setenv("NAME", "VALUE")\n'),
    "JavaScript": ("camel", 'const NAME = "VALUE";\n'),
    "JavaScript backtick": ("camel", "let NAME = `VALUE`;\n"),
    "JavaScript object": ("camel", "const db = { user: 'bob', NAME: 'VALUE' };\n"),
    "JavaScript or": ("upper", "const k = process.env.NAME || 'VALUE';\n"),
    "JavaScript ??": ("upper", "const k = process.env.NAME ?? 'VALUE';\n"),
    "JavaScript this": ("camel", 'this.NAME = "VALUE";\n'),
    "JavaScript item": ("camel", "config['NAME'] = 'VALUE';\n"),
    "TypeScript": ("camel", 'private readonly NAME: string = "VALUE";\n'),
    "Java": ("camel", 'private static final String NAME = "VALUE";\n'),
    "Java constant": ("upper", 'public static final String NAME = "VALUE";\n'),
    "Java setter": ("pascal", 'account.setNAME("VALUE");\n'),
    "Java builder": ("camel", '.NAME("VALUE")\n'),
    "Java with": ("pascal", 'builder.withNAME("VALUE").build();\n'),
    "Java put": ("camel", 'props.put("NAME", "VALUE");\n'),
    "Java setProperty": ("dotted", 'props.setProperty("NAME", "VALUE");\n'),
    "Java System.setProperty": ("dotted", 'System.setProperty("javax.net.ssl.NAME", "VALUE");\n'),
    "Java @Value": ("dotted", '@Value("${app.NAME:VALUE}")\n'),
    "Java char[]": ("camel", 'char[] NAME = "VALUE".toCharArray();\n'),
    "Kotlin": ("camel", 'val NAME: String = "VALUE"\n'),
    "Scala": ("camel", 'val NAME = "VALUE"\n'),
    "Go": ("camel", 'NAME := "VALUE"\n'),
    "Go const": ("camel", 'const NAME string = "VALUE"\n'),
    "Go struct": ("pascal", 'db := Config{User: "bob", NAME: "VALUE"}\n'),
    "Go setenv": ("upper", 'os.Setenv("NAME", "VALUE")\n'),
    "Go []byte": ("camel", 'NAME := []byte("VALUE")\n'),
    "Rust": ("upper", 'const NAME: &str = "VALUE";\n'),
    "Rust static": ("upper", 'static NAME: &\'static str = "VALUE";\n'),
    "Rust let": ("snake", 'let NAME = "VALUE".to_string();\n'),
    "Rust String::from": ("snake", 'let NAME = String::from("VALUE");\n'),
    "C define": ("upper", '#define NAME "VALUE"\n'),
    "C": ("snake", 'const char *NAME = "VALUE";\n'),
    "C array": ("snake", 'char NAME[] = "VALUE";\n'),
    "C++ braces": ("snake", 'std::string NAME{"VALUE"};\n'),
    "C++ parentheses": ("snake", 'std::string NAME("VALUE");\n'),
    "C#": ("pascal", 'string NAME = "VALUE";\n'),
    "C# property": ("pascal", 'public string NAME { get; set; } = "VALUE";\n'),
    "C# verbatim": ("camel", 'var NAME = @"VALUE";\n'),
    "VB": ("pascal", 'Dim NAME As String = "VALUE"\n'),
    "Ruby": ("snake", "NAME = 'VALUE'\n"),
    "Ruby hash": ("snake", "{ :NAME => 'VALUE' }\n"),
    "Ruby symbol": ("snake", "connect(NAME: 'VALUE')\n"),
    "Ruby or": ("upper", "k = ENV['NAME'] || 'VALUE'\n"),
    "Ruby fetch": ("upper", "k = ENV.fetch('NAME', 'VALUE')\n"),
    "Ruby fetch block": ("upper", "k = ENV.fetch('NAME') { 'VALUE' }\n"),
    "PHP": ("snake", "$NAME = 'VALUE';\n"),
    "PHP array": ("snake", "'NAME' => 'VALUE',\n"),
    "PHP define": ("upper", "define('NAME', 'VALUE');\n"),
    "PHP env": ("upper", "'key' => env('NAME', 'VALUE'),\n"),
    "PHP member": ("snake", "$this->NAME = 'VALUE';\n"),
    "Perl": ("snake", "my $NAME = 'VALUE';\n"),
    "Perl hash": ("snake", "$h{NAME} = 'VALUE';\n"),
    "Lua": ("snake", 'local NAME = "VALUE"\n'),
    "R": ("snake", 'NAME <- "VALUE"\n'),
    "R setenv": ("upper", 'Sys.setenv(NAME = "VALUE")\n'),
    "Swift": ("camel", 'let NAME: String = "VALUE"\n'),
    "Objective-C": ("camel", 'NSString *NAME = @"VALUE";\n'),
    "Dart": ("camel", "final String NAME = 'VALUE';\n"),
    "Elixir": ("snake", 'config :app, NAME: "VALUE"\n'),
    "Erlang": ("snake", '{NAME, "VALUE"}.\n'),
    "Clojure": ("kebab", '(def NAME "VALUE")\n'),
    "Clojure map": ("kebab", '{:NAME "VALUE"}\n'),
    "Lisp": ("kebab", '(setq NAME "VALUE")\n'),
    "Haskell": ("camel", 'NAME = "VALUE"\n'),
    "CMake": ("upper", 'set(NAME "VALUE")\n'),
    "Gradle": ("camel", 'NAME "VALUE"\n'),
    "Groovy": ("camel", "def NAME = 'VALUE'\n"),
    "Nix": ("camel", '  NAME = "VALUE";\n'),
    "Bazel": ("snake", '    NAME = "VALUE",\n'),
    "MATLAB": ("snake", "NAME = 'VALUE';\n"),
    "Pascal": ("pascal", "NAME := 'VALUE';\n"),
    "comment": ("snake", "# NAME = VALUE\n"),
    "comment in C": ("snake", "// NAME: VALUE\n"),
    "diff": ("snake", '-NAME = "old"\n+NAME = "VALUE"\n'),
    # Over two lines
    "concatenation": ("snake", 'NAME = "VAL" + "UE"\n'),
    "concatenation over lines": ("snake", 'NAME = "VAL" + \\\n    "UE"\n'),
    "concatenation in JavaScript": ("camel", "const NAME = 'VAL' +\n  'UE';\n"),
    "concatenation in PHP": ("snake", "$NAME = 'VAL' . 'UE';\n"),
    "implicit concatenation": ("snake", 'NAME = ("VAL"\n        "UE")\n'),
    "implicit concatenation on lines": ("snake", 'NAME = (\n    "VAL"\n    "UE"\n)\n'),
    "backslash in a string": ("snake", 'NAME = "VAL\\\nUE"\n'),
    "backslash in a shell": ("upper", "export NAME=VAL\\\nUE\n"),
    "value on the next line": ("snake", 'NAME = \\\n    "VALUE"\n'),
    "properties over lines": ("dotted", "app.NAME=VAL\\\n    UE\n"),
    "YAML folded over lines": ("snake", 'NAME: "VAL\\\n  UE"\n'),
    # Command lines
    "option": ("kebab", "deploy --NAME VALUE --now\n"),
    "option =": ("kebab", "deploy --NAME=VALUE --now\n"),
    "option quoted": ("kebab", 'deploy --NAME "VALUE" --now\n'),
    "option = quoted": ("kebab", "deploy --NAME='VALUE' --now\n"),
    "option snake": ("snake", "deploy --NAME VALUE\n"),
    "option with one dash": ("camel", "java -Dapp.NAME=VALUE -jar x.jar\n"),
    "option of PowerShell": ("pascal", "Connect-X -NAME VALUE -Force\n"),
    "option of PowerShell quoted": ("pascal", "Connect-X -NAME 'VALUE'\n"),
    "option in a list": ("kebab", '["deploy", "--NAME", "VALUE"]'),
    "option = in a list": ("kebab", '["deploy", "--NAME=VALUE"]'),
    "option over lines": ("kebab", "deploy \\\n  --NAME VALUE \\\n  --now\n"),
    "option in YAML": ("kebab", "args:\n  - --NAME=VALUE\n"),
    "option on two lines of YAML": ("kebab", "args:\n  - --NAME\n  - VALUE\n"),
    "-e option": ("upper", "heroku config:set NAME=VALUE\n"),
    "echo": ("upper", 'echo "NAME: VALUE"\n'),
    # Texts and tables
    "prose is": ("words", "the NAME is VALUE\n"),
    "prose colon": ("words", "Your NAME: VALUE\n"),
    "prose backticks": ("words", "use the NAME `VALUE` to log in\n"),
    "prose is, quoted": ("words", 'The NAME is "VALUE".\n'),
    "markdown bold": ("words", "**NAME:** VALUE\n"),
    "markdown bold backticks": ("words", "**NAME**: `VALUE`\n"),
    "markdown list": ("words", "- NAME: `VALUE`\n"),
    "markdown table": ("words", "| NAME | VALUE |\n"),
    "markdown table backticks": ("snake", "| `NAME` | `VALUE` |\n"),
    "CSV": ("snake", "NAME,VALUE\n"),
    "CSV quoted": ("snake", '"NAME","VALUE"\n'),
    "TSV": ("snake", "NAME\tVALUE\n"),
    "full-width colon": ("snake", "NAME：VALUE\n"),
    "arrow": ("snake", "NAME -> VALUE\n"),
    "fat arrow": ("snake", "NAME => VALUE\n"),
}

# Forms that hold their name themselves. USERVALUE is base64 of user and value, QUOTED the value with % signs.
FIXED = {
    "netrc": "machine git.acme.dev login bob password VALUE\n",
    "netrc on lines": "machine git.acme.dev\n  login bob\n  password VALUE\n",
    "netrc on lines, no indent": "machine git.acme.dev\nlogin bob\npassword VALUE\n",
    "netrc account": "machine git.acme.dev login bob account x password VALUE\n",
    "netrc default": "default login anonymous password VALUE\n",
    "netrc password first": "machine git.acme.dev password VALUE login bob\n",
    "netrc quoted": 'machine git.acme.dev login bob password "VALUE"\n',
    "pgpass": "db.acme.dev:5432:app:bob:VALUE\n",
    "my.cnf": "[client]\nuser=bob\npassword=VALUE\n",
    "git-credentials": "https://bob:VALUE@git.acme.dev\n",
    "docker config": '{"auths": {"https://x": {"auth": "USERVALUE"}}}',
    "docker config on lines": '{\n  "auths": {\n    "x": {\n      "auth": "USERVALUE"\n    }\n  }\n}\n',
    "docker config escaped": r'{"j": "{\"auths\":{\"x\":{\"auth\":\"USERVALUE\"}}}"}',
    "npmrc": "//npm.acme.dev/:_authToken=VALUE\n",
    "npmrc auth": "_auth=USERVALUE\n",
    "npmrc password": '//npm.acme.dev/:_password="USERVALUE"\n',
    "yarnrc": 'npmAuthToken: "VALUE"\n',
    "Basic": "Authorization: Basic USERVALUE\n",
    "Basic in code": 'headers = {"Authorization": "Basic USERVALUE"}',
    "Basic in curl": "curl -H 'Authorization: Basic USERVALUE' https://x\n",
    "Bearer": "Authorization: Bearer VALUE\n",
    "bearer lower case": "authorization: bearer VALUE\n",
    "Bearer in a log": "DEBUG: header: 'authorization': 'Bearer VALUE'\n",
    "Bearer in code": 'fetch(u, {headers: {Authorization: "Bearer VALUE"}})',
    "Bearer concatenated": 'h = "Authorization: Bearer " + "VALUE"\n',
    "token header": "Authorization: token VALUE\n",
    "Token header": "Authorization: Token VALUE\n",
    "token= header": 'Authorization: Token token="VALUE"\n',
    "ApiKey header": "Authorization: ApiKey VALUE\n",
    "GenieKey header": "Authorization: GenieKey VALUE\n",
    "plain header": "Authorization: VALUE\n",
    "Authorization in code": 'req.Header.Set("Authorization", "VALUE")',
    "proxy header": "Proxy-Authorization: Basic USERVALUE\n",
    "private token": "PRIVATE-TOKEN: VALUE\n",
    "cookie header": "Cookie: session=abc; sessionid=VALUE\n",
    "x-auth": "X-Auth-Token: VALUE\n",
    "x-vault": "X-Vault-Token: VALUE\n",
    "subscription key": "Ocp-Apim-Subscription-Key: VALUE\n",
    "SAS": "https://acme.blob.core.windows.net/c?sv=2022-11-02&sig=QUOTED&se=2027\n",
    "SAS first": "https://acme.azure.com/t?sig=QUOTED&sv=1.0\n",
    "SAS amp": "https://acme.blob.core.windows.net/c?sv=1&amp;sig=QUOTED",
    "SAS in JSON": r'{"u": "https://acme.blob.core/c?sv=1\u0026sig=QUOTED"}',
    "AccountKey": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=VALUE==;EndpointSuffix=y\n",
    "connection string": "Server=db;User Id=sa;Password=VALUE;Encrypt=true\n",
    "connection string Pwd": '"Driver={SQL};Server=db;Uid=sa;Pwd=VALUE;"',
    "connection string in XML": '<add name="x" connectionString="Server=db;Password=VALUE;Encrypt=1" />',
    "connection string last": '"Server=db;User Id=sa;Password=VALUE"',
    "libpq": "host=db user=bob password=VALUE dbname=app\n",
    "libpq quoted": "host=db user=bob password='VALUE' dbname=app\n",
    "libpq in code": 'connect("host=db password=VALUE dbname=app")',
    "JDBC": "jdbc:mysql://db/app?user=bob&password=VALUE&ssl=1\n",
    "JDBC oracle": "jdbc:oracle:thin:bob/VALUE@db:1521:app\n",
    "JDBC semicolon": "jdbc:sqlserver://db;user=sa;password=VALUE;encrypt=true\n",
    "userinfo": "postgres://bob:VALUE@db/app\n",
    "userinfo in code": 'connect("amqp://bob:VALUE@mq:5672/")',
    "userinfo redis": "redis://:VALUE@cache:6379/0\n",
    "userinfo mongodb": "mongodb+srv://bob:VALUE@c0.acme.dev/app?retryWrites=true\n",
    "userinfo smtp": "smtps://bob%40acme.dev:VALUE@mail:465\n",
    "userinfo git": "git clone https://bob:VALUE@git.acme.dev/x.git\n",
    "userinfo pip": "--extra-index-url https://bob:VALUE@pypi.acme.dev/simple\n",
    "userinfo proxy": "export https_proxy=http://bob:VALUE@proxy:3128\n",
    "auth tuple": 'requests.get(u, auth=("bob", "VALUE"))',
    "auth tuple spaces": "requests.get(u, auth = ( 'bob' , 'VALUE' ))",
    "auth list": 'get(u, auth=["bob", "VALUE"])',
    "auth name": 'auth = ("bob", "VALUE")\n',
    "HTTPBasicAuth": 'HTTPBasicAuth("bob", "VALUE")',
    "HTTPDigestAuth": "HTTPDigestAuth('bob', 'VALUE')",
    "BasicAuth": 'aiohttp.BasicAuth("bob", password="VALUE")',
    "basic_auth": 'client.basic_auth("bob", Some("VALUE"))',
    "SetBasicAuth": 'req.SetBasicAuth("bob", "VALUE")',
    "auth ruby": "http.basic_auth 'bob', 'VALUE'\n",
    "axios": "axios.get(u, {auth: {username: 'bob', password: 'VALUE'}})",
    "login": 'server.login("bob@acme.dev", "VALUE")',
    "login lines": 'smtp.login(\n    "bob",\n    "VALUE",\n)',
    "UsernamePassword": 'new UsernamePasswordCredentials("bob", "VALUE")',
    "NetworkCredential": 'new NetworkCredential("bob", "VALUE")',
    "PasswordAuthentication": 'new PasswordAuthentication("bob", "VALUE".toCharArray())',
    "DriverManager": 'DriverManager.getConnection("jdbc:h2:x", "bob", "VALUE")',
    "psycopg": 'psycopg2.connect(host="db", user="bob", password="VALUE")',
    "mysqli": "new mysqli('localhost', 'bob', 'VALUE', 'app');",
    "mysql_connect": "mysql_connect('localhost', 'bob', 'VALUE');",
    "PDO": "new PDO('mysql:host=db', 'bob', 'VALUE');",
    "boto": "boto3.client('x', aws_secret_access_key='VALUE')",
    "setPassword": 'account.setPassword("VALUE")',
    "set_password": "user.set_password('VALUE')",
    "withPassword": '.withPassword("VALUE")',
    "password()": '.password("VALUE")',
    "check_password": 'check_password("VALUE")',
    "sendKeys": 'driver.findElement(By.id("password")).sendKeys("VALUE");',
    "fill": 'page.fill("#password", "VALUE")',
    "SecureString": 'ConvertTo-SecureString "VALUE" -AsPlainText -Force',
    "SecureString option": "ConvertTo-SecureString -String 'VALUE' -AsPlainText",
    "IDENTIFIED BY": "CREATE USER 'bob'@'%' IDENTIFIED BY 'VALUE';\n",
    "IDENTIFIED BY double": 'CREATE USER bob IDENTIFIED BY "VALUE";\n',
    "IDENTIFIED BY bare": "CREATE USER bob IDENTIFIED BY VALUE;\n",
    "IDENTIFIED WITH": "ALTER USER bob IDENTIFIED WITH mysql_native_password BY 'VALUE';\n",
    "WITH PASSWORD": "CREATE ROLE bob WITH LOGIN PASSWORD 'VALUE';\n",
    "ENCRYPTED PASSWORD": "ALTER ROLE bob WITH ENCRYPTED PASSWORD 'VALUE';\n",
    "SET PASSWORD": "SET PASSWORD FOR 'bob'@'%' = PASSWORD('VALUE');\n",
    "LOGIN WITH": "CREATE LOGIN bob WITH PASSWORD = N'VALUE';\n",
    "requirepass": "requirepass VALUE\n",
    "masterauth": "masterauth VALUE\n",
    "redis-cli": "redis-cli -h cache -a VALUE ping\n",
    "curl -u": "curl -u bob:VALUE https://x\n",
    "curl -u quoted": "curl -u 'bob:VALUE' https://x\n",
    "curl --user": 'curl --user "bob:VALUE" https://x\n',
    "curl -u tight": "curl -ubob:VALUE https://x\n",
    "curl oauth": "curl --oauth2-bearer VALUE https://x\n",
    "wget": "wget --user=bob --password=VALUE https://x\n",
    "http": "http -a bob:VALUE https://x\n",
    "mysql -p": "mysql -u bob -pVALUE app\n",
    "mysql -p quoted": "mysql -u bob -p'VALUE' app\n",
    "mysqldump": "mysqldump -u bob -pVALUE app > x.sql\n",
    "mysql --password": "mysql --user=bob --password=VALUE app\n",
    "PGPASSWORD": "PGPASSWORD=VALUE psql -U bob app\n",
    "sshpass": "sshpass -p VALUE ssh bob@acme\n",
    "sshpass quoted": "sshpass -p 'VALUE' scp x bob@acme:\n",
    "docker login": "docker login -u bob -p VALUE x.acme.dev\n",
    "docker login --password": "docker login --username bob --password VALUE\n",
    "az login": "az login --service-principal -u id -p VALUE --tenant x\n",
    "net use": "net use Z: \\\\srv\\x VALUE /user:bob\n",
    "ldapsearch": "ldapsearch -D cn=admin -w VALUE -b x\n",
    "openssl": "openssl enc -aes-256-cbc -k VALUE -in x\n",
    "openssl pass:": "openssl rsa -in k.pem -passin pass:VALUE\n",
    "keytool": "keytool -list -storepass VALUE -keystore x\n",
    "gpg": "gpg --batch --passphrase VALUE -c x\n",
    "zip": "zip -P VALUE x.zip y\n",
    "7z": "7z x -pVALUE x.7z\n",
    "chpasswd": 'echo "bob:VALUE" | chpasswd\n',
    "passwd --stdin": 'echo "VALUE" | passwd --stdin bob\n',
    "sudo -S": 'echo "VALUE" | sudo -S apt\n',
    "docker stdin": "echo VALUE | docker login -u bob --password-stdin\n",
    "htpasswd": "htpasswd -b .htpasswd bob VALUE\n",
    "wpa": 'network={\n  ssid="x"\n  psk="VALUE"\n}\n',
    "wpa nmcli": "nmcli dev wifi connect x password VALUE\n",
    "wifi-sec": "[wifi-security]\nkey-mgmt=wpa-psk\npsk=VALUE\n",
    "ipsec": 'bob : PSK "VALUE"\n',
    "snmp": "rocommunity VALUE\n",
    "cisco": "enable secret VALUE\n",
    "cisco username": "username bob password 0 VALUE\n",
    "cisco username secret": "username bob privilege 15 secret VALUE\n",
    "juniper": 'set system root-authentication plain-text-password-value "VALUE"\n',
    "kickstart": "rootpw --plaintext VALUE\n",
    "preseed": "d-i passwd/root-password password VALUE\n",
    "cloud-init": "password: VALUE\nchpasswd: {expire: False}\n",
    "unattend": "<AdministratorPassword><Value>VALUE</Value></AdministratorPassword>",
    "maven": "<server><id>x</id><username>bob</username><password>VALUE</password></server>",
    "tomcat": '<user username="bob" password="VALUE" roles="manager-gui"/>',
    "filezilla": '<Pass encoding="base64">USERVALUE</Pass>',
    "kubeconfig": "users:\n- name: bob\n  user:\n    token: VALUE\n",
    "kubeconfig password": "users:\n- name: bob\n  user:\n    username: bob\n    password: VALUE\n",
    "kubernetes secret": "kind: Secret\ndata:\n  password: USERVALUE\n",
    "kubectl": "kubectl create secret generic x --from-literal=password=VALUE\n",
    "terraform credentials": 'credentials "x.acme.dev" {\n  token = "VALUE"\n}\n',
    "gradle credentials": 'credentials {\n  username "bob"\n  password "VALUE"\n}\n',
    "gradle properties": "signing.password=VALUE\n",
    "pip.conf": "index-url = https://bob:VALUE@pypi.acme.dev/simple\n",
    "composer": '{"http-basic": {"x": {"username": "bob", "password": "VALUE"}}}',
    "rails": "  secret_key_base: VALUE\n",
    "django": "SECRET_KEY = 'VALUE'\n",
    "wordpress": "define( 'AUTH_KEY',         'VALUE' );\n",
    "wordpress salt": "define('NONCE_SALT', 'VALUE');\n",
    "ftp": "ftp://bob:VALUE@ftp.acme.dev/x\n",
    "lftp": "lftp -u bob,VALUE ftp.acme.dev\n",
    "smbclient": "smbclient //srv/x -U bob%VALUE\n",
    "mount cifs": "mount -t cifs //srv/x /mnt -o username=bob,password=VALUE\n",
    "credentials file": "username=bob\npassword=VALUE\ndomain=x\n",
    "chat": "ok, the password is VALUE, don't share it\n",
    "chat pw": "user: bob / pw: VALUE\n",
    "chat pass": "login: bob\npass: VALUE\n",
    "spanish": "contraseña: VALUE\n",
    "german": "Passwort: VALUE\n",
    "french": "mot de passe : VALUE\n",
    "chinese": "密码：VALUE\n",
}  # fmt: skip
# Of these, the ones whose value a person does not choose, and which therefore take generated values only.
GENERATED_ONLY = frozenset({
    "npmrc", "yarnrc", "Bearer", "bearer lower case", "Bearer in a log", "Bearer in code", "Bearer concatenated",
    "token header", "Token header", "token= header", "ApiKey header", "GenieKey header", "plain header",
    "Authorization in code", "private token",
    "cookie header", "x-auth", "x-vault", "subscription key", "AccountKey", "boto", "curl oauth", "kubeconfig", "cisco",
    "cisco username secret", "terraform credentials", "rails", "django", "wordpress", "wordpress salt",
})  # fmt: skip

# Kinds of generated values. Of random text of 16 characters 0.7 % looks like words and stays; see KINDS in the test.
KINDS = {
    "16": (ALNUM, 16),
    "24": (ALNUM, 24),
    "40": (ALNUM, 40),
    "hex": ("0123456789abcdef", 32),
    "url-safe": (ALNUM + "-_", 32),
}
PEOPLE = ("Tiger#", "Winter!", "Lisbon@", "P4nther-", "Qu!ck")


@dataclass(frozen=True)
class Row:
    """A text with a secret in it.

    Attributes:
        parts: what may not stay in the text: the value, or its two halves where the form cuts it.
    """

    form: str
    name: str
    kind: str
    text: str
    parts: tuple[str, ...]


def generated(rng: random.Random, kind: str) -> str:
    """An invented value with a letter and a digit that is no sample and has no sign at its ends."""
    alphabet, length = KINDS[kind]
    while True:
        value = "".join(rng.choices(alphabet, k=length))
        mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
        if mixed and not SAMPLE.search(value) and value[0].isalnum() and value[-1].isalnum():
            return value


def chosen(rng: random.Random) -> str:
    """A password as people choose one."""
    return rng.choice(PEOPLE) + str(rng.randrange(1000, 9999))


def rows(seed: int, make: Callable[[random.Random, str], str] = generated, *, every: int = 1) -> Iterator[Row]:
    """Yield each form with the names that it takes, and each fixed form with each kind of value; the same per seed.

    Args:
        make: makes a value of a kind.
        every: with 3, a form gets each third name, and the next form begins with the next name.
    """
    rng = random.Random(seed)  # noqa: S311 - test material, not keys
    for number, (form, (style, template)) in enumerate(FORMS.items()):
        for name in (*PASSWORDS, *SECRETS)[number % every :: every]:
            kinds = [*KINDS, "chosen"] if name in PASSWORDS else [*KINDS]
            kind = rng.choice(kinds)
            value = chosen(rng) if kind == "chosen" else make(rng, kind)
            yield _row(form, joined(name, style), kind, template, value)
    for form, template in FIXED.items():
        for kind in [*KINDS] if form in GENERATED_ONLY else [*KINDS, "chosen"]:
            value = chosen(rng) if kind == "chosen" else make(rng, kind)
            value = re.sub("[#@]", "!", value) if "://" in template else value
            if "QUOTED" in template:
                value = quote(base64.b64encode(rng.randbytes(32)).decode().rstrip("="), safe="")
            if "USERVALUE" in template:
                value = base64.b64encode(f"bob:{value}".encode()).decode().rstrip("=")
            yield _row(form, "", kind, template.replace("USERVALUE", "VALUE").replace("QUOTED", "VALUE"), value)


def _row(form: str, name: str, kind: str, template: str, value: str) -> Row:
    text = template.replace("NAME", name)
    if "VALUE" in text:
        return Row(form, name, kind, text.replace("VALUE", value), (value,))
    half = len(value) // 2
    text = re.sub(r"\bUE\b", value[half:], re.sub(r"\bVAL\b", value[:half], text))
    return Row(form, name, kind, text, (value[:half], value[half:]))


def joined(name: str, style: str) -> str:
    """The words of a name in a style.

    >>> [joined("db pass", style) for style in ("snake", "upper", "kebab", "camel", "pascal", "title")]
    ['db_pass', 'DB_PASS', 'db-pass', 'dbPass', 'DbPass', 'Db-Pass']
    """
    words = name.split()
    capital = [word.capitalize() for word in words]
    return {
        "snake": "_".join(words),
        "upper": "_".join(words).upper(),
        "kebab": "-".join(words),
        "camel": words[0] + "".join(capital[1:]),
        "pascal": "".join(capital),
        "title": "-".join(capital),
        "dotted": ".".join(words),
        "words": name,
    }[style]
