"""The gating network of QRM and its Bradley-Terry training on frozen features."""

import torch
import torch.nn.functional as F

HIDDEN, LAYERS, TEMPERATURE = 64, 3, 1.0
# Quantile values lie in [0, 1], so a margin is a few hundredths; the loss counts it in units where that matters.
SHARPNESS = 20.0


class Gate(torch.nn.Module):
    """Prompt state [N, D] to weights [N, M]: 3 x [Linear, ReLU, BatchNorm], Linear, softmax(x / temperature) * logit_scale."""

    def __init__(self, width, attributes):
        super().__init__()
        parts = []
        for i in range(LAYERS):
            parts += [torch.nn.Linear(HIDDEN if i else width, HIDDEN, bias=False), torch.nn.ReLU(), torch.nn.BatchNorm1d(HIDDEN)]
        self.layers = torch.nn.Sequential(*parts, torch.nn.Linear(HIDDEN, attributes))
        self.logit_scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, prompt):
        return torch.softmax(self.layers(prompt) / TEMPERATURE, dim=1) * self.logit_scale


def train_gate(prompt, difference, seed, epochs=3, batch=128, rate=3e-4, decay=1e-3):
    """Fits a gate by Bradley-Terry; prompt [P, D], difference [P, M] = expectation of chosen minus rejected."""
    torch.manual_seed(seed)
    gate = Gate(prompt.shape[1], difference.shape[1])
    optimizer = torch.optim.AdamW([p for p in gate.parameters() if p.requires_grad], lr=rate, weight_decay=decay)
    steps = epochs * max(1, len(prompt) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gate.train()
    for _ in range(epochs):
        order = torch.randperm(len(prompt))
        for rows in order.split(batch):
            if len(rows) < batch and len(prompt) >= batch:
                continue  # a short last batch would give noisy batch statistics
            margin = (gate(prompt[rows]) * difference[rows]).sum(1)
            loss = -F.logsigmoid(margin * SHARPNESS).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return gate.eval()
