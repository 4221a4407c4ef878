# The entry point for `snakemake` in a clone; the workflow itself is in workflow/, where the workflow catalog looks for it.
include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
    message:
        "All results are there"
