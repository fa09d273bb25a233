"""Techniques whose time the throughput model works out, so that no figure of theirs counts too."""

from __future__ import annotations

#: Their time is in the work itself: passes, the peak of a precision, tokens of a sequence.
MODELLED = frozenset(
    {
        "activation-checkpointing",
        "lora",
        "mixed-precision",
        "shorter-sequences",
        "optimizer-offload",
        "nvme-offload",
        "sharding",
        "smaller-model",
        "pruned-model",
        "smaller-batch",
    }
)
#: The samples of a job or the tokens of one hold the length, also where a speed was measured.
IN_THE_JOB = frozenset({"shorter-sequences"})
