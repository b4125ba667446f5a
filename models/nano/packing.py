"""Packs chats that share a beginning into trees: one stem and many branches, each token computed once.

Two answers to one prompt are a stem with two branches, sentences after the same question a stem with a dozen.
A branch sees its stem and itself; its positions continue the stem's, so the states are those of the chat alone.
"""

import numpy as np
import torch

from data import LEVELS, SCALES, render

# Throw-away heads of the backbone's training; FED and the two HH sets have none.
RATED = ['sentiment', 'valence', 'arousal', 'dominance']
LONGEST = 320  # tokens of a training chat; longer dialogues lose their oldest turns
WIDTH = 384  # tokens of a tree of rated sentences


def token_ids(tokenizer, messages):
    return tokenizer.encode(render(messages), add_special_tokens=False).ids


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def shares(ratings):
    """[A, 9]: the share of the raters at each level, rows of zeros for attributes that the item lacks."""
    out = np.zeros((len(RATED), 9), np.float32)
    for j, name in enumerate(RATED):
        for value in ratings.get(name, []):
            out[j, int(value * SCALES[name][1])] += 1 / len(ratings[name])
    return out


def rated_items(tokenizer, rows):
    """(stem, branch, shares) of every rated sentence; the stem ends where the answer's text begins."""
    out = []
    for r in rows:
        if r['set'] == 'fed':
            continue
        ids = token_ids(tokenizer, r['messages'])
        start = common(ids, token_ids(tokenizer, r['messages'][:1] + [{'role': 'assistant', 'content': ''}]))
        if len(ids) <= LONGEST:
            out.append((tuple(ids[:start]), ids[start:], shares(r['ratings'])))
    return out


def pair_items(tokenizer, pairs):
    """(stem, chosen branch, rejected branch) of every pair that fits after the loss of its oldest turns."""
    out = []
    for p in pairs:
        prompt = list(p['prompt'])
        while prompt:
            a, b = (token_ids(tokenizer, prompt + [p[side]]) for side in ('chosen', 'rejected'))
            if max(len(a), len(b)) <= LONGEST:
                n = min(common(a, b), min(len(a), len(b)) - 1)
                out.append((tuple(a[:n]), a[n:], b[n:]))
                break
            prompt = prompt[2:]
    return out


def rated_trees(items, rng):
    """One epoch's trees (stem, branches, payloads) of shuffled rated items, each within WIDTH tokens."""
    open_trees, done = {}, []
    for i in rng.permutation(len(items)):
        stem, branch, share = items[i]
        tree = open_trees.get(stem)
        if tree and len(stem) + sum(map(len, tree[1])) + len(branch) > WIDTH:
            done.append(tree)
            tree = None
        if not tree:
            tree = open_trees[stem] = (stem, [], [])
        tree[1].append(branch)
        tree[2].append(share)
    return done + list(open_trees.values())


def pair_trees(items, rng):
    return [(items[i][0], [items[i][1], items[i][2]], None) for i in rng.permutation(len(items))]


def batches(make_trees, items, budget, seed):
    """Endless batches of trees of like length within `budget` padded tokens; a function of the seed only."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        trees = make_trees(items, rng)
        length = [len(s) + sum(map(len, b)) for s, b, _ in trees]
        cut = []
        for begin in range(0, len(trees), 256):
            block, batch = sorted(range(begin, min(begin + 256, len(trees))), key=lambda i: length[i]), []
            for i in block:
                if batch and length[i] * (len(batch) + 1) > budget:
                    cut.append(batch)
                    batch = []
                batch.append(trees[i])
            cut.append(batch)
        for i in rng.permutation(len(cut)):
            yield cut[i]
        epoch += 1


def arrays(trees, pad, stem_text):
    """What the model needs for a batch of trees.

    ids, position [B, T]; mask [B, 1, T, T] (true = sees); source, target [S]: flat positions and the token that
    follows there (the stem's own tokens only with stem_text); last [branches]: flat position of each branch's end.
    """
    width = max(len(s) + sum(map(len, b)) for s, b, _ in trees)
    ids = np.full((len(trees), width), pad)
    position = np.zeros((len(trees), width), np.int64)
    # Branch number of every token: 0 for the stem, -1 for padding.
    branch_of = np.full((len(trees), width), -1)
    source, target, last = [], [], []
    for i, (stem, branches, _) in enumerate(trees):
        base, n = i * width, len(stem)
        ids[i, :n], position[i, :n], branch_of[i, :n] = stem, np.arange(n), 0
        if stem_text:
            source += range(base, base + n - 1)
            target += stem[1:]
        at = n
        for k, branch in enumerate(branches):
            m = len(branch)
            ids[i, at:at + m], position[i, at:at + m], branch_of[i, at:at + m] = branch, np.arange(n, n + m), k + 1
            source += [base + n - 1, *range(base + at, base + at + m - 1)]
            target += branch
            at += m
            last.append(base + at - 1)
    same = branch_of[:, :, None] == branch_of[:, None, :]
    mask = (same | (branch_of[:, None, :] == 0)) & np.tri(width, dtype=bool)[None]
    return (torch.from_numpy(ids), torch.from_numpy(position), torch.from_numpy(mask)[:, None],
            torch.tensor(source), torch.tensor(target), torch.tensor(last))


def unconditional(items):
    """The best constant quantiles [A, K], and their pinball losses [A]: the unit in which rating losses are counted."""
    constant, losses = [], []
    for j, name in enumerate(RATED):
        count = SCALES[name][1]
        share = np.mean([s[j, :count] for _, _, s in items if s[j].sum() > 0.5], axis=0)
        y = (np.arange(count) + 0.5) / count
        q = np.array([y[np.searchsorted(np.cumsum(share), tau - 1e-6)] for tau in LEVELS])
        r = y[None] - q[:, None]
        tau = np.array(LEVELS)[:, None]
        constant.append(q)
        losses.append(float((np.maximum(tau * r, (tau - 1) * r) * share).sum(1).mean()))
    return np.array(constant, np.float32), np.array(losses, np.float32)
