"""What n replicates say and what they cannot: known answers, and simulations of what intervals, tests and bold numbers promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from look import flaws
from prunebench import reporting
from prunebench.criteria.consensus import METRICS
from prunebench.reporting import collect, comparison, evaluations, figures, formats, paired, ranks, statistics
from test_reporting import build_suite


def results_of(values: dict[str, list[list[float]]]) -> pd.DataFrame:
    """A tidy table of one operating point from criterion -> replicate -> draws of accuracies."""
    rows = [
        ("s", "d", "m", replicate, "dense" if criterion == "dense" else "one-shot", criterion, draw)
        + (("dense", 0) if criterion == "dense" else ("blocks2", 2))
        + ("accuracy", "accuracy_percent", value, "file")
        for criterion, replicates in values.items()
        for replicate, draws in enumerate(replicates)
        for draw, value in enumerate(draws)
    ]
    return pd.DataFrame(rows, columns=list(collect.RESULT_COLUMNS))


def test_comparison_is_the_paired_t_test_against_the_mean_of_the_draws() -> None:
    good, poor = [91.0, 92.5, 90.5, 93.0], [80.0, 80.1, 80.2, 79.0]
    drawn = [[88.0, 90.0], [89.0, 91.0], [87.0, 89.5], [90.0, 90.0]]
    results = results_of({"good": [[v] for v in good], "poor": [[v] for v in poor], "random": drawn})
    comparison = statistics.compare(results).set_index("criterion")
    means = np.mean(drawn, axis=1)
    expected = {name: stats.ttest_rel(values, means) for name, values in (("good", good), ("poor", poor))}
    assert list(comparison.index) == ["good", "poor"]
    for name, test in expected.items():
        assert comparison.loc[name, "n"] == 4
        assert comparison.loc[name, "p_value"] == pytest.approx(test.pvalue, rel=1e-12)
        interval = test.confidence_interval(0.95)
        found = (comparison.loc[name, "ci_low"], comparison.loc[name, "ci_high"])
        assert found == pytest.approx((interval.low, interval.high), rel=1e-12)
    # Holm by hand: the smaller of two p values is doubled, the larger one stays, and the order is kept.
    small, large = sorted(test.pvalue for test in expected.values())
    assert sorted(comparison["p_holm"]) == pytest.approx([2 * small, max(large, 2 * small)])
    assert comparison.loc["good", "verdict"] == "better" and comparison.loc["poor", "verdict"] == "worse"


def test_holm_is_monotone_bounded_and_leaves_out_what_was_not_tested() -> None:
    assert statistics.holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    p = np.random.default_rng(0).uniform(0, 0.2, size=9).tolist()
    assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert all(map(math.isnan, statistics.holm([math.nan])))


def test_adjustment_can_turn_a_verdict() -> None:
    generator = np.random.default_rng(0)
    base = [[90.0]] * 3
    close = [[90.5], [90.6], [90.75]]
    alone = statistics.compare(results_of({"a": close, "random": base}))
    others = {f"o{i}": [[90 + v] for v in generator.normal(size=3)] for i in range(8)}
    among = statistics.compare(results_of({"a": close, **others, "random": base})).set_index("criterion")
    assert alone["verdict"].to_list() == ["better"]
    assert among.loc["a", "verdict"] == "undecided" and among.loc["a", "p_value"] < 0.05


@pytest.mark.parametrize("accuracies", [[91.0], [91.0, 91.0, 91.0], [90.1, 90.1, 90.1]])
def test_without_spread_nothing_is_decided(accuracies: list[float]) -> None:
    base = [[value - 0.7] for value in accuracies]
    comparison = statistics.compare(results_of({"a": [[value] for value in accuracies], "random": base})).iloc[0]
    assert comparison["verdict"] == "undecided" and comparison["n"] == len(accuracies)
    assert comparison["mean_difference"] == pytest.approx(0.7)
    assert all(math.isnan(comparison[name]) for name in ("ci_low", "ci_high", "p_value", "p_holm"))


def test_only_shared_replicates_are_paired_and_dense_is_a_baseline_of_all_points() -> None:
    values = {"dense": [[90.0], [91.0]], "a": [[89.0], [90.5], [10.0]], "random": [[88.0], [88.5], [1.0]]}
    against_dense = statistics.compare(results_of(values), "dense").set_index("criterion")
    assert list(against_dense.index) == ["a", "random"]
    assert against_dense.loc["a", "n"] == 2
    assert against_dense.loc["a", "mean_difference"] == pytest.approx(-0.75)


# --- intervals and tests keep what they promise ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 10])
def test_t_intervals_hold_the_true_mean_in_95_of_100_simulations(n: int) -> None:
    generator = np.random.default_rng(0)
    samples = [statistics.paired_comparison(row) for row in generator.normal(0.4, 1.0, size=(600, n)).tolist()]
    held = np.mean([test.ci_low <= 0.4 <= test.ci_high for test in samples])
    # Three standard errors of a share of 0.95 in 600.
    assert held == pytest.approx(0.95, abs=0.027)


def test_the_studentised_bootstrap_holds_what_the_percentile_bootstrap_does_not() -> None:
    generator = np.random.default_rng(1)
    samples = generator.normal(0.4, 1.0, size=(150, 8))
    own = [paired.bootstrap_interval(row.tolist()) for row in samples]
    assert np.mean([low <= 0.4 <= high for low, high in own]) == pytest.approx(0.95, abs=0.05)
    means = samples[:, generator.integers(8, size=(2000, 8))].mean(axis=2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0.4) & (high >= 0.4)) < 0.92


def test_bootstrap_intervals_are_shown_from_8_replicates_on_and_do_not_depend_on_their_order() -> None:
    values = [0.3, -0.1, 0.8, 0.5, 0.2, 0.9, 0.1, 0.4]
    assert paired.bootstrap_interval(values) == paired.bootstrap_interval(values[::-1])
    assert all(map(math.isnan, paired.bootstrap_interval(values[:7])))
    assert all(map(math.isnan, paired.bootstrap_interval([0.0] * 7 + [1.0]))), "most resamples have no spread"


def test_holm_errs_in_one_family_of_twenty() -> None:
    """The share of families of 5 true null hypotheses, correlated by a shared baseline, in which any is rejected."""
    generator = np.random.default_rng(2)
    values = generator.normal(size=(2000, 6, 5))
    p = stats.ttest_1samp(values[:, 1:] - values[:, :1], 0.0, axis=2).pvalue
    wrong = np.mean([min(statistics.holm(row)) < 0.05 for row in p.tolist()])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(p.min(axis=1) < 0.05) > 0.1, "without adjustment it would be far more"


def test_wilcoxon_cannot_decide_with_three_and_is_shown_from_eight() -> None:
    assert stats.wilcoxon([0.1, 0.2, 0.3]).pvalue == 0.25
    assert math.isnan(statistics.paired_comparison([0.1, 0.2, 0.3]).p_wilcoxon)
    eight = statistics.paired_comparison([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert eight.p_wilcoxon == pytest.approx(2 / 2**8)


@pytest.mark.parametrize(("n", "level"), [(2, 0.05), (3, 0.05), (3, 0.005), (10, 0.05), (20, 0.005)])
def test_detectable_effect_is_that_of_the_noncentral_t(n: int, level: float) -> None:
    assert paired.detectable_effect(n, level) == pytest.approx(TTestPower().solve_power(nobs=n, alpha=level, power=0.8), rel=1e-4)


@pytest.mark.parametrize(("n", "level"), [(3, 0.05), (3, 0.05 / 11), (5, 0.005), (10, 0.05)])
def test_a_detectable_difference_is_found_four_times_in_five(n: int, level: float) -> None:
    effect = paired.detectable_effect(n, level)
    samples = np.random.default_rng(3).normal(effect, 1.0, size=(20000, n))
    assert np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue < level) == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_follows_the_family_and_the_spread() -> None:
    base = [[90.0]] * 5
    values = {"a": [[91.0], [91.4], [90.8], [91.1], [90.9]], "b": [[90.2], [90.9], [90.1], [90.3], [90.6]], "random": base}
    found = statistics.compare(results_of(values)).set_index("criterion")
    spread = np.std([1.0, 1.4, 0.8, 1.1, 0.9], ddof=1)
    assert found.loc["a", "detectable_difference"] == pytest.approx(paired.detectable_effect(5, 0.025) * spread)


def test_hedges_g_and_its_interval() -> None:
    test = statistics.paired_comparison([0.1, 0.2, 0.3])
    # d_z is 2; the correction of 2 degrees of freedom is 1 / sqrt(pi).
    assert test.hedges_g == pytest.approx(2 / math.sqrt(math.pi))
    t, scale = 2 * math.sqrt(3), 1 / math.sqrt(3 * math.pi)
    assert stats.nct.cdf(t, 2, test.g_low / scale) == pytest.approx(0.975, abs=1e-5)
    assert stats.nct.cdf(t, 2, test.g_high / scale) == pytest.approx(0.025, abs=1e-5)
    assert math.isnan(statistics.paired_comparison([0.1, 0.2]).hedges_g)


def test_share_of_better_replicates_counts_ties_half_and_knows_the_direction() -> None:
    values = {"a": [[91.0], [90.0], [89.0], [92.0]], "random": [[90.0]] * 4}
    assert statistics.compare(results_of(values))["share_better"].to_list() == [0.625]
    assert statistics.compare(results_of(values), better="lower")["share_better"].to_list() == [0.375]


def test_verdicts_know_which_way_is_good() -> None:
    values = {"a": [[91.0], [91.1], [91.2], [91.05]], "random": [[90.0]] * 4}
    found = {better: statistics.compare(results_of(values), better=better)["verdict"][0] for better in ("higher", "lower", None)}
    assert found == {"higher": "better", "lower": "worse", None: "higher"}


def test_the_adjustment_over_all_points_is_holm_over_the_schedule() -> None:
    generator = np.random.default_rng(4)
    values = {name: [[90 + shift + v] for v in generator.normal(size=5)] for name, shift in (("a", 3), ("b", 1), ("random", 0))}
    one = results_of(values)
    other = results_of({name: rows[::-1] for name, rows in values.items() if name != "b"} | {"b": values["b"]})
    found = statistics.compare(pd.concat([one, other.assign(operating_point="blocks5", blocks_removed=5)]))
    assert len(found) == 4
    assert found["p_holm_all_points"].to_list() == pytest.approx(statistics.holm(found["p_value"].to_list()))
    assert (found["p_holm_all_points"] >= found["p_holm"]).all()


# --- bold ------------------------------------------------------------------------------------------------------------


def noise(shift: float, generator: np.random.Generator, n: int = 6) -> list[list[float]]:
    return [[90 + shift + v] for v in generator.normal(scale=0.1, size=n)]


def test_bold_are_the_best_and_those_that_cannot_be_told_from_it_only_if_anything_can() -> None:
    generator = np.random.default_rng(5)
    best, equal, poor = noise(0.02, generator), noise(0, generator), noise(-3, generator)
    found = statistics.among_best(results_of({"best": best, "equal": equal, "poor": poor}))
    assert {key[-1] for key in found} == {"best", "equal"}
    assert {key[-1] for key in statistics.among_best(results_of({"best": best, "poor": poor}), better="lower")} == {"poor"}
    assert statistics.among_best(results_of({"best": best, "equal": equal})) == set()
    assert statistics.among_best(results_of({"best": best[:1], "poor": poor[:1]})) == set(), "one replicate tells nothing"


def test_what_could_not_be_tested_against_the_best_is_not_bold() -> None:
    generator = np.random.default_rng(5)
    best, poor = noise(0.02, generator), noise(-3, generator)
    always = [[value - 1] for (value,) in best]
    found = statistics.among_best(results_of({"best": best, "poor": poor, "once": [[80.0]], "always": always, "same": best}))
    # One common replicate, and a difference without spread, leave nothing to test; the same networks are as good.
    assert {key[-1] for key in found} == {"best", "same"}


def test_bold_seldom_marks_a_winner_where_there_is_none() -> None:
    generator = np.random.default_rng(6)
    values = [{f"c{i}": noise(0, generator, 4) for i in range(5)} for _ in range(100)]
    assert np.mean([bool(statistics.among_best(results_of(each))) for each in values]) <= 0.1


def test_markdown_and_latex_set_bold_what_the_column_says() -> None:
    data = pd.DataFrame([("d", "m", "one-shot", "p", 1.5), ("d", "m", "one-shot", "p", 2.5)])
    data.columns = [*statistics.POINT, "x"]
    column = formats.Column("x", lambda row: formats.mean_sd(row.x, 0.5), bold=lambda row: row.x > 2)
    table = formats.Table("t", "c", data, [column])
    text = formats.to_markdown(table)
    assert "**+2.50 \u00b1 0.50**" in text and "**+1.50" not in text
    text = formats.to_latex(table)
    assert r"\textbf{\boldmath $+2.50 \pm 0.50$}" in text and "\n$+1.50" in text


# --- replicates that share a dense network, ranks, further evaluations -----------------------------------------------


@pytest.fixture(scope="module")
def tidy(tmp_path_factory: pytest.TempPathFactory) -> collect.Tables:
    """9 replicates of 4 criteria with clear differences, and an evaluation that no table knows."""
    root = tmp_path_factory.mktemp("many")
    made = build_suite(root, ("cka", "consensus", "random", "first"), replicates=2, points=(2, 5), schedules=("one-shot",))
    read = collect.read_tables(made.collect(root / "tables"))
    generator = np.random.default_rng(7)
    shifts = {"consensus": 1.0, "cka": 0.95, "random": 0.0, "first": -2.0, "dense": 2.0}
    one = read.results[(read.results["replicate"] == 0) & (read.results["draw"] == 0)]
    parts = []
    for replicate in range(9):
        rows = one.assign(replicate=replicate)
        level = generator.normal(scale=0.5)
        accuracy = rows["quantity"] == "accuracy_percent"
        rows.loc[accuracy, "value"] = [
            90 + level + shifts[c] + generator.normal(scale=0.2) for c in rows.loc[accuracy, "criterion"]
        ]
        parts += [
            rows,
            rows[accuracy].assign(evaluation="mine", quantity="sharpness_nats", value=100 - rows.loc[accuracy, "value"]),
        ]
    dense = [read.dense_networks.iloc[:1].assign(replicate=replicate, sha256=f"w{replicate}") for replicate in range(9)]
    return replace(read, results=pd.concat(parts, ignore_index=True), dense_networks=pd.concat(dense, ignore_index=True))


def test_captions_say_where_intervals_are_conditional_on_one_dense_network(tidy: collect.Tables) -> None:
    shared = replace(tidy, dense_networks=tidy.dense_networks.assign(sha256="w"))
    assert not tidy.conditional("digits", "resnet32") and shared.conditional("digits", "resnet32")
    for name in ("headline", "accuracy", "versus_random", "versus_dense"):
        assert "conditional" not in comparison.TABLES[name](tidy).caption
        assert "Replicates of digits, resnet32 share a dense network" in comparison.TABLES[name](shared).caption
    one = replace(shared, dense_networks=shared.dense_networks.iloc[:1])
    assert not one.conditional("digits", "resnet32"), "one replicate shares with none"


def test_the_accuracy_table_is_bold_where_criteria_can_be_told_apart(tidy: collect.Tables) -> None:
    table = comparison.TABLES["accuracy"](tidy)
    bold = table.data[table.data["among_best"] == 1]
    assert set(bold["criterion"]) == {"cka", "consensus"} and formats.to_markdown(table).count("**") == 2 * len(bold) == 8
    few = replace(tidy, results=tidy.results[tidy.results["replicate"] < 1])
    assert "Nothing is in bold" in comparison.TABLES["accuracy"](few).caption


def test_ranks_and_critical_difference_have_known_values(tidy: collect.Tables) -> None:
    first, *_ = ranks.rankings(tidy.results)
    assert first.mean_ranks[["random", "first"]].to_list() == [3, 4] and first.n == 9
    # Demsar (2006), table 5: 2.569 for 4 classifiers.
    assert first.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 9)), rel=1e-3)
    assert first.tells and first.p_pairs.loc["consensus", "first"] < 0.05 < first.p_pairs.loc["consensus", "cka"]
    within = abs(first.mean_ranks["cka"] - first.mean_ranks["first"]) <= first.critical_difference
    assert within == (first.p_pairs.loc["cka", "first"] >= 0.05)


def test_where_friedman_finds_nothing_no_pair_differs() -> None:
    turns = {name: [[90.0 + (replicate + place) % 3] for replicate in range(9)] for place, name in enumerate("abc")}
    (ranking,) = ranks.rankings(results_of(turns))
    assert not ranking.tells and (ranking.together() == 1).all(axis=None)
    (ranking,) = ranks.rankings(results_of({name: [[90.0]] * 8 for name in "abc"}))
    assert ranking.mean_ranks.to_list() == [2, 2, 2] and not ranking.tells
    assert list(ranks.rankings(results_of({name: rows[:7] for name, rows in turns.items()}))) == []


def test_ranks_are_shown_from_8_replicates_and_further_evaluations_where_there_are_any(tidy: collect.Tables) -> None:
    assert {"ranks", "further"} <= tidy.subjects()
    fewer = tidy.results[(tidy.results["replicate"] < 7) & (tidy.results["evaluation"] != "mine")]
    assert not {"ranks", "further"} & replace(tidy, results=fewer).subjects()
    assert reporting.without_table(["accuracy", "training", "complexity", "latency", "mine"]) >= {"mine"}
    assert not reporting.without_table(["accuracy", "training", "complexity"])


def test_an_evaluation_of_ones_own_is_shown_with_its_differences(tidy: collect.Tables) -> None:
    data = evaluations.summarise_evaluations(tidy)
    assert set(data["quantity"]) == {"sharpness_nats"} and len(data) == 1 + 2 * 4
    row = data[(data["criterion"] == "first") & (data["operating_point"] == "blocks2")].iloc[0]
    accuracy = statistics.compare(tidy.results).set_index(["operating_point", "criterion"]).loc[("blocks2", "first")]
    assert row["random_mean_difference"] == pytest.approx(-accuracy["mean_difference"])
    assert row["random_p_holm"] == pytest.approx(accuracy["p_holm"]) and row["random_verdict"] == "higher"
    dense = data[data["criterion"] == "dense"].iloc[0]
    assert math.isnan(dense["dense_mean_difference"]) and dense["n"] == 9
    text = formats.to_markdown(evaluations.TABLES["evaluations"](tidy))
    assert "## digits, resnet32, mine, sharpness_nats" in text and "\ufffd" not in text


def test_many_replicates_bring_bootstrap_and_wilcoxon_and_few_do_not(tidy: collect.Tables) -> None:
    headers = [column.header for column in comparison.TABLES["versus_random"](tidy).columns]
    assert "Bootstrap interval (pp)" in headers and "p (Wilcoxon, Holm)" in headers
    few = replace(tidy, results=tidy.results[tidy.results["replicate"] < 3])
    headers = [column.header for column in comparison.TABLES["versus_random"](few).columns]
    assert not {"Bootstrap interval (pp)", "p (Wilcoxon, Holm)"} & set(headers)


@pytest.mark.parametrize("name", ["differences", "critical_difference"])
def test_figures_have_no_flaws(name: str, tidy: collect.Tables) -> None:
    assert flaws(figures.make_figure(name, tidy, "digits", "resnet32")) == []


@pytest.mark.parametrize("name", ["differences", "critical_difference"])
@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_figures_of_many_criteria_have_no_flaws(name: str, apart: float, tidy: collect.Tables) -> None:
    generator = np.random.default_rng(9)
    names = [*METRICS, "consensus", "random", "first", "last"]
    results = results_of({criterion: noise(apart * place, generator, 10) for place, criterion in enumerate(names)})
    points = [results.assign(operating_point=f"blocks{k}", blocks_removed=k) for k in (2, 5, 8)]
    many = replace(tidy, results=pd.concat(points, ignore_index=True))
    assert flaws(figures.make_figure(name, many, "d", "m")) == []


def test_nemenyi_is_that_of_scikit_posthocs_on_ranks(tidy: collect.Tables) -> None:
    first, *_ = ranks.rankings(tidy.results)
    wide = statistics.replicate_means(tidy.results)
    wide = wide[wide["operating_point"] == first.point[3]].pivot(index="replicate", columns="criterion", values="value")
    expected = scikit_posthocs.posthoc_nemenyi_friedman(wide.to_numpy()[:, ::-1])
    assert first.p_pairs.loc["cka", "first"] == pytest.approx(expected.to_numpy()[-1, -3])
