# A chain is one criterion followed to all operating points; a job follows one, or `jobs.chains_per_job`. Experiments differ by their
# operating points and criteria by the number of their draws, so each such job has a rule of its own with all the files it makes.
for job in chain_jobs("one-shot"):

    rule:
        name:
            job.name
        input:
            weights=replicate(job.pair, "dense/weights.safetensors"),
            rankings=job.tables("ranking.csv"),
        output:
            networks=job.networks(),
            removals=job.tables("removals.csv"),
        log:
            logs(job.pair, "one-shot", f"{job.batch.name}.log"),
        benchmark:
            logs(job.pair, "one-shot", f"{job.batch.name}.benchmark.tsv")
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("chains", job.pair, wildcards, job.batch),
            dense=subpath(input.weights, parent=True),
            out=lambda wildcards, job=job: job.folder.format(**wildcards),
            work=lambda wildcards, job=job: work(job.pair, "one-shot").format(**wildcards),
        message:
            f"One-shot by {job.what}: {job.pair[1]} on {job.pair[0]}, replicate {{wildcards.replicate}}"
        shell:
            "python -m prunebench one-shot --settings {params.settings:q} --dense {params.dense}"
            " --out {params.out} --work {params.work} >{log} 2>&1"


for job in chain_jobs("iterative"):

    rule:
        name:
            job.name
        input:
            weights=replicate(job.pair, "dense/weights.safetensors"),
            scores=replicate(job.pair, "dense/scores.csv"),
        output:
            networks=job.networks(),
            tables=job.tables("removals.csv", "scores.csv"),
        log:
            logs(job.pair, "iterative", f"{job.batch.name}.log"),
        benchmark:
            logs(job.pair, "iterative", f"{job.batch.name}.benchmark.tsv")
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 8000 * attempt,
            runtime=lambda wildcards, attempt: 480 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("chains", job.pair, wildcards, job.batch),
            dense=subpath(input.weights, parent=True),
            out=lambda wildcards, job=job: job.folder.format(**wildcards),
            work=lambda wildcards, job=job: work(job.pair, "iterative").format(**wildcards),
        message:
            f"Iterative by {job.what}: {job.pair[1]} on {job.pair[0]}, replicate {{wildcards.replicate}}"
        shell:
            "python -m prunebench iterative --settings {params.settings:q} --dense {params.dense} --scores {input.scores}"
            " --out {params.out} --work {params.work} >{log} 2>&1"


for job in chain_jobs("one-shot-filters"):

    rule:
        name:
            job.name
        input:
            job.networks(replicate(job.pair, "one-shot")),
        output:
            job.networks(),
        log:
            logs(job.pair, "one-shot-filters", f"{job.batch.name}.log"),
        benchmark:
            logs(job.pair, "one-shot-filters", f"{job.batch.name}.benchmark.tsv")
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("chains", job.pair, wildcards, job.batch),
            networks=lambda wildcards, input: list(dict.fromkeys(map(os.path.dirname, input))),
            out=lambda wildcards, job=job: job.folder.format(**wildcards),
            work=lambda wildcards, job=job: work(job.pair, "one-shot-filters").format(**wildcards),
        message:
            f"Filters after one-shot by {job.what}: {job.pair[1]} on {job.pair[0]}, replicate {{wildcards.replicate}}"
        shell:
            "python -m prunebench filters --settings {params.settings:q} --networks {params.networks}"
            " --out {params.out} --work {params.work} >{log} 2>&1"
