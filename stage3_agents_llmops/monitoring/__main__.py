"""python -m stage3_agents_llmops.monitoring demo | serve | alerts | drift | traces"""

import sys

from labkit.cli import Command, lab_main
from stage3_agents_llmops.monitoring import demo_command, serve_command, watch_commands

COMMANDS = [
    Command("demo", "two releases' traffic, one turns bad: rows, metrics, alerts, drift", demo_command.DemoConfig,
            demo_command.run_demo, demo_command.PRESETS),
    Command("serve", "exporter, alerts and dashboard over a table of runs", serve_command.ServeConfig,
            serve_command.run_serve),
    Command("alerts", "what fires now; the rules for Prometheus", watch_commands.AlertsConfig,
            watch_commands.run_alerts),
    Command("drift", "do customers ask for other things than they used to?", watch_commands.DriftConfig,
            watch_commands.run_drift),
    Command("traces", "list traces, show one, send them to MLflow", watch_commands.TracesConfig,
            watch_commands.run_traces),
]  # fmt: skip

if __name__ == "__main__":
    about = "Monitoring: runs, percentiles, metrics, alerts, drift, traces, a dashboard."
    sys.exit(lab_main("python -m stage3_agents_llmops.monitoring", about, COMMANDS))
