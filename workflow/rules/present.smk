rule tables:
    input:
        rules.collect.output,
    output:
        # The first category of the report: a reader finds the headline at the top.
        report(
            expand("results/{suite}/tables/headline.csv", suite=SUITE.suite),
            caption="../report/headline.rst",
            category="1. Headline",
            labels={"table": "does any criterion beat random removal?"},
        ),
        report(
            expand("results/{suite}/tables/accuracy.csv", suite=SUITE.suite),
            caption="../report/accuracy.rst",
            category="2. Accuracy",
            labels={"content": "accuracy against FLOPs reduction", "form": "table"},
        ),
        report(
            expand("results/{suite}/tables/versus_random.csv", suite=SUITE.suite),
            caption="../report/versus_random.rst",
            category="2. Accuracy",
            labels={
                "content": "paired comparison with random removal",
                "form": "table",
            },
        ),
        report(
            expand("results/{suite}/tables/versus_dense.csv", suite=SUITE.suite),
            caption="../report/versus_dense.rst",
            category="2. Accuracy",
            labels={
                "content": "paired comparison with the dense network",
                "form": "table",
            },
        ),
        report(
            expand("results/{suite}/tables/cost.csv", suite=SUITE.suite),
            caption="../report/cost.rst",
            category="4. Cost (measured)",
            labels={"table": "latency, energy, carbon"},
        ),
        report(
            expand("results/{suite}/tables/scoring_cost.csv", suite=SUITE.suite),
            caption="../report/scoring_cost.rst",
            category="4. Cost (measured)",
            labels={"table": "cost of scoring"},
        ),
        expand(
            "results/{suite}/tables/{table}.{format}",
            suite=SUITE.suite,
            table=TABLES,
            format=["md", "tex"],
        ),
    log:
        expand("logs/{suite}/tables.log", suite=SUITE.suite),
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
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
        report(
            figures("accuracy", "png"),
            caption="../report/accuracy.rst",
            category="2. Accuracy",
            labels={"content": "accuracy against FLOPs reduction", "form": "figure"},
        ),
        report(
            figures("removals", "png"),
            caption="../report/removals.rst",
            category="3. Decisions",
            labels={"figure": "which blocks went, step by step"},
        ),
        report(
            figures("scores", "png"),
            caption="../report/scores.rst",
            category="3. Decisions",
            labels={"figure": "ranks of blocks by criterion"},
        ),
        report(
            figures("agreement", "png"),
            caption="../report/agreement.rst",
            category="3. Decisions",
            labels={"figure": "agreement between criteria"},
        ),
        [figures(figure, "pdf") for figure in FIGURES],
    log:
        expand("logs/{suite}/figures.log", suite=SUITE.suite),
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
    params:
        tables=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
    message:
        "Drawing the figures"
    shell:
        "python -m prunebench figures --tables {params.tables} --out {params.out} >{log} 2>&1"
