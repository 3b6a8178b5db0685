"""python -m stage2_rag_finetune_deploy.vector_db compare | features | crash | server"""

import sys

from labkit.cli import Command, lab_main
from stage2_rag_finetune_deploy.vector_db import compare, crash, features, server_command

COMMANDS = [
    Command("compare", "the same vectors into each store, at growing sizes", compare.CompareConfig,
            compare.run_compare, compare.PRESETS),
    Command("features", "what Milvus and Weaviate have beyond the interface, tried live", features.FeaturesConfig,
            features.run_features, features.PRESETS),
    Command("crash", "kill -9 while writing: is what was acknowledged still there?", crash.CrashConfig, crash.run_crash,
            crash.PRESETS),
    Command("server", "a real Milvus server on this machine, until Ctrl-C", server_command.ServerConfig,
            server_command.run_server),
    Command("write", "write batches and note what was acknowledged (crash starts it)", crash.WriteConfig,
            crash.run_write),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main("python -m stage2_rag_finetune_deploy.vector_db", "Vector databases behind one interface.",
                      COMMANDS))  # fmt: skip
