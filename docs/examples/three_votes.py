"""Three metrics vote by their median rank, without the variants that make five of the consensus' eight judges."""

from prunebench.criteria.consensus import consensus

THREE_VOTES = consensus("three_votes", ["cka", "linear_1", "wasserstein"], rule="median")
