"""Trains the Llama-3-shaped backbone: next tokens, throw-away quantile heads on ratings, Bradley-Terry on pairs."""

import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaModel

from data import LEVELS, SCALES
from embedding import starting_embedding
from packing import RATED, arrays, batches, pair_trees, rated_trees, unconditional


def llama_config(tokenizer):
    """The shape of the backbone, in Hugging Face's names."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rope_theta=500000.0,
        rms_norm_eps=1e-5, tie_word_embeddings=True, attention_bias=False, mlp_bias=False, hidden_act='silu',
        initializer_range=0.02, bos_token_id=tokenizer.token_to_id('<|begin_of_text|>'),
        eos_token_id=tokenizer.token_to_id('<|eot_id|>'), pad_token_id=tokenizer.token_to_id('<|finetune_right_pad_id|>'),
    )


class Trainee(torch.nn.Module):
    """The backbone with its throw-away heads: 19 levels a rated attribute around constant [A, K], and one preference score."""

    def __init__(self, config, constant):
        super().__init__()
        self.model = LlamaModel(config)
        self.levels = torch.nn.Linear(config.hidden_size, len(RATED) * len(LEVELS), bias=False)
        self.constant = torch.nn.Parameter(torch.from_numpy(constant).clone(), requires_grad=False)
        self.preference = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.pad = config.pad_token_id
        for head in (self.levels, self.preference):
            torch.nn.init.normal_(head.weight, std=0.02)

    def forward(self, trees, stem_text):
        """Next-token loss (a scalar) and the state at the end of every branch [branches, D]."""
        ids, position, mask, source, target, last = arrays(trees, self.pad, stem_text)
        with torch.autocast('cpu', torch.bfloat16):
            hidden = self.model(ids, position_ids=position, attention_mask=mask, use_cache=False).last_hidden_state
            hidden = hidden.flatten(0, 1)
            logits = F.linear(hidden[source], self.model.embed_tokens.weight)
        return F.cross_entropy(logits.float(), target), hidden[last].float()

    def rating_losses(self, state, trees):
        """Mean pinball loss over raters and levels, an attribute [A]; NaN where no branch has it."""
        shares = torch.from_numpy(np.stack([s for _, _, payload in trees for s in payload]))
        # Ratings span 1: without the small factor one step of Adam would move a quantile by a third of that.
        q = self.constant + 0.05 * self.levels(state).view(len(state), len(RATED), len(LEVELS))
        tau = torch.tensor(LEVELS)[None, :, None]
        out = []
        for j, name in enumerate(RATED):
            count = SCALES[name][1]
            y = (torch.arange(count) + 0.5) / count
            have = shares[:, j].sum(1) > 0.5
            r = y - q[have, j][:, :, None]
            out.append((torch.maximum(tau * r, (tau - 1) * r) * shares[have, j][:, None, :count]).sum(2).mean())
        return torch.stack(out)


def examine(trainee, rated, compared, unit):
    """On items that the backbone is not trained on: text loss, pinball losses over `unit`, share of pairs ranked right."""
    text, sums, right = [], np.zeros((2, len(RATED))), []
    with torch.no_grad():
        for tree in rated_trees(rated, np.random.default_rng(0)):
            loss, state = trainee([tree], False)
            ratings = trainee.rating_losses(state, [tree]).numpy()
            has = np.stack(tree[2]).sum(2).sum(0).round()
            text.append(loss.item())
            sums += [np.where(has > 0, ratings, 0) * has, has]
        for tree in pair_trees(compared, np.random.default_rng(0)):
            score = trainee.preference(trainee([tree], True)[1])[:, 0]
            right.append(bool(score[0] > score[1]))
    return {'text': round(float(np.mean(text)), 4), 'ratings': (sums[0] / sums[1] / unit).round(4).tolist(),
            'pairs': round(float(np.mean(right)), 4), 'n': [len(rated), len(compared)]}


def rate_at(step, options):
    """Warm-up over 60 steps, constant, then linear to a twentieth over the last options.cooldown steps."""
    left = (options.steps - step) / options.cooldown
    return options.rate * min(1, (step + 1) / 60, max(0.05, left))


def train_backbone(tokenizer, rated, compared, check, options):
    """Trains for options.steps steps and returns the Trainee; options.work holds checkpoints, so a cut run resumes.

    A step is one batch of rated trees and one of pairs. The loss is
    0.5 * text + 2 * mean over attributes (pinball / unconditional pinball) + 0.5 * text of pairs + Bradley-Terry of pairs.
    """
    torch.manual_seed(options.seed)
    constant, unit = unconditional(rated)
    trainee = Trainee(llama_config(tokenizer), constant)
    decay = [p for p in trainee.parameters() if p.dim() > 1]
    rest = [p for p in trainee.parameters() if p.dim() < 2]
    groups = [{'params': decay, 'weight_decay': 0.1}, {'params': rest, 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.95))
    saved, begin = options.work / 'checkpoint.pt', 0
    if saved.exists():
        state = torch.load(saved)
        trainee.load_state_dict(state['trainee'])
        optimizer.load_state_dict(state['optimizer'])
        begin = state['step']
    else:
        table = starting_embedding(rated, compared, tokenizer.get_vocab_size(), 256, options.seed)
        trainee.model.embed_tokens.weight.data.copy_(table)
    from_rated = batches(rated_trees, rated, options.tokens, options.seed)
    from_pairs = batches(pair_trees, compared, options.pair_tokens, options.seed + 1)
    log = open(options.work / 'log.jsonl', 'a')
    start, sums, read = time.time(), [], 0
    for step in range(options.steps):
        one, two = next(from_rated), next(from_pairs)
        if step < begin:
            continue
        for group in optimizer.param_groups:
            group['lr'] = rate_at(step, options)
        text, state = trainee(one, False)
        losses = trainee.rating_losses(state, one) / torch.from_numpy(unit)
        ratings = losses[~losses.isnan()].mean()
        (0.5 * text + 2 * ratings).backward()
        dialogue, state = trainee(two, True)
        score = 0.25 * trainee.preference(state).view(-1, 2)
        preferred = -F.logsigmoid(score[:, 0] - score[:, 1]).mean()
        (0.5 * dialogue + preferred).backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        read += sum(len(s) + sum(map(len, b)) for s, b, _ in one + two)
        sums.append([text.item(), ratings.item(), dialogue.item(), preferred.item()])
        done = step + 1
        if done % 20 == 0 or done == options.steps:
            note = {'step': done, 'seconds': round(time.time() - start), 'cpu_seconds': round(time.process_time()), 'tokens': read,
                    'text, ratings, dialogue, preferred': np.mean(sums, axis=0).round(4).tolist()}
            sums = []
            if done % 200 == 0 or done == options.steps:
                note['check'] = examine(trainee, *check, unit)
            print(json.dumps(note), file=log, flush=True)
        if done % 20 == 0 or done == options.steps:
            temporary = saved.with_suffix('.tmp')
            torch.save({'trainee': trainee.state_dict(), 'optimizer': optimizer.state_dict(), 'step': done}, temporary)
            temporary.replace(saved)
    log.close()
    return trainee
