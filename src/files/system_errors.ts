// What the system says about files, in words.

const WORDS: Record<string, string> = {
  ENOENT: 'no such file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ENOTDIR: 'a part of the path is not a directory',
  EISDIR: 'is a directory, a file is needed',
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'the quota of disk space is used up',
  EROFS: 'the file system is read-only',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'a link leads round in a circle',
  EFBIG: 'the file would be larger than the system allows',
  ERR_FS_FILE_TOO_LARGE: 'is too large to be read at once',
  EMFILE: 'too many files are open',
  ENFILE: 'too many files are open',
  EBUSY: 'is in use',
  ETXTBSY: 'is in use',
  EEXIST: 'is there already',
  ENOTEMPTY: 'is a folder that is not empty',
  EXDEV: 'is on another disk',
  EIO: 'the disk cannot be read or written there (EIO)',
  ENXIO: 'is a socket or device, a file is needed',
  ENODEV: 'is a device, a file is needed',
  EINVAL: 'the file system does not allow this (EINVAL)',
  ERR_INVALID_ARG_VALUE: 'is no path, it has a character that no path may have',
}

/** Says in words what the system found wrong with a path; the system's own code where there are no better words. */
export function explainSystem({ code, message }: { readonly code?: string; readonly message: string }): string {
  return code === undefined ? message : Object.hasOwn(WORDS, code) ? WORDS[code] : code
}

/** The message of any error; that of a system's error about a path as `PATH: what is wrong`. */
export function messageOf(error: unknown): string {
  const { message, code, syscall, path } = error as NodeJS.ErrnoException
  if (code === undefined || syscall === undefined || path === undefined) return String(message ?? error)
  return `${path}: ${explainSystem({ code, message })}`
}
