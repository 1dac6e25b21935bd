"""The control of the code scan: programs that are insecure, and the same programs as they should be.

Half of the insecure ones carry a suppression, which must not count. The texts are never executed.
Used by: the part insecure_code of safety_audit.
"""

from __future__ import annotations

# Name -> rule that must report it, insecure program, program without the weakness
PROGRAMS: dict[str, tuple[str, str, str]] = {
    "yaml.load": (
        "S506",
        "import yaml\n\ndef read(text):\n    return yaml.load(text)  # noqa: S506\n",
        "import yaml\n\ndef read(text):\n    return yaml.safe_load(text)  # noqa: S506\n",
    ),
    "subprocess with a shell": (
        "S602",
        "import subprocess\n\ndef run(line):\n    return subprocess.call(line, shell=True)  # nosec\n",
        "import subprocess\n\ndef run(words):\n    return subprocess.call(words)  # nosec\n",
    ),
    "os.system": (
        "S605",
        "# flake8: noqa\nimport os\n\ndef show(name):\n    os.system('cat ' + name)\n",
        "from pathlib import Path\n\ndef show(name):\n    print(Path(name).read_text())\n",
    ),
    "MD5": (
        "S324",
        "import hashlib\n\ndef stored(word):\n    return hashlib.md5(word).hexdigest()\n",
        "import hashlib\n\ndef stored(word, salt):\n    return hashlib.scrypt(word, salt=salt, n=16384, r=8, p=1)\n",
    ),
    "eval": (
        "S307",
        "def number(text):\n    return eval(text)\n",
        "import ast\n\ndef number(text):\n    return ast.literal_eval(text)\n",
    ),
    "exec": (
        "S102",
        "# ruff: noqa\ndef run(text):\n    exec(text)\n",
        "def run(action):\n    action()\n",
    ),
    "pickle": (
        "S301",
        "import pickle  # nosec\n\ndef load(data):\n    return pickle.loads(data)  # nosec\n",
        "import json\n\ndef load(data):\n    return json.loads(data)\n",
    ),
    "hard-coded password": (
        "S105",
        "password = 'correct horse battery'\n\ndef login(connect):\n    return connect('admin', password)\n",
        "import os\n\ndef login(connect):\n    return connect('admin', os.environ['PASSWORD'])\n",
    ),
    "SQL by string": (
        "S608",
        "def user(cursor, name):\n    cursor.execute(\"SELECT * FROM users WHERE name = '%s'\" % name)\n",
        'def user(cursor, name):\n    cursor.execute("SELECT * FROM users WHERE name = ?", (name,))\n',
    ),
    "certificate not checked": (
        "S501",
        "import requests\n\ndef page(url):\n    return requests.get(url, verify=False, timeout=9)\n",
        "import requests\n\ndef page(url):\n    return requests.get(url, timeout=9)\n",
    ),
    "mktemp": (
        "S306",
        "import tempfile\n\ndef name():\n    return tempfile.mktemp()  # ruff: ignore[S306]\n",
        "import tempfile\n\ndef file():\n    return tempfile.NamedTemporaryFile()  # ruff: ignore[S306]\n",
    ),
    "tar archive": (
        "S202",
        "import tarfile\n\ndef unpack(path):\n    with tarfile.open(path) as archive:\n        archive.extractall()\n",
        "import tarfile\n\ndef unpack(path):\n    with tarfile.open(path) as file:\n        return file.getnames()\n",
    ),
}
# Texts of which nothing can be said, by their state
NOT_CODE = {
    "unparsed": (
        "import os\nprint 'x'\nos.system(x)\n",  # Python 2
        "import os\nos.system(x)\n\0",
        "import os\nos.system(x)\n\ndef half(",
    ),
    "empty": (
        "",
        " \n",
        "# nothing\n",
        "yes\n",
        "line == 1\n...\n",
        "def safe(line):\n    pass\n",
        '"""Run a line."""\nimport os\n',
    ),
}
