# Finished networks from files: taken over by one job for each replicate, since they share the mean training image, then audited.
for pair in PAIRS:
    if experiments.delivered_folders(SUITE, *pair, replicate=0):

        rule:
            name:
                f"deliver_{pair[0]}_{pair[1]}"
            output:
                [
                    replicate(pair, folder, file)
                    for folder in experiments.delivered_folders(SUITE, *pair, replicate=0)
                    for file in NETWORK
                ],
            log:
                logs(pair, "deliver.log"),
            benchmark:
                logs(pair, "deliver.benchmark.tsv")
            conda:
                "../../envs/prunebench.yaml"
            threads: SUITE.threads
            resources:
                mem_mb=lambda wildcards, attempt: 4000 * attempt,
                runtime=lambda wildcards, attempt: 30 * attempt,
            params:
                settings=lambda wildcards, pair=pair: settings("deliver", pair, wildcards),
                replicate=lambda wildcards, pair=pair: replicate(pair).format(**wildcards),
            message:
                f"Taking over networks of {pair[1]} on {pair[0]} from files, replicate {{wildcards.replicate}}"
            shell:
                "python -m prunebench deliver --settings {params.settings:q} --replicate {params.replicate} >{log} 2>&1"

    if experiments.audited(SUITE, *pair):

        rule:
            name:
                f"audit_{pair[0]}_{pair[1]}"
            input:
                [replicate(pair, folder, file) for folder in ["dense", *audited_folders(pair)] for file in NETWORK],
            output:
                [replicate(pair, "delivered", method, file) for method in experiments.audited(SUITE, *pair) for file in AUDITS],
            log:
                logs(pair, "audit.log"),
            benchmark:
                logs(pair, "audit.benchmark.tsv")
            conda:
                "../../envs/prunebench.yaml"
            threads: SUITE.threads
            resources:
                gpu=GPUS,
                mem_mb=lambda wildcards, attempt: 8000 * attempt,
                runtime=lambda wildcards, attempt: 120 * attempt,
            params:
                settings=lambda wildcards, pair=pair: settings("audit", pair, wildcards),
                replicate=lambda wildcards, pair=pair: replicate(pair).format(**wildcards),
                work=lambda wildcards, pair=pair: work(pair, "audit").format(**wildcards),
            message:
                f"Auditing delivered networks of {pair[1]} on {pair[0]}, replicate {{wildcards.replicate}}"
            shell:
                "python -m prunebench audit-series --settings {params.settings:q} --replicate {params.replicate}"
                " --work {params.work} >{log} 2>&1"
