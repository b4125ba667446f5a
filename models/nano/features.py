"""Frozen features of chats: the last token's state and, for the gate, the state where the answer's header begins."""

import numpy as np
import torch

from packing import token_ids
from vocabulary import gate_pattern, pattern_start

CONTEXT = 1024  # chats with more tokens are left out, and counted


def features(model, tokenizer, chats):
    """Last states [N, D] and gate states [N, D] in float32 (rows of NaN for chats longer than CONTEXT), and token counts [N]."""
    pattern = gate_pattern(tokenizer)
    ids = [token_ids(tokenizer, messages) for messages in chats]
    length = np.array([len(i) for i in ids])
    width = model.config.hidden_size
    last = np.full((len(ids), width), np.nan, np.float32)
    prompt = np.full((len(ids), width), np.nan, np.float32)
    order = [i for i in np.argsort(length, kind='stable') if length[i] <= CONTEXT]
    while order:
        # Batches of like length; the causal mask keeps the padding on the right out of every state that is read.
        size = max(1, min(64, 8192 // int(length[order[-1]])))
        batch, order = order[-size:], order[:-size]
        block = torch.full((len(batch), int(length[batch].max())), model.config.pad_token_id)
        for row, i in enumerate(batch):
            block[row, :length[i]] = torch.tensor(ids[i])
        with torch.no_grad():
            hidden = model(block, use_cache=False).last_hidden_state.numpy()
        for row, i in enumerate(batch):
            last[i] = hidden[row, length[i] - 1]
            prompt[i] = hidden[row, pattern_start(ids[i], pattern)]
    return last, prompt, length
