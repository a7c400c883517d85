/**
 * The `If` header: RFC 4918, section 10.4.
 *
 *     If = ( 1*No-tag-list | 1*Tagged-list )
 *     No-tag-list = List
 *     Tagged-list = Resource-Tag 1*List
 *     List = "(" 1*Condition ")"
 *     Condition = ["Not"] ( State-token | "[" entity-tag "]" )
 *     State-token = Coded-URL
 *     Resource-Tag = "<" Simple-ref ">"
 *
 * The header holds when one of its lists does; a list holds when all of its conditions do.
 */
import { Problem } from '../../protocol/problem.ts'

export type IfCondition =
  | { readonly negated: boolean; readonly token: string }
  /** The entity tag with its quotes, and with `W/` where it is weak. */
  | { readonly negated: boolean; readonly tag: string }

export interface IfList {
  /** What the list speaks of, as it was written; undefined for the Request-URI. */
  readonly resource: string | undefined
  readonly conditions: readonly IfCondition[]
}

export interface IfHeader {
  readonly lists: readonly IfList[]
  /** Every state token in it counts as submitted, whatever becomes of its list (section 10.4.1). */
  readonly tokens: ReadonlySet<string>
}

/** What conditions are held against: the strong ETag, if any, and the tokens of the locks on it. */
export interface ResourceState {
  readonly tag: string | undefined
  readonly tokens: ReadonlySet<string>
}

const space = '[ \\t]*'
const next = new RegExp(
  [
    // A resource's tag or a state token; no white space and no brackets are in a URI.
    `${space}(?:<(?<uri>[^<>\\s]+)>`,
    '\\[(?<tag>(?:W/)?"[^"]*")\\]',
    '(?<not>Not)(?=[ \\t<[])',
    '(?<mark>[()]))',
  ].join('|'),
  'iy',
)

/** Problem `invalid-request` for what does not follow the grammar. */
export function parseIf(header: string): IfHeader {
  const reader = new IfReader(header)
  const lists = reader.lists()
  const tokens = lists.flatMap(({ conditions }) => conditions.flatMap((c) => ('token' in c ? [c.token] : [])))
  return { lists, tokens: new Set(tokens) }
}

/** Whether one of the lists holds. `stateOf` is asked once for each resource, with undefined for the Request-URI. */
export async function holds(
  { lists }: IfHeader,
  stateOf: (resource: string | undefined) => Promise<ResourceState>,
): Promise<boolean> {
  const states = new Map<string | undefined, ResourceState>()
  for (const { resource, conditions } of lists) {
    const state = states.get(resource) ?? (await stateOf(resource))
    states.set(resource, state)
    if (conditions.every((condition) => isMet(condition, state))) return true
  }
  return false
}

function isMet(condition: IfCondition, { tag, tokens }: ResourceState): boolean {
  const found = 'token' in condition ? tokens.has(condition.token) : condition.tag === tag
  return found !== condition.negated
}

type Piece = { kind: 'uri' | 'tag' | 'not' | 'mark'; text: string } | { kind: 'end'; text: '' }

class IfReader {
  readonly #header: string
  #at = 0
  #piece: Piece

  constructor(header: string) {
    this.#header = header.trimEnd()
    this.#piece = this.#read()
  }

  lists(): IfList[] {
    const lists: IfList[] = []
    const isTagged = this.#piece.kind === 'uri'
    do {
      const resource = isTagged ? this.#take('uri') : undefined
      do lists.push({ resource, conditions: this.#conditions() })
      while (this.#isMark('('))
    } while (isTagged && this.#piece.kind !== 'end')
    if (this.#piece.kind !== 'end') throw this.#malformed()
    return lists
  }

  #conditions(): IfCondition[] {
    if (!this.#isMark('(')) throw this.#malformed()
    this.#advance()
    const conditions: IfCondition[] = []
    do {
      const negated = this.#piece.kind === 'not'
      if (negated) this.#advance()
      if (this.#piece.kind === 'tag') conditions.push({ negated, tag: this.#take('tag') })
      else conditions.push({ negated, token: this.#token() })
    } while (!this.#isMark(')'))
    this.#advance()
    return conditions
  }

  /** Coded-URL: an absolute URI. */
  #token(): string {
    const token = this.#take('uri')
    if (!/^[a-z][a-z0-9+.-]*:/i.test(token)) throw this.#malformed()
    return token
  }

  #isMark(mark: '(' | ')'): boolean {
    return this.#piece.kind === 'mark' && this.#piece.text === mark
  }

  #take(kind: Piece['kind']): string {
    if (this.#piece.kind !== kind) throw this.#malformed()
    const { text } = this.#piece
    this.#advance()
    return text
  }

  #advance(): void {
    this.#piece = this.#read()
  }

  #read(): Piece {
    if (this.#at >= this.#header.length) return { kind: 'end', text: '' }
    next.lastIndex = this.#at
    const groups = next.exec(this.#header)?.groups
    if (groups === undefined) throw this.#malformed()
    this.#at = next.lastIndex
    for (const kind of ['uri', 'tag', 'not', 'mark'] as const) {
      const text = groups[kind]
      if (text !== undefined) return { kind, text }
    }
    throw this.#malformed()
  }

  #malformed(): Problem {
    return new Problem('invalid-request', `the If header is malformed near its character ${this.#at + 1}`)
  }
}
