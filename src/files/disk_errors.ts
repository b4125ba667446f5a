// What the system's errors mean.

/** Says in words what the system found wrong with a path. */
export function explain(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'no such file'
  if (error.code === 'EACCES' || error.code === 'EPERM') return 'permission denied'
  if (error.code === 'ENOTDIR') return 'a part of the path is not a directory'
  if (error.code === 'EISDIR') return 'is a directory, a file is needed'
  if (error.code === 'ENOSPC') return 'no space left on the disk'
  if (error.code === 'EROFS') return 'the file system is read-only'
  if (error.code === 'ENAMETOOLONG') return 'the name is too long'
  return `${error.code ?? error.message}`
}
