"""The training of bench/sft.ts by PyTorch and PEFT: same rows, same order, same adapter at the start. Compares the curves.

python bench/sft/peft_reference.py MODEL OUT [threads]   after   npm run bench -- sft --model MODEL --data FILES --out OUT
What it has trained stays in OUT/peft.json and is not trained again. Versions of the numbers in bench/LOG.md: torch 2.15,
transformers 5.24, peft 0.21. Computes in f32 with attention "sdpa".
"""
import json
import os
import sys
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def token_loss(model, rows):
    """Sum of -log p over learned tokens, and their number, of rows padded on the right."""
    longest = max(len(r['tokens']) for r in rows)
    ids = torch.tensor([r['tokens'] + [0] * (longest - len(r['tokens'])) for r in rows])
    labels = torch.tensor([r['labels'] + [-100] * (longest - len(r['labels'])) for r in rows])
    mask = torch.tensor([[1] * len(r['tokens']) + [0] * (longest - len(r['tokens'])) for r in rows])
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    wanted = labels[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction='sum')
    return loss, int((wanted != -100).sum())


def held_out(model, rows):
    with torch.no_grad():
        sums = [token_loss(model, [r]) for r in rows]
    return sum(s.item() for s, _ in sums) / sum(n for _, n in sums)


def train(model_path, out):
    """Losses of all steps, held-out losses before and after."""
    data = json.load(open(f'{out}/rows.json'))
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, attn_implementation='sdpa')
    model = PeftModel.from_pretrained(base, f'{out}/start', is_trainable=True)
    before = held_out(model, data['held'])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=data['lr'], weight_decay=0)
    rows, batch = data['rows'], data['batch']
    per_epoch = -(-len(rows) // batch)
    steps = min(data['steps'], per_epoch * data['epochs'])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses, began = [], time.perf_counter()
    for step in range(steps):
        at = step % per_epoch * batch
        loss, count = token_loss(model, rows[at:at + batch])
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item() / count)
    seconds = time.perf_counter() - began
    return {'before': before, 'after': held_out(model, data['held']), 'seconds': seconds, 'losses': losses}


def main():
    model_path, out = sys.argv[1:3]
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    kept = f'{out}/peft.json'
    if not os.path.exists(kept):
        result = train(model_path, out)
        with open(kept, 'w') as file:
            json.dump(result, file)
    theirs, ours = json.load(open(kept)), json.load(open(f'{out}/curve.json'))
    assert len(theirs['losses']) == len(ours['losses'])
    relative = [abs(a / b - 1) for a, b in zip(ours['losses'], theirs['losses'])]
    print(json.dumps({
        'steps': len(relative), 'mean_difference': sum(relative) / len(relative), 'largest_difference': max(relative),
        'mean_of_last_20': sum(relative[-20:]) / 20, 'before': theirs['before'], 'after': theirs['after'],
        'ours_before': ours['before']['loss'], 'ours_after': ours['after']['loss']}))


main()
