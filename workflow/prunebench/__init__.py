"""prunebench: a reproducible benchmark for pruning neural networks.

The package knows nothing of Snakemake: every stage is a function from files to files (``docs/data-contracts.md``),
and ``python -m prunebench`` runs each of them by hand.
"""

__version__ = "0.4.0"
