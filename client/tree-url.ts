/** Where a collection of a live tree is: `http://host:port/vault/tree/path`, in parts. */
import { nameFault } from '../protocol/objects.ts'
import { Problem } from '../protocol/problem.ts'
import type { Login } from './login.ts'
import { parseVaultUrl, type VaultLocation, withoutCredentials } from './vault-url.ts'

export interface TreeLocation {
  readonly vault: VaultLocation
  /** Below `tree/`; none for the tree itself. */
  readonly names: readonly Buffer[]
}

const example = 'it looks like http://127.0.0.1:8420/home/tree/documents'

/** The parts of the URL of a live tree or of a folder in it; `login` and problems as with `parseVaultUrl`. */
export function parseTreeUrl(text: string, login?: Login): TreeLocation {
  const shown = withoutCredentials(text)
  const [, start, rest = ''] = /^([^/]*:\/\/[^/?#]*\/+[^/?#]+)(.*)$/s.exec(text) ?? []
  if (start === undefined) throw usage(`"${shown}" is no URL of a live tree; ${example}`)
  const vault = parseVaultUrl(start, login)
  if (/[?#]/.test(rest)) throw usage(`"${shown}" must not have a query or a fragment`)
  const [tree, ...names] = rest.split('/').filter((segment) => segment !== '')
  if (tree !== 'tree') {
    throw usage(`"${shown}" is not in a live tree; that of this vault is ${vault.shown}/tree`)
  }
  return { vault, names: names.map((name) => decodeName(name)) }
}

/** The names of a percent-encoded path, such as the receiver gives them. Problem `usage` for what can be none. */
export function decodePath(path: string): Buffer[] {
  return path
    .split('/')
    .filter((segment) => segment !== '')
    .map(decodeName)
}

/** The names of a path that a person typed, as bytes. The same problem. */
export function namesOf(path: Buffer): Buffer[] {
  return path
    .toString('latin1')
    .split('/')
    .filter((segment) => segment !== '')
    .map((segment) => checked(Buffer.from(segment, 'latin1')))
}

function decodeName(segment: string): Buffer {
  if (/%(?![0-9A-Fa-f]{2})/.test(segment)) {
    throw usage(`"${segment.slice(0, 80)}" is not percent-encoded rightly; write %25 for a percent sign`)
  }
  const latin = Buffer.from(segment, 'utf8').toString('latin1')
  const bytes = latin.replace(/%([0-9A-Fa-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  return checked(Buffer.from(bytes, 'latin1'))
}

function checked(name: Buffer): Buffer {
  const fault = nameFault(name)
  if (fault !== undefined) throw usage(`in the path ${fault}`)
  return name
}

function usage(text: string): Problem {
  return new Problem('usage', text)
}
