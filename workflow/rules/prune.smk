# A chain, one criterion followed to all operating points, is one job. Experiments differ by their operating points, and criteria by
# the number of their draws, so each such group of chains has a rule of its own with all the files it makes.
for group in chain_groups("one-shot"):

    rule:
        name:
            group.name
        input:
            architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
            weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
            rankings=expand(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}/draw{draw}/ranking.csv",
                draw=group.draws,
                allow_missing=True,
            ),
        output:
            networks=group.networks(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}/draw{draw}/{point}/{file}"
            ),
            removals=expand(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}/draw{draw}/removals.csv",
                draw=group.draws,
                allow_missing=True,
            ),
        log:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}.benchmark.tsv"
        wildcard_constraints:
            dataset=group.dataset,
            model=group.model,
            criterion=group.criteria,
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards: settings("chain", wildcards, "one-shot", wildcards.criterion),
            dense=subpath(input.weights, parent=True),
            out=lambda wildcards: f"{REPLICATE}/one-shot/{wildcards.criterion}".format(**wildcards),
            work=work("one-shot/{criterion}"),
        message:
            "One-shot by {wildcards.criterion}: {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
        shell:
            "python -m prunebench one-shot --settings {params.settings:q} --dense {params.dense}"
            " --rankings {input.rankings} --out {params.out} --work {params.work} >{log} 2>&1"


for group in chain_groups("iterative"):

    rule:
        name:
            group.name
        input:
            architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
            weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
            scores="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/scores.csv",
        output:
            networks=group.networks(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/iterative/{criterion}/draw{draw}/{point}/{file}"
            ),
            tables=expand(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/iterative/{criterion}/draw{draw}/{file}",
                draw=group.draws,
                file=["removals.csv", "scores.csv"],
                allow_missing=True,
            ),
        log:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/iterative/{criterion}.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/iterative/{criterion}.benchmark.tsv"
        wildcard_constraints:
            dataset=group.dataset,
            model=group.model,
            criterion=group.criteria,
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 8000 * attempt,
            runtime=lambda wildcards, attempt: 480 * attempt,
        params:
            settings=lambda wildcards: settings("chain", wildcards, "iterative", wildcards.criterion),
            dense=subpath(input.weights, parent=True),
            out=lambda wildcards: f"{REPLICATE}/iterative/{wildcards.criterion}".format(**wildcards),
            work=work("iterative/{criterion}"),
        message:
            "Iterative by {wildcards.criterion}: {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
        shell:
            "python -m prunebench iterative --settings {params.settings:q} --dense {params.dense}"
            " --scores {input.scores} --out {params.out} --work {params.work} >{log} 2>&1"


for group in chain_groups("one-shot-filters"):

    rule:
        name:
            group.name
        input:
            group.networks(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/{criterion}/draw{draw}/{point}/{file}"
            ),
        output:
            group.networks(
                "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot-filters/{criterion}/draw{draw}/{point}/{file}"
            ),
        log:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/one-shot-filters/{criterion}.log",
        benchmark:
            "logs/{suite}/{dataset}/{model}/replicate{replicate}/one-shot-filters/{criterion}.benchmark.tsv"
        wildcard_constraints:
            dataset=group.dataset,
            model=group.model,
            criterion=group.criteria,
        conda:
            "../../envs/prunebench.yaml"
        threads: SUITE.threads
        resources:
            gpu=GPUS,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            settings=lambda wildcards: settings("filters", wildcards, wildcards.criterion),
            networks=lambda wildcards, input: list(dict.fromkeys(map(os.path.dirname, input))),
            out=lambda wildcards: f"{REPLICATE}/one-shot-filters/{wildcards.criterion}".format(**wildcards),
            work=work("one-shot-filters/{criterion}"),
        message:
            "Filters after one-shot by {wildcards.criterion}: {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
        shell:
            "python -m prunebench filters --settings {params.settings:q} --networks {params.networks}"
            " --out {params.out} --work {params.work} >{log} 2>&1"
