"""Trains the Llama-3-shaped backbone: next tokens, throw-away quantile heads on ratings, Bradley-Terry on pairs."""

import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaModel

from data import LEVELS, SCALES, render

# Throw-away heads of the backbone's training; FED and the two HH sets have none.
RATED = ['sentiment', 'valence', 'arousal', 'dominance']
LONGEST = 320  # tokens of a training row; longer dialogues lose their oldest turns


def llama_config(tokenizer):
    """The shape of the backbone, in Hugging Face's names."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rope_theta=500000.0,
        rms_norm_eps=1e-5, tie_word_embeddings=True, attention_bias=False, mlp_bias=False, hidden_act='silu',
        initializer_range=0.02, bos_token_id=tokenizer.token_to_id('<|begin_of_text|>'),
        eos_token_id=tokenizer.token_to_id('<|eot_id|>'), pad_token_id=tokenizer.token_to_id('<|finetune_right_pad_id|>'),
    )


def token_ids(tokenizer, messages, longest=None):
    """Ids of a chat; with `longest`, the oldest turns are dropped until it fits, and None is returned where it cannot."""
    messages = list(messages)
    while True:
        ids = tokenizer.encode(render(messages), add_special_tokens=False).ids
        if longest is None or len(ids) <= longest:
            return ids
        if len(messages) < 3:
            return None
        messages = messages[2:]


def prepare(tokenizer, rows, pairs, part):
    """Token ids and the share of each rating level, for the items of one part."""
    rated = []
    for r in rows:
        if r['part'] != part or r['set'] == 'fed':
            continue
        ids = token_ids(tokenizer, r['messages'], LONGEST)
        labels = np.full((len(RATED), 9), 0.0, np.float32)
        for j, name in enumerate(RATED):
            for value in r['ratings'].get(name, []):
                labels[j, int(value * SCALES[name][1])] += 1 / len(r['ratings'][name])
        if ids:
            rated.append((ids, labels))
    compared = []
    for p in pairs:
        if p['part'] == part:
            both = [token_ids(tokenizer, p['prompt'] + [p[side]], LONGEST) for side in ('chosen', 'rejected')]
            if all(both):
                compared.append(tuple(both))
    return rated, compared


def batches(lengths, budget, seed):
    """Endless batches of indices of like length, each within `budget` padded tokens; epoch order depends on the seed only."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(lengths))
        cut = []
        for block in np.array_split(order, max(1, len(order) // 2000)):
            block = block[np.argsort(lengths[block], kind='stable')]
            batch = []
            for i in block:
                if batch and lengths[i] * (len(batch) + 1) > budget:
                    cut.append(batch)
                    batch = []
                batch.append(int(i))
            cut.append(batch)
        for i in rng.permutation(len(cut)):
            yield cut[i]
        epoch += 1


def padded(sequences, pad):
    """[B, T] ids padded on the right (the causal mask keeps the padding out) and the last real position [B]."""
    ids = torch.full((len(sequences), max(map(len, sequences))), pad)
    for i, s in enumerate(sequences):
        ids[i, :len(s)] = torch.tensor(s)
    return ids, torch.tensor([len(s) - 1 for s in sequences])


class Trainee(torch.nn.Module):
    """The backbone with its throw-away heads: 19 levels a rated attribute, and one preference score."""

    def __init__(self, config):
        super().__init__()
        self.model = LlamaModel(config)
        self.levels = torch.nn.Linear(config.hidden_size, len(RATED) * len(LEVELS), bias=False)
        self.preference = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.pad = config.pad_token_id
        for head in (self.levels, self.preference):
            torch.nn.init.normal_(head.weight, std=0.02)

    def forward(self, sequences):
        """Next-token loss (a scalar) and the last token's state [B, D]."""
        ids, last = padded(sequences, self.pad)
        with torch.autocast('cpu', torch.bfloat16):
            hidden = self.model(ids, use_cache=False).last_hidden_state
            logits = F.linear(hidden[:, :-1], self.model.embed_tokens.weight)
        real = torch.arange(ids.shape[1] - 1)[None] < last[:, None]
        text = F.cross_entropy(logits[real].float(), ids[:, 1:][real])
        return text, hidden[torch.arange(len(sequences)), last].float()

    def rating_losses(self, state, shares):
        """Mean pinball loss over raters and levels, an attribute [A]; NaN where no row of the batch has it."""
        q = self.levels(state).view(len(state), len(RATED), len(LEVELS))
        out = []
        for j, name in enumerate(RATED):
            low, count = SCALES[name]
            y = (torch.arange(count) + 0.5) / count
            have = shares[:, j].sum(1) > 0.5
            r = y[None, None] - q[have, j][:, :, None]
            tau = torch.tensor(LEVELS)[None, :, None]
            loss = torch.maximum(tau * r, (tau - 1) * r) * shares[have, j][:, None, :count]
            out.append(loss.sum(2).mean() if have.any() else torch.tensor(math.nan))
        return torch.stack(out)


def unconditional(rated):
    """Pinball loss of the best constant quantiles, an attribute [A]: the unit in which rating losses are counted."""
    out = []
    for j, name in enumerate(RATED):
        count = SCALES[name][1]
        share = np.mean([labels[j, :count] for _, labels in rated if labels[j].sum() > 0.5], axis=0)
        y = (np.arange(count) + 0.5) / count
        q = np.array([y[np.searchsorted(np.cumsum(share), tau - 1e-9)] for tau in LEVELS])
        r = y[None] - q[:, None]
        tau = np.array(LEVELS)[:, None]
        out.append(float((np.maximum(tau * r, (tau - 1) * r) * share).sum(1).mean()))
    return out


def examine(trainee, rated, compared, unit):
    """Losses on items that the backbone is not trained on: text, rating losses as a share of `unit`, pair accuracy."""
    trainee.eval()
    text, ratings, right = [], [], []
    with torch.no_grad():
        for i in range(0, len(rated), 64):
            part = rated[i:i + 64]
            loss, state = trainee([ids for ids, _ in part])
            text.append(loss.item())
            ratings.append(trainee.rating_losses(state, torch.tensor(np.stack([s for _, s in part]))).numpy())
        for i in range(0, len(compared), 8):
            part = compared[i:i + 8]
            _, state = trainee([p[0] for p in part] + [p[1] for p in part])
            score = trainee.preference(state)[:, 0]
            right += (score[:len(part)] > score[len(part):]).tolist()
    trainee.train()
    return {'text': float(np.mean(text)), 'ratings': (np.nanmean(ratings, axis=0) / unit).round(4).tolist(),
            'pairs': float(np.mean(right)), 'n': [len(rated), len(compared)]}


def train_backbone(tokenizer, rated, compared, check, options):
    """Trains for options.steps steps and returns the Trainee; options.work holds checkpoints, so a cut run resumes.

    A step is one batch of rated rows and one of pairs. The loss is
    text + 2 * mean over attributes (pinball / unconditional pinball) + 0.5 * text of pairs + Bradley-Terry of pairs.
    """
    torch.manual_seed(options.seed)
    trainee = Trainee(llama_config(tokenizer))
    decay = [p for p in trainee.parameters() if p.dim() > 1]
    rest = [p for p in trainee.parameters() if p.dim() < 2]
    groups = [{'params': decay, 'weight_decay': 0.1}, {'params': rest, 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.95))
    saved = options.work / 'checkpoint.pt'
    begin = 0
    if saved.exists():
        state = torch.load(saved)
        trainee.load_state_dict(state['trainee'])
        optimizer.load_state_dict(state['optimizer'])
        begin = state['step']
    unit = np.array(unconditional(rated))
    unit_t = torch.tensor(unit, dtype=torch.float32)
    from_rated = batches(np.array([len(i) for i, _ in rated]), options.tokens, options.seed)
    from_pairs = batches(np.array([len(a) + len(b) for a, b in compared]), options.tokens, options.seed + 1)
    log = open(options.work / 'log.jsonl', 'a')
    start, sums, read = time.time(), [], 0
    for step in range(options.steps):
        one, two = next(from_rated), next(from_pairs)
        if step < begin:
            continue
        rate = options.rate * min(1, (step + 1) / 60) * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / options.steps)))
        for group in optimizer.param_groups:
            group['lr'] = rate
        text, state = trainee([rated[i][0] for i in one])
        losses = trainee.rating_losses(state, torch.tensor(np.stack([rated[i][1] for i in one]))) / unit_t
        ratings = losses[~losses.isnan()].mean()
        (text + 2 * ratings).backward()
        sequences = [compared[i][0] for i in two] + [compared[i][1] for i in two]
        dialogue, state = trainee(sequences)
        score = trainee.preference(state)[:, 0]
        preferred = -F.logsigmoid(score[:len(two)] - score[len(two):]).mean()
        (0.5 * dialogue + preferred).backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        read += sum(map(len, sequences)) + sum(len(rated[i][0]) for i in one)
        sums.append([text.item(), ratings.item(), dialogue.item(), preferred.item()])
        done = step + 1
        if done % 25 == 0:
            note = {'step': done, 'seconds': round(time.time() - start), 'tokens': read,
                    'text, ratings, dialogue, preferred': np.mean(sums, axis=0).round(4).tolist()}
            sums = []
            if done % 200 == 0 or done == options.steps:
                note['check'] = examine(trainee, *check, unit)
            print(json.dumps(note), file=log, flush=True)
        if done % 50 == 0 or done == options.steps:
            temporary = saved.with_suffix('.tmp')
            torch.save({'trainee': trainee.state_dict(), 'optimizer': optimizer.state_dict(), 'step': done}, temporary)
            temporary.replace(saved)
    log.close()
    return trainee
