"""python -m stage3_agents_llmops.pipeline run | deploy | platform | status | stop | rollback | watch | chaos | ..."""

import sys

from labkit.cli import lab_main
from stage3_agents_llmops.pipeline import (
    bench_command,
    chaos_command,
    demo_command,
    evaluate_command,
    gateway_command,
    platform_command,
    run_command,
    state_commands,
    watch_command,
)
from stage3_agents_llmops.pipeline.load import load_command

MODULES = (
    run_command, demo_command, state_commands, watch_command, chaos_command, platform_command, evaluate_command,
    gateway_command, load_command, bench_command,
)  # fmt: skip
COMMANDS = [command for module in MODULES for command in module.COMMANDS]

if __name__ == "__main__":
    title = "Automated deployment with monitoring, canary and rollback."
    sys.exit(lab_main("python -m stage3_agents_llmops.pipeline", title, COMMANDS))
