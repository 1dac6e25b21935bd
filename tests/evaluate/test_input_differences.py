"""The inputs of two results are listed where they differ, and only there."""

from codex_ml.evaluate.input_differences import input_differences


def record(params=None, deps=None, **environment):
    return {"params": params or {}, "deps": deps or {}, "environment": environment}


def listed(a, b):
    return [(d.kind, d.name, d.a, d.b) for d in input_differences(a, b)]


def test_equal_records_differ_in_nothing():
    one = {"train": record({"train": {"lr": 0.1}}, {"data/x": {"md5": "1", "sha256": "2"}}, python="3.11")}
    assert listed(one, one) == []


def test_params_are_dotted_keys_and_lists_are_one_value():
    a = {"train": record({"train": {"lr": 3e-3, "rates": [1, 2], "none": {}}, "seed": 1})}
    b = {"train": record({"train": {"lr": 3e-3, "rates": [1, 3], "none": {"x": None}}, "seed": 1})}
    assert listed(a, b) == [
        ("params", "train.none", "{}", None),
        ("params", "train.none.x", None, "null"),
        ("params", "train.rates", "[1, 2]", "[1, 3]"),
    ]


def test_text_and_number_are_two_values():
    assert listed({"s": record({"k": 1})}, {"s": record({"k": "1"})}) == [("params", "k", "1", '"1"')]


def test_code_is_listed_by_file_and_a_script_by_itself():
    def code(**files):
        return {"src/codex_ml/core": {"md5": str(files), "sha256": "x", "files": files}}

    a = {"train": record(deps=code(io="1", old="2") | {"stages/train.py": {"md5": "5", "sha256": "s"}})}
    b = {"train": record(deps=code(io="1", new="3") | {"stages/train.py": {"md5": "6", "sha256": "t"}})}
    assert listed(a, b) == [
        ("code", "src/codex_ml/core/new", None, "3"),
        ("code", "src/codex_ml/core/old", "2", None),
        ("code", "stages/train.py", "5", "6"),
    ]


def test_comment_in_the_code_is_no_difference():
    def code(md5, syntax):
        folder = {"md5": md5, "sha256": md5, "files": {"io.py": md5}, "syntax": {"io.py": syntax}}
        return {"train": record(deps={"src/core": folder, "stages/train.py": {**folder, "files": {}}})}

    assert listed(code("1", "a"), code("2", "a")) == []
    assert [name for _, name, *_ in listed(code("1", "a"), code("2", "b"))] == ["src/core/io.py", "stages/train.py"]


def test_the_environment_is_listed_by_package_and_a_missing_one_is_none():
    a = {"train": record(threads=2, packages={"torch": "2.1", "gguf": None, "numpy": "2.4"})}
    b = {"train": record(threads=4, packages={"torch": "2.2", "gguf": "0.19", "numpy": "2.4"})}
    assert listed(a, b) == [
        ("environment", "gguf", None, "0.19"),
        ("environment", "threads", "2", "4"),
        ("environment", "torch", "2.1", "2.2"),
    ]


def test_a_stage_whose_record_one_side_lacks_is_no_difference():
    assert listed({"train": record({"lr": 1}), "pack": record({"len": 2})}, {"train": record({"lr": 1})}) == []


def test_what_several_stages_share_is_listed_once_in_the_order_of_kinds():
    a = {name: record({"seed": 1}, {"data/x": {"md5": "1", "sha256": "2"}}) for name in ("train", "evaluate")}
    b = {name: record({"seed": 2}, {"data/x": {"md5": "1", "sha256": "3"}}) for name in ("train", "evaluate")}
    assert listed(a, b) == [("params", "seed", "1", "2"), ("data", "data/x", "2", "3")]
