#!/bin/sh
# One model over two machines of four cards each: tensor parallel inside a machine, where the cards are close, pipeline
# parallel between them, where the network is.
#
#   sh serve-ray.sh worker HEAD    on the second machine; HEAD is the first one's address
#   sh serve-ray.sh head           on the first machine, when the second has joined
#
# Both machines need the same vLLM, the same Ray and the model under the same path.
set -eu
MODEL=${MODEL:-/models/Qwen2.5-7B-Instruct}
PORT=${PORT:-8000}

case "${1:-}" in
head)
    ray status >/dev/null 2>&1 || ray start --head --port 6379
    exec vllm serve "$MODEL" --host 127.0.0.1 --port "$PORT" --served-model-name qwen --max-model-len 8192 \
        --distributed-executor-backend ray --tensor-parallel-size 4 --pipeline-parallel-size 2 ;;
worker) exec ray start --block --address "${2:?the address of the head}:6379" ;;
*)
    echo "error: head or worker?" >&2
    echo "  try: sh $0 head" >&2
    exit 2 ;;
esac
