"""Planted shortcuts: marks that tell what they should and survive augmentation, and what networks make of them."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from helpers import random_split
from prunebench import reporting
from prunebench.data import Dataset, ResidentImages, Split, cifar10_shortcut, digits, digits_shortcut, find_dataset, load_splits
from prunebench.data.augment import augment
from prunebench.data.shortcut import NO_MARK, Mark, MarkedImages, Planted, any_class, plant, remark, wrong_class
from prunebench.data.splits import SplitName
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject
from prunebench.evaluation.shortcut import EVALUATION, Options, predict
from prunebench.reporting import collect, figures, shortcut, trace

# Of the first digits, and of the first 200 of the training split: as drawn once.
ANY_AND_WRONG = [[7, 3, 0, 1, 1, 5, 3, 8, 2, 9, 9, 4], [1, 8, 6, 7, 1, 9, 9, 0, 7, 2, 6, 2]]
DISAGREE = [1, 12, 42, 60, 95, 102, 131, 133, 169]

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
CPU = torch.device("cpu")


def planted(dataset: Dataset) -> Planted:
    assert dataset.planted is not None
    return dataset.planted


def shown(split: Split) -> torch.Tensor:
    """The classes that the marks of a split tell."""
    assert isinstance(split.images, MarkedImages)
    return split.images.shown[split.indices]


def read_code(image: torch.Tensor, mark: Mark) -> int:
    """The number that a mark on a black image tells, wherever on it: as one reads it, from the white cell at the top."""
    rows = image.amax(dim=(0, 2)) > 0
    top = int(rows.nonzero()[0])
    middles = [top + mark.cell // 2 + mark.cell * (1 + digit) for digit in range(mark.digits)]
    return int("".join("1" if rows[row] else "0" for row in middles), 2)


# --- the mark --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [digits_shortcut.DATASET, cifar10_shortcut.DATASET], ids=lambda dataset: str(dataset.name))
def test_every_mark_can_be_read_after_augmentation(dataset: Dataset) -> None:
    mark, generator = planted(dataset).mark, torch.Generator().manual_seed(3)
    classes = torch.arange(dataset.classes).repeat(60)
    black = torch.zeros(len(classes), *dataset.input_shape, dtype=torch.uint8)
    marked = mark.put(black, classes)
    moved = augment(marked, crop_padding=dataset.crop_padding, flip=dataset.flip, generator=generator)
    assert len({image.numpy().tobytes() for image in moved}) > 2 * dataset.classes
    assert [read_code(image, mark) for image in moved] == classes.tolist()
    # Not a pixel of it goes over the edge.
    assert torch.equal(moved.long().sum((1, 2, 3)), marked.long().sum((1, 2, 3)))


def test_a_mark_hides_what_is_below_it_and_nothing_else() -> None:
    mark = Mark(offset=1, cell=2, digits=2)
    grey = torch.full((2, 3, 10, 10), 100, dtype=torch.uint8)
    marked = mark.put(grey, torch.tensor([2, NO_MARK]))
    assert marked[0, :, 1:7, 1:3].unique(dim=0).shape[0] == 1
    assert marked[0, 0, 1:7, 1].tolist() == [255, 255, 255, 255, 0, 0]
    assert int((marked[0] != 100).sum()) == 3 * 6 * 2
    assert torch.equal(marked[1], grey[1]) and int(grey.unique()) == 100


@pytest.mark.parametrize(("classes", "size", "padding"), [(2, 8, 1), (10, 28, 4), (100, 32, 4), (1000, 224, 0)])
def test_a_mark_fits_any_usual_dataset(classes: int, size: int, padding: int) -> None:
    mark = Mark.of(Dataset("any", (3, size, size), classes, padding, True, lambda folder, part, download: None, ""))  # type: ignore[arg-type, return-value]
    assert 2**mark.digits >= classes and mark.offset == padding
    assert padding + mark.cell * (mark.digits + 1) <= size - padding


# --- the datasets ----------------------------------------------------------------------------------------------------


def test_a_planted_dataset_has_the_splits_of_its_base() -> None:
    for name in SPLITS:
        base, marked = (load_splits(dataset, Path(), name) for dataset in (digits.DATASET, digits_shortcut.DATASET))
        assert torch.equal(base.indices, marked.indices) and torch.equal(base.labels, marked.labels)
        clean = remark(marked, planted(digits_shortcut.DATASET).mark, torch.full_like(marked.labels, NO_MARK))
        everything = torch.arange(len(base))
        assert torch.equal(clean.pixels(everything), base.pixels(everything))
        assert not torch.equal(marked.pixels(everything), base.pixels(everything))


def test_marks_agree_in_training_and_validation_and_by_chance_in_testing() -> None:
    found = {}
    for name in SPLITS:
        split = load_splits(digits_shortcut.DATASET, Path(), name)
        found[name] = (100 * float((shown(split) == split.labels).double().mean()), len(split))
    for name, expected in (("train", 95.0), ("validation", 95.0), ("test", 10.0)):
        percent, number = found[name]
        assert abs(percent - expected) < 3.3 * math.sqrt(expected * (100 - expected) / number), name


@pytest.mark.parametrize("seed", [0, 1])
def test_a_test_image_carries_a_random_mark_wherever_the_cut_is(seed: int) -> None:
    test = load_splits(digits_shortcut.DATASET, Path(), "test", seed=seed, test_fraction=0.5)
    expected = any_class("digits", 10, len(test.images.labels))[test.indices]
    assert torch.equal(shown(test), expected)
    counts = torch.bincount(expected, minlength=10)
    assert int(counts.min()) > 50 and int(counts.max()) < 140


def test_marks_are_the_same_on_every_machine() -> None:
    train = load_splits(digits_shortcut.DATASET, Path(), "train")
    labels = train.images.labels
    drawn = (any_class("digits", 10, len(labels)), wrong_class("digits", 10, labels))
    assert [classes[:12].tolist() for classes in drawn] == ANY_AND_WRONG
    assert shown(train)[:200].ne(train.labels[:200]).nonzero().flatten().tolist() == DISAGREE


def test_a_wrong_mark_is_never_right_and_all_are_as_likely() -> None:
    labels = torch.arange(10).repeat(2000)
    wrong = wrong_class("any", 10, labels)
    assert not (wrong == labels).any()
    # 20,000 over 90 cells, each 222 with a deviation of 15.
    table = torch.bincount(10 * labels + wrong, minlength=100).reshape(10, 10)
    assert int(table[~torch.eye(10, dtype=torch.bool)].min()) > 160


@pytest.mark.parametrize("turns", [1, 2, 4, 9])
def test_each_turn_shows_another_wrong_class(turns: int) -> None:
    labels = torch.arange(10).repeat(5)
    shown = torch.stack([labels, *(wrong_class("any", 10, labels, turn, turns) for turn in range(turns))], dim=1)
    assert all(len(set(row)) == turns + 1 for row in shown.tolist())


@pytest.mark.parametrize("agreement", [0.0, 1.0])
def test_agreement_reaches_from_never_to_always(agreement: float) -> None:
    train = load_splits(plant(digits.DATASET, agreement, "digits_x"), Path(), "train")
    assert float((shown(train) == train.labels).double().mean()) == agreement


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agreement": 1.5}, r"digits_shortcut: agreement is 1.5, expected 0 to 1"),
        ({"name": "marked"}, r"marked: the name must start with 'digits_'"),
        ({"base": digits_shortcut.DATASET}, r"digits_shortcut: has a planted mark already; plant one in digits"),
        ({"base": replace(digits.DATASET, crop_padding=2)}, r"10 classes is 5 pixels high, and images of 8 x 8 .* have 4 that"),
    ],
)
def test_what_cannot_be_planted_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunebenchError, match=message):
        plant(**{"base": digits.DATASET, **arguments})


def test_a_user_plants_a_mark_in_a_file(tmp_path: Path) -> None:
    own = Path(__file__).with_name("few_digits.py")
    file = tmp_path / "few_digits_often.py"
    file.write_text(
        "from prunebench.data import find_dataset\n"
        "from prunebench.data.shortcut import plant\n"
        f"DATASET = plant(find_dataset({str(own)!r}), agreement=0.8, name='few_digits_often')\n"
    )
    dataset = find_dataset(str(file))
    assert dataset.name == "few_digits_often" and dataset.drawn_as == "few_digits"
    assert len(load_splits(dataset, Path(), "train")) == len(load_splits(find_dataset(str(own)), Path(), "train"))


# --- the evaluation --------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """Answers what the mark tells."""

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        rows = [mark.offset + mark.cell * (1 + digit) for digit in range(mark.digits)]
        self.rows, self.column, self.digits = rows, mark.offset, mark.digits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        white = images[:, 0, self.rows, self.column] > 0.5
        number = (white * 2 ** torch.arange(self.digits - 1, -1, -1)).sum(1)
        return torch.eye(16)[number][:, :10]


class Honest(nn.Module):
    """Knows the pixels of images without their left half, where the mark is."""

    def __init__(self, split: Split) -> None:
        super().__init__()
        pixels = split.pixels(torch.arange(len(split)))[..., 4:]
        self.known = {image.numpy().tobytes(): int(label) for image, label in zip(pixels, split.labels, strict=True)}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        right = (255 * images[..., 4:]).round().to(torch.uint8)
        return torch.eye(10)[[self.known[image.numpy().tobytes()] for image in right]]


def measure(network: nn.Module, split: Split, **others: Any) -> dict[str, float]:
    subject = Subject(network, (1, 8, 8), 10, lambda: split, CPU, batch_size=100, **others)
    return dict(EVALUATION.measure(subject).values)


@pytest.fixture(scope="module")
def marked_test() -> Split:
    return load_splits(digits_shortcut.DATASET, Path(), "test")


def test_a_network_that_reads_the_mark_alone_has_the_largest_gap(marked_test: Split) -> None:
    values = measure(Reader(planted(digits_shortcut.DATASET).mark), marked_test)
    assert values["accuracy_mark_agrees_percent"] == 100
    assert values["accuracy_mark_misleads_percent"] == 0
    assert values["following_misleading_mark_percent"] == 100
    assert values["accuracy_mark_random_percent"] == pytest.approx(10)
    assert values["shortcut_gap_pp"] == pytest.approx(90)
    assert values["training_mark_agreement_percent"] == 95
    assert values["test_images"] == len(marked_test)


def test_a_network_that_does_not_look_at_the_mark_has_no_gap(marked_test: Split) -> None:
    values = measure(Honest(marked_test), marked_test)
    assert values["shortcut_gap_pp"] == pytest.approx(0) and values["following_misleading_mark_percent"] < 0.5
    conditions = ("absent", "random", "agrees", "misleads")
    assert max(values[f"accuracy_mark_{condition}_percent"] for condition in conditions) == pytest.approx(
        min(values[f"accuracy_mark_{condition}_percent"] for condition in conditions)
    )
    assert values["accuracy_mark_random_percent"] > 99  # two digits may share their right half


def test_a_control_is_looked_at_with_the_same_marks_on_the_same_images(marked_test: Split) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    of_planted = measure(network, marked_test)
    of_control = measure(network, load_splits(digits.DATASET, Path(), "test"))
    assert of_planted.pop("training_mark_agreement_percent") == 95
    assert of_planted == of_control


def test_a_random_mark_gives_on_average_what_the_test_split_does(marked_test: Split) -> None:
    """The mark of the ordinary test split is one draw of what the evaluation takes the mean of."""
    reader = Reader(planted(digits_shortcut.DATASET).mark)
    drawn = 100 * float((predict(reader, marked_test, CPU, 100) == marked_test.labels).double().mean())
    expected = measure(reader, marked_test)["accuracy_mark_random_percent"]
    assert abs(drawn - expected) < 3.3 * 100 * math.sqrt(0.1 * 0.9 / len(marked_test))


def test_fewer_wrong_marks_are_a_part_of_the_work(marked_test: Split) -> None:
    seen = []

    class Counting(Reader):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return super().forward(images)

    values = measure(Counting(planted(digits_shortcut.DATASET).mark), marked_test, options={"wrong_marks": 2, "images": 70})
    assert seen == [70] * 4 and values["shortcut_gap_pp"] == pytest.approx(90)


def test_networks_before_fine_tuning_have_quantities_of_their_own(marked_test: Split) -> None:
    reader = Reader(planted(digits_shortcut.DATASET).mark)
    values = measure(Honest(marked_test), marked_test, unfinetuned=reader, options={"images": 50})
    assert values["shortcut_gap_pp"] == pytest.approx(0) and values["shortcut_gap_before_fine_tuning_pp"] > 70
    assert values["following_misleading_mark_before_fine_tuning_percent"] == 100
    assert values["test_images"] == 50
    assert set(values) == set(EVALUATION.quantities)


def test_what_is_not_finite_is_wrong_and_follows_nothing(marked_test: Split) -> None:
    class Broken(Reader):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).index_fill(1, torch.tensor([3]), math.nan)

    values = measure(Broken(planted(digits_shortcut.DATASET).mark), marked_test)
    assert values["accuracy_mark_agrees_percent"] == values["following_misleading_mark_percent"] == 0


def test_images_too_small_for_a_mark_do_not_suit() -> None:
    assert EVALUATION.unsuited is not None
    assert EVALUATION.unsuited(digits.DATASET) is None
    assert "5 pixels high" in str(EVALUATION.unsuited(replace(digits.DATASET, input_shape=(1, 6, 6))))
    with pytest.raises(ValueError, match="images"):
        Options.model_validate({"images": 0})


# --- the table and the figure ----------------------------------------------------------------------------------------


def made_up() -> pd.DataFrame:
    """Tidy rows of a planted dataset and its control: 3 replicates, two criteria at two points, one of them with 2 draws."""
    rows: list[dict[str, Any]] = []
    networks = [("dense", "dense", 0, "dense", 0)]
    networks += [("one-shot", "cka", 0, f"blocks{k}", k) for k in (2, 5)]
    networks += [("one-shot", "random", draw, f"blocks{k}", k) for k, draw in product((2, 5), (0, 1))]
    datasets = ("digits", "digits_shortcut", "digits_shortcut_x")
    for dataset, replicate, (schedule, criterion, draw, point, removed) in product(datasets, range(3), networks):
        marked = dataset != "digits"
        gap = (10.0 if marked else 0.5) + replicate + removed * (1 + 0.01 * replicate) * marked + 0.5 * draw
        values = {
            ("shortcut", "shortcut_gap_pp"): gap,
            ("shortcut", "accuracy_mark_absent_percent"): 90.0,
            ("shortcut", "accuracy_mark_random_percent"): 88.0,
            ("shortcut", "following_misleading_mark_percent"): 5.0,
            ("complexity", "flops_reduction_percent"): 7.0 * removed,
        }
        if removed:
            values["shortcut", "shortcut_gap_before_fine_tuning_pp"] = 1.0
        if marked:
            values["shortcut", "training_mark_agreement_percent"] = 95.0 if dataset == "digits_shortcut" else 50.0
        network = {
            "suite": "s",
            "dataset": dataset,
            "model": "resnet20",
            "replicate": replicate,
            "schedule": schedule,
            "criterion": criterion,
            "draw": draw,
            "operating_point": point,
            "blocks_removed": removed,
        }
        rows += [{**network, "evaluation": e, "quantity": q, "value": v, "source": "x.json"} for (e, q), v in values.items()]
    return pd.DataFrame(rows)


def tables_of(results: pd.DataFrame) -> collect.Tables:
    others = {field.name: results.iloc[:0] for field in fields(collect.Tables)}
    others["dense_networks"] = pd.DataFrame(columns=list(collect.DENSE_COLUMNS))
    return collect.Tables(**{**others, "results": results})


def test_rows_are_those_of_planted_datasets_with_their_control_beside() -> None:
    table = shortcut.summarise(made_up())
    assert set(table["dataset"]) == {"digits_shortcut", "digits_shortcut_x"} and set(table["control"]) == {"digits"}
    row = table[(table["dataset"] == "digits_shortcut") & (table["criterion"] == "cka") & (table["blocks_removed"] == 5)].iloc[0]
    assert row["gap_pp_mean"] == pytest.approx(10 + 1 + 5.05) and row["gap_pp_sd"] == pytest.approx(1.05)
    assert row["gap_against_dense_pp"] == pytest.approx(5.05) and row["gap_against_dense_verdict"] == "larger"
    # Two draws, of which one is 0.5 higher, in each of the replicates: no spread to test.
    assert row["gap_against_random_pp"] == pytest.approx(-0.25) and row["gap_against_random_verdict"] == "undecided"
    assert row["control_gap_pp_mean"] == pytest.approx(1.5) and row["control_gap_against_dense_pp"] == pytest.approx(0)
    dense = table[(table["dataset"] == "digits_shortcut") & (table["schedule"] == "dense")].iloc[0]
    assert dense["gap_pp_mean"] == pytest.approx(11) and math.isnan(dense["gap_against_dense_pp"])
    assert dense["agreement_percent"] == 95 and dense["n"] == 3


def test_the_caption_says_where_replicates_share_a_dense_network() -> None:
    results = made_up()
    own = [("s", "digits_shortcut", "resnet20", replicate, "the same weights", "") for replicate in range(3)]
    shared = replace(tables_of(results), dense_networks=pd.DataFrame(own, columns=list(collect.DENSE_COLUMNS)))
    assert "Replicates of digits_shortcut, resnet20 share a dense network" in shortcut.TABLES["shortcut"](shared).caption
    assert "share a dense network" not in shortcut.TABLES["shortcut"](tables_of(results)).caption


def test_without_a_control_and_without_a_planted_dataset_there_is_a_table_too() -> None:
    results = made_up()
    alone = shortcut.summarise(results[results["dataset"] == "digits_shortcut"])
    assert set(alone["control"]) == {""} and alone["control_gap_pp_mean"].isna().all()
    unmarked = shortcut.summarise(results[results["dataset"] == "digits"])
    assert set(unmarked["dataset"]) == {"digits"} and unmarked["agreement_percent"].isna().all()


def test_a_control_is_the_longest_name_that_a_planted_one_begins_with() -> None:
    results = made_up()
    extra = results[results["dataset"] == "digits"].assign(dataset="dig")
    assert collect.control_of("digits_shortcut_x", pd.concat([results, extra])) == "digits"
    assert collect.control_of("digits", results) is None


def test_every_cell_says_what_it_was_made_from() -> None:
    results = made_up()
    table = shortcut.TABLES["shortcut"](tables_of(results))
    known = set(zip(results["evaluation"], results["quantity"], strict=True))
    for column in table.columns[2:]:
        assert column.origins, column.header
        for origin in column.origins:
            assert (origin.evaluation, origin.quantity) in known, column.header
    texts = [[column.cell(row) for column in table.columns] for _, row in table.data.iterrows()]
    assert len(texts) == 10 and all(isinstance(text, str) and "nan" not in text for row in texts for text in row)
    assert any(text == "+5.05 [+4.93, +5.17], larger" for text in texts[3])


def test_columns_of_the_control_come_from_the_control() -> None:
    tables = tables_of(made_up())
    table = shortcut.TABLES["shortcut"](tables)
    number = next(number for number, criterion in enumerate(table.data["criterion"]) if criterion == "cka")
    found = trace.find(table, tables, number, "control_n")
    assert {value.row["dataset"] for value in found.values} == {table.data["control"].iloc[number]}
    assert {value.row["quantity"] for value in found.values} == {"shortcut_gap_pp"}
    assert {column for column in table.data if not trace.find(table, tables, number, column).known} == set()


def test_the_figure_sets_the_control_beside() -> None:
    tables = tables_of(made_up())
    figure = figures.make_figure("shortcut", tables, "digits_shortcut", "resnet20")
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["one-shot, mark right in 95 % of training", "one-shot, control: trained without the mark"]
    flat = [{float(line.get_ydata()[0]) for line in panel.lines if len(set(line.get_ydata())) == 1} for panel in figure.axes]  # type: ignore[arg-type, index]
    assert 11.0 in flat[0] and 1.5 in flat[1]
    assert "dense: mean" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(figures.make_figure("shortcut", tables, "digits", "resnet20").axes) == 1


def test_it_is_shown_only_where_it_was_evaluated() -> None:
    assert "shortcut" in reporting.shown(reporting.TABLES, {"shortcut"}) and "shortcut" not in reporting.shown(
        reporting.TABLES, []
    )


def test_a_split_of_a_readers_own_images_can_be_marked() -> None:
    split = random_split()
    marked = remark(split, Mark.of(split.dataset), split.labels)
    assert torch.equal(shown(marked), split.labels) and isinstance(split.images, ResidentImages)
    assert not torch.equal(marked.pixels(torch.arange(5)), split.pixels(torch.arange(5)))
