rule dense:
    output:
        architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
        weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
        training="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/training.json",
    log:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/dense.log",
    benchmark:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/dense.benchmark.tsv"
    conda:
        "../../envs/prunebench.yaml"
    threads: SUITE.threads
    resources:
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        settings=lambda wildcards: settings("dense", pair_of(wildcards), wildcards),
        out=subpath(output.weights, parent=True),
        work=lambda wildcards: work(pair_of(wildcards), "dense").format(**wildcards),
    message:
        "Training the dense {wildcards.model} on {wildcards.dataset}, replicate {wildcards.replicate}"
    shell:
        "python -m prunebench dense --settings {params.settings:q} --out {params.out} --work {params.work} >{log} 2>&1"
