"""A/B testing in layers: who gets what, who saw it, and what it did.

    from stage3_agents_llmops.experiments import Experiments, ExposureLog, weighted

Reading order: hashing, arms, layers, domains, conditions, assignment, exposure_log; then the statistics, one idea a
module: sample_ratio, multiple_exposures, proportions, means, cuped, ratio_metrics, sequential, guardrails, power.
"""

from stage3_agents_llmops.experiments.assignment import Assignment, Chosen, Experiments, weighted
from stage3_agents_llmops.experiments.exposure_log import Exposure, ExposureLog

__all__ = ["Assignment", "Chosen", "Experiments", "Exposure", "ExposureLog", "weighted"]
