# Experiments differ by their operating points, and evaluations by the networks that they are limited to, so each has rules of its own
# with all the files they make. Evaluations with the same limits share their jobs.
for job in evaluation_jobs("network"):

    rule:
        name:
            job.name
        input:
            job.networks(),
        output:
            expand(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/{folder}/evaluations/{evaluation}.json",
                folder=job.folders,
                evaluation=job.group.names,
                allow_missing=True,
            ),
        log:
            f"logs/{{suite}}/{{dataset}}/{{model}}/replicate{{replicate}}/evaluate/{job.place}.log",
        benchmark:
            f"logs/{{suite}}/{{dataset}}/{{model}}/replicate{{replicate}}/evaluate/{job.place}.benchmark.tsv"
        wildcard_constraints:
            dataset=job.dataset,
            model=job.model,
            replicate=job.replicates,
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("evaluate", wildcards, job.group, job.batch),
            replicate=lambda wildcards: REPLICATE.format(**wildcards),
            # One folder for all, so that results are found again when work is divided into other jobs.
            work=work("evaluate"),
            cache=lambda wildcards: "results/{suite}/.work/{dataset}/cache".format(**wildcards),
        message:
            f"Evaluating {{wildcards.model}} on {{wildcards.dataset}}, replicate {{wildcards.replicate}}: {job.what}"
        shell:
            "python -m prunebench evaluate --settings {params.settings:q} --replicate {params.replicate}"
            " --work {params.work} --cache {params.cache} >{log} 2>&1"


for job in evaluation_jobs("architecture"):

    rule:
        name:
            job.name
        input:
            lambda wildcards, job=job: expand(job.networks(), replicate=range(job.group.replicates), **wildcards),
        output:
            expand(
                "results/{suite}/{dataset}/{model}/measured/{evaluation}.json",
                evaluation=job.group.names,
                allow_missing=True,
            ),
        log:
            f"logs/{{suite}}/{{dataset}}/{{model}}/measure/{job.place}.log",
        benchmark:
            f"logs/{{suite}}/{{dataset}}/{{model}}/measure/{job.place}.benchmark.tsv"
        wildcard_constraints:
            dataset=job.dataset,
            model=job.model,
        conda:
            "../../envs/prunebench.yaml"
        # What is measured needs the machine for itself, so this job takes all cores.
        threads: CORES
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards, job=job: settings("evaluate", wildcards, job.group, job.batch),
            experiment=lambda wildcards: "results/{suite}/{dataset}/{model}".format(**wildcards),
            out=subpath(output[0], parent=True),
            work=lambda wildcards: "results/{suite}/.work/{dataset}/{model}/".format(**wildcards) + "measure",
        message:
            f"Measuring {{wildcards.model}} on {{wildcards.dataset}}, alone on the machine: {job.what}"
        shell:
            "python -m prunebench measure --settings {params.settings:q} --experiment {params.experiment}"
            " --out {params.out} --work {params.work} >{log} 2>&1"
