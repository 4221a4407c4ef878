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
        [
            in_report(file, figure, place, "figure", pair)
            for figure, place in FIGURES.items()
            for pair, file in figures(figure, "png").items()
        ],
        [file for figure in FIGURES for file in figures(figure, "pdf").values()],
    log:
        expand("logs/{suite}/figures.log", suite=SUITE.suite),
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
    params:
        tables=subpath(input[0], parent=True),
        out=subpath(output[0], parent=True),
        column=SUITE.figures.column_width_mm,
        text=SUITE.figures.text_width_mm,
    message:
        "Drawing the figures"
    shell:
        "python -m prunebench figures --tables {params.tables} --out {params.out}"
        " --column-width-mm {params.column} --text-width-mm {params.text} >{log} 2>&1"


# Not among the results that `all` asks for: ask for it by its name, snakemake paper. The PDF is no output: LaTeX need not be installed,
# may be later, and may fail; `prunebench typeset` makes it of this file.
rule paper:
    input:
        rules.tables.output,
        rules.figures.output,
        expand("results/{suite}/tables/provenance.csv", suite=SUITE.suite),
    output:
        expand("results/{suite}/paper/main.tex", suite=SUITE.suite),
    log:
        expand("logs/{suite}/paper.log", suite=SUITE.suite),
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
    params:
        suite=lambda wildcards: SUITE.model_dump_json(by_alias=True, exclude_none=True),
        tables=subpath(input[0], parent=True),
        figures=expand("results/{suite}/figures", suite=SUITE.suite),
        out=subpath(output[0], parent=True),
    message:
        "Writing the paper"
    shell:
        "python -m prunebench paper --suite {params.suite:q} --tables {params.tables} --figures {params.figures} --out {params.out}"
        " 2>&1 | tee {log}"
