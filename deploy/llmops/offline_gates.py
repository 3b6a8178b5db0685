"""May this release meet customers? gates.toml on two evaluations, for a Job of an AnalysisTemplate.

    python deploy/llmops/offline_gates.py --candidate /new --champion /old        exit code 0: pass; 1: fail or hold

Both folders are what `registry load` writes, each with the evaluation.json that its training left in it.
"""

import argparse
import sys
from pathlib import Path

from stage3_agents_llmops.pipeline.evaluation import read_evaluation
from stage3_agents_llmops.pipeline.gates import DEFAULT_FILE, decide, load_gates
from stage3_agents_llmops.registry.release import EVALUATION


def main() -> int:
    """Print every gate; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidate", required=True, type=Path)
    parser.add_argument("--champion", required=True, type=Path)
    parser.add_argument("--gates", type=Path, default=DEFAULT_FILE)
    options = parser.parse_args()
    figures = [read_evaluation(folder / EVALUATION) for folder in (options.candidate, options.champion)]
    decision = decide(load_gates(options.gates), *figures)
    for result in decision.results:
        print(f"{result.verdict:5} {result.gate.name}: {result.reason}")
    print(decision.verdict, flush=True)
    return 0 if decision.verdict == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())
