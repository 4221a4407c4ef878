rule collect:
    input:
        # A function: jobs elsewhere read these rules too, and have no use for so long a list.
        lambda wildcards: read_results(),
    output:
        expand(
            "results/{suite}/tables/{table}.{format}",
            suite=SUITE.suite,
            table=planned.TIDY,
            format=["csv", "parquet"],
        ),
        expand("results/{suite}/tables/provenance.csv", suite=SUITE.suite),
    log:
        expand("logs/{suite}/collect.log", suite=SUITE.suite),
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
    params:
        # A function, since braces in the paths of a config are no wildcards of this rule.
        suite=lambda wildcards: SUITE.model_dump_json(by_alias=True, exclude_none=True),
        out=subpath(output[0], parent=True),
    message:
        "Collecting all results in tidy tables"
    shell:
        "python -m prunebench collect --suite {params.suite:q} --results results --out {params.out} >{log} 2>&1"
