rule tables:
    input:
        rules.collect.output,
    output:
        expand(
            "results/{suite}/tables/{table}.{format}",
            suite=SUITE.suite,
            table=["headline", "accuracy", "versus_random", "versus_dense", "cost", "scoring_cost"],
            format=["csv", "md", "tex"],
        ),
    log:
        expand("logs/{suite}/tables.log", suite=SUITE.suite),
    conda:
        "../../envs/prunebench.yaml"
    localrule: True
    params:
        tables=subpath(output[0], parent=True),
    message:
        "Making the tables"
    shell:
        "python -m prunebench tables --tables {params.tables} >{log} 2>&1"


rule figures:
    input:
        rules.collect.output,
    output:
        figures(),
    log:
        expand("logs/{suite}/figures.log", suite=SUITE.suite),
    conda:
        "../../envs/prunebench.yaml"
    localrule: True
    params:
        tables=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
    message:
        "Drawing the figures"
    shell:
        "python -m prunebench figures --tables {params.tables} --out {params.out} >{log} 2>&1"
