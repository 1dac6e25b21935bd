"""Render one self-contained HTML page: it has no script, loads nothing, and escapes every text.

Three things protect the reader from a hostile text: `safe_text` on every value, autoescape on every value, and a
Content Security Policy that allows only our style element, by its hash, and `data:` images.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from codex_ml.core.errors import safe_text
from codex_ml.report import (
    audit_sentences,
    audit_tables,
    data_tables,
    evaluation_sentences,
    evaluation_tables,
    plots,
    sentences,
    short_series,
    tables,
)
from codex_ml.report.audit_pictures import audit_pictures, pictures_of, short_tables
from codex_ml.report.evaluation_pictures import evaluation_pictures
from codex_ml.report.facts import Facts
from codex_ml.report.picture import Picture

TEMPLATE = Path(__file__).parent / "report.html.jinja"
SAMPLES = 4
SAMPLE_CHARACTERS = 1200  # characters that are shown of a sample


def render_page(facts: Facts) -> str:
    """Return the whole page; equal facts give equal text."""
    source = TEMPLATE.read_text(encoding="utf-8")
    return page_template(source).render(
        policy=f"default-src 'none'; style-src '{style_hash(source)}'; img-src data:",
        facts=facts,
        tables=tables,
        sentences=sentences,
        data_tables=data_tables,
        scores=evaluation_tables,
        tasks=evaluation_sentences,
        audit=audit_tables,
        audited=audit_sentences,
        few=short_series.tables(facts) | short_tables(facts),
        pictures_of=pictures_of,
        pictures=_pictures(facts),
        samples=facts.samples[:SAMPLES],
        cut=_cut,
    )


def page_template(source: str) -> Template:
    """A template that escapes every value, for HTML and for terminals, and refuses a value that is missing."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(source)


def style_of(html: str) -> str:
    """The text of the only style element."""
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    return str(style)


def style_hash(html: str) -> str:
    """Return the CSP source of the only style element: SHA-256 of the text in it (CSP level 3, section 8.3)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style_of(html).encode("utf-8")).digest()).decode("ascii")


def _visible(value: Any) -> Any:
    """Escape control and bidirectional characters of what the template prints, before autoescape.

    Markup is left as it is: only our own macros make it, from parts that this function has escaped.
    """
    return safe_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _cut(text: str) -> str:
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + "…"


def _pictures(facts: Facts) -> dict[str, Picture]:
    curves, best = facts.curves, facts.train.best_step
    last = f"at {facts.train.best_val_loss:.3f} nats in step {best}"
    rates = "Learning rates" if curves["train/embedding_lr"] else "Learning rate"
    return {
        "loss": Picture(
            "Loss against global_step. The star marks the weights that were kept.",
            f"Line chart of training and validation loss. Validation loss is lowest {last}.",
            partial(plots.loss_curve, curves["train/loss"], curves["val/loss"], best_step=best),
        ),
        "schedule": Picture(
            f"{rates}, and the gradient's norm before clipping.",
            f"Two line charts: {rates.lower()} with warm-up and decay, and gradient norm.",
            partial(plots.schedule, curves["train/lr"], curves["train/grad_norm"], curves["train/embedding_lr"]),
        ),
        **evaluation_pictures(facts),
        **audit_pictures(facts),
    }
