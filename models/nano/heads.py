"""Fits quantile heads and gate on the frozen backbone's features of the heads part, and tries choices on its validation slice."""

import json

import numpy as np
import torch

from data import ATTRIBUTES, LEVELS, SCALES, is_validation, sides
from features import CONTEXT, features
from gate import train_gate
from quantiles import counts_of, fit_quantiles, pinball

ALPHA = 0.003
TAU = np.array(LEVELS)[None]


def pair_features(model, tokenizer, pairs, longest):
    """States of both sides [P, 2, D], gate states [P, D] (equal for both), and which pairs fit into the context."""
    chats = [p['prompt'] + [p[side]] for p in pairs for side in ('chosen', 'rejected')]
    last, prompt = features(model, tokenizer, chats, longest)
    last, prompt = last.reshape(len(pairs), 2, -1), prompt.reshape(len(pairs), 2, -1)
    return last, prompt[:, 0], ~np.isnan(last).any((1, 2))


def collect(model, tokenizer, rows, pairs, longest=CONTEXT):
    """Features of rows and pairs: a dictionary attribute -> (x [I, D], ratings, rows), and the pairs' own arrays.

    Chats of more than `longest` tokens are left out, pairs with both sides.
    """
    x, _ = features(model, tokenizer, [r['messages'] for r in rows], longest)
    both, prompt, fits = pair_features(model, tokenizer, pairs, longest)
    table = {}
    for name in ATTRIBUTES:
        have = [i for i, r in enumerate(rows) if r['ratings'].get(name) and not np.isnan(x[i, 0])]
        table[name] = [x[have], [rows[i]['ratings'][name] for i in have], [rows[i] for i in have]]
    for name in ('helpful', 'harmless'):
        of = [i for i, p in enumerate(pairs) if p['set'] == name and fits[i]]
        rated = [side for i in of for side in sides(pairs[i])]
        table[name] = [both[of].reshape(2 * len(of), both.shape[2]), [r['ratings'][name] for r in rated], rated]
    pairs = [p for p, f in zip(pairs, fits) if f]
    return table, {'rows': pairs, 'both': both[fits], 'prompt': prompt[fits]}


def part(entry, keep):
    x, ratings, rows = entry
    at = [i for i, r in enumerate(rows) if keep(r)]
    return x[at], [ratings[i] for i in at], [rows[i] for i in at]


def fit_heads(table, alpha=ALPHA):
    """Heads [M, K, D] on everything in the table, and the worst relative duality gap of each attribute."""
    out, gaps = [], {}
    for name in ATTRIBUTES:
        x, ratings, _ = table[name]
        weights, gap = fit_quantiles(x, counts_of(ratings, SCALES[name][1]), LEVELS, alpha)
        out.append(weights)
        gaps[name] = float(gap.max())
        print(f'{name}: {len(x)} items, {sum(map(len, ratings))} ratings, |w|_1 {np.abs(weights).sum(1).mean():.2f}, '
              f'{(weights != 0).sum(1).mean():.0f} weights, gap {gap.max():.1e}', flush=True)
    return np.stack(out).astype(np.float32), gaps


def constant_quantiles(ratings):
    """The unconditional quantiles [K] of all ratings of an attribute: the smallest value with at least that share below or at it."""
    values = np.sort(np.concatenate(ratings))
    return values[np.maximum(np.ceil(np.array(LEVELS) * len(values) - 1e-9).astype(int) - 1, 0)]


def fit_gate(heads, pairs, seed):
    """A gate on the expectation of the mixture: for each attribute the mean over levels, chosen minus rejected."""
    expectation = pairs['both'] @ heads.mean(1).T
    difference = torch.from_numpy(expectation[:, 0] - expectation[:, 1])
    return train_gate(torch.from_numpy(pairs['prompt']), difference, seed)


def margins(heads, gate, pairs):
    """Score of the chosen minus score of the rejected side, for each pair."""
    with torch.no_grad():
        weights = gate(torch.from_numpy(pairs['prompt'])).numpy()
    expectation = pairs['both'] @ heads.mean(1).T
    return (weights * (expectation[:, 0] - expectation[:, 1])).sum(1)


def subset(pairs, keep):
    at = [i for i, p in enumerate(pairs['rows']) if keep(p)]
    return {'rows': [pairs['rows'][i] for i in at], 'both': pairs['both'][at], 'prompt': pairs['prompt'][at]}


def try_choices(table, pairs, seed, alphas=(0.01, 0.003, 0.001, 0.0003)):
    """Prints pinball over unconditional pinball on the validation slice for each alpha, and the gate's accuracy there."""
    fitted = {name: part(table[name], lambda r: not is_validation(r)) for name in ATTRIBUTES}
    kept = {name: part(table[name], is_validation) for name in ATTRIBUTES}
    for alpha in alphas:
        heads, _ = fit_heads(fitted, alpha)
        result = {}
        for m, name in enumerate(ATTRIBUTES):
            x, ratings, _ = kept[name]
            counts = counts_of(ratings, SCALES[name][1])
            constant = np.tile(constant_quantiles(fitted[name][1]), (len(x), 1))
            result[name] = round(float((pinball(counts, x @ heads[m].T, TAU) .mean() / pinball(counts, constant, TAU).mean())), 4)
        gate = fit_gate(heads, subset(pairs, lambda p: not is_validation(p)), seed)
        right = {kind: margins(heads, gate, subset(pairs, lambda p: is_validation(p) and p['set'] == kind)) > 0
                 for kind in ('helpful', 'harmless')}
        result |= {f'pairs {kind}': f'{r.mean():.3f} of {len(r)}' for kind, r in right.items()}
        print(json.dumps({'alpha': alpha, **result}), flush=True)
