/** Why a file that somebody named could not be read, for people: after the file's name. */
export function readFailure(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  return (code !== undefined && reasons[code]) || `cannot be read: ${message}`
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'cannot be read: there is no such file',
  ENOTDIR: 'cannot be read: there is no such file',
  EISDIR: 'cannot be read: it is a directory',
  EACCES: 'cannot be read: this user may not',
  EPERM: 'cannot be read: this user may not',
}
