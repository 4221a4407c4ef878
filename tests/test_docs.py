"""The documentation says what is there: links, paths, names, quantities and code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunebench import plugins
from prunebench.criteria import Criterion
from prunebench.data import Dataset
from prunebench.evaluation import Evaluation
from prunebench.models import Model, find_model
from prunebench.surgery import Constraints, allowed, candidates

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [page for page in (REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md")), REPOSITORY / "config/README.md")]
KINDS = {"Criterion": (Criterion, "criteria"), "Model": (Model, "models"), "Dataset": (Dataset, "data")}
KINDS["Evaluation"] = (Evaluation, "evaluation")
# Places that are made when the project is used, and examples of a reader's own files.
MADE = ("results/", "logs/", "my/", "data/", ".venv", "config/small.yaml")
FOLDERS = "(?:docs|config|workflow|slurm|envs|tools|tests)"


def text_of(page: str) -> str:
    return (REPOSITORY / "docs" / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Evaluations with a section of their quantities; the attacks share one.
LOOKED_AT = ("accuracy", "complexity", "latency", "energy", "shortcut", "corruptions", "natural_shift", "calibration")


def table_names(text: str) -> set[str]:
    """What stands in backticks in the first cells of the tables."""
    cells = re.findall(r"^\|([^|]*)\|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def section(text: str, heading: str) -> str:
    """A part of a page, from a heading to the next one of its level."""
    [part] = [part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(heading + "\n")]
    return part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_named_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./<{{-]){FOLDERS}/[\w./*-]*[\w*/-]", text))
    missing = [path for path in named if not path.startswith(MADE) and not list(REPOSITORY.glob(path.rstrip("/")))]
    assert not missing


def test_every_built_in_criterion_is_explained_and_no_other() -> None:
    text = text_of("criteria.md")
    documented = table_names(section(text, "Baselines")) | table_names(section(text, "Similarity metrics"))
    documented |= set(re.findall(r"^## `([^`]+)`", text, flags=re.MULTILINE)) | table_names(
        section(text, "Variants of the consensus")
    )
    built_in = plugins.builtin(Criterion, "criteria")
    # The table of pitfalls names families.
    assert {name for name in documented if "*" not in name} == set(built_in)


def test_direction_of_baselines_is_the_one_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (lowest|highest) \|", text_of("criteria.md"), flags=re.MULTILINE)
    built_in = plugins.builtin(Criterion, "criteria")
    votes = {"consensus_median"}  # the others of its table are several to a row
    assert {name for name, _ in rows} == table_names(section(text_of("criteria.md"), "Baselines")) | votes
    assert all(built_in[name].removes == end for name, end in rows)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_every_quantity_is_explained(name: str) -> None:
    evaluation = plugins.builtin(Evaluation, "evaluation")[name]
    kind = "Reproducible" if evaluation.per == "network" else "Measured"
    documented = table_names(section(text_of("quantities.md"), f"{kind}: `{name}`"))
    assert set(evaluation.quantities) == documented - {"measured", "estimated"}


def test_every_column_of_the_quality_is_explained() -> None:
    from prunebench.reporting import quality

    documented = table_names(section(text_of("quantities.md"), "Reproducible: how good a criterion is"))
    plain = {name for name in quality.QUALITY_COLUMNS if not name.endswith(("_low", "_high"))}
    assert plain - {"dataset", "model", "criterion", "fine_tuning_epochs"} == documented - {"..._low", "..._high"}


def test_every_built_in_evaluation_is_looked_at() -> None:
    assert set(plugins.builtin(Evaluation, "evaluation")) == {*LOOKED_AT, "fgsm", "pgd", "autoattack"}


def test_every_built_in_dataset_and_model_is_named() -> None:
    text = text_of("running.md")
    assert set(plugins.builtin(Dataset, "data")) <= table_names(section(text, "Data"))
    listed = {name for name in table_names(section(text, "Models")) if not name.startswith("--")}
    assert listed == set(plugins.builtin(Model, "models"))


def test_table_of_models_says_what_they_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| (\d+) \| ([\d.]+) GMAC", text_of("running.md"), flags=re.MULTILINE)
    assert len(rows) == len(plugins.builtin(Model, "models")) - 5
    for name, stages, removable, gigamacs in rows:
        model = find_model(name)
        blocks = model.blocks()
        sizes = [sum(block.stage == stage for block in blocks) for stage in range(1, blocks[-1].stage + 1)]
        assert (name, ", ".join(map(str, sizes))) == (name, stages)
        assert sum(block.keeps_shape for block in blocks) == int(removable)
        assert f"{model.macs(model.dense(name, (3, 224, 224), 1000)) / 1e9:.3f}" == gigamacs


def test_numbers_of_blocks_that_can_go_are_right() -> None:
    text = text_of("running.md")
    for name, title in (("resnet50", "ResNet-50"), ("mobilenet_v2", "MobileNetV2"), ("vit_b_16", "ViT-B")):
        dense = find_model(name).dense(name, (3, 224, 224), 1000)
        number = len(allowed(dense.blocks, dense, Constraints()))
        assert re.search(rf"of {title} {number}\b", text)
    dense = find_model("resnet18").dense("resnet18", (3, 224, 224), 1000)
    assert [len(allowed(dense.blocks, dense, Constraints(minimum_blocks=number))) for number in (2, 1)] == [0, 4]


def test_example_of_a_network_with_found_blocks(tmp_path: Path) -> None:
    import torch

    from prunebench.models.files import build

    [code] = re.findall(
        r"^```python\n([^`]*found_model\([^`]*)^```", text_of("adding-a-method.md"), flags=re.DOTALL | re.MULTILINE
    )
    model: Model = plugin(code, "Model", tmp_path)  # type: ignore[assignment]
    dense = model.dense(str(tmp_path / "example.py"), (3, 64, 64), 10)
    assert len(candidates(dense, Constraints())) > 5
    assert build(dense.without(candidates(dense, Constraints())[:2])).eval()(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def whole_files() -> list[tuple[str, str]]:
    """(kind, code) of the Python blocks that define a plugin."""
    blocks = re.findall(r"^```python\n(.*?)^```", text_of("adding-a-method.md"), flags=re.DOTALL | re.MULTILINE)
    makers = {**dict.fromkeys(KINDS), "Criterion": "(?:Criterion|consensus)"}
    return [
        (kind, code)
        for code in blocks
        for kind in KINDS
        if re.search(rf"^\w+ = {makers[kind] or kind}\(", code, flags=re.MULTILINE)
    ]


def plugin(code: str, kind: str, folder: Path) -> object:
    file = folder / "example.py"
    file.write_text(code, encoding="utf-8")
    return plugins.find(*KINDS[kind], str(file))


def test_there_is_an_example_of_each_kind() -> None:
    assert {kind for kind, _ in whole_files()} == set(KINDS)


@pytest.mark.parametrize(("kind", "code"), whole_files(), ids=lambda value: value if value in KINDS else "")
def test_example_defines_its_object(kind: str, code: str, tmp_path: Path) -> None:
    assert plugin(code, kind, tmp_path).name  # type: ignore[attr-defined]


def test_example_criterion_is_the_file_in_examples() -> None:
    shown = [code for kind, code in whole_files() if kind == "Criterion"]
    for name in ("weight_norm", "three_votes"):
        assert (REPOSITORY / f"docs/examples/{name}.py").read_text(encoding="utf-8") in shown


def test_example_criteria_score_every_block(tmp_path: Path) -> None:
    import torch

    from prunebench.data import ResidentImages, Split, find_dataset
    from prunebench.models import find_model
    from prunebench.models.files import build
    from prunebench.scoring import Probe, checked_scores

    torch.manual_seed(0)
    dataset = find_dataset("digits")
    architecture = find_model("resnet20").dense("resnet20", dataset.input_shape, dataset.classes)
    images = ResidentImages(torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    for number, code in enumerate(code for kind, code in whole_files() if kind == "Criterion"):
        folder = tmp_path / str(number)
        folder.mkdir()
        criterion = plugin(code, "Criterion", folder)
        blocks = ["stage1.block1", "stage2.block1", "stage3.block2"]
        probe = Probe(build(architecture).eval(), blocks, Split(dataset, images, torch.arange(20)), 10)
        scores = checked_scores(criterion, probe)  # type: ignore[arg-type]
        assert len(set(scores)) == len(blocks)


def test_example_model_counts_and_sheds_blocks(tmp_path: Path) -> None:
    import torch

    from prunebench.evaluation.complexity import count_macs
    from prunebench.surgery import remove

    [code] = [code for kind, code in whole_files() if kind == "Model"]
    model = plugin(code, "Model", tmp_path)
    dense = model.dense(str(tmp_path / "example.py"), (1, 8, 8), 10)  # type: ignore[attr-defined]
    network = model.build(dense)  # type: ignore[attr-defined]
    assert count_macs(network, (1, 8, 8)) == model.macs(dense)  # type: ignore[attr-defined]
    smaller, architecture = remove(network.state_dict(), dense, [dense.blocks[2]])
    assert count_macs(smaller, (1, 8, 8)) == model.macs(architecture) < model.macs(dense)  # type: ignore[attr-defined]
    assert smaller(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_example_evaluation_returns_what_it_declares(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from prunebench.data import ResidentImages, Split, find_dataset
    from prunebench.evaluation import Subject

    [code] = [code for kind, code in whole_files() if kind == "Evaluation"]
    evaluation = plugin(code, "Evaluation", tmp_path)
    # Each class is one bright pixel, so this network is right whatever the noise.
    pixels = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    pixels.view(10, 64)[torch.arange(10), torch.arange(10)] = 255
    split = Split(find_dataset("digits"), ResidentImages(pixels, torch.arange(10)), torch.arange(10))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(64)[:10])
    subject = Subject(network, (1, 8, 8), 10, lambda: split, torch.device("cpu"))
    values = evaluation.measure(subject).values  # type: ignore[attr-defined]
    assert set(values) == set(evaluation.quantities)  # type: ignore[attr-defined]
    assert list(values.values()) == [100.0]


def test_yaml_examples_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every fragment, put over the demo's config, is a config; paths of the reader's own are filled in from the page."""
    import yaml

    from prunebench.config import parse

    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    (tmp_path / "my").mkdir()
    examples = dict(reversed([(kind, code) for kind, code in whole_files()]))
    for kind, name in (("Model", "residual"), ("Dataset", "flowers"), ("Evaluation", "noise")):
        (tmp_path / "my" / f"{name}.py").write_text(examples[kind], encoding="utf-8")
    demo = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text(encoding="utf-8"))
    fragments = re.findall(r"^```yaml\n(.*?)^```", text_of("adding-a-method.md"), flags=re.DOTALL | re.MULTILINE)
    assert len(fragments) >= 5
    for fragment in fragments:
        suite = parse({**demo, **yaml.safe_load(fragment), "operating_points": [{"blocks": 1}]}, fragment)
        assert suite.experiments
