"""python -m stage3_agents_llmops.experiments demo | assign | validate | ramp | independence | simulate | ..."""

import sys

from labkit.cli import Command, lab_main
from stage3_agents_llmops.experiments import analysis_commands, demo_command, traffic_commands

COMMANDS = [
    Command("demo", "everything below on simulated customers whose true effects are known", demo_command.DemoConfig,
            demo_command.run_demo, demo_command.PRESETS),
    Command("assign", "what one event gets: arms by layer, and every parameter", traffic_commands.AssignConfig,
            traffic_commands.run_assign),
    Command("validate", "is a configuration right? all that is wrong with it", traffic_commands.ValidateConfig,
            traffic_commands.run_validate),
    Command("ramp", "a canary from 1 to 100 %: who is moved, and who for nothing", traffic_commands.RampConfig,
            traffic_commands.run_ramp, traffic_commands.RAMP_PRESETS),
    Command("independence", "every pair of layers crossed, with own salts and a shared one",
            traffic_commands.IndependenceConfig, traffic_commands.run_independence,
            traffic_commands.INDEPENDENCE_PRESETS),
    Command("simulate", "the peeking lesson: A/A tests looked at 40 times", analysis_commands.SimulateConfig,
            analysis_commands.run_simulate, analysis_commands.SIMULATE_PRESETS),
    Command("analyse", "one experiment from its exposures and events", analysis_commands.AnalyseConfig,
            analysis_commands.run_analyse),
    Command("report", "the same as a page, in English and Chinese", analysis_commands.AnalyseConfig,
            analysis_commands.run_report),
    Command("plan", "how many users, how many days", analysis_commands.PlanConfig, analysis_commands.run_plan),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main("python -m stage3_agents_llmops.experiments", "A/B testing in layers.", COMMANDS))
