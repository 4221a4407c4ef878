rule score:
    input:
        architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
        weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
    output:
        scores="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/scores.csv",
        cost="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/scoring.json",
    log:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/score.log",
    benchmark:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/score.benchmark.tsv"
    conda:
        "../../envs/prunebench.yaml"
    threads: SUITE.threads
    resources:
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=lambda wildcards: settings("score", pair_of(wildcards), wildcards),
        network=subpath(input.weights, parent=True),
        work=lambda wildcards: work(pair_of(wildcards), "score").format(**wildcards),
    message:
        "Scoring the blocks of {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
    shell:
        "python -m prunebench score --settings {params.settings:q} --network {params.network}"
        " --out {output.scores} --cost {output.cost} --work {params.work} >{log} 2>&1"


# Experiments may differ by the criteria that they follow.
for pair in PAIRS:

    rule:
        name:
            f"rank_{pair[0]}_{pair[1]}"
        input:
            scores=replicate(pair, "dense/scores.csv"),
        output:
            rankings(pair),
        log:
            logs(pair, "rank.log"),
        localrule: True
        conda:
            "../../envs/prunebench.yaml"
        # So that a profile can cap them: there may be hundreds at once.
        resources:
            local_jobs=1,
        params:
            settings=json.dumps(job_settings.rank_job(SUITE, *pair)),
            out=lambda wildcards, pair=pair: replicate(pair, "one-shot").format(**wildcards),
        message:
            f"Ranking the blocks of {pair[1]} on {pair[0]}, replicate {{wildcards.replicate}}"
        shell:
            "python -m prunebench rank --settings {params.settings:q} --scores {input.scores} --out {params.out} >{log} 2>&1"
