"""L1-penalised quantile regression without intercept, all levels at once, with a duality gap for each.

Minimises (1/n) sum over ratings of pinball(y - x.w) + alpha * ||w||_1, n the number of ratings (Koenker and Bassett 1978,
with the penalty and scaling of the paper's Python solver). Raters of an item share x, so an item is one row with a count for
each rating level. The method is ADMM (Boyd et al. 2011, section 6.4) on f = X w and z = w with over-relaxation.
"""

import numpy as np


def counts_of(ratings, count):
    """[I, count] number of raters of each item at each level (j + 0.5) / count."""
    out = np.zeros((len(ratings), count))
    for i, values in enumerate(ratings):
        for value in values:
            out[i, int(value * count)] += 1
    return out


def values_of(counts):
    """The rating values (j + 0.5) / L, in the precision of the counts."""
    return ((np.arange(counts.shape[1]) + 0.5) / counts.shape[1]).astype(counts.dtype)


def pinball(counts, q, levels):
    """Mean pinball loss of each level [K]; counts [I, L] over the values (j + 0.5) / L, q [I, K]."""
    return item_losses(counts, q, levels).sum(0) / counts.sum()


def item_losses(counts, q, levels):
    """Pinball losses summed over the raters of each item [I, K]."""
    y = values_of(counts)
    out = np.zeros_like(q)
    for j, value in enumerate(y):
        r = value - q
        out += counts[:, j:j + 1] * np.maximum(levels * r, (levels - 1) * r)
    return out


def nearest(counts, levels, a, rho):
    """argmin over f of sum of pinball losses + rho / 2 (f - a)^2 for a [I, K]: the largest min(f_k, y_k) over segments k."""
    y = values_of(counts)
    below = np.concatenate([np.zeros_like(counts[:, :1]), counts.cumsum(1)], 1)
    pull = a + levels * below[:, -1:] / rho
    best = np.minimum(pull - below[:, 0:1] / rho, y[0])
    for k in range(1, len(y)):
        np.maximum(best, np.minimum(pull - below[:, k:k + 1] / rho, y[k]), out=best)
    return np.maximum(best, pull - below[:, -1:] / rho)


def bound(x, counts, levels, multiplier, alpha):
    """A lower bound of each level's optimum [K] from any multiplier [I, K] inside the pinball loss's range."""
    y = values_of(counts)
    n = counts.sum()
    scale = np.minimum(1, alpha * n / np.maximum(np.abs(x.T @ multiplier).max(0), 1e-30))
    m = multiplier * scale
    conjugate = np.full_like(m, -np.inf)
    for value in y:
        at = np.full_like(m, value)
        conjugate = np.maximum(conjugate, m * value - item_losses(counts, at, levels))
    return -conjugate.sum(0) / n


def fit_quantiles(x, counts, levels, alpha, tolerance=1e-3, most=20000):
    """Weights [K, D] and relative duality gaps [K]; raises where a gap stays above tolerance after `most` iterations."""
    # Single precision is enough for gaps of 1e-4 and twice as fast.
    x, counts, levels = x.astype(np.float32), counts.astype(np.float32), np.asarray(levels, np.float32)[None]
    n, items = counts.sum(), len(x)
    values, vectors = (a.astype(np.float32) for a in np.linalg.eigh(x.T.astype(np.float64) @ x))
    # Weight of z = w against f = X w; the largest eigenvalue is that of the features' mean and says nothing about the rest.
    kappa = 0.1 * values[:-1].mean()
    rho = 0.5 * n / items
    w_shape = (x.shape[1], levels.shape[1])
    z, v = np.zeros(w_shape, np.float32), np.zeros(w_shape, np.float32)
    f, u = np.zeros((items, levels.shape[1]), np.float32), np.zeros((items, levels.shape[1]), np.float32)
    best, best_primal, dual = z.copy(), np.full(levels.shape[1], np.inf), np.full(levels.shape[1], -np.inf)
    for step in range(1, most + 1):
        right = x.T @ (f - u) + kappa * (z - v)
        w = vectors @ ((vectors.T @ right) / (values + kappa)[:, None])
        xw = x @ w
        relaxed, relaxed_w = 1.6 * xw - 0.6 * f, 1.6 * w - 0.6 * z
        old_f, old_z = f, z
        f = nearest(counts, levels, relaxed + u, rho)
        z = relaxed_w + v
        z = np.sign(z) * np.maximum(np.abs(z) - alpha * n / (rho * kappa), 0)
        u = u + relaxed - f
        v = v + relaxed_w - z
        if step % 50 == 0:
            primal = pinball(counts, x @ z, levels) + alpha * np.abs(z).sum(0)
            better = primal < best_primal
            best[:, better], best_primal[better] = z[:, better], primal[better]
            dual = np.maximum(dual, bound(x, counts, levels, rho * u, alpha))
            gap = (best_primal - dual) / best_primal
            if gap.max() <= tolerance:
                return best.T, gap
            primal_residual = np.sqrt(((xw - f) ** 2).sum() + kappa * ((w - z) ** 2).sum())
            dual_residual = np.sqrt(((f - old_f) ** 2).sum() + kappa * ((z - old_z) ** 2).sum())
            ratio = np.sqrt(primal_residual / max(dual_residual, 1e-30))
            # A balance within a factor of four is left alone, so that rho comes to rest.
            factor = 1 if 0.5 < ratio < 2 else np.clip(ratio, 0.5, 2)
            rho, u, v = rho * factor, u / factor, v / factor
    raise ValueError(f'fit_quantiles: relative gap must be at most {tolerance}, is {gap.max():.2e} after {most} steps; raise `most`')
