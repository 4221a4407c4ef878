"""From result files to tidy tables, statistics, the paper's tables and figures; free of torch."""
