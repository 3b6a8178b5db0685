"""python -m stage1_foundations.vector_index sweep | task | clusters | bench | all"""

import sys

from labkit.cli import Command, lab_main
from stage1_foundations.vector_index import bench, clusters, sweep, task, tour

COMMANDS = [
    Command("sweep", "recall against speed of every library and family", sweep.SweepConfig, sweep.run_sweep,
            sweep.PRESETS),
    Command("task", "how much recall does retrieval need: nDCG@10 against recall@10", task.TaskConfig, task.run_task,
            task.PRESETS),
    Command("clusters", "why PQ breaks: uniform against clustered vectors", clusters.ClustersConfig,
            clusters.run_clusters, clusters.PRESETS),
    Command("bench", "the hand-written indexes beside faiss, hnswlib and usearch", bench.BenchConfig, bench.run_bench,
            bench.PRESETS),
    Command("all", "sweep, task and clusters", tour.AllConfig, tour.run_all, tour.PRESETS),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main("python -m stage1_foundations.vector_index", "Vector indexes, by hand and by FAISS.", COMMANDS))
