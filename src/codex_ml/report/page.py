"""Render one self-contained HTML page: it has no script, loads nothing, and escapes every text.

Three things protect the reader from a hostile text: `safe_text` on every value, autoescape on every value, and a
Content Security Policy that allows only our style element, by its hash, and `data:` images.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from codex_ml.core.errors import safe_text
from codex_ml.report import data_tables, plots, sentences, short_series, tables
from codex_ml.report.facts import Facts

TEMPLATE = Path(__file__).parent / "report.html.jinja"
SAMPLES = 4
SAMPLE_CHARACTERS = 1200  # characters that are shown of a sample


@dataclass(frozen=True)
class Picture:
    """A picture, with a text for people who do not see it. It is drawn only where the page shows it."""

    caption: str
    alt: str
    draw: Callable[[], str]

    @property
    def uri(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.draw().encode("utf-8")).decode("ascii")


def render_page(facts: Facts) -> str:
    """Return the whole page; equal facts give equal text."""
    source = TEMPLATE.read_text(encoding="utf-8")
    return page_template(source).render(
        policy=f"default-src 'none'; style-src '{style_hash(source)}'; img-src data:",
        facts=facts,
        tables=tables,
        sentences=sentences,
        data_tables=data_tables,
        few=short_series.tables(facts),
        pictures=_pictures(facts),
        samples=[_cut(text) for text in facts.samples[:SAMPLES]],
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
    has_bits = facts.evaluation.bits is not None
    better = sum((s.bits_per_byte or math.inf) < s.zlib_bits_per_byte for s in facts.sources)
    compared = f"The model needs fewer bits than zlib on {better} of {len(facts.sources)} sources."
    only_zlib = "" if has_bits else " Of zlib only: the tokenizer loses text."
    many = (
        f"the {plots.MAX_SOURCES} largest of {len(facts.sources)}" if len(facts.sources) > plots.MAX_SOURCES else "all"
    )
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
        "by_source": Picture(
            f"Bits per byte by source ({many}), with the number of test documents.{only_zlib}",
            f"Dot chart. {compared if has_bits else 'Bits per byte of zlib.'}",
            partial(plots.by_source, facts.sources),
        ),
        "by_size": Picture(
            "Each test document: bits per byte against size. zlib reads each document alone, as the model does."
            f"{only_zlib}",
            f"Scatter chart of bits per byte against document size, for {'the model and for ' if has_bits else ''}"
            "zlib.",
            partial(plots.by_size, facts.documents, model=has_bits),
        ),
    }
