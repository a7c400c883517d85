/** What the system's error codes mean, for people. */

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EBUSY: 'it is in use',
  EDQUOT: 'the disk quota is used up',
  EEXIST: 'a file stands there',
  EIO: 'the disk reports an I/O error',
  EISDIR: 'it is a directory',
  ELOOP: 'a symlink stands there',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'its path is too long',
  ENFILE: 'too many files are open',
  ENODEV: 'there is no such device',
  ENOENT: 'no such file or directory',
  ENOSPC: 'no space is left on the disk',
  ENOTDIR: 'not a directory',
  ENXIO: 'there is no such device',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
  ESTALE: 'the network file system has lost it',
  ETIMEDOUT: 'the network file system does not answer',
}

/** `EACCES` in plain words; a code that has none stays what it is. */
export function errnoReason(code: string): string {
  return reasons[code] ?? code
}

/** Whether `error` is what the system says about a file, and not a defect of ours. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException
  return error instanceof Error && typeof syscall === 'string' && /^E[A-Z0-9]+$/.test(code ?? '')
}
