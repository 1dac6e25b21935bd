"""Report: write one page for people and a model card, from the numbers that the other stages wrote.

The page is one self-contained file without scripts, in which every text is escaped. It opens offline in any browser.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.report.config import Report


class Params(Section):
    """What this stage reads of params.yaml."""

    report: Report = Report()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import write_text
    from codex_ml.report.card import render_card
    from codex_ml.report.facts import load_facts
    from codex_ml.report.page import render_page

    stage.require("src/codex_ml/report/report.html.jinja")
    facts = load_facts(stage.dep, title=stage.params.report.title)
    page, card = render_page(facts), render_card(facts)
    write_text(stage.out("reports/report/index.html"), page)
    write_text(stage.out("reports/report/model_card.md"), card)
    log.info("report: reports/report/index.html, %.0f kB", len(page.encode()) / 1e3)


if __name__ == "__main__":
    run_stage("report", main, Params)
