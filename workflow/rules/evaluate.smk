# Experiments differ by their operating points, so each has rules of its own with all the files they make.
for pair in PAIRS:

    rule:
        name:
            f"evaluate_{pair[0]}_{pair[1]}"
        input:
            network_files(pair),
        output:
            expand(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/{folder}/evaluations/{evaluation}.json",
                folder=folders(pair),
                evaluation=experiments.evaluation_names(SUITE, "network"),
                allow_missing=True,
            ),
        log:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/evaluate.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/evaluate.benchmark.tsv"
        wildcard_constraints:
            dataset=pair[0],
            model=pair[1],
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 60 * attempt,
        params:
            settings=lambda wildcards: settings("evaluate", wildcards, "network"),
            replicate=lambda wildcards: REPLICATE.format(**wildcards),
            networks=folders(pair),
        message:
            "Evaluating {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
        shell:
            "python -m prunebench evaluate --settings {params.settings:q} --replicate {params.replicate}"
            " --networks {params.networks} >{log} 2>&1"

    rule:
        name:
            f"measure_{pair[0]}_{pair[1]}"
        input:
            lambda wildcards, pair=pair: expand(network_files(pair), replicate=range(SUITE.replicates), **wildcards),
        output:
            expand(
                "results/{suite}/{dataset}/{model}/measured/{evaluation}.json",
                evaluation=experiments.evaluation_names(SUITE, "architecture"),
                allow_missing=True,
            ),
        log:
            "logs/{suite}/{dataset}/{model}/measure.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/measure.benchmark.tsv"
        wildcard_constraints:
            dataset=pair[0],
            model=pair[1],
        conda:
            "../../envs/prunebench.yaml"
        # What is measured needs the machine for itself, so this job takes all cores.
        threads: CORES
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 120 * attempt,
        params:
            settings=lambda wildcards: settings("evaluate", wildcards, "architecture"),
            experiment=lambda wildcards: "results/{suite}/{dataset}/{model}".format(**wildcards),
            out=subpath(output[0], parent=True),
            networks=[f"replicate{r}/{folder}" for r in range(SUITE.replicates) for folder in folders(pair)],
        message:
            "Measuring latency and energy of {wildcards.model} on {wildcards.dataset}, alone on the machine"
        shell:
            "python -m prunebench measure --settings {params.settings:q} --experiment {params.experiment}"
            " --networks {params.networks} --out {params.out} >{log} 2>&1"
