"""python -m stage3_agents_llmops.registry demo | publish | list | show | diff | promote | rollback | history | ..."""

import sys

from labkit.cli import Command, lab_main
from stage3_agents_llmops.registry import (
    alias_commands,
    compare_command,
    conformance_command,
    demo_command,
    hub_commands,
    release_commands,
)
from stage3_agents_llmops.registry.interface import PROG

COMMANDS = [
    Command("demo", "five releases and all that can happen to them", demo_command.DemoConfig, demo_command.run_demo,
            demo_command.PRESETS),
    Command("publish", "store a release: model, retrieval, prompts and graph as one", release_commands.PublishConfig,
            release_commands.run_publish),
    Command("list", "all releases, and what points at them", release_commands.ListConfig, release_commands.run_list),
    Command("show", "one release: parts, files, figures, where it comes from", release_commands.ShowConfig,
            release_commands.run_show),
    Command("diff", "which parts changed between two releases", release_commands.DiffConfig,
            release_commands.run_diff),
    Command("promote", "point an alias at a release, if nobody was quicker", alias_commands.PromoteConfig,
            alias_commands.run_promote),
    Command("rollback", "point an alias at what it was before", alias_commands.RollbackConfig,
            alias_commands.run_rollback),
    Command("history", "who moved which alias when; what was in production then", alias_commands.HistoryConfig,
            alias_commands.run_history),
    Command("load", "write a release's files, every one checked", release_commands.LoadConfig,
            release_commands.run_load),
    Command("verify", "hash everything that is stored", release_commands.VerifyConfig, release_commands.run_verify),
    Command("gc", "remove old versions, and what killed publishers left", release_commands.GcConfig,
            release_commands.run_gc),
    Command("push", "publish a release to a Hugging Face Hub, with a generated card", hub_commands.PushConfig,
            hub_commands.run_push),
    Command("pull", "fetch a release from a Hugging Face Hub", hub_commands.PullConfig, hub_commands.run_pull),
    Command("conformance", "the suite that every registry must pass, over one of your choice",
            conformance_command.ConformanceConfig, conformance_command.run_conformance_command),
    Command("compare", "MLflow's registry and the course's own side by side", compare_command.CompareConfig,
            compare_command.run_compare, compare_command.PRESETS),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main(PROG, "Releases with versions, aliases, lineage and a way back.", COMMANDS))
