import { Problem } from '../../protocol/problem.ts'
import { anybody } from './identity.ts'

/** Letters and digits of any script, so that people can be called what they are called; mail addresses fit too. */
const grammar = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}._@+-]{0,63}$/u

/** Whether there can be a user of this name, as it stands: in composed form (NFC), and not the one of everybody. */
export function isUserName(name: string): boolean {
  return name.length <= 128 && grammar.test(name) && name.normalize('NFC') === name && name !== anybody.name
}

/** `text` as the name of a user; Problem `usage` when nobody can be called that. */
export function parseUserName(text: string): string {
  const name = text.length <= 256 ? text.normalize('NFC') : text
  if (isUserName(name)) return name
  if (name === anybody.name)
    throw new Problem('usage', `"${name}" is everybody where there are no users; take another name`)
  throw new Problem(
    'usage',
    `${JSON.stringify(name.slice(0, 80))} is no user name; use 1 to 64 letters, digits and . _ @ + - and begin with a letter or digit`,
  )
}
