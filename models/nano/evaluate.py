"""Measures the shipped files on the held-out items and writes metrics.json.

    python evaluate.py --data DIR [--model .] [--out metrics.json]

Everything is recomputed from model.safetensors, config.json, pinball.json and tokenizer.json, in float32.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaModel

import data
from export import write_json
from gate import Gate
from heads import TAU, collect, constant_quantiles, margins, subset
from quantiles import counts_of, item_losses

HERE = Path(__file__).resolve().parent
# A quantile this close to a rating sits on it; ratings are at least 0.1 apart.
ON = 1e-4


def load_model(folder):
    """The shipped backbone in float32, heads [M, K, D], biases [M, K], gate and tokenizer of a model directory."""
    tensors = load_file(folder / 'model.safetensors')
    config = LlamaConfig(**json.loads((folder / 'config.json').read_text()))
    manifest = json.loads((folder / 'pinball.json').read_text())
    if manifest['attributes'] != data.ATTRIBUTES or manifest['levels'] != data.LEVELS:
        raise ValueError('pinball.json: attributes and levels must be those of data.py')
    model = LlamaModel(config).float().eval()
    model.load_state_dict({n.removeprefix('model.'): t.float() for n, t in tensors.items() if n.startswith('model.')})
    heads = tensors['regression_layer.weight'].numpy().reshape(len(data.ATTRIBUTES), len(data.LEVELS), -1)
    gate = Gate(heads.shape[2], len(data.ATTRIBUTES)).eval()
    gate.load_state_dict({n.removeprefix('gating.'): t for n, t in tensors.items() if n.startswith('gating.')})
    biases = tensors['regression_layer.bias'].numpy().reshape(heads.shape[:2])
    return model, heads, biases, gate, Tokenizer.from_file(str(folder / 'tokenizer.json'))


def wilson(right, n, z=1.959964):
    """The 95 % Wilson interval of a share."""
    p, f = right / n, z * z / n
    middle, half = (p + f / 2) / (1 + f), z * np.sqrt(p * (1 - p) / n + f / (4 * n)) / (1 + f)
    return [round(float(middle - half), 4), round(float(middle + half), 4)]


def accuracy(margin):
    """Share of pairs ranked as the person did (a tie counts half), with its interval."""
    right = float((margin > 0).sum() + 0.5 * (margin == 0).sum())
    return {'n': len(margin), 'accuracy': round(right / len(margin), 4), 'interval95': wilson(right, len(margin))}


def coverage(counts, q):
    """Share of ratings at or below each level's quantile [K]."""
    y = (np.arange(counts.shape[1]) + 0.5) / counts.shape[1]
    below = sum(counts[:, j:j + 1] * (value <= q + 1e-9) for j, value in enumerate(y))
    return (below.sum(0) / counts.sum()).round(4).tolist()


def calibration(entry, heads, bias, constant, count):
    """Held-out pinball loss and coverage of one attribute, beside the constant quantiles of the training ratings."""
    x, ratings, _ = entry
    counts = counts_of(ratings, count)
    q = x @ heads.T + bias
    base = np.tile(constant, (len(x), 1))
    ours, theirs = item_losses(counts, q, TAU), item_losses(counts, base, TAU)
    n = counts.sum()
    difference = (theirs - ours).mean(1)
    # A quantile that sits on one of few ratings covers all of it or nothing: its level must lie between the two shares.
    below, covered = np.array(coverage(counts, q - ON)), np.array(coverage(counts, q + ON))
    error = np.maximum(0, np.maximum(below - data.LEVELS, data.LEVELS - covered))
    return {
        'items': len(x), 'ratings': int(n),
        'pinball': round(float(ours.mean(1).sum() / n), 5), 'pinball_unconditional': round(float(theirs.mean(1).sum() / n), 5),
        'gain': round(float(difference.sum() / theirs.mean(1).sum()), 4),
        # Items are the independent units; a ratio of sums, so the error is that of residuals from zero mean per rating.
        'gain_standard_error': round(float(np.sqrt(((difference - difference.sum() / n * counts.sum(1)) ** 2).sum())
                                           / theirs.mean(1).sum()), 4),
        'pinball_by_level': (ours.sum(0) / n).round(5).tolist(),
        'pinball_unconditional_by_level': (theirs.sum(0) / n).round(5).tolist(),
        'coverage': covered.tolist(), 'coverage_below': below.tolist(), 'coverage_unconditional': coverage(counts, base),
        'worst_coverage_error': round(float(error.max()), 4),
        'mean_coverage_error': round(float(error.mean()), 4),
        'crossings': round(float((np.diff(q, axis=1) < -1e-6).mean()), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--model', type=Path, default=HERE)
    parser.add_argument('--out', type=Path, default=HERE / 'metrics.json')
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, heads, biases, gate, tokenizer = load_model(options.model)
    rows, pairs, _ = data.read_all(options.data)
    training = {name: [r['ratings'][name] for r in rows if r['part'] != 'heldout' and r['set'] != 'lexicon' and r['ratings'].get(name)]
                for name in data.ATTRIBUTES}
    for name in ('helpful', 'harmless'):
        training[name] = [s['ratings'][name] for p in pairs if p['part'] != 'heldout' and p['set'] == name for s in data.sides(p)]
    held = [r for r in rows if r['part'] == 'heldout' and r['set'] != 'lexicon']
    held_pairs = [p for p in pairs if p['part'] == 'heldout']
    table, compared = collect(model, tokenizer, held, held_pairs)
    result = {'levels': data.LEVELS, 'attributes': {}, 'sentiment_by_set': {}, 'pairs': {}, 'pairs_left_out_too_long':
              len(held_pairs) - len(compared['rows'])}
    for m, name in enumerate(data.ATTRIBUTES):
        constant = constant_quantiles(training[name])
        result['attributes'][name] = calibration(table[name], heads[m], biases[m], constant, data.SCALES[name][1])
        if name == 'sentiment':
            x, ratings, items = table[name]
            for kind in ('movie', 'amazon', 'nyt'):
                at = [i for i, r in enumerate(items) if r['set'] == kind]
                own = constant_quantiles([r['ratings'][name] for r in rows if r['part'] != 'heldout' and r['set'] == kind])
                entry = (x[at], [ratings[i] for i in at], None)
                result['sentiment_by_set'][kind] = calibration(entry, heads[m], biases[m], own, data.SCALES[name][1])
    for kind in ('helpful', 'harmless', 'both'):
        chosen = subset(compared, lambda p: kind in ('both', p['set']))
        length = [len(p['chosen']['content']) - len(p['rejected']['content']) for p in chosen['rows']]
        expectation = chosen['both'] @ heads.mean(1).T
        alone = expectation[:, 0] - expectation[:, 1]
        with torch.no_grad():
            weights = gate(torch.from_numpy(chosen['prompt'])).mean(0)
        result['pairs'][kind] = {
            'mixture': accuracy(margins(heads, gate, chosen)), 'longer_answer': accuracy(np.array(length)),
            'attribute_alone': {name: accuracy(alone[:, m]) for m, name in enumerate(data.ATTRIBUTES)},
            'mean_gate_weight': {name: round(float(weights[m]), 4) for m, name in enumerate(data.ATTRIBUTES)},
        }
    write_json(options.out, result)
    for name, r in result['attributes'].items():
        print(f"{name:12} {r['items']:5} items {r['ratings']:6} ratings  pinball {r['pinball']:.4f} against {r['pinball_unconditional']:.4f}, "
              f"gain {100 * r['gain']:.1f} % (s.e. {100 * r['gain_standard_error']:.1f}), coverage off by {r['worst_coverage_error']:.3f} at worst")
    for kind, r in result['pairs'].items():
        print(kind, r['mixture'], 'longer answer', r['longer_answer']['accuracy'])


if __name__ == '__main__':
    main()
