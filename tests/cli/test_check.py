"""`codex-ml check` finds mistakes before any work, names them, and needs no torch."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from codex_ml.cli.checks.workspace import check_workspace, problems
from codex_ml.cli.param_rules import Params, load_params, validate_params
from codex_ml.core.errors import UserError
from codex_ml.core.packages import install_extra
from codex_ml.core.pipeline import load_pipeline

FILES_SOURCE = {"kind": "files", "path": "data/raw/mine"}


def changed(stages, name, **fields):
    return {**stages, name: replace(stages[name], **{k: v(getattr(stages[name], k)) for k, v in fields.items()})}


def some(*names):
    """A part of the pipeline: the imports of a stage take a while to be found."""
    stages = load_pipeline()
    return {name: stages[name] for name in names}


def without(item):
    return lambda items: tuple(i for i in items if i != item)


def plus(item):
    return lambda items: (*items, item)


CMD = "dvc.yaml: the cmd of train must be exactly `python -P stages/train.py`; found"
STAGES = {
    "a parameter in a command": (
        "train",
        {"cmd": lambda _: "python -P stages/train.py --lr ${train.lr}"},
        f"{CMD} `python -P stages/train.py --lr ${{train.lr}}`",
    ),
    "another script": ("train", {"cmd": lambda _: "python other.py"}, f"{CMD} `python other.py`"),
    "an undeclared param": (
        "train",
        {"params": without("seed")},
        "dvc.yaml: stage train lacks the param seed, which stages/train.py declares; add it",
    ),
    "a param that is not read": (
        "pack",
        {"params": plus("train")},
        "dvc.yaml: stage pack declares the param train, which stages/pack.py does not",
    ),
    "a param that does not exist": (
        "pack",
        {"params": plus("packing")},
        "dvc.yaml: stage pack declares the param packing, which params.yaml does not have",
    ),
    "a param that changes no byte": (
        "pack",
        {"params": plus("runtime")},
        "dvc.yaml: stage pack declares the param runtime, whose keys change no byte; remove it",
    ),
    "a param that no stage reads": (
        "pack",
        {"params": without("pack")},
        "params.yaml: no stage reads pack; remove it or declare it in dvc.yaml",
    ),
    "an undeclared import": (
        "split",
        {"deps": without("src/codex_ml/policy")},
        "dvc.yaml: stage split imports from src/codex_ml/policy, which is not in its deps; add it",
    ),
    "a file that a stage reads": (
        "evaluate",
        {"deps": without("data/splits/test.parquet")},
        "dvc.yaml: stage evaluate reads data/splits/test.parquet, which is not in its deps; add it",
    ),
    "an undeclared script": (
        "split",
        {"deps": without("stages/split.py")},
        "dvc.yaml: stage split imports from stages/split.py, which is not in its deps; add it",
    ),
    "a dep too many": (
        "fetch",
        {"deps": plus("src/codex_ml/modeling")},
        "dvc.yaml: stage fetch lists src/codex_ml/modeling in deps but does not import it",
    ),
}


@pytest.mark.parametrize("case", STAGES)
def test_a_problem_of_the_pipeline_is_found_and_named(workspace, case):
    name, fields, message = STAGES[case]
    assert message in list(problems(load_params(), changed(load_pipeline(), name, **fields)))


def test_a_missing_script_is_named_first(workspace):
    (workspace / "stages/pack.py").unlink()
    assert next(problems(load_params(), load_pipeline())) == "dvc.yaml: stage pack has no script stages/pack.py"


def test_a_script_that_is_not_python_is_reported_with_its_line(workspace):
    (workspace / "stages/pack.py").write_text("x = 1\ny = (\n")
    with pytest.raises(UserError, match=r"stages/pack\.py:2: not Python"):
        list(problems(load_params(), load_pipeline()))


@pytest.mark.parametrize(
    ("sources", "sample", "message"),
    [
        (
            [{"kind": "files", "path": "texts"}],
            True,
            "params.yaml: ingest.sources.0.path texts is not inside a dependency of stage ingest; put the data under data/raw or "
            "add the path to its deps in dvc.yaml",
        ),
        (
            [FILES_SOURCE],
            True,
            "params.yaml: ingest.sources.0.path data/raw/mine does not exist; put the data there",
        ),
        (
            [{"kind": "wheels", "path": "data/raw/sample"}],
            False,
            "params.yaml: ingest.sources.0 reads the sample, but fetch.sample is false; name your own data",
        ),
    ],
)
def test_a_source_that_cannot_be_read_is_named(workspace, sources, sample, message):
    params = validate_params({"ingest": {"sources": sources}, "fetch": {"sample": sample}})
    assert message in list(problems(params, some("fetch", "ingest")))


def test_a_source_that_is_there_is_not_a_problem(workspace):
    (workspace / "data/raw/mine").mkdir()
    params = validate_params({"ingest": {"sources": [FILES_SOURCE]}, "fetch": {"sample": False}})
    assert not [p for p in problems(params, some("fetch", "ingest")) if "ingest.sources" in p]


def test_trackers_that_are_not_installed_are_named_with_their_extra(workspace, monkeypatch):
    from codex_ml.train import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    params = validate_params({"runtime": {"trackers": ["mlflow"], "prometheus_port": 9400}})
    told = [problem for problem in problems(params, some("fetch")) if "not installed" in problem]
    assert told == [
        f"params.yaml: runtime.trackers: mlflow is not installed; {install_extra('mlflow')}",
        f"params.yaml: runtime.prometheus_port: prometheus is not installed; {install_extra('prometheus')}",
    ]


def test_outputs_that_git_tracks_are_named_in_one_command(workspace):
    for name in ("data/raw/sample/a.whl", "models/tokenizer/ünï\nx.json", "reports/fetch/lineage.json"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("x")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "-f", "data/raw/sample", "models/tokenizer", "reports"], check=True)
    expected = (
        "Git tracks data/raw/sample, which is an output in DVC's cache, so DVC would fail after the stage has run; run "
        "`git rm -r --cached data/raw/sample reports/fetch/lineage.json models/tokenizer`"
    )
    assert expected in list(problems(load_params(), some("fetch", "tokenizer")))


def test_an_output_that_turns_the_run_cache_off_is_named(workspace):
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("lineage.json\n", "lineage.json: {cache: false}\n", 1))
    assert [problem for problem in problems(load_params(), some("fetch", "split")) if "run cache" in problem] == [
        "dvc.yaml: output reports/fetch/lineage.json of stage fetch has `cache: false` and is neither a metric nor a plot, "
        "so DVC would never restore the stage from its run cache; remove `cache: false`"
    ]


def test_reports_that_belong_into_git_are_no_problem(workspace):
    (workspace / "reports/split").mkdir(parents=True)
    (workspace / "reports/split/metrics.json").write_text("{}")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "-f", "reports"], check=True)
    assert not [p for p in problems(load_params(), some("split")) if "Git tracks" in p]


def test_a_machine_without_git_is_reported(workspace, monkeypatch):
    monkeypatch.setenv("PATH", str(workspace))
    assert next(problems(load_params(), some("fetch"))) == "git is not installed; DVC needs it"
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    Path("data/raw/theirs.dvc").write_text("outs:\n- path: ../../params.yaml\n")  # what is asked of Git about
    with pytest.raises(UserError, match=r"^git is not installed; DVC needs it$"):
        check_workspace()


def test_the_first_problem_is_raised(workspace):
    (workspace / "stages/fetch.py").unlink()
    with pytest.raises(UserError, match=r"^dvc\.yaml: stage fetch has no script stages/fetch\.py$"):
        check_workspace()


def test_this_repository_is_in_order(workspace):
    assert list(problems(load_params(), load_pipeline())) == []
    assert isinstance(check_workspace(), Params)


def test_no_command_of_this_repository_hands_a_parameter_to_the_shell(repository):
    for spec in load_pipeline(repository / "dvc.yaml").values():
        assert spec.cmd == f"python -P stages/{spec.name}.py"
        assert "${" not in spec.cmd


HEAVY = ("torch", "transformers", "pyarrow", "accelerate", "tokenizers", "dvclive", "mlflow", "wandb", "tensorboard")


def test_check_imports_nothing_heavy(workspace, run_python):
    code = (
        "import sys\nfrom codex_ml.cli.checks.workspace import problems\nfrom codex_ml.cli.param_rules import load_params\n"
        "from codex_ml.core.pipeline import load_pipeline\nimport codex_ml.cli.main\nlist(problems(load_params(), load_pipeline()))\n"
        f"print(sorted(set(sys.modules) & set({(*HEAVY, 'numpy')!r})))"
    )
    done = run_python("-c", code, cwd=workspace)
    assert (done.stdout, done.stderr) == ("[]\n", "")


HELP = f"""
import runpy, sys
for stage in sys.argv[1:]:
    sys.argv = [stage, "--help"]
    try:
        runpy.run_path(f"stages/{{stage}}.py", run_name="__main__")
    except SystemExit as error:
        assert error.code == 0, stage
print(sorted(set(sys.modules) & set({HEAVY!r})))
"""


def test_every_stage_answers_help_at_once(repository, run_python):
    done = run_python("-c", HELP, *load_pipeline(repository / "dvc.yaml"), cwd=repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("`dvc repro` runs it") == len(load_pipeline(repository / "dvc.yaml"))
    assert done.stdout.splitlines()[-1] == "[]"
