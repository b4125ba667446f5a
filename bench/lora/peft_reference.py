"""The step of bench/lora.ts by PyTorch and PEFT: one line on stdin is one step, its milliseconds are one line on stdout.

python bench/lora/peft_reference.py MODEL ROWS TOKENS RANK THREADS CHECKPOINTING(0 or 1); started by npm run bench -- lora --peft PYTHON.
Weights are widened to f32 once and stay so: f32 products are the fastest of a CPU without bf16 units. Attention is "sdpa".
"""
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

path = sys.argv[1]
rows, tokens, rank, threads, checkpointing = map(int, sys.argv[2:7])
torch.set_num_threads(threads)
base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation='sdpa')
model = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules='all-linear', task_type='CAUSAL_LM'))
if checkpointing:
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})
model.train()
trained = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0)
ids = torch.randint(0, base.config.vocab_size, (rows, tokens))
print(f'ready: torch {torch.__version__}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}', flush=True)
for line in sys.stdin:
    wall, used = time.perf_counter(), time.process_time()
    model(input_ids=ids, labels=ids).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    print((time.perf_counter() - wall) * 1000, (time.process_time() - used) * 1000, flush=True)
