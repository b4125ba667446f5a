"""Times scikit-learn's QuantileRegressor on a problem written by the benchmark; prints one JSON line.

usage: python sklearn_reference.py PREFIX ROWS COLUMNS LEVEL ALPHA
PREFIX.x.f32 and PREFIX.y.f32 are raw little-endian float32, row-major. Fast fits are repeated for a second, and the median counts.
A time is the smaller of wall and processor time: the solver has one thread, and waiting for a busy machine is not its fault.
"""

import json
import os
import platform
import sys
import time

import numpy
import scipy
import sklearn
from sklearn.linear_model import QuantileRegressor

prefix, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
level, alpha = float(sys.argv[4]), float(sys.argv[5])
x = numpy.fromfile(prefix + ".x.f32", "<f4").reshape(rows, columns).astype(numpy.float64)
y = numpy.fromfile(prefix + ".y.f32", "<f4").astype(numpy.float64)

times = []
while sum(times) < 1:
    model = QuantileRegressor(quantile=level, alpha=alpha, fit_intercept=False, solver="highs")
    begin, begin_cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    times.append(min(time.perf_counter() - begin, time.process_time() - begin_cpu))

residual = y - x @ model.coef_
loss = numpy.maximum(level * residual, (level - 1) * residual).mean()
print(
    json.dumps(
        {
            "ms": 1000 * float(numpy.median(times)),
            "runs": len(times),
            "objective": float(loss + alpha * numpy.abs(model.coef_).sum()),
            "nonzeros": int((model.coef_ != 0).sum()),
            "software": f"scikit-learn {sklearn.__version__} (HiGHS of SciPy {scipy.__version__}), Python {platform.python_version()}",
            "blas": f"NumPy {numpy.__version__}'s own, {os.environ.get('OMP_NUM_THREADS', 'all')} thread",
        }
    )
)
