# Finished networks from files: taken over by one job for each replicate, since they share the mean training image, then audited.
for pair in PAIRS:
    if experiments.delivered_folders(SUITE, *pair, replicate=0):

        rule:
            name:
                f"deliver_{pair[0]}_{pair[1]}"
            output:
                expand(
                    "results/{suite}/{dataset}/{model}/replicate{replicate}/{folder}/{file}",
                    folder=experiments.delivered_folders(SUITE, *pair, replicate=0),
                    file=NETWORK,
                    allow_missing=True,
                ),
            log:
                "logs/{suite}/{dataset}/{model}/replicate{replicate}/deliver.log",
            benchmark:
                "logs/{suite}/{dataset}/{model}/replicate{replicate}/deliver.benchmark.tsv"
            wildcard_constraints:
                dataset=pair[0],
                model=pair[1],
            conda:
                "../../envs/prunebench.yaml"
            threads: SUITE.threads
            resources:
                mem_mb=lambda wildcards, attempt: 4000 * attempt,
                runtime=lambda wildcards, attempt: 30 * attempt,
            params:
                settings=lambda wildcards: settings("deliver", wildcards),
                replicate=lambda wildcards: REPLICATE.format(**wildcards),
            message:
                "Taking over networks of {wildcards.model} on {wildcards.dataset} from files, replicate {wildcards.replicate}"
            shell:
                "python -m prunebench deliver --settings {params.settings:q} --replicate {params.replicate} >{log} 2>&1"

    if experiments.audited(SUITE, *pair):

        rule:
            name:
                f"audit_{pair[0]}_{pair[1]}"
            input:
                expand(
                    "results/{suite}/{dataset}/{model}/replicate{replicate}/{folder}/{file}",
                    folder=["dense", *audited_folders(pair)],
                    file=NETWORK,
                    allow_missing=True,
                ),
            output:
                expand(
                    "results/{suite}/{dataset}/{model}/replicate{replicate}/delivered/{method}/{file}",
                    method=experiments.audited(SUITE, *pair),
                    file=AUDITS,
                    allow_missing=True,
                ),
            log:
                "logs/{suite}/{dataset}/{model}/replicate{replicate}/audit.log",
            benchmark:
                "logs/{suite}/{dataset}/{model}/replicate{replicate}/audit.benchmark.tsv"
            wildcard_constraints:
                dataset=pair[0],
                model=pair[1],
            conda:
                "../../envs/prunebench.yaml"
            threads: SUITE.threads
            resources:
                gpu=GPUS,
                mem_mb=lambda wildcards, attempt: 8000 * attempt,
                runtime=lambda wildcards, attempt: 120 * attempt,
            params:
                settings=lambda wildcards: settings("audit", wildcards),
                replicate=lambda wildcards: REPLICATE.format(**wildcards),
                work=work("audit"),
            message:
                "Auditing delivered networks of {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
            shell:
                "python -m prunebench audit-series --settings {params.settings:q} --replicate {params.replicate}"
                " --work {params.work} >{log} 2>&1"
