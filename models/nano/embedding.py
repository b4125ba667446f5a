"""Starting values of the embedding: the tokens' company, then one cheap pass of a bag-of-tokens model over the sentiment ratings.

A short training has no time to find out which words are alike and which are kind; both can be had in seconds.
"""

import numpy as np
import torch
import torch.nn.functional as F

from data import SCALES
from packing import RATED


def co_occurrence(sequences, vocabulary, width, seed):
    """[V, width] with rows of unit mean square: the leading singular vectors of the positive PMI of tokens at most 4 apart."""
    torch.manual_seed(seed)
    counts = np.zeros((vocabulary, vocabulary), np.float32)
    for ids in sequences:
        ids = np.array(ids)
        for gap in range(1, 5):
            np.add.at(counts, (ids[:-gap], ids[gap:]), 1 / gap)
    counts += counts.T
    total = np.maximum(counts.sum(1), 1)
    # The context's share is smoothed by the power 0.75, as usual for rare words.
    context = total**0.75 / (total**0.75).sum()
    with np.errstate(divide='ignore'):
        pmi = np.maximum(np.log(counts / (total[:, None] * context[None])), 0)
    u, s, _ = torch.svd_lowrank(torch.from_numpy(pmi), q=width, niter=2)
    table = u * s.sqrt()
    return table / table.pow(2).mean(1, keepdim=True).sqrt().clamp_min(1e-3) + 0.3 * torch.randn(table.shape)


def mean_sentiment(items):
    """The items with a rated sentiment, and their mean rating in standard units."""
    count, j = SCALES['sentiment'][1], RATED.index('sentiment')
    rated = [item for item in items if item[2][j].sum() > 0.5]
    mean = np.array([shares[j, :count] @ ((np.arange(count) + 0.5) / count) for _, _, shares in rated], np.float32)
    return rated, torch.from_numpy((mean - mean.mean()) / mean.std())


def tune_on_ratings(table, items, seed):
    """One epoch in which the mean of an answer's embeddings predicts its mean sentiment linearly; returns the table [V, D].

    EmoBank's attributes are left out: so few raters per sentence are learnt by heart at once.
    """
    torch.manual_seed(seed)
    bag = torch.nn.EmbeddingBag.from_pretrained(0.1 * table, freeze=False, mode='mean')
    head = torch.nn.Linear(table.shape[1], 1)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW([*bag.parameters(), *head.parameters()], lr=5e-3)
    items, wanted = mean_sentiment(items)
    answers = [torch.tensor(b) for _, b, _ in items]
    for rows in torch.randperm(len(items)).split(128):
        bags = [answers[i] for i in rows]
        begins = torch.tensor([0] + [len(b) for b in bags[:-1]]).cumsum(0)
        loss = F.mse_loss(head(bag(torch.cat(bags), begins))[:, 0], wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return bag.weight.detach()


def starting_embedding(rated, compared, vocabulary, width, seed):
    """[V, width] with mean square 0.02^2."""
    sequences = [[*s, *b] for s, b, _ in rated] + [[*s, *b] for s, b, _ in compared] + [c for _, _, c in compared]
    table = tune_on_ratings(co_occurrence(sequences, vocabulary, width, seed), rated, seed)
    return 0.02 * table / table.pow(2).mean().sqrt()
