"""Frozen features of chats: the last token's state and, for the gate, the state where the answer's header begins."""

import numpy as np
import torch

from packing import WIDTH, arrays, token_ids
from vocabulary import gate_pattern, pattern_start

CONTEXT = 1024  # chats with more tokens have no features
BUDGET = 4096  # padded tokens of a batch


def grouped(ids, pattern, longest):
    """Trees (stem, branches, indices of the chats) of chats with one prompt; the stem ends with the answer's header."""
    stems = {}
    for i, tokens in enumerate(ids):
        if len(tokens) <= longest:
            start = pattern_start(tokens, pattern) + len(pattern)
            stems.setdefault(tuple(tokens[:start]), []).append(i)
    trees = []
    for stem, members in stems.items():
        tree = (stem, [], [])
        for i in sorted(members, key=lambda i: len(ids[i])):
            branch = ids[i][len(stem):]
            if tree[1] and len(stem) + sum(map(len, tree[1])) + len(branch) > WIDTH:
                trees.append(tree)
                tree = (stem, [], [])
            tree[1].append(branch)
            tree[2].append(i)
        trees.append(tree)
    return trees


def features(model, tokenizer, chats, longest=CONTEXT):
    """Last states [N, D] and gate states [N, D] in float32; rows of NaN for chats of more than `longest` tokens."""
    pattern = gate_pattern(tokenizer)
    trees = grouped([token_ids(tokenizer, messages) for messages in chats], pattern, longest)
    last = np.full((len(chats), model.config.hidden_size), np.nan, np.float32)
    prompt = np.full_like(last, np.nan)
    trees.sort(key=lambda tree: len(tree[0]) + sum(map(len, tree[1])))
    while trees:
        size = max(1, BUDGET // (len(trees[-1][0]) + sum(map(len, trees[-1][1]))))
        batch, trees = trees[-size:], trees[:-size]
        ids, position, mask, _, _, ends = arrays(batch, model.config.pad_token_id, False)
        with torch.no_grad():
            hidden = model(ids, position_ids=position, attention_mask=mask, use_cache=False).last_hidden_state
        last[[i for tree in batch for i in tree[2]]] = hidden.flatten(0, 1)[ends].numpy()
        for row, (stem, _, members) in enumerate(batch):
            prompt[members] = hidden[row, len(stem) - len(pattern)].numpy()
    return last, prompt
