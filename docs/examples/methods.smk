# Rules of a user's own. A config includes this file with
#   external:
#     rules: [docs/examples/methods.smk]
#     rankings: [odd_first]
#     networks: [slim]


# A ranking, in any language: here awk puts every second block first. It is pruned, fine-tuned and evaluated like any other.
rule odd_first:
    input:
        "results/{suite}/{dataset}/{model}/replicate{replicate}/dense/scores.csv",
    output:
        "results/{suite}/{dataset}/{model}/replicate{replicate}/one-shot/odd_first/draw0/ranking.csv",
    log:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/odd_first.log",
    localrule: True
    conda:
        "../../envs/prunebench.yaml"
    shell:
        """
        awk -F, '
            NR == 1 {{ for (i = 1; i <= NF; i++) if ($i == "block") column = i; next }}
            !seen[$column]++ {{ block[++n] = $column }}
            END {{
                print "block,rank"
                for (i = 2; i <= n; i += 2) print block[i] "," ++rank
                for (i = 1; i <= n; i += 2) print block[i] "," ++rank
            }}' {input} >{output} 2>{log}
        """


# A whole network from a method that removes no blocks: narrower instead of shallower. It enters at evaluation.
rule slim:
    input:
        architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/architecture.json",
        weights="results/{suite}/{dataset}/{model}/replicate{replicate}/dense/weights.safetensors",
    output:
        architecture="results/{suite}/{dataset}/{model}/replicate{replicate}/delivered/slim/draw0/{point}/architecture.json",
        weights="results/{suite}/{dataset}/{model}/replicate{replicate}/delivered/slim/draw0/{point}/weights.safetensors",
    log:
        "logs/{suite}/{dataset}/{model}/replicate{replicate}/slim/{point}.log",
    conda:
        "../../envs/prunebench.yaml"
    params:
        dense=subpath(input.weights, parent=True),
        out=subpath(output.weights, parent=True),
    shell:
        "python docs/examples/slim.py {params.dense} {params.out} {wildcards.point} >{log} 2>&1"
