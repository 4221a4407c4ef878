# What all rules share: the suite, checked and typed, and the places of files. No rules here, no functions elsewhere.
import json
import os
import sys
from dataclasses import dataclass

# Rules run `python -m prunebench`: from the clone, whether the package is installed or not, in any environment.
WORKFLOW = os.path.dirname(str(workflow.current_basedir))
sys.path.insert(0, WORKFLOW)
os.environ.update(
    PYTHONPATH=os.pathsep.join(
        dict.fromkeys(
            [
                WORKFLOW,
                *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
            ]
        )
    )
)

from prunebench import config as suite_config
from prunebench import experiments, job_settings, planned, reporting
from prunebench.errors import PrunebenchError
from prunebench.planned import NETWORK

try:
    SUITE = suite_config.parse(config, ", ".join(map(str, workflow.configfiles)) or "--config")
except PrunebenchError as error:
    # The whole message and nothing else: a traceback would hide it.
    sys.exit(f"The configuration is refused:\n{error}")

PAIRS = experiments.pairs(SUITE)
TABLES = reporting.shown(reporting.TABLES, experiments.subjects(SUITE))
FIGURES = reporting.shown(reporting.FIGURES, experiments.subjects(SUITE))
AUDITS = ["audit.csv", "audit_choices.csv"] if SUITE.audit.criteria else ["audit.csv"]
# A job may use a GPU unless the suite says otherwise; locally this counts only under --resources gpu=N.
GPUS = 0 if SUITE.device == "cpu" else 1
# Not workflow.cores, which refuses commands that need no number of cores, such as --report.
CORES = workflow.resource_settings.cores or os.cpu_count()


wildcard_constraints:
    suite=SUITE.suite,
    dataset="[A-Za-z0-9_-]+",
    model="[A-Za-z0-9_-]+",
    replicate=r"\d+",
    schedule="one-shot|iterative|one-shot-filters|delivered",
    criterion="[A-Za-z0-9_-]+",
    draw=r"\d+",
    point="[A-Za-z0-9_-]+",


def settings(stage, pair, wildcards, *arguments):
    """What a job is told, as JSON; a job runs again when this changes."""
    make = getattr(job_settings, f"{stage}_job")
    return json.dumps(make(SUITE, *pair, wildcards.get("replicate"), *arguments))


def pair_of(wildcards):
    """The experiment that a job of a rule for all experiments belongs to."""
    return wildcards.dataset, wildcards.model


def experiment(pair, *below):
    """A place of an experiment. It has no wildcards: of thousands of rules, Snakemake tries those whose files begin in the same way."""
    return os.path.join("results", SUITE.suite, *pair, *below)


def replicate(pair, *below):
    """A place of a replicate of an experiment."""
    return experiment(pair, "replicate{replicate}", *below)


def logs(pair, *below):
    """A log of one of a replicate's jobs."""
    return os.path.join("logs", SUITE.suite, *pair, "replicate{replicate}", *below)


def work(pair, *below):
    """Where the jobs of a replicate keep their checkpoints and finished steps: outside of outputs, which are deleted before a retry."""
    return os.path.join("results", SUITE.suite, ".work", *pair, "replicate{replicate}", *below)


@dataclass(frozen=True)
class ChainsJob:
    """One of the jobs that follow the chains of an experiment."""

    pair: tuple
    batch: object

    @property
    def name(self):
        """As the rule is called."""
        return "_".join([self.batch.schedule.replace("-", "_"), self.batch.name, *self.pair])

    @property
    def what(self):
        """For people."""
        return ", ".join(self.batch.chains)

    @property
    def folder(self):
        """Of the schedule's chains."""
        return replicate(self.pair, self.batch.schedule)

    def networks(self, folder=None):
        """The files of all networks that the job makes, or of those in another schedule's folder that they are made from."""
        return expand(
            "{folder}/{network}/{file}",
            folder=folder or self.folder,
            network=self.batch.folders(),
            file=[*NETWORK, "training.json"],
        )

    def tables(self, *files):
        """Files that there are for each criterion and draw."""
        return [
            f"{self.folder}/{criterion}/draw{draw}/{file}"
            for criterion, (draws, _) in self.batch.chains.items()
            for draw in range(draws)
            for file in files
        ]


def chain_jobs(schedule):
    """The jobs that follow chains on a schedule, of all experiments."""
    return [ChainsJob(pair, batch) for pair in PAIRS for batch in experiments.chain_batches(SUITE, *pair, schedule)]


def rankings(pair):
    """The rankings of all built-in criteria of an experiment and all their draws."""
    return [
        replicate(pair, "one-shot", name, f"draw{draw}", "ranking.csv")
        for name in experiments.criteria(SUITE, "one-shot", PAIRS[pair].experiment)
        for draw in range(experiments.draws(SUITE, "one-shot", name))
    ]


@dataclass(frozen=True)
class EvaluationJob:
    """One of the jobs that evaluate the networks of an experiment."""

    pair: tuple
    group: object
    batch: int

    @property
    def place(self):
        """Where it keeps its logs."""
        return self.group.place(self.batch)

    @property
    def name(self):
        """As the rule is called."""
        kind = "evaluate" if self.group.evaluations[0].per == "network" else "measure"
        return "_".join([kind, self.group.names[0], *self.pair, f"batch{self.batch}"])

    @property
    def what(self):
        """For people."""
        return ", ".join(self.group.names)

    @property
    def folders(self):
        """Of the networks, below the replicate's."""
        return self.group.folders(self.batch)

    @property
    def replicates(self):
        """Regular expression for their numbers."""
        return "|".join(map(str, range(self.group.replicates)))

    def networks(self):
        """The weights of the networks, and of the dense one, replicate by wildcard: their other files are made with them."""
        folders = dict.fromkeys(["dense", *self.folders])
        return [replicate(self.pair, folder, "weights.safetensors") for folder in folders]


def evaluation_jobs(per):
    """The jobs that evaluate networks, or measure architectures."""
    return [
        EvaluationJob(pair, group, batch)
        for pair in PAIRS
        for group in experiments.evaluation_groups(SUITE, *pair, per)
        for batch in range(len(group.batches))
    ]


def audited_folders(pair):
    """Folders of the networks of an experiment that are audited, below the replicate's."""
    return [
        f"delivered/{method}/draw0/{point}" for method, points in experiments.audited(SUITE, *pair).items() for point in points
    ]


def all_results():
    """Every file that the tidy tables are made from, weights included: what jobs on experiments make, ours and the user's own."""
    made = [file for job in planned.planned_jobs(SUITE) if job.dataset for file in job.outputs]
    return sorted([*made, *planned.external_files(SUITE)])


def read_results():
    """What is read to make the tidy tables. Weights are not: their digest is in the description of the network that is made with them."""
    return [file for file in all_results() if not file.endswith(".safetensors")]


def missing_results():
    """The result files that are gone though tables were made of them: Snakemake by itself asks for inputs of what has to be made, no others."""
    tables = f"results/{SUITE.suite}/tables/results.csv"
    return [file for file in all_results() if not os.path.exists(file)] if os.path.exists(tables) else []


def figures(figure, format):
    """The files of a figure, by experiment: each that has something to show has its own."""
    place = {figure: reporting.FIGURES[figure]}
    return {
        (dataset, model): f"results/{SUITE.suite}/figures/{figure}_{dataset}_{model}.{format}"
        for dataset, model in PAIRS
        if reporting.shown(place, experiments.subjects(SUITE, (dataset, model)))
    }


def in_report(file, name, place, form, experiment=()):
    """A file with its caption and place in the report; without the experiment those of several would be one entry."""
    where = {"experiment": ", ".join(experiment) or "all"} if len(PAIRS) > 1 else {}
    return report(
        file,
        caption=f"../report/{name}.rst",
        category=place.category,
        labels={"content": place.content, "form": form, **where},
    )
