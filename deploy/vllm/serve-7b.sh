#!/bin/sh
# The course's model of 7 billion parameters on one machine with NVIDIA cards.
#
#   sh serve-7b.sh one          one card of 24 GB, bf16
#   sh serve-7b.sh two          two cards, tensor parallel
#   sh serve-7b.sh four-bits    one card of 12 GB, GPTQ
#   sh serve-7b.sh adapter      base and the fine-tuned adapter side by side
#
# MODEL, GPTQ and ADAPTER are folders; `memory --model qwen2.5-7b` says what fits. COURSE_LAB_SERVE is not needed: run it
# in .venv-serve (make setup-serve VLLM=vllm), or in the image vllm/vllm-openai.
set -eu
MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct}
GPTQ=${GPTQ:-Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4}
ADAPTER=${ADAPTER:-runs/stage2/finetune/latest-sft/adapter}
PORT=${PORT:-8000}
common="--host 127.0.0.1 --port $PORT --max-model-len 8192 --gpu-memory-utilization 0.90 --served-model-name qwen"

case "${1:-}" in
one) exec vllm serve "$MODEL" $common --dtype bfloat16 ;;
two) exec vllm serve "$MODEL" $common --dtype bfloat16 --tensor-parallel-size 2 ;;
four-bits) exec vllm serve "$GPTQ" $common --dtype float16 --max-num-seqs 64 ;;
adapter)
    exec vllm serve "$MODEL" $common --dtype bfloat16 \
        --enable-lora --max-lora-rank 64 --lora-modules "tuned=$ADAPTER" ;;
*)
    echo "error: which one? one, two, four-bits or adapter" >&2
    echo "  try: sh $0 one" >&2
    exit 2 ;;
esac
