# Times rq.fit.lasso of R's quantreg on a problem written by the benchmark; prints one JSON line.
#
# usage: Rscript rq_reference.R PREFIX ROWS COLUMNS LEVEL ALPHA
# PREFIX.x.f32 and PREFIX.y.f32 are raw little-endian float32, row-major. Fast fits are repeated for a second, and the median counts.
# A time is the smaller of wall and processor time: the solver has one thread, and waiting for a busy machine is not its fault.
# rq.fit.lasso penalises by sum of lambda |w| / 2 beside the sum of the losses, hence lambda = 2 n alpha, for every column.

suppressPackageStartupMessages(library(quantreg))

arguments <- commandArgs(trailingOnly = TRUE)
prefix <- arguments[1]
rows <- as.integer(arguments[2])
columns <- as.integer(arguments[3])
level <- as.numeric(arguments[4])
alpha <- as.numeric(arguments[5])
read <- function(name, count) readBin(paste0(prefix, name), "numeric", count, size = 4, endian = "little")
x <- matrix(read(".x.f32", rows * columns), rows, columns, byrow = TRUE)
y <- read(".y.f32", rows)

times <- c()
while (sum(times) < 1) {
  begin <- proc.time()
  fit <- rq.fit.lasso(x, y, tau = level, lambda = rep(2 * rows * alpha, columns))
  taken <- proc.time() - begin
  times <- c(times, max(min(taken[["elapsed"]], taken[["user.self"]] + taken[["sys.self"]]), 0.001))
}

w <- fit$coefficients
residual <- y - drop(x %*% w)
objective <- mean(pmax(level * residual, (level - 1) * residual)) + alpha * sum(abs(w))
cat(sprintf(
  '{"ms":%.3f,"runs":%d,"objective":%.12g,"nonzeros":%d,"software":"quantreg %s, R %s.%s","blas":"%s, %s thread"}\n',
  1000 * median(times), length(times), objective, sum(abs(w) > 1e-6), packageVersion("quantreg"),
  R.version$major, R.version$minor, paste(tail(strsplit(sessionInfo()$BLAS, "/")[[1]], 2), collapse = "/"), Sys.getenv("OMP_NUM_THREADS", "all")
))
