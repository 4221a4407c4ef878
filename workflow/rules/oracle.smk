# What removing each block does, tried; criteria are held to it. Only where the config has a section `oracle`.
if SUITE.oracle:

    rule oracle:
        input:
            architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
            weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
        output:
            losses="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/oracle.csv",
            cost="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/oracle.json",
        log:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/oracle.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/oracle.benchmark.tsv"
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards: settings("oracle", pair_of(wildcards), wildcards),
            network=subpath(input.weights, parent=True),
            work=lambda wildcards: work(pair_of(wildcards), "oracle").format(**wildcards),
        message:
            "Removing each block of {wildcards.model} on {wildcards.dataset} by itself, replicate {wildcards.replicate}"
        shell:
            "python -m prunebench oracle --settings {params.settings:q} --network {params.network}"
            " --out {output.losses} --cost {output.cost} --work {params.work} >{log} 2>&1"
