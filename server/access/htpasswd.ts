/** Apache's password files, as `htpasswd -B` makes them: one `name:hash` a line, `#` begins a comment. */
import { Problem } from '../../protocol/problem.ts'
import { isBcryptHash } from './passwords.ts'
import { isUserName } from './user-name.ts'

/** The hash of each user. Problem `usage` that names the line which is not understood; `path` is for it. */
export function parseHtpasswd(text: string, path: string): Map<string, string> {
  const hashes = new Map<string, string>()
  for (const [index, line] of text.split('\n').entries()) {
    const entry = line.trim()
    if (entry === '' || entry.startsWith('#')) continue
    const refuse = (why: string): never => {
      throw new Problem('usage', `${path}, line ${index + 1}: ${why}`)
    }
    // What stands behind a second colon is ignored, as Apache does.
    const [name = '', hash = ''] = entry.split(':')
    if (!isUserName(name)) {
      refuse('there is no user name that can be taken: letters, digits and . _ @ + - and then a colon')
    }
    if (!isBcryptHash(hash)) {
      refuse(`the password of ${name} is not kept by bcrypt; set it again with htpasswd -B FILE ${name}`)
    }
    if (hashes.has(name)) refuse(`${name} is there already, further up`)
    hashes.set(name, hash)
  }
  return hashes
}
