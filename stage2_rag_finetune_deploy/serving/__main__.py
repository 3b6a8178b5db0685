"""python -m stage2_rag_finetune_deploy.serving serve | deploy | compare | bench | load-test | guided | metrics | ..."""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage2_rag_finetune_deploy.serving import (
    bench_command,
    compare_command,
    deploy_command,
    guided_command,
    load_test_command,
    memory_command,
    metrics_command,
    serve_command,
)
from stage2_rag_finetune_deploy.serving.mini_engine import figures_command

COMMANDS = [
    Command("serve", "a checkpoint behind the OpenAI-compatible API, until Ctrl-C", serve_command.ServeConfig,
            serve_command.run_serve, serve_command.PRESETS),
    Command("deploy", "start it with the tuned model, try it, record it for month 3", deploy_command.DeployConfig,
            deploy_command.run_deploy, deploy_command.PRESETS),
    Command("compare", "static batches, the engine by hand, vLLM, vLLM in 4 bits", compare_command.CompareConfig,
            compare_command.run_compare, compare_command.PRESETS),
    Command("bench", "engines without HTTP: static batches, by hand, vLLM", bench_command.BenchConfig,
            bench_command.run_bench, bench_command.PRESETS),
    Command("load-test", "any server at growing rates: latencies, goodput, its limit", load_test_command.LoadTestConfig,
            load_test_command.run_load_test, load_test_command.PRESETS),
    Command("guided", "answers held to the labels' schema (vLLM), base and adapter", guided_command.GuidedConfig,
            guided_command.run_guided, guided_command.PRESETS),
    Command("metrics", "what a running server counts", metrics_command.MetricsConfig, metrics_command.run_metrics),
    Command("memory", "does it fit? weights and KV cache by arithmetic", memory_command.MemoryConfig,
            memory_command.run_memory),
    Command("figures", "block table over time; the batch under both schedules", figures_command.FiguresConfig,
            figures_command.run_figures, figures_command.PRESETS),
]  # fmt: skip


def main(words: list[str]) -> int:
    """The command line; `--adapter` may be given several times."""
    return lab_main("python -m stage2_rag_finetune_deploy.serving", "Serving a language model.", COMMANDS,
                    serve_command.with_adapters(words))  # fmt: skip


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
