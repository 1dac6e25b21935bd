"""Pack: encode the splits and pack whole documents into rows. Training, evaluation and the audit read rows by number.

The section `pack` of params.yaml sets the loss mask, canaries, and how records longer than a row are handled.
data/packed/records.ndjson lists the records that were cut or dropped. `codex-ml pack show --step N` prints the rows of
a training step.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # this checkout's library, whatever is installed

from codex_ml.core.config import Section
from codex_ml.core.stage import Stage, log, run_stage
from codex_ml.pack.config import Pack

COMPARED = ("train.tokens", "train.fill")

# Not a dep: only an error message reads it, to name the line of the user's file.
CORPUS = Path("data/corpus/documents.parquet")


class Params(Section):
    """The sections of params.yaml that this stage reads."""

    pack: Pack = Pack()


def main(stage: Stage[Params]) -> None:
    from codex_ml.core.io import atomic_folder
    from codex_ml.documents.document import places_of
    from codex_ml.pack.canaries import whether_to_plant
    from codex_ml.pack.fitting import BadChats
    from codex_ml.pack.pack_splits import pack_splits
    from codex_ml.tokens.layout import read_kind
    from codex_ml.tokens.text_tokenizer import load_tokenizer

    stage.check_plugins(stage.params.pack.plugins)
    made = stage.dep("models/tokenizer")
    tokenizer = load_tokenizer(made)
    files = {part: stage.dep(f"data/splits/{part}.parquet") for part in ("train", "val", "test")}
    planted, why = whether_to_plant(stage.params.pack.canaries, files["train"], stage.dep("data/sample.lock"))
    log.info("pack: %s: %s", "canaries are planted" if planted else "no canaries are planted", why)
    settings = stage.params.pack.with_canaries(planted=planted)
    try:
        with atomic_folder(stage.out("data/packed")) as folder:
            details = pack_splits(
                folder, files, tokenizer, settings, kind=read_kind(made), style=stage.runtime.progress
            )
    except BadChats as error:
        if not CORPUS.is_file():
            raise
        places = places_of(CORPUS, {(source, id) for source, id, _ in error.bad})
        raise BadChats(error.split, error.bad, places) from None
    for name, numbers in details.as_json().items():
        log.info("pack: %s %s", name, numbers)
    stage.write_numbers(details.as_json(), compared=COMPARED)


if __name__ == "__main__":
    run_stage("pack", main, Params)
