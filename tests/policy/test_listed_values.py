"""Every value of a list and every row of a table goes, and the rest stays; the cost is that of the text."""

from __future__ import annotations

import random
import re

import pytest

from codex_ml.policy import listed_values
from codex_ml.policy.filters import load_filter
from codex_ml.policy.redact import PLACEHOLDER
from codex_ml.policy.streaming import StreamFilter

CHOSEN = ("Tiger#" + "1985", "hunter2" + "hunter", "P4nther-" + "2031", "cat!" + "horse9")
WORD, NAME = "to" + "kens", "pass" + "word"

# Each `{}` stands for one of several values.
LISTS = {
    "Python": WORD + ' = ["{}", "{}", "{}"]\n',
    "tuple": WORD + " = ('{}', '{}', '{}')\n",
    "on lines": WORD + ' = [\n    "{}",\n    "{}",\n    "{}",\n    "{}",\n]\n',
    "JSON": '{"' + WORD + '": ["{}", "{}", "{}"], "x": 1}',
    "YAML": WORD + ":\n  - {}\n  - {}\n  - {}\nport: 1\n",
    "YAML, no indent": WORD + ":\n- {}\n- {}\n- {}\n",
    "YAML, quotes and comments": WORD + ":\n  - '{}'  # old\n  - '{}'\n  - '{}'\n",
    "YAML flow": WORD + ": [{}, {}, {}]\n",
    "comments": WORD + ' = [\n    "{}",  # old\n    "{}",\n    "{}"  # new\n]\n',
    "comments of C": WORD + ' = {\n  "{}", // old\n  "{}" // new\n};\n',
    "what is no value": WORD + ' = ["{}", "", "two words", "a(b)", None, "x", "{}"]\n',
    "YAML, comments, gaps and no values": WORD + ":\n  - {}\n  # old\n  - {}\n\n  - two words\n  -  \n  - {}\n",
    "CSV, quotes": 'user,token\nbob,{}\n"Smith, Ann",{}\njoe,two words\n,\n"sue","{}"\n',
    "SQL, quotes": "INSERT INTO u (name, password) VALUES ('bob', '{}'), ('Smith, Ann (x)', '{}'), ('joe', ''), ('sue', '{}');\n",
    "CSV": "user,token\nbob,{}\nann,{}\njoe,{}\nsue,{}\n",
    "first column": "token; user\n{}; bob\n{}; ann\n{}; joe\n",
    "TSV": "user\ttoken\nbob\t{}\nann\t{}\njoe\t{}\n",
    "Markdown": "| user | token |\n|---|---|\n| bob | {} |\n| ann | `{}` |\n| joe | {} |\n\nend\n",
    "psql": " user | token \n------+-------\n bob  | {}\n ann  | {}\n joe  | {}\n(3 rows)\n",
    "MySQL": "+------+-----+\n| token | u |\n+------+-----+\n| {} | bob |\n| {} | ann |\n| {} | joe |\n+------+-----+\n",
    "SQL": "INSERT INTO users (name, password, age) VALUES ('bob', '{}', 3), ('ann', '{}', 4), ('joe', '{}', 5);\n",
    "SQL on lines": "insert into `users` (`name`, `password`)\nvalues\n  ('bob', '{}'),\n  ('ann', '{}'),\n  ('joe', '{}');\n",
}


def filled(form, rng, make):
    return re.sub(r"\{\}", lambda _: make(rng), form)


def generated(rng):
    return "k7" + "".join(rng.choices("abcdefgABCDEFG23456789", k=rng.randrange(14, 30))) + "Q"


@pytest.mark.parametrize("name", LISTS)
def test_all_values_go_and_the_rest_stays(clean, name):
    once = clean(filled(LISTS[name], random.Random(name), generated))
    assert PLACEHOLDER.sub("{}", once) == LISTS[name]
    assert clean(once) == once


def test_passwords_that_people_chose_go_in_lists_of_passwords(clean):
    for form in LISTS.values():
        text = filled(
            form.replace(WORD, NAME + "s").replace("token", NAME), random.Random(1), lambda rng: rng.choice(CHOSEN)
        )
        assert PLACEHOLDER.sub("{}", clean(text)) == form.replace(WORD, NAME + "s").replace("token", NAME)


def test_a_hundred_rows_take_one_pass(clean, scanner, monkeypatch):
    text = "user,token\n" + "".join(f"u{n},{generated(random.Random(n))}\n" for n in range(100))
    assert len(PLACEHOLDER.findall(clean(text))) == 100
    assert len(list(scanner._passes(text))) == 2  # the second one finds nothing


def test_what_is_no_list_stays(clean):
    texts = [
        'x = ["token", "name", "sha256"]\n',
        'call("token", "user1.name", "b2")\n',
        "tokens:\n  - name: a1b2c3\n  - float32\n  - layer1.weight\n",
        "user,token,role\nbob,none,admin\n",
        "tokens:\n  - none-here\n  - x7Q-k2\n",
        "| token | use |\n|---|---|\n| layer1.weight | x |\n| layer2.weight | y |\n",
        "INSERT INTO t (token, n) VALUES ('float32', 1), ('int8', 2);\n",
    ]
    assert [text for text in texts if clean(text) != text] == []


def test_a_value_is_visited_once_however_many_names_lead_to_it(scanner, monkeypatch):
    """Each line is a value of the list above it and has a name that could begin a list of its own."""
    visits, real = [], listed_values.Others._items
    monkeypatch.setattr(
        listed_values.Others, "_items", lambda self, dash, end: (visits.append(s) or s for s in real(self, dash, end))
    )
    counts = []
    for lines in (50, 200):
        visits.clear()
        scanner.matcher.matches("".join(f"\n- token{n:04d}:" for n in range(lines)) + "\n")
        counts.append(len(visits))
    assert counts[1] <= 4.2 * counts[0]


ROW_WITHOUT_VALUE = "my password,abc\nAbcdefg1(x,abc\n"


def test_a_row_without_a_value_is_visited_once_too(scanner, monkeypatch):
    """Each second line is the header of a table of its own, and no cell below it can be a value."""
    visits, real = [], listed_values._cells
    monkeypatch.setattr(listed_values, "_cells", lambda *args: visits.append(1) or real(*args))
    counts = []
    for lines in (50, 200):
        visits.clear()
        scanner.matcher.matches(ROW_WITHOUT_VALUE * lines)
        counts.append(len(visits))
    assert 0 < counts[1] <= 4.2 * counts[0]


PARTS = (
    "token", "passwords:", "api_key", " = [", "\n", "\n- ", "\n  - ", '"', "'", ", ", ",", ";", "\t", "|", "| ", "]", ")", " (",
    "user,token\n", "bob,", "| user | token |\n|---|---|\n", "| bob | ", " |\n", "VALUES ('bob', '", "'), ('ann', '", "\n\n",
    "words of prose go on. ", "INSERT INTO t (name, password)\nVALUES\n ('x', '", "  # old", "tokens: [", "my password,abc\n", '"Smith, Ann",', "two words", "  # old\n", '""',
)  # fmt: skip


@pytest.mark.shipped
@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_what_leaves_of_a_list_begins_the_filtered_text_wherever_it_ends(repository, count):
    """The names of secrets, values and what joins them, in any order; the lists are longer than what a rule reads."""
    files = ("data/policy.yaml", "data/detectors.lock", "data/redaction_key")
    screen, early = load_filter(*(repository / file for file in files)), 0
    for seed in range(count):
        rng = random.Random(seed)
        form = filled(rng.choice(list(LISTS.values())), rng, generated)
        row = rng.choice(form.split("\n")) + "\n"
        pieces = [rng.choice(PARTS) if rng.random() < 0.7 else generated(rng) for _ in range(rng.randrange(5, 60))]
        text = (
            "".join(pieces) + form + row * rng.randrange(40) + "words go on. " * rng.randrange(60) + "".join(pieces[:9])
        )
        text += "words go on. " * rng.randrange(120) + form
        stream, gone = StreamFilter(screen), ""
        for place in range(0, len(text), 8):
            if shown := stream.push(text[place : place + 8]):
                gone += shown
                early += 1
                if rng.random() < 0.1:
                    assert screen.screen_output(text[: place + 8]).text.startswith(gone), f"seed {seed}, {place + 8}"
        assert gone + stream.finish() == screen.screen_output(text).text, f"seed {seed}"
        assert stream.decision != "refuse"
    assert early > count
