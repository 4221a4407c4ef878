"""Every mistake in a config is refused in words that a researcher can act on, and nothing but a ``PrunebenchError`` comes out."""

from __future__ import annotations

import copy
import datetime
import importlib.util
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunebench.config import Suite, parse, read, resolve, schema
from prunebench.errors import PrunebenchError
from shared import REPOSITORY

DEMO = REPOSITORY / "config" / "config.yaml"
SCHEMA = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
JARGON = re.compile(r"input should|pydantic|validation error|traceback|literal|regex|\^\[|datetime\.|nonetype", re.IGNORECASE)


DEMO_CONTENT: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))


def demo() -> dict[str, Any]:
    return copy.deepcopy(DEMO_CONTENT)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The demo with the value at a path such as ``schedules/one-shot/criteria/0`` replaced or added."""
    content = demo()
    *above, last = path.split("/")
    node: Any = content
    for part in above:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    node[int(last) if isinstance(node, list) else last] = value
    return content


def refusal(content: Any, origin: str = "my.yaml") -> str:
    with pytest.raises(PrunebenchError) as caught:
        parse(content, origin)
    message = str(caught.value)
    assert all(line.startswith(f"{origin}: ") for line in message.splitlines()), message
    assert not JARGON.search(message), message
    return message


EXPERIMENT = {"dataset": "digits", "model": "resnet32"}

# Where, what, and what the message has to say: the key's path first, then the value and what would be accepted.
WRONG: list[tuple[str, Any, list[str]]] = [
    # unknown keys, at every level
    ("replicate", 3, ["replicate: unknown key", "did you mean 'replicates'?", "accepted: suite, seed,"]),
    ("dense_training/epoch", 3, ["dense_training.epoch: unknown key", "did you mean 'epochs'?", "learning_rate"]),
    ("experiments/0/datset", "digits", ["experiments[0].datset: unknown key", "did you mean 'dataset'?"]),
    ("experiments/0/fine_tuning", {"epochs": 1}, ["experiments[0].fine_tuning.epochs: unknown key", ", epochs_per_block)"]),
    ("operating_points/1", {"block": 3}, ["operating_points[1].block: unknown key", "did you mean 'blocks'?"]),
    ("schedules/one_shot", {}, ["schedules.one_shot: unknown key", "did you mean 'one-shot'?"]),
    ("schedules/one-shot/blocks_per_step", 1, ["schedules.one-shot.blocks_per_step: unknown key", "criteria, draws"]),
    ("dense_training", {3: 4}, ["dense_training: 3 is not a key", "accepted: learning_rate"]),
    (
        "schedules/one-shot-filters/draws",
        3,
        ["schedules.one-shot-filters.draws: unknown key", "criteria, flops_reduction, epochs"],
    ),
    # one schedule that needs another
    ("schedules/one-shot-filters/criteria", ["cka", "taylor"], ["one-shot-filters.criteria[1]: 'taylor' is not among", "add it"]),
    ("schedules/one-shot-filters/criteria", ["cka", "cka"], ["one-shot-filters.criteria[1]: 'cka' is there twice"]),
    ("oracle", None, ["oracle: null (nothing) is refused", "{} takes its defaults"]),
    # wrong types
    ("replicates", "three", ["replicates: 'three' is refused", "a whole number of at least 1"]),
    ("replicates", "3", ["replicates: '3' is refused", "YAML reads this as text, write 3"]),
    ("replicates", True, ["replicates: true is refused", "a whole number of at least 1"]),
    ("replicates", 2.0, ["replicates: 2.0 is refused", "a whole number of at least 1"]),
    ("replicates", None, ["replicates: null", "a whole number of at least 1"]),
    ("dense_training/weight_decay", "1e-4", ["weight_decay: '1e-4' is refused", "YAML reads this as text, write 0.0001"]),
    ("dense_training/weight_decay", "5e-5", ["weight_decay: '5e-5' is refused", "write 5.0e-05"]),
    ("dense_training/augment", "yes please", ["dense_training.augment: 'yes please' is refused", "true or false"]),
    ("suite", 2024, ["suite: 2024 is refused", "put it in quotes"]),
    ("suite", datetime.date(2024, 1, 2), ["suite: the date 2024-01-02 is refused", "put it in quotes"]),
    ("experiments", EXPERIMENT, ["experiments: {", "a list of at least one"]),
    ("experiments/0", "digits", ["experiments[0]: 'digits' is refused", "keys and values: dataset, model"]),
    ("schedules/iterative/criteria", "cka", ["schedules.iterative.criteria: 'cka' is refused", "a list"]),
    ("schedules", None, ["schedules: null", "one-shot, iterative"]),
    # out of range
    ("replicates", 0, ["replicates: 0 is refused", "at least 1"]),
    ("seed", -1, ["seed: -1 is refused", "at least 0"]),
    ("dense_training/epochs", -5, ["dense_training.epochs: -5 is refused", "at least 1"]),
    ("dense_training/momentum", 1, ["dense_training.momentum: 1 is refused", "at least 0 and below 1"]),
    ("data/validation_fraction", 0.5, ["data.validation_fraction: 0.5 is refused", "above 0 and below 0.5"]),
    ("dense_training/learning_rate", float("inf"), ["dense_training.learning_rate: inf is refused", "a number above 0"]),
    ("dense_training/learning_rate", float("nan"), ["dense_training.learning_rate: nan is refused", "a number above 0"]),
    ("dense_training/schedule", "linear", ["dense_training.schedule: 'linear' is refused", "step or cosine"]),
    ("device", "gpu", ["device: 'gpu' is refused", "auto, cpu, cuda"]),
    ("device", "cuda:one", ["device: 'cuda:one' is refused", "cuda:<number>"]),
    ("suite", "a/b", ["suite: 'a/b' is refused", "letters, digits, _ and -"]),
    ("suite", "my suite", ["suite: 'my suite' is refused", "letters, digits, _ and -"]),
    ("suite", "demo\n", [r"suite: 'demo\n' is refused"]),
    ("energy/country_iso_code", "Germany", ["energy.country_iso_code: 'Germany' is refused", "three capital letters"]),
    ("energy/country_iso_code", False, ["energy.country_iso_code: false is refused", "three capital letters"]),  # NO in YAML
    # empty lists, operating points
    ("experiments", [], ["experiments: [] is refused", "a list of at least one"]),
    ("operating_points", [], ["operating_points: [] is refused", "a list of at least one"]),
    ("experiments/0/operating_points", [], ["experiments[0].operating_points: [] is refused", "at least one"]),
    ("evaluations", [], ["evaluations: [] is refused", "a list of at least one"]),
    ("operating_points/0", {}, ["operating_points[0]: {} is refused", "exactly one of the keys blocks and flops_reduction"]),
    ("operating_points/0", {"blocks": 2, "flops_reduction": 20.0}, ["operating_points[0]: {", "exactly one of the keys"]),
    ("operating_points/0", {"blocks": 0}, ["operating_points[0].blocks: 0 is refused", "at least 1"]),
    ("operating_points/0", {"flops_reduction": 100}, ["operating_points[0].flops_reduction: 100 is refused", "below 100"]),
    # what the model cannot lose
    ("operating_points/0", {"blocks": 10}, ["operating_points[0].blocks: 10 is more than resnet32 can lose: at most 9"]),
    ("operating_points/2", {"flops_reduction": 90}, ["operating_points[2].flops_reduction: 90 % is out of reach", "at most 61"]),
    ("experiments/0/operating_points", [{"blocks": 10}], ["experiments[0].operating_points[0].blocks: 10 is more"]),
    ("constraints/minimum_blocks", 5, ["operating_points[0].blocks: 2 is more", "at most 0 of its 0 candidate"]),
    # names
    ("schedules/one-shot/criteria/0", "cKa", ["schedules.one-shot.criteria[0]: 'cKa'", "did you mean 'cka'?", "wasserstein"]),
    ("schedules/one-shot/criteria/1", "not a name", ["criteria[1]: 'not a name' is refused", "path of a .py file"]),
    ("experiments/0/model", "resnet-32", ["experiments[0].model: 'resnet-32'", "did you mean 'resnet32'?", "resnet110"]),
    ("experiments/0/dataset", "cifar-10", ["experiments[0].dataset: 'cifar-10'", "did you mean 'cifar10'?", "digits"]),
    ("evaluations", ["acuracy"], ["evaluations[0]: 'acuracy'", "did you mean 'accuracy'?", "complexity"]),
    ("evaluations", ["accuracy", "accuracy"], ["evaluations[1]: 'accuracy' is a second evaluation named 'accuracy'"]),
    ("schedules/iterative/criteria", ["cka", "cka"], ["schedules.iterative.criteria[1]: 'cka' is a second criterion"]),
    ("experiments", [EXPERIMENT, EXPERIMENT], ["experiments[1]: 'digits' with 'resnet32' is there twice"]),
    ("operating_points", [{"blocks": 2}, {"blocks": 2}], ["operating_points[1]: blocks2 is there twice"]),
    ("experiments/0/dense", "nowhere", ["experiments[0].dense: 'nowhere'", "nowhere/architecture.json: no such file"]),
    ("schedules/one-shot/criteria/0", "nowhere.py", ["schedules.one-shot.criteria[0]: 'nowhere.py': no such file"]),
    # rules of one's own
    ("external/rules", ["nowhere.smk"], ["external.rules[0]: 'nowhere.smk': no such file"]),
    ("external/rankings", ["cka"], ["external.rankings[0]: 'cka' is the name of a built-in criterion"]),
    ("external/rankings", ["mine", "mine"], ["external.rankings[1]: 'mine' is named twice"]),
    ("external", {"rankings": ["mine"], "networks": ["mine"]}, ["external.networks[0]: 'mine' is named twice"]),
    ("external/networks", ["my method"], ["external.networks[0]: 'my method' is refused", "letters, digits, _ and -"]),
    # the oracle
    ("oracle/epochs", -1, ["oracle.epochs: -1 is refused (accepted: a whole number of at least 0)"]),
    ("oracle/criteria", ["tailor"], ["oracle.criteria[0]: 'tailor' is not a known criterion; did you mean 'taylor'?"]),
    ("oracle/criteria", ["taylor", "taylor"], ["oracle.criteria[1]: 'taylor' is a second criterion named 'taylor'"]),
    ("oracle", {"epoch": 1}, ["oracle.epoch: unknown key; did you mean 'epochs'?"]),
    ("schedules", {}, ["schedules: no criterion is named", "schedules.one-shot.criteria"]),
]


@pytest.mark.parametrize(("path", "value", "expected"), WRONG, ids=[f"{path}={value!r}"[:60] for path, value, _ in WRONG])
def test_a_mistake_is_refused_in_words(path: str, value: Any, expected: list[str]) -> None:
    message = refusal(changed(path, value))
    for words in expected:
        assert words in message, message


@pytest.mark.parametrize("key", ["suite", "experiments", "operating_points"])
def test_required_keys(key: str) -> None:
    content = demo()
    del content[key]
    assert f"{key}: this key is required (accepted: " in refusal(content)


@pytest.mark.parametrize("key", ["dataset", "model"])
def test_required_keys_in_a_list(key: str) -> None:
    content = demo()
    del content["experiments"][0][key]
    assert f"experiments[0].{key}: this key is required (accepted: a name, or the path" in refusal(content)


def test_every_mistake_has_its_line() -> None:
    content = changed("replicates", 0) | {"sed": 1}
    content["dense_training"]["epochs"] = "many"
    lines = refusal(content).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["replicates", "dense_training.epochs", "sed"]


@pytest.mark.parametrize("content", [None, [], "text", 3, [["suite", "demo"]]])
def test_not_keys_and_values(content: Any) -> None:
    assert "expected keys and values" in refusal(content)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "expected keys and values"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"suite: [demo\n", "not YAML"),
        (b"suite: 2024-02-30\n", "not YAML"),
        (b"suite:\n\t- demo\n", "not YAML"),
        (b"suite: \xff\xfe\n", "not UTF-8"),
        (b"{a: &x [*x]}\n", "unknown key"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(raw)
    with pytest.raises(PrunebenchError, match=words) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PrunebenchError, match=r"nowhere\.yaml: no such file"):
        read(tmp_path / "nowhere.yaml")
    with pytest.raises(PrunebenchError, match="cannot be read"):
        read(tmp_path)


CRITERION = "from prunebench.criteria import Criterion\n{}\n"
PLUGINS = {
    "syntax": ("from prunebench.criteria import Criterion\ndef score(probe:\n", "line 2: SyntaxError"),
    "raises": ("x = 1\nraise ValueError('no')\n", "line 2: ValueError: no"),
    "import": ("import no_such_library\n", "line 1: ModuleNotFoundError: No module named 'no_such_library'"),
    "exits": ("import sys\nsys.exit(0)\n", "line 2: SystemExit"),
    "null": ("x = 1\0\n", "null bytes"),
    "none": ("x = 1\n", "defines 0 objects of Criterion at module level, expected one"),
    "two": (CRITERION.format("A = Criterion('a', len)\nB = Criterion('b', len)"), "defines 2 objects of Criterion"),
    "builtin": (CRITERION.format("A = Criterion('cka', len)"), "'cka' is taken by a built-in; choose another"),
    "name": (CRITERION.format("A = Criterion('my own', len)"), "'my own' may only have letters"),
    "number": (CRITERION.format("A = Criterion(3, len)"), "3 may only have letters"),
    "combines": (CRITERION.format("A = Criterion('a', len, combines=('ck',))"), "combines: 'ck' is not a known criterion"),
}


@pytest.mark.parametrize("case", PLUGINS)
def test_plugin_files_that_are_refused(tmp_path: Path, case: str) -> None:
    source, words = PLUGINS[case]
    path = tmp_path / f"{case}.py"
    path.write_text(source)
    message = refusal(changed("schedules/one-shot/criteria/0", str(path)))
    assert message.startswith("my.yaml: schedules.one-shot.criteria[0]")
    assert words in message, message


def test_two_files_with_one_name_are_refused_across_schedules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(CRITERION.format("MINE = Criterion('mine', len)"))
    content = changed("schedules/one-shot/criteria/0", str(tmp_path / "a" / "mine.py"))
    content["schedules"]["iterative"]["criteria"] = [str(tmp_path / "a" / "mine.py")]
    parse(content, "my.yaml")
    content["schedules"]["iterative"]["criteria"] = [str(tmp_path / "b" / "mine.py")]
    assert "schedules.iterative.criteria[0]" in refusal(content)


def test_an_external_name_may_not_be_that_of_a_plugin_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CRITERION.format("MINE = Criterion('mine', len)"))
    content = changed("schedules/one-shot/criteria/0", str(tmp_path / "mine.py"))
    content["external"] = {"rankings": ["mine"]}
    assert "external.rankings[0]: 'mine' is the name of a criterion of this suite" in refusal(content)


def test_a_model_whose_blocks_raise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("from prunebench.models import Model\nM = Model('broken', lambda: 1 / 0, len, len)\n")
    assert "experiments[0].model: " in (message := refusal(changed("experiments/0/model", str(path))))
    assert "ZeroDivisionError" in message


def test_a_dense_network_is_looked_for_in_every_replicate(tmp_path: Path) -> None:
    content = changed("experiments/0/dense", f"{tmp_path}/net{{replicate}}")
    for replicate in range(3):
        assert f"net{replicate}/architecture.json: no such file" in refusal(content)
        (tmp_path / f"net{replicate}").mkdir()
        (tmp_path / f"net{replicate}" / "architecture.json").touch()
        assert f"net{replicate}/weights.safetensors: no such file" in refusal(content)
        (tmp_path / f"net{replicate}" / "weights.safetensors").touch()
    parse(content, "my.yaml")


def test_external_methods_alone_make_a_suite() -> None:
    for kind in ("rankings", "networks"):
        suite = parse(demo() | {"schedules": {}, "external": {kind: ["mine"]}}, "my.yaml")
        assert suite.schedules.one_shot.criteria == []


def test_boundaries() -> None:
    """ResNet-32 has three stages of five blocks; all blocks of a stage cost the same, save those with a projection."""
    # Stages of 16, 32 and 64 channels at 32 x 32, 16 x 16 and 8 x 8: every removable block costs 2 * 9 * 16**2 * 32**2 products.
    block = 2 * 9 * 16**2 * 32**2
    entry = (9 * (16 + 32) * 32 * 16**2 + 16 * 32 * 16**2) * 2  # with the projection; the same for stages 2 and 3
    dense = 13 * block + entry + 9 * 3 * 16 * 32**2 + 64 * 10
    for minimum, most in ((1, 12), (2, 9), (3, 6), (4, 3)):
        reach = 100 * most * block / dense
        content = changed("constraints", {"minimum_blocks": minimum})
        content["experiments"] = [{"dataset": "cifar10", "model": "resnet32"}]
        for point, fits in (
            ({"blocks": most}, True),
            ({"blocks": most + 1}, False),
            ({"flops_reduction": reach}, True),
            ({"flops_reduction": reach + 0.009}, True),
            ({"flops_reduction": reach + 0.011}, False),
        ):
            content["operating_points"] = [point]
            if fits:
                assert parse(content, "my.yaml").operating_points[0].model_dump(exclude_none=True) == point
            else:
                assert f"at most {most if 'blocks' in point else f'{reach:.2f}'}" in refusal(content)


def test_first_blocks_may_go_where_they_keep_the_shape() -> None:
    content = changed("constraints", {"keep_first_block": False, "minimum_blocks": 1}) | {"operating_points": [{"blocks": 12}]}
    parse(content, "my.yaml")
    content["operating_points"] = [{"blocks": 13}]
    assert "at most 12" in refusal(content)


def nodes(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all keys and items."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from nodes(value, (*above, key))


def test_random_mutations_never_escape() -> None:
    """Whatever a mutated config holds, it is refused by a message, or accepted and then survives the way to a job and back."""
    draw = random.Random(0)
    junk: list[Any] = [None, True, 0, -1, 1, 3, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "3"]
    junk += ["1e-4", "a/b", "../x.py", "x.py/", "\0.py", "é", "\ud800", "{replicate}", "a\nb", "cka", "random", "train", b"x"]
    junk += [[], {}, [[]], [None], {"a": {}}, {None: 1}, {1: 2}, {(1, 2): 3}, {"blocks": 1}, [{"blocks": 1}], {"blocks": None}]
    junk += [datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), {"x"}, ["cka"] * 3, "x" * 300, [{"dataset": "digits"}]]
    keys = [*Suite.model_fields, "\ud800", "epochs", "criteria", "blocks", "dense", "flops_reduction", "x", "", 3, None]
    accepted = refused = 0
    for _ in range(1500):
        content = demo()
        for _ in range(draw.choice([1, 1, 1, 2, 4])):
            path = draw.choice(list(nodes(content)) or [("suite",)])
            node: Any = content
            for part in path[:-1]:
                node = node[part]
            match draw.choice(["replace", "replace", "delete", "add", "copy"]):
                case "replace":
                    node[path[-1]] = copy.deepcopy(draw.choice(junk))
                case "delete":
                    node.pop(path[-1], None) if isinstance(node, dict) else node.pop(path[-1])
                case "add" if isinstance(node, dict):
                    node[draw.choice(keys)] = copy.deepcopy(draw.choice(junk))
                case "copy" if isinstance(node, list):
                    node.append(copy.deepcopy(node[path[-1]]))
        try:
            suite = parse(content, "my.yaml")
        except PrunebenchError as error:
            refused += 1
            assert str(error).startswith("my.yaml: ")
            assert not JARGON.search(str(error)), str(error)
            str(error).encode()
        else:
            accepted += 1
            assert parse(json.loads(suite.model_dump_json(by_alias=True, exclude_none=True)), "job") == suite
    assert accepted > 100
    assert refused > 800


def run_snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


SNAKEMAKE: list[tuple[str | None, list[str], str]] = [
    (yaml.safe_dump(changed("replicates", "three")), [], "replicates: 'three' is refused"),
    (yaml.safe_dump(changed("dense_training/epoch", 3)), [], "dense_training.epoch: unknown key; did you mean 'epochs'?"),
    (yaml.safe_dump(changed("schedules/one-shot/criteria/0", "cKa")), [], "'cKa' is not a known criterion"),
    (yaml.safe_dump(changed("operating_points/0", {"blocks": 10})), [], "10 is more than resnet32 can lose"),
    ("suite: [demo\n", [], "not valid JSON or YAML"),
    ("", [], "keys at top level"),
    ("- a\n", [], "keys at top level"),
    (None, ["--config", "suite=a/b"], "suite: 'a/b' is refused"),
]


@pytest.mark.parametrize(("text", "arguments", "words"), SNAKEMAKE, ids=[words for _, _, words in SNAKEMAKE])
def test_snakemake_prints_the_message_alone(tmp_path: Path, text: str | None, arguments: list[str], words: str) -> None:
    if text is not None:
        (tmp_path / "wrong.yaml").write_text(text)
        arguments = ["--configfile", str(tmp_path / "wrong.yaml")]
    finished = run_snakemake(*arguments)
    output = finished.stdout + finished.stderr
    assert finished.returncode != 0
    assert words in output, output
    assert "Traceback" not in output


def test_the_demo_is_in_order() -> None:
    assert read(DEMO).suite == "demo"


def test_the_schema_file_is_that_of_the_code() -> None:
    expected = json.dumps(schema(), indent=2) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == expected, "the classes in config.py changed: run `make schema`"


def properties(node: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """All properties in a schema: name, node, whether it is required."""
    for section, content in {"": node, **node["$defs"]}.items():
        content = content["anyOf"][1] if "anyOf" in content else content  # a section in whose place a name will do
        for key, value in content["properties"].items():
            yield f"{section}.{key}", value, key in content.get("required", [])


def test_every_property_is_described() -> None:
    whole = schema()
    found = list(properties(whole))
    assert len(found) > 50
    for name, node, required in found:
        assert len(resolve(node, whole).get("description", "")) > 5, name
        if not required:
            assert node.keys() & {"default", "type", "enum", "$ref", "items"}, name


def test_the_schema_accepts_the_demo_and_editors_find_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(demo(), schema())
    comment = DEMO.read_text(encoding="utf-8").splitlines()[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", comment)
    assert match, "the first line of the config tells editors of the schema"
    assert (DEMO.parent / match[1]).resolve() == SCHEMA


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replicates", "3"),
        ("replicate", 3),
        ("operating_points/0", {}),
        ("operating_points/0", {"blocks": 2, "flops_reduction": 20.0}),
        ("device", "gpu"),
        ("experiments", []),
        ("schedules/one-shot/x", 1),
        ("dense_training/epochs", 0),
    ],
)
def test_an_editor_with_the_schema_sees_these_mistakes(path: str, value: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(path, value), schema())


def config_table() -> Any:
    spec = importlib.util.spec_from_file_location("config_table", REPOSITORY / "tools" / "config_table.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_keys_is_that_of_the_code() -> None:
    text = (REPOSITORY / "config" / "README.md").read_text(encoding="utf-8")
    assert config_table().with_table(text) == text, "the classes in config.py changed: run `make schema`"


def test_the_table_has_every_key_of_the_demo() -> None:
    text = (REPOSITORY / "config" / "README.md").read_text(encoding="utf-8")
    for path in nodes(demo()):
        key = "".join("[]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        if key.startswith("evaluations[].options.") and not key.endswith("]"):
            assert f": {key.rpartition('.')[2]}` |" in text, key
        elif not key.endswith("]"):
            assert f"| `{key}` |" in text, key


def test_the_examples_of_the_readme_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example that is a whole config is accepted, with the files that it names."""
    text = (REPOSITORY / "config" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, source in re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    for name in re.findall(r"```snakemake\n# (\S+)", text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    whole = [example for example in examples if "suite" in example]
    assert len(whole) >= 3
    for example in whole:
        parse(example, "config/README.md")
