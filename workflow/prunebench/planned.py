"""Every job that the workflow runs for a suite, with the places of its files: the rules in ``workflow/rules`` as a list.

Nothing here imports torch or Snakemake: 10,000 jobs are listed in a second. Rules of the user's own (``external.rules``) are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunebench import experiments, reporting
from prunebench.config import Suite
from prunebench.experiments import SCHEDULES, ChainBatch, EvaluationGroup

EARLIER = ("dense", "score", "oracle", "deliver", "audit", "rank")
LATER = ("evaluate", "measure", "collect", "tables", "figures")
STAGES = (*EARLIER, *SCHEDULES, *LATER)
LOCAL = ("rank", "collect", "tables", "figures")
"""Stages that run where Snakemake runs; the other ones are submitted to a cluster."""
RUNTIME_MINUTES = {
    "dense": 240,
    "score": 60,
    "oracle": 240,
    "deliver": 30,
    "audit": 120,
    "one-shot": 240,
    "iterative": 480,
    "one-shot-filters": 240,
    "evaluate": 240,
    "measure": 240,
}
"""What the rules ask for on the first attempt."""
NETWORK = ("architecture.json", "weights.safetensors")
TIDY = ("results", "measured", "scores", "removals", "oracle", "audit_blocks", "audit_choices", "dense_networks")


@dataclass(frozen=True)
class PlannedJob:
    """A job of the workflow. Paths are relative to the working directory, as in the rules.

    Attributes:
        stage: One of ``STAGES``.
        rule: Snakemake's name for its rule.
        outputs: Files that it makes, all of them.
        log: What it prints.
        benchmark: Snakemake's record of its time and memory; None where the rule keeps none.
        dataset: Name; None for jobs on the whole suite.
        model: Name; None for jobs on the whole suite.
        replicate: Number; None for jobs on all replicates.
        name: Of the batch of chains, or the place of the evaluations' batch; empty where there is one job for each replicate.
        work: Folder of its checkpoints and finished steps; None where it keeps none. It may share the folder with other jobs.
        chains: What a job on a schedule follows.
        group: What an evaluating or measuring job evaluates.
        batch: Number of the batch of ``group``.
    """

    stage: str
    rule: str
    outputs: tuple[str, ...]
    log: str
    benchmark: str | None = None
    dataset: str | None = None
    model: str | None = None
    replicate: int | None = None
    name: str = ""
    work: str | None = None
    chains: ChainBatch | None = None
    group: EvaluationGroup | None = None
    batch: int | None = None

    @property
    def local(self) -> bool:
        """Whether it runs where Snakemake runs."""
        return self.stage in LOCAL


def planned_jobs(suite: Suite) -> list[PlannedJob]:
    """All jobs of a suite, finished or not, in the order of the stages."""
    every = [*_on_pairs(suite), *_on_suite(suite)]
    return sorted(every, key=lambda job: STAGES.index(job.stage))


def external_files(suite: Suite) -> list[str]:
    """The rankings and networks that rules of the user's own make for a suite."""
    rankings = [f"one-shot/{name}" for name in suite.external.rankings]
    networks = [f"delivered/{name}" for name in suite.external.networks]
    files = []
    for pair in experiments.pairs(suite):
        place, followed = _Place(suite, *pair), experiments.chains(suite, *pair)
        below = [f"{chain}/draw0/ranking.csv" for chain in rankings if chain in followed]
        below += [
            f"{chain}/draw0/{point}/{file}"
            for chain in networks
            if chain in followed
            for point in followed[chain][1]
            for file in NETWORK
        ]
        files += [f"{place.results(replicate)}/{file}" for replicate in range(suite.replicates) for file in below]
    return files


def _on_pairs(suite: Suite) -> Iterator[PlannedJob]:
    """The jobs of each dataset and model."""
    for pair in experiments.pairs(suite):
        place = _Place(suite, *pair)
        evaluated = _evaluations(suite, *pair, "network")
        batches = [batch for schedule in SCHEDULES for batch in experiments.chain_batches(suite, *pair, schedule)]
        for replicate in range(suite.replicates):
            yield from _single(suite, place, replicate)
            for batch in batches:
                yield place.chains(batch, replicate)
            for group, number in evaluated:
                if replicate < group.replicates:
                    yield place.evaluate(group, number, replicate)
        for group, number in _evaluations(suite, *pair, "architecture"):
            yield place.measure(group, number)


def _single(suite: Suite, place: _Place, replicate: int) -> Iterator[PlannedJob]:
    """The jobs of which there is one for each replicate."""
    pair = place.dataset, place.model
    experiment = experiments.pairs(suite)[pair].experiment
    yield place.job("dense", replicate, [f"dense/{file}" for file in (*NETWORK, "training.json")], work=True)
    if experiments.needs_scores(suite):
        yield place.job("score", replicate, ["dense/scores.csv", "dense/scoring.json"], work=True)
    if experiments.asks_oracle(suite, experiment):
        yield place.job("oracle", replicate, ["dense/oracle.csv", "dense/oracle.json"], work=True)
    if delivered := experiments.delivered_folders(suite, *pair, replicate):
        yield place.job("deliver", replicate, [f"{folder}/{file}" for folder in delivered for file in NETWORK], own_rule=True)
    if audited := experiments.audited(suite, *pair):
        files = ["audit.csv", "audit_choices.csv"] if suite.audit.criteria else ["audit.csv"]
        outputs = [f"delivered/{method}/{file}" for method in audited for file in files]
        yield place.job("audit", replicate, outputs, own_rule=True, work=True)
    if ranked := experiments.criteria(suite, "one-shot", experiment):
        outputs = [
            f"one-shot/{name}/draw{draw}/ranking.csv"
            for name in ranked
            for draw in range(experiments.draws(suite, "one-shot", name))
        ]
        yield place.job("rank", replicate, outputs, own_rule=True, benchmark=False)


def _evaluations(suite: Suite, dataset: str, model: str, per: str) -> list[tuple[EvaluationGroup, int]]:
    groups = experiments.evaluation_groups(suite, dataset, model, per)
    return [(group, number) for group in groups for number in range(len(group.batches))]


@dataclass(frozen=True)
class _Place:
    """Where the files of a dataset and model are."""

    suite: Suite
    dataset: str
    model: str

    @property
    def pair(self) -> str:
        """As in paths."""
        return f"{self.suite.suite}/{self.dataset}/{self.model}"

    def results(self, replicate: int) -> str:
        """Folder of a replicate."""
        return f"results/{self.pair}/replicate{replicate}"

    def logs(self, replicate: int) -> str:
        """Folder of the logs of its jobs."""
        return f"logs/{self.pair}/replicate{replicate}"

    def work(self, replicate: int) -> str:
        """Folder of the checkpoints of its jobs."""
        return f"results/{self.suite.suite}/.work/{self.dataset}/{self.model}/replicate{replicate}"

    def job(
        self,
        stage: str,
        replicate: int,
        outputs: list[str],
        own_rule: bool = False,
        work: bool = False,
        benchmark: bool = True,
    ) -> PlannedJob:
        """One of which there is one for each replicate; outputs are below the replicate's folder."""
        start = f"{self.logs(replicate)}/{stage}"
        return PlannedJob(
            stage=stage,
            rule=f"{stage}_{self.dataset}_{self.model}" if own_rule else stage,
            outputs=tuple(f"{self.results(replicate)}/{output}" for output in outputs),
            log=f"{start}.log",
            benchmark=f"{start}.benchmark.tsv" if benchmark else None,
            dataset=self.dataset,
            model=self.model,
            replicate=replicate,
            work=f"{self.work(replicate)}/{stage}" if work else None,
        )

    def chains(self, batch: ChainBatch, replicate: int) -> PlannedJob:
        """A job that follows chains."""
        # The order of removal of networks that lose filters is that of the one-shot chain.
        tables = {"one-shot": ["removals.csv"], "iterative": ["removals.csv", "scores.csv"]}.get(batch.schedule, [])
        files = [f"{folder}/{file}" for folder in batch.folders() for file in (*NETWORK, "training.json")]
        files += [
            f"{criterion}/draw{draw}/{file}"
            for criterion, (draws, _) in batch.chains.items()
            for draw in range(draws)
            for file in tables
        ]
        start = f"{self.logs(replicate)}/{batch.schedule}/{batch.name}"
        return PlannedJob(
            stage=batch.schedule,
            rule="_".join([batch.schedule.replace("-", "_"), batch.name, self.dataset, self.model]),
            outputs=tuple(f"{self.results(replicate)}/{batch.schedule}/{file}" for file in files),
            log=f"{start}.log",
            benchmark=f"{start}.benchmark.tsv",
            dataset=self.dataset,
            model=self.model,
            replicate=replicate,
            name=batch.name,
            work=f"{self.work(replicate)}/{batch.schedule}",
            chains=batch,
        )

    def evaluate(self, group: EvaluationGroup, number: int, replicate: int) -> PlannedJob:
        """A job that evaluates networks of a replicate."""
        start = f"{self.logs(replicate)}/evaluate/{group.place(number)}"
        return PlannedJob(
            stage="evaluate",
            rule=f"evaluate_{group.names[0]}_{self.dataset}_{self.model}_batch{number}",
            outputs=tuple(
                f"{self.results(replicate)}/{folder}/evaluations/{evaluation}.json"
                for folder in group.folders(number)
                for evaluation in group.names
            ),
            log=f"{start}.log",
            benchmark=f"{start}.benchmark.tsv",
            dataset=self.dataset,
            model=self.model,
            replicate=replicate,
            name=group.place(number),
            work=f"{self.work(replicate)}/evaluate",
            group=group,
            batch=number,
        )

    def measure(self, group: EvaluationGroup, number: int) -> PlannedJob:
        """The job that measures the architectures of all replicates."""
        start = f"logs/{self.pair}/measure/{group.place(number)}"
        return PlannedJob(
            stage="measure",
            rule=f"measure_{group.names[0]}_{self.dataset}_{self.model}_batch{number}",
            outputs=tuple(f"results/{self.pair}/measured/{evaluation}.json" for evaluation in group.names),
            log=f"{start}.log",
            benchmark=f"{start}.benchmark.tsv",
            dataset=self.dataset,
            model=self.model,
            name=group.place(number),
            work=f"results/{self.suite.suite}/.work/{self.dataset}/{self.model}/measure",
            group=group,
            batch=number,
        )


def _on_suite(suite: Suite) -> Iterator[PlannedJob]:
    """The jobs that bring everything together."""
    tables = f"results/{suite.suite}/tables"
    shown = reporting.shown(reporting.TABLES, experiments.subjects(suite))
    outputs = {
        "collect": [*(f"{tables}/{name}.{end}" for name in TIDY for end in ("csv", "parquet")), f"{tables}/provenance.csv"],
        "tables": [*(f"{tables}/{name}.{end}" for name in shown for end in ("csv", "md", "tex")), f"{tables}/headline.html"],
        "figures": [*_figures(suite, "png"), *_figures(suite, "pdf")],
    }
    for stage, files in outputs.items():
        yield PlannedJob(stage, stage, tuple(files), f"logs/{suite.suite}/{stage}.log")


def _figures(suite: Suite, format: str) -> list[str]:
    """The figures of all experiments, each of those that have something to show."""
    of_pairs = {pair: experiments.subjects(suite, pair) for pair in experiments.pairs(suite)}
    return [
        f"results/{suite.suite}/figures/{figure}_{dataset}_{model}.{format}"
        for figure in reporting.shown(reporting.FIGURES, experiments.subjects(suite))
        for (dataset, model), subjects in of_pairs.items()
        if reporting.shown({figure: reporting.FIGURES[figure]}, subjects)
    ]
