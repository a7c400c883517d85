/**
 * JSON Schemas (2020-12) as plain objects, each with the TypeScript type of what fits it, so that the two cannot
 * drift apart. Written here because nothing runs but object literals: typebox takes 70 ms and 24 MB to load,
 * which every command would pay (measured).
 */

declare const typeOf: unique symbol

/** A plain JSON Schema. `T` is known to the compiler alone. */
export interface Schema<T = unknown> {
  readonly [keyword: string]: unknown
  readonly [typeOf]?: T
}

/** A member that may be absent. */
export interface OptionalMember<T = unknown> {
  readonly optional: Schema<T>
}

/** The type of what fits a schema. */
export type Static<S extends Schema> = S extends Schema<infer T> ? T : never

type Members = Readonly<Record<string, Schema | OptionalMember>>
type Typed<M> = M extends OptionalMember<infer T> ? T : M extends Schema<infer T> ? T : never
type Needed<M extends Members> = { [K in keyof M as M[K] extends OptionalMember ? never : K]: Typed<M[K]> }
type MayBeAbsent<M extends Members> = {
  [K in keyof M as M[K] extends OptionalMember ? K : never]?: Typed<M[K]>
}
type Joined<T> = { [K in keyof T]: T[K] }
type ObjectOf<M extends Members> = Joined<Needed<M> & MayBeAbsent<M>>

type Keywords = Readonly<Record<string, unknown>>

function isOptional(member: Schema | OptionalMember): member is OptionalMember {
  return 'optional' in member
}

function object<M extends Members>(members: M, keywords: Keywords = {}): Schema<ObjectOf<M>> {
  const entries = Object.entries(members)
  const required = entries.filter(([, member]) => !isOptional(member)).map(([name]) => name)
  const properties = Object.fromEntries(
    entries.map(([name, member]) => [name, isOptional(member) ? member.optional : member]),
  )
  return { type: 'object', ...(required.length > 0 && { required }), properties, ...keywords }
}

/** The keys of a record are those that fit the pattern of `key`. */
function record<T>(
  key: Schema<string>,
  value: Schema<T>,
  keywords: Keywords = {},
): Schema<Record<string, T>> {
  const pattern = typeof key.pattern === 'string' ? key.pattern : '^.*$'
  return { type: 'object', patternProperties: { [pattern]: value }, ...keywords }
}

export const Type = {
  Object: object,
  Record: record,
  Optional: <T>(schema: Schema<T>): OptionalMember<T> => ({ optional: schema }),
  Array: <T>(items: Schema<T>, keywords: Keywords = {}): Schema<T[]> => ({
    type: 'array',
    items,
    ...keywords,
  }),
  String: (keywords: Keywords = {}): Schema<string> => ({ type: 'string', ...keywords }),
  Integer: (keywords: Keywords = {}): Schema<number> => ({ type: 'integer', ...keywords }),
  Number: (keywords: Keywords = {}): Schema<number> => ({ type: 'number', ...keywords }),
  Boolean: (): Schema<boolean> => ({ type: 'boolean' }),
  Literal: <const T extends string | number | boolean>(value: T): Schema<T> => ({
    type: typeof value,
    const: value,
  }),
  Union: <const S extends readonly Schema[]>(schemas: S): Schema<Static<S[number]>> => ({
    anyOf: [...schemas],
  }),
  /** A schema whose type is better known to the caller. */
  Unsafe: <T>(schema: Schema): Schema<T> => ({ ...schema }) as Schema<T>,
}
