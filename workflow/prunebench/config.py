"""The typed configuration of a suite: one file says everything, and every mistake in it is refused before a job starts.

The JSON schema in ``workflow/schemas/config.schema.json`` is made from these classes (``prunebench schema``).
"""

from __future__ import annotations

import datetime
import difflib
import math
import reprlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunebench.errors import PrunebenchError

DEFAULT_EVALUATIONS = ("accuracy", "complexity", "latency", "energy")
NAME = r"^[A-Za-z0-9_-]+$"
REFERENCE = r"^([A-Za-z0-9_-]+|.+\.py)$"
DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?|mps)$"
COUNTRY = r"^[A-Z]{3}$"
# What the patterns mean to a reader of messages and of the table of keys.
WORDS = {
    NAME: "a name of letters, digits, _ and -",
    REFERENCE: "a name, or the path of a .py file",
    DEVICE: "auto, cpu, cuda, cuda:<number> or mps",
    COUNTRY: "three capital letters (ISO 3166-1 alpha-3), such as DEU",
}

Name = Annotated[str, Field(pattern=NAME)]
Reference = Annotated[str, Field(pattern=REFERENCE)]
Percent = Annotated[float, Field(gt=0, lt=100)]


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


SomeSection = TypeVar("SomeSection", bound=Section)


class Data(Section):
    """Where images come from and how they are split."""

    root: str = "data"
    """Folder that holds the datasets, in the form that torchvision expects; digits needs none."""
    download: bool = False
    """Whether a missing dataset may be downloaded."""
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Part of the training images that is kept for validation."""
    test_fraction: float = Field(0.2, gt=0, lt=0.5)
    """Part of all images that is kept for testing, where the dataset has no official test split (digits)."""
    normalisation: Literal["per-channel", "per-pixel"] = "per-channel"
    """Training mean and standard deviation for each channel, or the mean image alone (as in the papers)."""


class Training(Section):
    """Stochastic gradient descent with Nesterov momentum."""

    learning_rate: float = Field(0.1, gt=0)
    """Learning rate at the start."""
    schedule: Literal["step", "cosine"] = "cosine"
    """Divide the rate by 10 at half and three quarters of the epochs, or let it fall to zero along a cosine."""
    batch_size: int = Field(128, ge=1)
    """Images in a step."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Nesterov momentum."""
    weight_decay: float = Field(2e-4, ge=0)
    """On convolution kernels, and on matrices of dense layers in blocks, as transformers have them; torch's 2e-4 is Keras' l2(1e-4)."""
    batch_norm_momentum: float = Field(0.1, gt=0, le=1)
    """Weight of a new batch in the running statistics (torch's sense; Keras' 0.99 is 0.01 here)."""
    augment: bool = True
    """Random crop and horizontal flip, as far as they suit the dataset."""


class Dense(Training):
    """Training of the dense network."""

    epochs: int = Field(30, ge=1)
    """Passes over the training split."""


class FineTuning(Training):
    """Training after removal. Every criterion gets the same budget for a removed block."""

    learning_rate: float = Field(0.01, gt=0)
    """Learning rate at the start of each fine-tuning."""
    epochs_per_block: int = Field(1, ge=0)
    """Epochs for each removed block: one-shot removal of k blocks is followed by k times as many."""


class Sample(Section):
    """The images that criteria see: from the training split, the same for all criteria."""

    images_per_class: int = Field(100, ge=1)
    """Images of each class."""
    batch_size: int = Field(100, ge=1)
    """Images in one forward pass of the sweep; scores do not depend on it."""


class ConstraintsSection(Section):
    """What pruning must leave."""

    keep_first_block: bool = True
    """The first block of every stage stays."""
    minimum_blocks: int = Field(2, ge=1)
    """Fewest blocks of a stage."""


class OperatingPoint(Section):
    """A step of the chain at which the network is kept and evaluated: exactly one of the two keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    blocks: int | None = Field(None, ge=1)
    """Number of blocks removed."""
    flops_reduction: Percent | None = None
    """Reduction of multiply-accumulates in percent: the smallest number of blocks that gives it, less 0.01 points."""

    @model_validator(mode="after")
    def _one_of_two(self) -> OperatingPoint:
        if (self.blocks is None) == (self.flops_reduction is None):
            raise ValueError("exactly one of the keys blocks and flops_reduction")
        return self

    @property
    def name(self) -> str:
        """As in paths: ``blocks3`` or ``flops54_6``."""
        if self.blocks is not None:
            return f"blocks{self.blocks}"
        return f"flops{self.flops_reduction:g}".replace(".", "_")


class OneShot(Section):
    """Remove all blocks by the dense network's scores, then fine-tune once."""

    criteria: list[Reference] = Field(default_factory=list)
    """Names of criteria, or paths of Python files that define one."""
    draws: int = Field(10, ge=1)
    """Repetitions of criteria that draw at random."""


class Iterative(OneShot):
    """Remove a few blocks, fine-tune, score again."""

    draws: int = Field(3, ge=1)
    """Repetitions of criteria that draw at random."""
    blocks_per_step: int = Field(1, ge=1)
    """Blocks removed between two fine-tunings."""


class Filters(Section):
    """Layer pruning followed by filter pruning: networks of `one-shot` lose the filters of least l1 norm too."""

    criteria: list[Reference] = Field(default_factory=list)
    """Which of the criteria of `one-shot`; with all of their draws."""
    flops_reduction: Percent = 20.0
    """What is to go by filters, in percent of what the network still has without its blocks."""
    epochs: int = Field(1, ge=0)
    """Passes over the training split after that; a further fine-tuning, with the settings of `fine_tuning`."""


class Schedules(Section):
    """How removal and fine-tuning take turns, and which criteria are followed in each way."""

    one_shot: OneShot = Field(default_factory=OneShot, alias="one-shot")
    """All blocks at once."""
    iterative: Iterative = Field(default_factory=Iterative)
    """A few blocks at a time."""
    one_shot_filters: Filters = Field(default_factory=Filters, alias="one-shot-filters")
    """All blocks at once, then filters."""


class Oracle(Section):
    """How good each criterion is: every block of the dense network is removed by itself, to see what the validation loss becomes."""

    epochs: int = Field(1, ge=0)
    """Epochs of the short fine-tuning after the removal of one block, with the settings of `fine_tuning`; 0 for none."""
    criteria: list[Reference] = Field(default_factory=list)
    """Criteria to score and hold to the oracle beside those of the schedules; they are not followed."""


class External(Section):
    """What rules of your own deliver (docs/adding-a-method.md)."""

    rules: list[str] = Field(default_factory=list)
    """Snakemake files to include."""
    rankings: list[Name] = Field(default_factory=list)
    """Criteria whose ranking.csv a rule of yours writes; pruned one-shot."""
    networks: list[Name] = Field(default_factory=list)
    """Methods whose pruned network a rule of yours writes; evaluated as delivered."""


def _or_name(section: dict[str, Any]) -> None:
    """The schema of a section in whose place a name will do."""
    own = dict(section)
    section.clear()
    section["anyOf"] = [{"type": "string", "pattern": REFERENCE}, own]


class EvaluationItem(Section):
    """One evaluation; its name alone will do. The limits say which pruned networks are evaluated; the dense ones always are."""

    model_config = ConfigDict(json_schema_extra=_or_name)

    evaluation: Reference
    """Name of an evaluation, or path of a Python file that defines one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What this evaluation lets you set (see below)."""
    datasets: list[Name] | None = Field(None, min_length=1)
    """Only on these datasets."""
    schedules: list[Name] | None = Field(None, min_length=1)
    """Only networks of these schedules (`one-shot`, `iterative`, `one-shot-filters`, `delivered`)."""
    criteria: list[Name] | None = Field(None, min_length=1)
    """Only networks of these criteria or methods."""
    operating_points: list[Name] | None = Field(None, min_length=1)
    """Only these operating points, as in paths: `blocks5`, `flops54_6`."""
    replicates: int | None = Field(None, ge=1)
    """Only the first so many replicates, dense networks included."""
    draws: int | None = Field(None, ge=1)
    """Only the first so many draws of criteria that draw at random."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, content: Any) -> Any:
        return {"evaluation": content} if isinstance(content, str) else content

    @property
    def limits(self) -> tuple[Any, ...]:
        """What evaluations have in common that one job can make."""
        return tuple(
            tuple(value) if isinstance(value, list) else value
            for value in self.model_dump(exclude={"evaluation", "options"}).values()
        )


class Jobs(Section):
    """How work is divided into jobs. Results do not depend on it; `prunebench plan` says how long jobs take."""

    chains_per_job: int = Field(1, ge=1)
    """Chains (a criterion on a schedule, with all of its draws and operating points) that one job follows, one after the other. More
    than one where a chain takes little more time than the start of a job."""
    chains_per_evaluation: int = Field(1, ge=1)
    """Chains whose networks one job evaluates. Evaluating takes less time than training, so more than `chains_per_job`."""


class Accounting(Section):
    """How energy and carbon are accounted."""

    country_iso_code: str = Field("DEU", pattern=COUNTRY)
    """Country whose carbon intensity is used."""
    carbon_intensity_g_per_kwh: float | None = Field(None, gt=0)
    """Carbon intensity to use in place of the country's."""
    cpu_power_watts: float | None = Field(None, gt=0)
    """Nominal power of the whole processor, where it cannot be measured and the tables do not know it."""


class Figures(Section):
    """How wide figures are on the printed page: their letters have their size at these widths. The paper has this width of text."""

    column_width_mm: float = Field(84.0, ge=50, le=400)
    """Width of one column, in millimetres."""
    text_width_mm: float = Field(174.0, ge=100, le=400)
    """Width of all columns together, in millimetres."""


class Delivered(Section):
    """Finished networks from files, each evaluated as it is: a sequence of one method, in the order in which they were made."""

    method: Name
    """Name of the method that made them."""
    network: str
    """Folder of a network (architecture.json, weights.safetensors), or Keras weights (.h5) with the architecture beside them (.json);
    `{point}` and `{replicate}` in it are filled in."""
    points: list[Name] = Field(min_length=1)
    """Names of the networks, in order; they are the operating points in tables."""
    audit: bool = True
    """Whether each network was made from the one before, the first from the dense one, by removing blocks: the audit then says which."""


class Audit(Section):
    """What is set beside the blocks that went between two delivered networks."""

    criteria: list[Reference] = Field(default_factory=list)
    """Criteria that say what they would have removed; without any, the audit needs no images."""


class Experiment(Section):
    """One dataset and model; the other keys replace the suite's for this experiment."""

    dataset: Reference
    """Name of a dataset, or path of a Python file that defines one."""
    model: Reference
    """Name of a model, or path of a Python file that defines one."""
    dense: str = "train"
    """`train`, or a trained network: its folder (architecture.json, weights.safetensors), or Keras weights (.h5) with the architecture
    beside them (.json); `{replicate}` in it is filled in."""
    keras_compatible: bool = False
    """Convolution biases, batch-norm epsilon and padding as in Keras, for networks imported from there."""
    dense_training: Dense | None = None
    """In place of the suite's `dense_training`."""
    fine_tuning: FineTuning | None = None
    """In place of the suite's `fine_tuning`."""
    operating_points: list[OperatingPoint] | None = Field(None, min_length=1)
    """In place of the suite's `operating_points`."""
    sample: Sample | None = None
    """In place of the suite's `sample`."""
    criteria: list[Name] | None = Field(None, min_length=1)
    """Only these of the suite's criteria are followed here, by name; rankings and networks of your own rules too."""
    schedules: list[Name] | None = Field(None, min_length=1)
    """Only these of the suite's schedules."""
    oracle: bool = True
    """Whether the suite's oracle is asked here too."""
    delivered: list[Delivered] = Field(default_factory=list)
    """Finished networks from files, evaluated as they are."""


class Suite(Section):
    """A suite of experiments: the whole config file."""

    suite: Name
    """Name of the suite: results go to results/<suite>/."""
    seed: int = Field(0, ge=0)
    """Every other seed is derived from this one and from what it is for."""
    replicates: int = Field(3, ge=1)
    """Independent repetitions: dense training, sample and random draws."""
    threads: int = Field(1, ge=1)
    """CPU threads of a job. Part of what makes results reproducible, so it is not the number of cores."""
    device: str = Field("auto", pattern=DEVICE)
    """`auto` takes a GPU where there is one."""
    experiments: list[Experiment] = Field(min_length=1)
    """Datasets and models."""
    schedules: Schedules = Field(default_factory=Schedules)
    """Which criteria are followed one-shot and which iteratively."""
    operating_points: list[OperatingPoint] | None = Field(None, min_length=1)
    """Where networks are evaluated. Required unless all networks are delivered from files."""
    data: Data = Field(default_factory=Data)
    """Where images come from and how they are split."""
    sample: Sample = Field(default_factory=Sample)
    """The images that criteria see."""
    constraints: ConstraintsSection = Field(default_factory=ConstraintsSection)
    """What pruning must leave."""
    dense_training: Dense = Field(default_factory=Dense)
    """Training of dense networks."""
    fine_tuning: FineTuning = Field(default_factory=FineTuning)
    """Training after removal."""
    evaluations: list[EvaluationItem] = Field(
        default_factory=lambda: [EvaluationItem(evaluation=name) for name in DEFAULT_EVALUATIONS], min_length=1
    )
    """What is evaluated: names of evaluations, paths of Python files that define one, or sections with options and limits. By default
    `accuracy`, `complexity`, `latency` and `energy`."""
    energy: Accounting = Field(default_factory=Accounting)
    """How energy and carbon are accounted."""
    figures: Figures = Field(default_factory=Figures)
    """How wide figures are on the printed page."""
    jobs: Jobs = Field(default_factory=Jobs)
    """How work is divided into jobs."""
    external: External = Field(default_factory=External)
    """What rules of your own deliver."""
    oracle: Oracle | None = None
    """Whether criteria are held to the oracle; without this section they are not."""
    audit: Audit = Field(default_factory=Audit)
    """What is set beside the blocks that went between two delivered networks."""


def parse(content: Mapping[str, Any], origin: str) -> Suite:
    """Check a config and give it types.

    Args:
        content: The config as read from YAML.
        origin: Name of its file or files, for messages.

    Raises:
        PrunebenchError: one line for each mistake: file, key, value and what would be accepted.
    """
    if not isinstance(content, Mapping):
        raise PrunebenchError(f"{origin}: holds {_shown(content)}, expected keys and values")
    if "oracle" in content and content["oracle"] is None:
        # In YAML a section whose keys are all left out; to take it for none would be the opposite of what is meant.
        raise PrunebenchError(f"{origin}: oracle: null (nothing) is refused (accepted: a section; {{}} takes its defaults)")
    try:
        suite = Suite.model_validate(dict(content))
    except ValidationError as error:
        raise PrunebenchError("\n".join(_explain(detail, origin) for detail in error.errors())) from None
    mistakes = list(_mistakes(suite))
    if mistakes:
        lines = "\n".join(f"{origin}: {mistake}" for mistake in mistakes)
        # A path may hold what is no Unicode, and a message that cannot be printed helps nobody.
        raise PrunebenchError(lines.encode("utf-8", "backslashreplace").decode())
    return suite


def _key(location: tuple[int | str, ...]) -> str:
    """('schedules', 'one-shot', 'criteria', 2) to schedules.one-shot.criteria[2]."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(value: object) -> str:
    """A value as in YAML, and not at length."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null (nothing)")
    if isinstance(value, datetime.date):
        return f"the date {value}"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)


def _hint(value: object, accepted: str) -> str:
    """How to write what was probably meant, where YAML reads something else than a person."""
    if isinstance(value, str) and accepted.startswith(("a number", "a whole number")):
        try:
            number = float(value)
        except ValueError:
            return ""
        if math.isfinite(number):
            text = f"{number:g}" if "e" not in f"{number:g}" else f"{number:.6e}".replace("00000e", "e")
            return f"; YAML reads this as text, write {text}"
    if accepted.startswith(("a name", "text")) and isinstance(value, int | float | datetime.date):
        return "; put it in quotes if it is meant as text"
    return ""


def refused_options(kind: type[Section], content: Mapping[str, Any], key: str) -> list[str]:
    """What is wrong with options that a plugin's class ``kind`` describes: a line for each mistake, with the key of the config."""
    try:
        kind.model_validate(dict(content))
    except ValidationError as error:
        return [_refused_option(detail, key, kind) for detail in error.errors()]
    return []


def _refused_option(detail: Any, key: str, kind: type[Section]) -> str:
    """Like ``_explain``; a plugin's options may be of types that the config itself has not, for which pydantic's own words must do."""
    try:
        return _explain(detail, key, kind.model_json_schema(), joint=".")
    except (KeyError, ValueError, TypeError, AttributeError):
        return f"{key}.{_key(detail['loc'][:1])}: {_shown(detail['input'])} is refused ({detail['msg']})"


def _explain(detail: Any, origin: str, whole: Mapping[str, Any] | None = None, joint: str = ": ") -> str:
    """One line on a mistake that pydantic found: file, key, value, what the schema ``whole``, by default the config's, accepts."""
    whole = schema() if whole is None else whole
    location, value = detail["loc"], detail["input"]
    if detail["type"] == "string_unicode":  # also for a key, whose location is then that of its section
        return f"{origin}: {_key(location) or 'top level'}: {_shown(value)} is not valid Unicode"
    if not location:
        return f"{origin}: {_shown(value)} is refused (accepted: {detail['ctx']['error']})"
    if location[-1] == "[key]":
        return f"{origin}{joint}{_key(location[:-2])}: {_shown(value)} is not a key (accepted: text)"
    *above, last = location
    key = f"{origin}{joint}{_key(location)}"
    match detail["type"]:
        case "extra_forbidden":
            known = list(_schema_at(tuple(above), whole)["properties"])
            near = difflib.get_close_matches(str(last), known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"{key}: unknown key{hint} (accepted: {', '.join(known)})"
        case "invalid_key":
            known = list(_schema_at(tuple(above), whole)["properties"])
            where = f"{_key(tuple(above))}: " if above else ""
            return f"{origin}: {where}{_shown(value)} is not a key (accepted: {', '.join(known)})"
        case "missing":
            return f"{key}: this key is required (accepted: {accepted(_schema_at(location, whole))})"
        case "value_error":
            return f"{key}: {_shown(value)} is refused (accepted: {detail['ctx']['error']})"
    wanted = accepted(_schema_at(location, whole))
    return f"{key}: {_shown(value)} is refused (accepted: {wanted}){_hint(value, wanted)}"


def _schema_at(location: tuple[int | str, ...], whole: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a schema that a key has to obey."""
    node = dict(whole)
    for part in location:
        node = resolve(node["items"] if isinstance(part, int) else node["properties"][part], whole)
    return node


def resolve(node: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """A node of the schema without null and without references; its own keywords, such as the description, win."""
    [target] = [option for option in node.get("anyOf", [node]) if option.get("type") != "null"]
    if "$ref" in target:
        target = whole["$defs"][target["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in target:  # a section in whose place a name will do
        name, section = target["anyOf"]
        target = {**section, "name": name["pattern"]}
    return {**target, **{key: value for key, value in node.items() if key not in ("anyOf", "$ref")}}


def accepted(node: Mapping[str, Any]) -> str:
    """What a node of the schema (see ``resolve``) accepts, in words: ``a whole number of at least 1``."""
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = " and ".join(f"{words} {node[key]:g}" for key, words in bounds.items() if key in node)
    if "enum" in node:
        return " or ".join(node["enum"])
    if "pattern" in node:
        return WORDS[node["pattern"]]
    match node["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number {limits}".strip().replace("number at", "number of at")
        case "number":
            return f"a number {limits}".strip().replace("number at", "number of at")
        case "array":
            items = "" if "type" not in node["items"] else f", each {accepted(node['items'])}"
            return ("a list of at least one item" if node.get("minItems") else "a list") + items
        case "object":
            name = f"{WORDS[node['name']]}, or " if "name" in node else ""
            return f"{name}keys and values{': ' if 'properties' in node else ''}{', '.join(node.get('properties', ()))}"
    return "text"


def _mistakes(suite: Suite) -> list[str]:
    """What types alone cannot see: names that do not exist, points that the model cannot reach, paths that are not there."""
    from prunebench import mistakes

    return mistakes.mistakes(suite)


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of the config, with every key's meaning and default."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema()}


def _yaml(path: Path) -> Any:
    """What a YAML file holds; see ``read`` for what it raises."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file") from None
    except OSError as error:
        raise PrunebenchError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PrunebenchError(f"{path}: not UTF-8 text: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, such as 2024-02-30
        raise PrunebenchError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def read(path: Path) -> Suite:
    """Read and check a config file.

    Raises:
        PrunebenchError: the file is missing, not YAML, or holds a mistake.
    """
    return parse(_yaml(path), str(path))


def read_section(path: Path, kind: type[SomeSection]) -> SomeSection:
    """Read and check a file that holds a section of its own, such as what is told of a cluster; an empty one takes all defaults.

    Raises:
        PrunebenchError: the file is missing, not YAML, or holds mistakes: a line for each, as in ``parse``.
    """
    content = _yaml(path) or {}
    if not isinstance(content, Mapping):
        raise PrunebenchError(f"{path}: holds {_shown(content)}, expected keys and values")
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        whole = kind.model_json_schema()
        raise PrunebenchError("\n".join(_explain(detail, str(path), whole) for detail in error.errors())) from None
