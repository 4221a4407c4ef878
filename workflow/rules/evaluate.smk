# Experiments differ by their operating points, and evaluations by the networks that they are limited to, so each has rules of its own
# with all the files they make. Evaluations with the same limits share their jobs.
for job in evaluation_jobs("network"):

    rule:
        name:
            job.name
        input:
            job.networks(),
        output:
            [
                replicate(job.pair, folder, "evaluations", f"{evaluation}.json")
                for folder in job.folders
                for evaluation in job.group.names
            ],
        log:
            logs(job.pair, "evaluate", f"{job.place}.log"),
        benchmark:
            logs(job.pair, "evaluate", f"{job.place}.benchmark.tsv")
        wildcard_constraints:
            replicate=job.replicates,
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("evaluate", job.pair, wildcards, job.group, job.batch),
            replicate=lambda wildcards, job=job: replicate(job.pair).format(**wildcards),
            # One folder for all, so that results are found again when work is divided into other jobs.
            work=lambda wildcards, job=job: work(job.pair, "evaluate").format(**wildcards),
            cache=f"results/{SUITE.suite}/.work/{job.pair[0]}/cache",
        message:
            f"Evaluating {job.pair[1]} on {job.pair[0]}, replicate {{wildcards.replicate}}: {job.what}"
        shell:
            "python -m prunebench evaluate --settings {params.settings:q} --replicate {params.replicate}"
            " --work {params.work} --cache {params.cache} >{log} 2>&1"


for job in evaluation_jobs("architecture"):

    rule:
        name:
            job.name
        input:
            expand(job.networks(), replicate=range(job.group.replicates)),
        output:
            [experiment(job.pair, "measured", f"{evaluation}.json") for evaluation in job.group.names],
        log:
            "logs/{}/{}/{}/measure/{}.log".format(SUITE.suite, *job.pair, job.place),
        benchmark:
            "logs/{}/{}/{}/measure/{}.benchmark.tsv".format(SUITE.suite, *job.pair, job.place)
        conda:
            "../../envs/prunebench.yaml"
        # What is measured needs the machine for itself: here this job takes all cores; elsewhere `alone` asks the executor for a whole
        # machine, and the number of CPUs is said apart, since all cores of this one may be more than the other has.
        threads: CORES
        resources:
            gpu=GPUS,
            alone=1,
            cpus_per_task=SUITE.threads,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("evaluate", job.pair, wildcards, job.group, job.batch),
            experiment=subpath(output[0], ancestor=2),
            out=subpath(output[0], parent=True),
            work="results/{}/.work/{}/{}/measure".format(SUITE.suite, *job.pair),
        message:
            f"Measuring {job.pair[1]} on {job.pair[0]}, alone on the machine: {job.what}"
        shell:
            "python -m prunebench measure --settings {params.settings:q} --experiment {params.experiment}"
            " --out {params.out} --work {params.work} >{log} 2>&1"
