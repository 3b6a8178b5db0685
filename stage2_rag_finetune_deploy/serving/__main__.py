"""python -m stage2_rag_finetune_deploy.serving serve | deploy | load-test | compare | guided | metrics | memory"""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage2_rag_finetune_deploy.serving import deploy_command, serve_command

COMMANDS = [
    Command("serve", "a checkpoint behind the OpenAI-compatible API, until Ctrl-C", serve_command.ServeConfig,
            serve_command.run_serve, serve_command.PRESETS),
    Command("deploy", "start it with the tuned model, try it, record it for month 3", deploy_command.DeployConfig,
            deploy_command.run_deploy, deploy_command.PRESETS),
]  # fmt: skip


def main(words: list[str]) -> int:
    """The command line; `--adapter` may be given several times."""
    return lab_main("python -m stage2_rag_finetune_deploy.serving", "Serving a language model.", COMMANDS,
                    serve_command.with_adapters(words))  # fmt: skip


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
