"""Every field of a document is cleaned before it is published, and equal names stay equal."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from codex_ml.documents.document import FORMS, PUBLISHED, Document
from codex_ml.split.config import Split
from codex_ml.split.redaction import redacted, redacted_name, screen_settings

KEY = "gh" + "p_" + "q8Vd2Lx5Tz7Rw3Nk9Jb4Hc6Mf1Sg0Yp2Aa3E"  # pragma: allowlist secret
CLEAN = Document("s", "p", "i", "g", "MIT", "python", text="x", meta="{}")


@pytest.fixture(scope="module")
def settings_of(project):
    def made(**options):
        return screen_settings(
            Split(**options),
            policy=project / "data/policy.yaml",
            lock=project / "data/detectors.lock",
            key=project / "data/redaction_key",
            benchmarks=project / "none",
        )

    return made


@pytest.mark.parametrize("name", [field.name for field in fields(Document) if field.name != "place"])
def test_a_key_in_any_field_is_replaced(settings_of, name):
    """`place` is in the corpus only. A field that is added to Document is cleaned without more code."""
    value = json.dumps([{KEY: f"a {KEY}"}]) if name in ("messages", "tools", "meta") else f"a {KEY}/b"
    clean, found = redacted(replace(CLEAN, **{name: value}), settings_of())
    assert KEY not in repr(clean)
    assert getattr(clean, name).count("<SECRET:github-token:") == len(found) == (2 if value.startswith("[") else 1)
    assert replace(clean, **{name: getattr(CLEAN, name)}) == CLEAN
    assert "place" not in PUBLISHED


def test_equal_names_stay_equal_and_others_stay_apart(settings_of):
    settings = settings_of()
    names = [f"{KEY}/a.py", f"{KEY}/b.py", f"{KEY[:-1]}F/a.py"]
    shown = [redacted(replace(CLEAN, path=name), settings)[0].path for name in names]
    assert shown == [redacted_name(name, settings) for name in names]  # as dropped.ndjson has them
    assert len(set(shown)) == 3
    assert shown[0].endswith(">/a.py")


def test_a_clean_document_is_not_copied(settings_of):
    assert redacted(CLEAN, settings_of())[0] is CLEAN


def test_with_the_policy_off_names_are_cleaned_and_content_is_not(settings_of):
    """Reports and files in Git repeat the names; the text is what the user asked for."""
    content = {"text": KEY, "meta": json.dumps({"a": KEY})}
    names = dict.fromkeys(("source", "path", "id", "group", "licence", "language"), KEY)
    clean = redacted(replace(CLEAN, **content, **names), settings_of(policy="off"))[0]
    assert {name: getattr(clean, name) for name in content} == content
    assert all(getattr(clean, name).startswith("<SECRET:github-token:") for name in names)
    assert set(names) | set(FORMS) | {"meta"} == set(PUBLISHED)
