rule tables:
    input:
        rules.collect.output,
    output:
        [in_report(f"results/{SUITE.suite}/tables/{table}.csv", table, place, "table") for table, place in TABLES.items()],
        expand(
            "results/{suite}/tables/{table}.{format}",
            suite=SUITE.suite,
            table=TABLES,
            format=["md", "tex"],
        ),
        # The first page of the report shows this one.
        expand("results/{suite}/tables/headline.html", suite=SUITE.suite),
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
        [in_report(figures(figure, "png"), figure, place, "figure") for figure, place in {**FIGURES, **AUDIT_FIGURES}.items()],
        [figures(figure, "pdf") for figure in [*FIGURES, *AUDIT_FIGURES]],
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
